use std::collections::{BTreeMap, BTreeSet};

use hookgate::telemetry::{Kind, TABLE, Values};
use hookgate_tests::{Gateway, TestEndpoint};
use reqwest::Method;
use serde_json::{Value, json};

use crate::{bench, publish, register};

/// Families by name: their type, and the label sets of their series without `le`.
type Families = BTreeMap<String, (String, BTreeSet<Vec<(String, String)>>)>;

async fn scrape(gateway: &Gateway) -> (String, Families) {
    let text = gateway.get("/metrics").await;
    let text = text.as_str().unwrap().to_owned();
    let mut families = Families::new();
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap();
            families.insert(name.to_owned(), (kind.to_owned(), BTreeSet::new()));
        }
    }
    for line in text.lines().filter(|it| !it.starts_with('#') && !it.is_empty()) {
        let (series, value) = line.rsplit_once(' ').unwrap();
        value.parse::<f64>().unwrap();
        let (name, labels) = series.split_once('{').unwrap_or((series, ""));
        let stem = ["_bucket", "_sum", "_count"].iter().find_map(|it| name.strip_suffix(it));
        let name = if families.contains_key(name) { name } else { stem.unwrap_or(name) };
        let pair = |it: &str| {
            let (label, value) = it.split_once('=')?;
            Some((label.to_owned(), value.trim_matches('"').to_owned()))
        };
        let labels = labels.trim_end_matches('}').split(',').filter_map(pair);
        let labels = labels.filter(|(label, _)| label != "le").collect();
        families.get_mut(name).unwrap_or_else(|| panic!("{line} has no type")).1.insert(labels);
    }
    (text, families)
}

fn value(text: &str, series: &str) -> f64 {
    let line = text.lines().find_map(|it| it.strip_prefix(series)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("no {series} in {text}")).parse().unwrap()
}

#[tokio::test]
async fn every_metric_of_the_table_is_there_and_no_other() {
    let (_folder, gateway, _endpoint) = bench().await;
    let (_, families) = scrape(&gateway).await;
    let (text_again, families_again) = scrape(&gateway).await;
    for metric in TABLE {
        // What has routes or reasons has series once there was one.
        let known = families.get(metric.name).or(families_again.get(metric.name));
        let waits = metric.labels.iter().any(|it| matches!(it.values, Values::AtMost(_)));
        let Some((kind, _)) = known else {
            assert!(waits, "{} is not there", metric.name);
            continue;
        };
        let help = format!("# HELP {} {}", metric.name, metric.help);
        assert!(text_again.contains(&help), "{help}");
        let expected = match metric.kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram(_) => "histogram",
        };
        assert_eq!(kind, expected, "{}", metric.name);
    }
    let table: BTreeSet<_> = TABLE.iter().map(|it| it.name).collect();
    for name in families_again.keys().filter(|it| !it.starts_with("process_")) {
        assert!(table.contains(name.as_str()), "{name} is not in the table");
    }
    for name in ["cpu_seconds_total", "resident_memory_bytes", "open_fds", "start_time_seconds"] {
        assert!(families.contains_key(&format!("process_{name}")), "{name}");
    }
}

#[tokio::test]
async fn what_happens_is_counted_and_nobody_is_a_label() {
    let (_folder, gateway, endpoint) = bench().await;
    let id = register(&gateway, &endpoint, json!({ "event_types": ["a.*"] })).await;
    let event = publish(&gateway, "a.b", json!({ "n": 1 })).await;
    gateway.await_status(&event, "delivered").await;
    let bad = gateway.call(Method::POST, "events", Some(json!({ "type": "a b" }))).await;
    assert_eq!(bad.0, 422);
    let (text, families) = scrape(&gateway).await;
    for (series, expected) in [
        ("hookgate_events_accepted_total{protocol=\"json\"}", 1.0),
        ("hookgate_event_size_bytes_count", 1.0),
        ("hookgate_deliveries_created_total", 1.0),
        ("hookgate_event_fanout_duration_seconds_count", 1.0),
        ("hookgate_deliveries_total{outcome=\"delivered\"}", 1.0),
        ("hookgate_delivery_attempts_total{result=\"2xx\",kind=\"first\"}", 1.0),
        ("hookgate_delivery_end_to_end_seconds_count", 1.0),
        ("hookgate_endpoints{state=\"enabled\"}", 1.0),
        ("hookgate_endpoints{state=\"disabled\"}", 0.0),
        ("hookgate_deliveries_overdue", 0.0),
        ("hookgate_ready", 1.0),
    ] {
        assert_eq!(value(&text, series), expected, "{series}");
    }
    assert!(value(&text, "hookgate_event_commit_duration_seconds_count") >= 2.0);
    assert!(value(&text, "hookgate_runtime_alive_tasks{runtime=\"deliver\"}") >= 3.0);
    assert!(value(&text, "hookgate_store_free_bytes") > 0.0);
    assert!(value(&text, "hookgate_store_bytes{keyspace=\"journal\"}") > 0.0);
    let rejected = families["hookgate_events_rejected_total"].1.first().unwrap();
    assert_eq!(rejected[0].1, "json", "{rejected:?}");
    for label in families.values().flat_map(|(_, series)| series.iter().flatten()) {
        assert!(![id.as_str(), event.as_str(), "default"].contains(&label.1.as_str()), "{label:?}");
    }
    let update = json!({ "enabled": false });
    let path = format!("endpoints/{id}");
    assert_eq!(gateway.call(Method::PATCH, &path, Some(update)).await.0, 200);
    let (text, _) = scrape(&gateway).await;
    assert_eq!(value(&text, "hookgate_endpoints{state=\"enabled\"}"), 0.0);
    assert_eq!(value(&text, "hookgate_endpoints{state=\"disabled\"}"), 1.0);
    let route = "/v1/tenants/{tenant}/events\",status=\"4xx\"";
    assert!(text.contains(route), "{text}");
}

