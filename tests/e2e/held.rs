//! Endpoints whose secrets do not open: each waits by itself, and nobody else notices.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use hookgate_tests::{Gateway, TestEndpoint, binary};
use reqwest::Method;
use serde_json::{Value, json};
use xxhash_rust::xxh3::xxh3_128;

use crate::{bench, publish, publish_to, register};

/// A table's name, and its rows by key.
type Table = (String, BTreeMap<Vec<u8>, Vec<u8>>);

/// A store's rows outside a gateway: what a backup holds, by table and key.
struct Rows {
    /// Magic, format and shards.
    head: Vec<u8>,
    tables: Vec<Table>,
}

impl Rows {
    fn read(backup: &Path) -> Self {
        let bytes = std::fs::read(backup).unwrap();
        let (head, mut rest) = bytes.split_at(10);
        let mut tables = Vec::<Table>::new();
        let mut take = |len: usize| {
            let (taken, left) = rest.split_at(len);
            rest = left;
            taken.to_vec()
        };
        loop {
            match take(1)[0] {
                0 => break,
                1 => {
                    let len = usize::from(take(1)[0]);
                    tables.push((String::from_utf8(take(len)).unwrap(), BTreeMap::new()));
                }
                _ => {
                    let key_len = u16::from_le_bytes(take(2).try_into().unwrap());
                    let len = u32::from_le_bytes(take(4).try_into().unwrap());
                    let key = take(usize::from(key_len));
                    tables.last_mut().unwrap().1.insert(key, take(len as usize));
                }
            }
        }
        Self { head: head.to_vec(), tables }
    }

    fn write(&self, backup: &Path) {
        let (mut bytes, mut count) = (self.head.clone(), 0_u64);
        for (name, rows) in &self.tables {
            bytes.extend([1, name.len() as u8]);
            bytes.extend(name.as_bytes());
            for (key, value) in rows {
                bytes.push(2);
                bytes.extend((key.len() as u16).to_le_bytes());
                bytes.extend((value.len() as u32).to_le_bytes());
                bytes.extend(key.iter().chain(value));
                count += 1;
            }
        }
        bytes.push(0);
        bytes.extend(count.to_le_bytes());
        bytes.extend(xxh3_128(&bytes).to_le_bytes());
        std::fs::write(backup, bytes).unwrap();
    }

    /// The ciphertexts of all endpoints of this id, in the order of their tenants.
    fn sealed(&mut self, id: &str) -> Vec<&mut [u8]> {
        let (_, rows) = self.tables.iter_mut().find(|it| it.0 == "catalog").unwrap();
        // Shard, kind, tenant, id.
        let of =
            |key: &[u8]| key.len() == 7 + id.len() && key[2] == 3 && key.ends_with(id.as_bytes());
        // Behind the prefix of the headers of Standard Webhooks, with its length before it.
        let before = b"\x07webhook";
        let sealed = |row: &'_ Vec<u8>| {
            let at = row.windows(before.len()).position(|it| it == before).unwrap() + before.len();
            assert!((65..128).contains(&row[at]), "as long as a secret with nonce and tag is");
            at + 1..at + 1 + usize::from(row[at])
        };
        let of = rows.iter_mut().filter(|it| of(it.0)).map(|it| it.1);
        of.map(|row| {
            let place = sealed(row);
            &mut row[place]
        })
        .collect()
    }
}

fn hookgate(arguments: &[&str]) -> Value {
    let done = Command::new(binary()).arg("--json").args(arguments).output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    serde_json::from_slice(&done.stdout).unwrap()
}

/// Ends a gateway, changes what lies in its store, and starts one on the changed store.
async fn changed(
    folder: &Path,
    (mut gateway, at): (Gateway, &str),
    to: &str,
    change: impl FnOnce(&mut Rows),
) -> Gateway {
    assert_eq!(gateway.terminate().await.code(), Some(0));
    let (at, to) = (folder.join(at), folder.join(to));
    let text = |it: &Path| it.to_str().unwrap().to_owned();
    let backups = text(&folder.join("backups"));
    let made = hookgate(&["store", "backup", &backups, "--data-dir", &text(&at)]);
    let backup = PathBuf::from(made["backup"].as_str().unwrap());
    let mut rows = Rows::read(&backup);
    change(&mut rows);
    rows.write(&backup);
    hookgate(&["store", "restore", &text(&backup), "--data-dir", &text(&to)]);
    std::fs::copy(at.join("master.key"), to.join("master.key")).unwrap();
    Gateway::start(&to)
}

