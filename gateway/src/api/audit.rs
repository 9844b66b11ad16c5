use std::collections::BTreeMap;

use axum::extract::State;
use data_encoding::HEXLOWER;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::api::caller::{Access, Need};
use crate::api::gateway::Gateway;
use crate::api::page::{Query, cursor, page};
use crate::api::problem::Result;
use crate::api::route::{Route, get};
use crate::api::{endpoint_body, event_types, ingest, replays, wire};
use crate::domain::{AuditRecord, Scope, Timestamp};
use crate::storage::Noun;

const MASK: &str = "***";
/// In place of a secret that was another one before.
const MASK_CHANGED: &str = "*** (changed)";

pub(super) fn routes() -> Vec<Route> {
    vec![
        get(
            "/v1/audit-log",
            Need::Operator,
            list_all,
            ("listAudit", "Who changed what, newest first."),
        )
        .gives_page("AuditRecord"),
        get(
            "/v1/tenants/{tenant}/audit-log",
            Need::Scope(Scope::Manage),
            list,
            ("listTenantAudit", "Who changed what in the tenant, newest first."),
        )
        .gives_page("AuditRecord"),
    ]
}

/// How a change stands in the audit log: what it is about as the API shows it, before and after. Of
/// what may be a secret nothing is told but whether it is another one.
pub(super) fn render(before: Option<Noun<'_>>, after: Option<Noun<'_>>) -> [Option<Value>; 2] {
    masked([before, after].map(|it| it.map(show)))
}

fn masked([mut before, mut after]: [Option<Value>; 2]) -> [Option<Value>; 2] {
    let had: BTreeMap<_, _> =
        before.iter_mut().flat_map(secrets).map(|it| (it.place.clone(), it.hide(MASK))).collect();
    for secret in after.iter_mut().flat_map(secrets) {
        let same = had.get(&secret.place).is_none_or(|it| *it == secret.text[secret.from..]);
        secret.hide(if same { MASK } else { MASK_CHANGED });
    }
    [before, after]
}

/// What may be a secret, within a noun that is shown.
struct Secret<'a> {
    place: String,
    text: &'a mut String,
    /// The byte that it begins at.
    from: usize,
}

impl Secret<'_> {
    /// Puts a mask in its place.
    fn hide(self, mask: &str) -> String {
        let hidden = self.text.split_off(self.from);
        self.text.push_str(mask);
        hidden
    }
}

fn secrets(noun: &mut Value) -> Vec<Secret<'_>> {
    let mut found = Vec::new();
    for (name, value) in noun.as_object_mut().into_iter().flatten() {
        match (name.as_str(), value) {
            ("url", Value::String(text)) => {
                // Tokens stand in queries; where it leads to is told.
                let query = text.find('?').map(|it| it + 1);
                found.extend(query.map(|from| Secret { place: name.clone(), text, from }));
            }
            ("headers", headers) => found.extend(within("headers", headers)),
            ("tls", tls) => found.extend(tls.get_mut("key").and_then(|it| whole("tls/key", it))),
            ("plugins", Value::Array(plugins)) => {
                for (place, plugin) in plugins.iter_mut().enumerate() {
                    let config = plugin.get_mut("config");
                    let place = format!("plugins/{place}");
                    found.extend(config.into_iter().flat_map(|it| within(&place, it)));
                }
            }
            _ => {}
        }
    }
    found
}

fn within<'a>(place: &str, members: &'a mut Value) -> Vec<Secret<'a>> {
    let members = members.as_object_mut().into_iter().flatten();
    members.filter_map(|(name, it)| whole(&format!("{place}/{name}"), it)).collect()
}

fn whole<'a>(place: &str, value: &'a mut Value) -> Option<Secret<'a>> {
    match value {
        Value::String(text) => Some(Secret { place: place.to_owned(), text, from: 0 }),
        _ => None,
    }
}

/// As the API shows it, with what may be a secret.
fn show(noun: Noun<'_>) -> Value {
    match noun {
        Noun::Tenant(it) => wire::tenant(it),
        Noun::Key(it) => wire::key(it),
        Noun::EventType(it) => event_types::render(it),
        Noun::Replay(it) => replays::render(it),
        Noun::Plugin(it) => json!({
            "name": it.name.as_str(),
            "kind": it.kind(),
            "active_version": it.active_version,
            "versions": it.versions.iter().map(|it| it.version).collect::<Vec<_>>(),
        }),
        Noun::Ingest(chain) => ingest::render(chain),
        Noun::Delivery(it) => json!({ "status": it.name() }),
        Noun::Redrive(count) => json!({ "redriven": count }),
        Noun::LogLevel(level) => json!({ "level": level }),
        Noun::Endpoint(it) => {
            let mut shown = endpoint_body::render(it);
            if let Some(key) = it.tls.as_ref().and_then(|it| it.key.as_ref()) {
                // The key itself is nowhere but where it is used.
                shown["tls"]["key"] = HEXLOWER.encode(&Sha256::digest(key.as_bytes())).into();
            }
            // Whoever rotates a secret changes nothing that is shown.
            shown["secrets"] = it.secrets.len().into();
            shown
        }
    }
}