/// Requests that name whatever they like make no series.
#[tokio::test]
async fn series_are_bounded_whatever_is_asked() {
    let (_folder, gateway, _endpoint) = bench().await;
    for n in 0..40 {
        gateway.call(Method::GET, &format!("/nothing/{n}"), None).await;
        gateway.call(Method::GET, &format!("endpoints/{n}"), None).await;
        let method = Method::from_bytes(format!("M{n}").as_bytes()).unwrap();
        gateway.call(method, "events", None).await;
        let event = json!({ "type": format!("t.{n}"), "data": n });
        gateway.call(Method::POST, "events", Some(event)).await;
    }
    let (_, families) = scrape(&gateway).await;
    let requests = &families["http_server_request_duration_seconds"].1;
    assert!(requests.len() <= 12, "{requests:?}");
    for metric in TABLE {
        let Some((_, series)) = families.get(metric.name) else { continue };
        for (place, label) in metric.labels.iter().enumerate() {
            let seen: BTreeSet<_> = series.iter().map(|it| it[place].1.clone()).collect();
            match label.values {
                Values::Of(known) => {
                    assert!(seen.iter().all(|it| known.contains(&it.as_str())), "{seen:?}");
                }
                Values::AtMost(most) => assert!(seen.len() <= most, "{}", metric.name),
            }
        }
    }
}

#[tokio::test]
async fn who_is_named_has_metrics_of_their_own() {
    let folder = tempfile::tempdir().unwrap();
    let flags = ["--allow-private-endpoints", "--metrics-tenants", "acme"];
    let gateway = Gateway::start_with(&folder.path().join("data"), &flags);
    let (text, _) = scrape(&gateway).await;
    for tenant in ["acme", "__other__"] {
        let series = "hookgate_events_accepted_total{protocol=\"ndjson\",tenant=";
        assert_eq!(value(&text, &format!("{series}\"{tenant}\"}}")), 0.0, "from the start");
    }
    for tenant in ["acme", "globex", "initech"] {
        let path = format!("/v1/tenants/{tenant}");
        gateway.call(Method::PUT, &path, Some(json!({ "name": tenant }))).await;
        crate::publish_to(&gateway, tenant, json!({ "type": "a.b", "data": Value::Null })).await;
    }
    let (text, _) = scrape(&gateway).await;
    let accepted = |tenant: &str| {
        let series = "hookgate_events_accepted_total{protocol=\"json\",tenant=\"";
        value(&text, &format!("{series}{tenant}\"}}"))
    };
    assert_eq!((accepted("acme"), accepted("__other__")), (1.0, 2.0));
    assert!(!text.contains("globex"));
}

/// A delivery that could be made and is not shows at once; `/readyz` warns of it after half a
/// minute.
#[tokio::test]
async fn what_is_late_is_shown() {
    let (_folder, gateway, endpoint) = bench().await;
    let ready = gateway.get("/readyz").await;
    assert_eq!(ready, json!({ "status": "ready", "warnings": [] }));
    let slow = json!({ "rate_limit": { "per_second": 0.001, "burst": 1 } });
    register(&gateway, &endpoint, slow).await;
    for n in 0..3 {
        publish(&gateway, "a.b", json!(n)).await;
    }
    endpoint.await_count(1).await;
    for _ in 0..200 {
        let (text, _) = scrape(&gateway).await;
        let overdue = value(&text, "hookgate_deliveries_overdue");
        if overdue == 2.0 && value(&text, "hookgate_deliveries_overdue_oldest_seconds") > 0.0 {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(25)).await;
    }
    panic!("{}", scrape(&gateway).await.0);
}

/// Shows until a series has the value; the whole text then.
async fn await_value(gateway: &Gateway, series: &str, expected: f64) -> String {
    for _ in 0..400 {
        let (text, _) = scrape(gateway).await;
        if value(&text, series) == expected {
            return text;
        }
        tokio::time::sleep(std::time::Duration::from_millis(25)).await;
    }
    panic!("{series} is not {expected}: {}", scrape(gateway).await.0);
}

