//! `hookgate bench`: what it prints, and that nothing is lost. How long things take is not asked.

use hookgate_tests::{Gateway, OPERATOR_KEY, binary};
use reqwest::Method;
use serde_json::Value;
use tokio::process::Command;

/// A small measurement; the object that it prints.
async fn measure(arguments: &[&str]) -> Value {
    let output = Command::new(binary())
        .args(["bench", "--json"])
        .args(arguments)
        // So long that the events decide, however slow the machine is.
        .args(["--rounds", "2", "--seconds", "60", "--warm-up", "0.1", "--events", "60"])
        .kill_on_drop(true)
        .output()
        .await
        .unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {errors}");
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["bench"], arguments[0]);
    assert_eq!(report["settings"]["rounds"], 2);
    report
}

fn section<'a>(report: &'a Value, name: &str) -> &'a Value {
    let sections = report["results"].as_array().unwrap();
    let found = sections.iter().find(|it| it["name"] == name);
    found.unwrap_or_else(|| panic!("{name} is not in {report:#}"))
}

fn figure(section: &Value, name: &str) -> f64 {
    let it = section["figures"][name].as_f64();
    it.unwrap_or_else(|| panic!("{name} is not in {section:#}"))
}

/// What is told of a side that took in this many events of this many deliveries each.
fn assert_whole(side: &Value, accepted: u64, deliveries: Option<u64>) {
    assert_eq!(side["accepted"], accepted, "{side:#}");
    assert_eq!(side["received"], Value::from(deliveries.map(|it| it * accepted)), "{side:#}");
    assert!(side["per_second"]["median"].as_f64().unwrap() > 0.0, "{side:#}");
    assert!(side["ack"]["p999_us"].as_f64() >= side["ack"]["p50_us"].as_f64(), "{side:#}");
    for name in ["cpu_seconds_per_10000", "resident_mib", "written_bytes_per_event"] {
        assert!(side[name]["median"].is_number(), "{name}: {side:#}");
    }
}

#[tokio::test]
async fn ingest_is_measured_beside_its_bound() {
    let report = measure(&["ingest", "--producers", "1,8"]).await;
    for name in ["1 producers", "8 producers"] {
        let section = section(&report, name);
        assert_whole(&section["gateway"], 120, None);
        assert_whole(&section["bound"], 120, None);
        assert!(figure(section, "share_of_bound") > 0.0);
        assert!(figure(section, "one_sync_p50_us") > 0.0);
    }
}

#[tokio::test]
async fn sending_is_measured_beside_its_bound() {
    let report = measure(&["deliver", "--in-flight", "4"]).await;
    let section = section(&report, "sign and send");
    assert_eq!((figure(section, "sent"), figure(section, "received")), (240.0, 240.0));
    assert!(figure(section, "gateway_cpu_seconds_per_10000") > 0.0);
}

#[tokio::test]
async fn the_whole_way_is_measured_beside_its_bound() {
    let report = measure(&["e2e", "--producers", "4", "--endpoints", "3"]).await;
    for (name, side, deliveries) in [
        ("4 producers", "gateway", 1),
        ("4 producers", "bound", 1),
        ("fan-out to 3 endpoints", "fan_out", 3),
        ("fan-out to 3 endpoints", "one_endpoint", 1),
    ] {
        assert_whole(&section(&report, name)[side], 120, Some(deliveries));
    }
    let half = section(&report, "half load");
    assert!(half["gateway"]["accepted"].as_u64().unwrap() > 0);
    assert_eq!(half["gateway"]["accepted"], half["gateway"]["received"]);
    assert!(figure(half, "arrival_p99_in_terms_of_sync_and_post") > 0.0);
}

#[tokio::test]
async fn a_backlog_is_measured_and_drained() {
    let report = measure(&["backlog", "--pending", "300", "--endpoints", "20"]).await;
    let backlog = section(&report, "300 pending deliveries");
    assert_eq!((figure(backlog, "accepted"), figure(backlog, "received")), (300.0, 300.0));
    assert!(figure(backlog, "pending") >= 295.0);
    assert!(figure(backlog, "restart_seconds") > 0.0);
    for side in ["before", "after"] {
        assert_whole(&backlog[side], 120, Some(1));
    }
    let retries = section(&report, "20 endpoints with a pending retry each");
    assert_eq!(figure(retries, "scheduled"), 20.0);
}

#[tokio::test]
async fn plugins_are_measured_beside_native_code() {
    let report = measure(&["plugin", "--lang", "javascript", "--plugins", "3"]).await;
    for name in ["filter in Javascript", "transform in Javascript"] {
        let section = section(&report, name);
        for name in ["native_p50_us", "fresh_p50_us", "kept_p50_us"] {
            assert!(figure(section, name) > 0.0);
        }
        assert_eq!(figure(section, "calls_per_round"), 60.0);
    }
    let memory = section(&report, "uploads and memory, Javascript");
    assert_eq!(figure(memory, "uploaded"), 4.0);
    assert!(figure(memory, "first_event_ms") > 0.0);
}

#[tokio::test]
async fn neighbours_are_measured() {
    let report = measure(&["neighbours", "--only", "hot,hanging,retries,large,interim"]).await;
    for name in ["hot", "hanging", "retries", "large", "interim"] {
        let section = section(&report, name);
        for side in ["alone", "beside"] {
            let side = &section[side];
            assert!(side["accepted"].as_u64().unwrap() > 0, "{section:#}");
            assert_eq!(side["accepted"], side["received"], "{name} {section:#}");
        }
        assert!(figure(section, "victim_p99_in_terms_of_limit") > 0.0);
    }
}

#[tokio::test]
async fn somebodys_gateway_is_left_as_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let gateway = Gateway::start(&folder.path().join("data"));
    let there = ["--target", "--server", &gateway.server, "--key", OPERATOR_KEY];
    let report = measure(&[&["ingest", "--producers", "2"][..], &there].concat()).await;
    let side = &section(&report, "2 producers")["gateway"];
    assert_eq!((&side["accepted"], &side["resident_mib"]), (&120.into(), &Value::Null));
    let (_, tenants) = gateway.call(Method::GET, "/v1/tenants", None).await;
    let tenants = tenants["data"].as_array().unwrap();
    assert!(tenants.iter().all(|it| it["id"] == "default"), "{tenants:?}");
}