async fn list(access: Access, query: Query) -> Result {
    let kind = access.list("audit");
    let limit = query.limit()?;
    let before = query.cursor(&kind)?.map_or(LATEST, |[at, no]| (Timestamp(at), no));
    let mut data = Vec::with_capacity(limit);
    for record in access.shard.audit_before(Some(access.no), before) {
        let record = record?;
        if data.len() == limit {
            let last: &AuditRecord = &data[limit - 1];
            let next = cursor(&kind, &[last.at.0, last.no]);
            return Ok(page(&rendered(&data), Some(next)));
        }
        data.push(record);
    }
    Ok(page(&rendered(&data), None))
}

const LATEST: (Timestamp, u64) = (Timestamp(u64::MAX), 0);

/// The shards' records, merged by time.
async fn list_all(State(gateway): State<Gateway>, query: Query) -> Result {
    let limit = query.limit()?;
    let shards = gateway.store.shards();
    let last = query.cursor("audit")?.map(|[at, shard, no]| (Timestamp(at), shard, no));
    let mut all = Vec::new();
    for shard in shards {
        let number = u64::from(shard.number());
        let before = match last {
            None => LATEST,
            Some((at, of, no)) if of == number => (at, no),
            // Of one instant, the higher shard's records come first.
            Some((at, of, _)) if number < of => (at, u64::MAX),
            Some((at, ..)) => (at, 0),
        };
        for record in shard.audit_before(None, before).take(limit + 1) {
            all.push((number, record?));
        }
    }
    all.sort_by_key(|(shard, it)| std::cmp::Reverse((it.at, *shard, it.no)));
    let more = all.len() > limit;
    all.truncate(limit);
    let next = all.last().filter(|_| more);
    let next = next.map(|(shard, it)| cursor("audit", &[it.at.0, *shard, it.no]));
    let data: Vec<_> = all.into_iter().map(|(_, it)| it).collect();
    Ok(page(&rendered(&data), next))
}

fn rendered(records: &[AuditRecord]) -> Vec<Value> {
    let parsed = |it: &Option<String>| serde_json::from_str::<Value>(it.as_ref()?).ok();
    let shown = |it: &AuditRecord| {
        json!({
            "at": it.at.to_string(),
            "tenant": it.tenant.as_ref().map(|it| it.as_str()),
            "by": it.by,
            "request_id": it.request_id,
            "operation": it.operation,
            "subject": it.subject,
            "before": parsed(&it.before),
            "after": parsed(&it.after),
        })
    };
    records.iter().map(shown).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_secret_nothing_is_told_but_that_it_is_another_one() {
        let shown = |url: &str, secret: &str| {
            json!({
                "url": url,
                "headers": { "x-same": "s3cret", "x-other": secret },
                "plugins": [{ "plugin": "it", "config": { "key": secret } }, { "config": {} }],
                "tls": { "ca": "public", "key": secret },
                "description": "as it is",
            })
        };
        let before = shown("https://a.example/x?token=s3cret", "s3cret");
        let mut after = shown("https://a.example/y?token=s3cret", "an0ther");
        after["headers"]["x-new"] = "s3cret".into();
        let [had, has] = masked([Some(before), Some(after)]).map(Option::unwrap);
        let mut expected = shown("https://a.example/x?***", MASK);
        expected["headers"]["x-same"] = MASK.into();
        assert_eq!(had, expected);
        let mut expected = shown("https://a.example/y?***", MASK_CHANGED);
        expected["headers"]["x-same"] = MASK.into();
        expected["headers"]["x-new"] = MASK.into();
        assert_eq!(has, expected);
        let asked = shown("https://a.example/x?token=an0ther", "s3cret");
        let before = shown("https://a.example/x?token=s3cret", "s3cret");
        let [_, has] = masked([Some(before), Some(asked)]).map(Option::unwrap);
        assert_eq!(has["url"], "https://a.example/x?*** (changed)");
        for [had, has] in [masked([None, Some(shown("u", "s3cret"))]), masked([None, None])] {
            assert!(!format!("{had:?}{has:?}").contains("s3cret"));
        }
        let plain = json!({ "status": "dead", "redriven": 3, "tls": null, "plugins": ["a"] });
        assert_eq!(masked([Some(plain.clone()), None]), [Some(plain), None]);
    }
}