const CANCELLED: &str = "hookgate_deliveries_total{outcome=\"cancelled\"}";

/// What was accepted long ago and is sent once more is not late.
#[tokio::test]
async fn what_is_sent_again_has_no_latency_from_its_acceptance() {
    let (_folder, gateway, endpoint) = bench().await;
    let retry = json!({ "schedule": ["1s", "1s", "1s"] });
    let id = register(&gateway, &endpoint, json!({ "retry": retry })).await;
    let event = publish(&gateway, "a.b", json!(1)).await;
    let delivery = gateway.await_status(&event, "delivered").await;
    let delivered = "hookgate_deliveries_total{outcome=\"delivered\"}";
    await_value(&gateway, delivered, 1.0).await;
    tokio::time::sleep(std::time::Duration::from_secs(2)).await;
    // The retry that follows from a replay is as old as the replay.
    endpoint.answer(500);
    let replay = json!({ "endpoint": id, "since": "2020-01-01T00:00:00Z" });
    gateway.post("replays", replay).await;
    endpoint.await_count(2).await;
    endpoint.answer(200);
    await_value(&gateway, delivered, 2.0).await;
    let path = format!("deliveries/{}/retry", delivery["id"].as_str().unwrap());
    gateway.post(&path, json!({})).await;
    let text = await_value(&gateway, delivered, 3.0).await;
    assert_eq!(value(&text, "hookgate_delivery_end_to_end_seconds_count"), 1.0, "{text}");
    assert!(value(&text, "hookgate_delivery_end_to_end_seconds_sum") < 2.0, "{text}");
    publish(&gateway, "a.b", json!(2)).await;
    await_value(&gateway, "hookgate_delivery_end_to_end_seconds_count", 2.0).await;
}

/// Breakers, deliveries and dead letters of what was deleted are nobody's any more.
#[tokio::test]
async fn what_is_deleted_is_not_shown_any_more() {
    let (folder, mut gateway, endpoint) = bench().await;
    endpoint.answer(500);
    let retry = json!({ "schedule": ["1h"] });
    let id = register(&gateway, &endpoint, json!({ "retry": retry })).await;
    let mut last = String::new();
    for n in 0..25 {
        last = publish(&gateway, "a.b", json!(n)).await;
    }
    let open = "hookgate_breakers_open";
    await_value(&gateway, open, 1.0).await;
    let deliveries = format!("events/{last}/deliveries");
    let known = crate::until(&gateway, &deliveries, |it| it["data"][0]["id"].is_string()).await;
    let path = format!("deliveries/{}/cancel", known["data"][0]["id"].as_str().unwrap());
    // 409 while an attempt is under way.
    while gateway.call(Method::POST, &path, None).await.0 != 200 {
        tokio::time::sleep(std::time::Duration::from_millis(25)).await;
    }
    await_value(&gateway, CANCELLED, 1.0).await;
    let path = format!("endpoints/{id}");
    assert_eq!(gateway.call(Method::DELETE, &path, None).await.0, 204);
    let text = await_value(&gateway, CANCELLED, 25.0).await;
    assert_eq!(value(&text, open), 0.0, "{text}");
    let tenant = "/v1/tenants/acme";
    gateway.call(Method::PUT, tenant, Some(json!({}))).await;
    let dead = TestEndpoint::start().await;
    dead.answer(410);
    gateway.post(&format!("{tenant}/endpoints"), json!({ "url": dead.url })).await;
    crate::publish_to(&gateway, "acme", json!({ "type": "a.b", "data": 1 })).await;
    await_value(&gateway, "hookgate_dead_letters", 1.0).await;
    assert_eq!(gateway.call(Method::DELETE, tenant, None).await.0, 204);
    await_value(&gateway, "hookgate_dead_letters", 0.0).await;
    gateway.kill();
    let gateway = Gateway::start(&folder.path().join("data"));
    let (text, _) = scrape(&gateway).await;
    assert_eq!((value(&text, open), value(&text, "hookgate_dead_letters")), (0.0, 0.0));
}

/// A producer whose key is revoked is refused its events at the door.
#[tokio::test]
async fn events_that_the_door_refuses_are_counted() {
    let (_folder, gateway, _endpoint) = bench().await;
    let event = json!({ "type": "a.b", "data": 1 });
    let request = gateway.request(Method::POST, "/v1/tenants/default/events", "hk_x_revoked");
    assert_eq!(request.json(&event).send().await.unwrap().status(), 401);
    let nowhere = gateway.call(Method::POST, "/v1/tenants/nobody/events", Some(event)).await;
    assert_eq!(nowhere.0, 404);
    let (text, _) = scrape(&gateway).await;
    for reason in ["unauthenticated", "tenant_not_found"] {
        let series = "hookgate_events_rejected_total{protocol=\"json\",reason=";
        assert_eq!(value(&text, &format!("{series}\"{reason}\"}}")), 1.0, "{text}");
    }
}
