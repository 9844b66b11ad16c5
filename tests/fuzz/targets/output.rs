//! Anything that a plugin may give out: what passes the checks can be sent.
#![no_main]

use hookgate::plugins::{Answer, Limits, Outgoing, Verdict, check_answer};
use http::{HeaderName, HeaderValue};
use libfuzzer_sys::{arbitrary, arbitrary::Arbitrary, fuzz_target};

#[derive(Debug, Arbitrary)]
struct Made {
    payload: Vec<u8>,
    content_type: String,
    headers: Vec<(String, String)>,
    path_suffix: Option<String>,
}

fuzz_target!(|made: Vec<Made>| {
    let part = |it: Made| Outgoing {
        payload: it.payload.into(),
        content_type: it.content_type,
        headers: it.headers,
        path_suffix: it.path_suffix,
    };
    let parts = made.into_iter().map(part).collect();
    let checked = check_answer(Answer::Event(Verdict::Split(parts)), &Limits::default());
    let Ok(Answer::Event(Verdict::Split(parts))) = checked else { return };
    for part in parts {
        HeaderValue::from_str(&part.content_type).expect("it can be sent");
        for (name, value) in &part.headers {
            HeaderName::from_bytes(name.as_bytes()).expect("it can be sent");
            HeaderValue::from_str(value).expect("it can be sent");
        }
    }
});
