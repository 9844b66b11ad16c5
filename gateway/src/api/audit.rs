use axum::extract::State;
use serde_json::{Value, json};

use crate::api::caller::{Access, Need};
use crate::api::gateway::Gateway;
use crate::api::page::{Query, cursor, page};
use crate::api::problem::Result;
use crate::api::route::{Route, get};
use crate::api::{endpoint_body, event_types, replays, wire};
use crate::domain::{AuditRecord, Scope, Timestamp};
use crate::storage::Noun;

const MASK: &str = "***";

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

/// How a noun stands in the audit log: as the API shows it, but what may be a secret is masked.
pub(super) fn render(noun: Noun<'_>) -> Value {
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
        Noun::Ingest(chain) => json!({
            "plugins": chain.iter().map(|it| it.plugin.as_str()).collect::<Vec<_>>(),
        }),
        Noun::Delivery(it) => json!({ "status": it.name() }),
        Noun::Redrive(count) => json!({ "redriven": count }),
        Noun::LogLevel(level) => json!({ "level": level }),
        Noun::Endpoint(it) => {
            let mut shown = endpoint_body::render(it);
            for value in members(&mut shown["headers"]) {
                *value = MASK.into();
            }
            for plugin in shown["plugins"].as_array_mut().into_iter().flatten() {
                for value in members(&mut plugin["config"]) {
                    *value = MASK.into();
                }
            }
            // Whoever rotates a secret changes nothing that is shown.
            shown["secrets"] = it.secrets.len().into();
            shown
        }
    }
}

fn members(value: &mut Value) -> impl Iterator<Item = &mut Value> {
    value.as_object_mut().into_iter().flat_map(|it| it.values_mut())
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