async fn get_of(gateway: &Gateway, tenant: &str, rest: &str) -> Value {
    gateway.get(&format!("/v1/tenants/{tenant}/{rest}")).await
}

/// What `explain` says of each endpoint, once `ep_well` has got the event.
async fn codes(gateway: &Gateway, event: &str) -> BTreeMap<String, String> {
    for _ in 0..400 {
        let explained = gateway.get(&format!("events/{event}/explain")).await;
        let text = |it: &Value| it.as_str().unwrap().to_owned();
        let told = explained["endpoints"].as_array().unwrap().iter();
        let codes: BTreeMap<_, _> =
            told.map(|it| (text(&it["endpoint_id"]), text(&it["code"]))).collect();
        if codes["ep_well"] == "delivered" {
            return codes;
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    panic!("who is well has not got {event}");
}

/// B-57: a ciphertext that is another tenant's, and one that is damaged.
#[tokio::test]
async fn an_endpoint_whose_secrets_do_not_open_waits_and_nobody_else() {
    let (folder, gateway, endpoint) = bench().await;
    let (other, theirs) = (TestEndpoint::start().await, TestEndpoint::start().await);
    let tenant = gateway.call(Method::PUT, "/v1/tenants/globex", Some(json!({}))).await;
    assert_eq!(tenant.0, 201, "{}", tenant.1);
    register(&gateway, &endpoint, json!({ "id": "ep_mine" })).await;
    register(&gateway, &other, json!({ "id": "ep_well" })).await;
    let body = json!({ "id": "ep_mine", "url": theirs.url });
    gateway.post("/v1/tenants/globex/endpoints", body).await;
    let known = gateway.get("endpoints/ep_mine/secret").await;
    publish(&gateway, "a.b", json!("before")).await;
    publish_to(&gateway, "globex", json!({ "type": "a.b", "data": "before" })).await;
    endpoint.await_count(1).await;
    theirs.await_count(1).await;

    let mut was = Vec::new();
    let gateway = changed(folder.path(), (gateway, "data"), "held", |rows| {
        let [ours, theirs] = &mut rows.sealed("ep_mine")[..] else { panic!("two endpoints") };
        was = vec![ours.to_vec(), theirs.to_vec()];
        ours.copy_from_slice(theirs);
        *theirs.last_mut().unwrap() ^= 1;
    })
    .await;
    let event = publish(&gateway, "a.b", json!("held")).await;
    let event_of_theirs = json!({ "type": "a.b", "data": "held" });
    let event_of_theirs = publish_to(&gateway, "globex", event_of_theirs).await;
    other.await_count(2).await;
    for tenant in ["default", "globex"] {
        let held = get_of(&gateway, tenant, "endpoints/ep_mine").await;
        assert_eq!(held["held_reason"], "secret_unavailable", "{held}");
        assert_eq!(held["enabled"], true, "its tenant did not disable it");
    }
    let path = "endpoints/ep_mine/secret";
    let (status, problem) = gateway.call(Method::GET, path, None).await;
    assert_eq!((status, &problem["code"]), (409, &json!("secret_unavailable")), "{problem}");
    let patch = Some(json!({ "description": "new" }));
    let (status, problem) = gateway.call(Method::PATCH, "endpoints/ep_mine", patch).await;
    assert_eq!((status, &problem["code"]), (409, &json!("secret_unavailable")), "{problem}");
    let codes = codes(&gateway, &event).await;
    assert_eq!(codes["ep_mine"], "secret_unavailable", "{codes:?}");
    let metrics = gateway.get("/metrics").await;
    assert!(metrics.as_str().unwrap().contains("hookgate_endpoints{state=\"held\"} 2"));
    assert_eq!((endpoint.got().len(), theirs.got().len()), (1, 1), "nothing goes unsigned");

    let gateway = changed(folder.path(), (gateway, "held"), "mended", |rows| {
        for (sealed, was) in rows.sealed("ep_mine").into_iter().zip(&was) {
            sealed.copy_from_slice(was);
        }
    })
    .await;
    gateway.await_status(&event, "delivered").await;
    assert_eq!(endpoint.await_count(2).await[1].body["data"], "held");
    assert_eq!(theirs.await_count(2).await[1].id, event_of_theirs);
    assert_eq!(gateway.get("endpoints/ep_mine").await["held_reason"], Value::Null);
    assert_eq!(gateway.get("endpoints/ep_mine/secret").await, known);
    assert_eq!(other.got().len(), 2, "who was well got nothing twice");
}
