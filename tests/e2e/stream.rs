use reqwest::Method;
use serde_json::{Value, json};

use crate::bench;
use hookgate_tests::OPERATOR_KEY;

const LINES: usize = 10_000;
const BAD: usize = 5_000;

#[tokio::test]
async fn a_bad_line_rejects_itself_alone() {
    let (_folder, gateway, _) = bench().await;
    let line = |n: usize| match n {
        BAD => "{\"type\": \"a..b\", \"data\": 1}\n".to_owned(),
        _ => format!("{}\n", json!({ "type": "a.b", "data": { "n": n } })),
    };
    let body: String = (1..=LINES).map(line).collect();
    let request = gateway.request(Method::POST, "/v1/tenants/default/events", OPERATOR_KEY);
    let request = request.header("content-type", "application/x-ndjson").body(body);
    let response = request.send().await.unwrap();
    assert_eq!(response.status(), 200);
    let text = response.text().await.unwrap();
    let answers: Vec<Value> = text.lines().map(|it| serde_json::from_str(it).unwrap()).collect();
    assert_eq!(answers.len(), LINES);
    for (number, answer) in (1..).zip(&answers) {
        assert_eq!(answer["line"], number);
        let expected = if number == BAD { "rejected" } else { "accepted" };
        assert_eq!(answer["status"], expected, "{answer}");
    }
    assert_eq!(answers[BAD - 1]["error"]["code"], "invalid_event_type");
    let (mut stored, mut cursor) = (0, String::new());
    loop {
        let page = gateway.get(&format!("events?limit=250&cursor={cursor}")).await;
        stored += page["data"].as_array().unwrap().len();
        match page["next_cursor"].as_str() {
            Some(next) => cursor = next.to_owned(),
            None => break,
        }
    }
    assert_eq!(stored, LINES - 1);
}
