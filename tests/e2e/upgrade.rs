//! Stores that earlier builds made, kept under `tests/fixtures`, open with this one.

use std::process::Command;

use reqwest::Method;
use serde_json::{Value, json};

use hookgate::world::{Clock, SystemClock};
use hookgate_tests::{Gateway, binary, plugin};

const READER: &str = "hk_01m8htttvkecz9h8b13qh48mqe_DhXDyMR37-M2df-hW43orLGD-MrXhnbxyUtm6h1cVak";

/// It is older each day: nothing of it may go by age, or expire for as long as that can be put off.
const FLAGS: [&str; 4] = [
    "--allow-private-endpoints",
    "--retention=forever",
    "--audit-retention=forever",
    "--expire-after-hours=8760",
];

/// A year after the store was made, in milliseconds since 1970: what waits in it expires.
const EXPIRES_AT: u64 = 1_827_360_000_000;

#[tokio::test]
async fn a_store_of_format_1_opens_and_everything_is_there() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    std::fs::create_dir(&data).unwrap();
    let packed = plugin::repository().join("tests/fixtures/store-1/store.tar.gz");
    let tar = Command::new("tar").arg("-xzf").arg(packed).arg("-C").arg(&data).status();
    assert!(tar.unwrap().success());
    let verified = || {
        let mut verify = Command::new(binary());
        verify.args(["store", "verify", "--json", "--data-dir"]).arg(&data);
        let output = verify.output().unwrap();
        let found: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!((&found["whole"], &found["holds_from"]), (&json!(true), &json!([1])), "{found}");
    };
    verified();
    let later = if SystemClock.now().0 < EXPIRES_AT { "retrying" } else { "dead" };
    for start in ["first", "second"] {
        let mut gateway = Gateway::start_with(&data, &FLAGS);
        let events = gateway.get("events?limit=100").await;
        let mut ids: Vec<_> =
            events["data"].as_array().unwrap().iter().map(|it| &it["id"]).collect();
        ids.retain(|it| !it.as_str().unwrap().starts_with("evt_"));
        let expected = ["later-0", "gone-0", "ok-4", "ok-3", "ok-2", "ok-1", "ok-0"];
        assert_eq!(ids, expected, "{start}");
        for (id, endpoint, status) in [
            ("ok-0", "ep_ok", "delivered"),
            ("ok-4", "ep_ok", "delivered"),
            ("gone-0", "ep_gone", "dead"),
            ("later-0", "ep_later", later),
        ] {
            let deliveries = gateway.get(&format!("events/{id}/deliveries")).await;
            let found = &deliveries["data"][0];
            assert_eq!(
                (&found["endpoint_id"], &found["status"]),
                (&json!(endpoint), &json!(status))
            );
            let attempts = format!("deliveries/{}/attempts", found["id"].as_str().unwrap());
            assert!(!gateway.get(&attempts).await["data"].as_array().unwrap().is_empty(), "{id}");
        }
        let dead = gateway.get("dead-letters").await;
        let mut dead = dead["data"].as_array().unwrap().iter();
        assert!(dead.any(|it| it["event_id"] == "gone-0"));
        assert_eq!(gateway.get("plugins/filter").await["active_version"], 1);
        // Its secret opens: the master key is the store's.
        let endpoint = gateway.get("endpoints/ep_ok").await;
        assert_eq!((&endpoint["enabled"], &endpoint["held_reason"]), (&json!(true), &Value::Null));
        let acme = gateway.get("/v1/tenants/acme").await;
        assert_eq!(acme["quota"], json!({ "backlog_max": 1000, "plugins": {} }));
        assert_eq!(gateway.get("/v1/tenants/acme/events/acme-0").await["type"], "for.acme");
        let path = "/v1/tenants/default/events/ok-0";
        let read = gateway.request(Method::GET, path, READER).send().await.unwrap();
        assert_eq!(read.status(), 200);
        assert!(gateway.terminate().await.success());
        verified();
    }
}
