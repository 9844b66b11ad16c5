use std::time::Duration;

use axum::{
    body::Body,
    extract::{Path, State},
    response::IntoResponse,
};
use http::{HeaderMap, StatusCode};
use serde_json::{Value, json};

use crate::api::caller::{Access, Need};
use crate::api::gateway::Gateway;
use crate::api::page::{Query, cursor, json_response, made_at, page};
use crate::api::problem::{Problem, Result};
use crate::api::route::{Route, delete, get, post};
use crate::api::{body, wire};
use crate::domain::{EndpointId, Pattern, Replay, ReplayState, Scope, Seq, TypeId};
use crate::storage::Refused;

const REPLAYS: &str = "/v1/tenants/{tenant}/replays";
const REPLAY: &str = "/v1/tenants/{tenant}/replays/{id}";

/// Events that a dry run looks at: who replays more than this knows that it is a lot.
const EXAMINED_MAX: u64 = 100_000;

pub(super) fn routes() -> Vec<Route> {
    let read_ = Need::Scope(Scope::Read);
    vec![
        get(
            REPLAYS,
            read_,
            list,
            ("listReplays", "Replays, newest first; of those that ended, the last 100."),
        )
        .gives_page("Replay"),
        post(
            REPLAYS,
            Need::Key(Scope::Manage),
            start,
            (
                "startReplay",
                "Sends events of the past to an endpoint, once more or for the first time.",
            ),
        )
        .takes("NewReplay")
        .gives(202, "Replay")
        .located()
        .gives(200, "ReplayPreview")
        .refuses(404, "endpoint_not_found")
        .refuses(422, "limit_replays"),
        get(REPLAY, read_, read, ("getReplay", "How far a replay is."))
            .gives(200, "Replay")
            .refuses(404, "replay_not_found"),
        delete(
            REPLAY,
            Need::Scope(Scope::Manage),
            stop,
            (
                "stopReplay",
                "Stops a replay: what waits to be sent is not; it stands as it stood before.",
            ),
        )
        .gives_nothing()
        .refuses(404, "replay_not_found"),
    ]
}

pub(super) fn render(it: &Replay) -> Value {
    json!({
        "id": it.id,
        "endpoint": it.endpoint.as_str(),
        "since": it.since.to_string(),
        "until": it.until.to_string(),
        "event_types": it.event_types.iter().map(Pattern::as_str).collect::<Vec<_>>(),
        "only": if it.undelivered_only { "undelivered" } else { "all" },
        "status": it.state.name(),
        "progress": it.progress(),
        "examined": it.examined,
        "replayed": it.replayed,
        "created_at": it.created_at.to_string(),
        "updated_at": it.updated_at.to_string(),
    })
}

fn place(it: &Replay) -> (u64, u64) {
    (it.created_at.0, TypeId::parse("rpl", &it.id).map_or(0, |it| it.tail() as u64))
}

async fn list(access: Access, query: Query) -> Result {
    let (limit, list) = (query.limit()?, access.list("replays"));
    let before = query.cursor(&list)?.map_or((u64::MAX, 0), |[at, tail]| (at, tail));
    let catalog = access.shard.catalog();
    let replays = catalog.tenant(&access.slug).into_iter().flat_map(|it| it.replays.values());
    let mut replays: Vec<_> = replays.filter(|it| place(it) < before).collect();
    replays.sort_by_key(|it| std::cmp::Reverse(place(it)));
    let more = replays.len() > limit;
    replays.truncate(limit);
    let next = replays.last().filter(|_| more).map(|it| place(it));
    let data: Vec<_> = replays.iter().map(|it| render(it)).collect();
    Ok(page(&data, next.map(|(at, tail)| cursor(&list, &[at, tail]))))
}

fn patterns(it: &Value) -> std::result::Result<Vec<Pattern>, String> {
    let patterns = it.as_array().map(|it| it.iter().map(|it| Pattern::parse(it.as_str()?)));
    let patterns = patterns.and_then(|it| it.collect::<Option<Vec<_>>>());
    patterns.ok_or("must be a list of event types or patterns such as payment.*".to_owned())
}

/// What a replay would do, without doing it.
async fn preview(access: &Access, replay: Replay) -> Result {
    // As the replay itself waits: until then nobody knows what the endpoint gets anyway.
    access.shard.targets_known(replay.last).await?;
    let seen = access.shard.preview_replay(access.no, replay, EXAMINED_MAX).await?;
    let mut body = render(&seen);
    let members = body.as_object_mut().expect("it is an object");
    for name in ["id", "status", "progress", "replayed", "created_at", "updated_at"] {
        members.remove(name);
    }
    members.insert("matching".to_owned(), seen.replayed.into());
    members.insert("exact".to_owned(), (seen.state == ReplayState::Finished).into());
    Ok(json_response(StatusCode::OK, &body))
}

async fn start(
    State(gateway): State<Gateway>,
    access: Access,
    headers: HeaderMap,
    body: Body,
) -> Result {
    let mut fields = body::object(&headers, body, gateway.limits.body_bytes_max).await?;
    let (now, random) = access.shard.draw();
    let form = "a time such as 2026-01-31T12:00:00Z";
    let endpoint = fields.parsed("endpoint", "an endpoint's id", EndpointId::parse);
    let endpoint = fields.need("endpoint", endpoint);
    let since = fields.parsed("since", form, wire::parse_time);
    let since = fields.need("since", since);
    let wished = fields.parsed("until", form, wire::parse_time);
    // The end of this millisecond: what was acknowledged within it has happened.
    let until = wished.unwrap_or(now + Duration::from_millis(1));
    let event_types = fields.read("event_types", patterns);
    let dry_run = fields.boolean("dry_run");
    let only = fields.parsed("only", "all or undelivered", |it| match it {
        "all" => Some(false),
        "undelivered" => Some(true),
        _ => None,
    });
    if since.is_some_and(|it| it >= until) {
        fields.refuse("until", "must be later than `since`");
    }
    fields.finish().map_err(Problem::invalid_fields)?;
    let endpoint = access.endpoint(endpoint.as_ref().map_or("", EndpointId::as_str))?;
    let since = since.unwrap_or_default();
    let last = match wished {
        Some(until) => Seq(access.shard.seq_at(until)?.0.saturating_sub(1)),
        None => access.shard.last_seq(),
    };
    let first = access.shard.seq_at(since)?;
    let replay = Replay {
        id: TypeId::new("rpl", now, random).to_string(),
        tenant: access.slug.clone(),
        endpoint: endpoint.id,
        endpoint_no: endpoint.no,
        since,
        until,
        event_types: event_types.unwrap_or_default(),
        undelivered_only: only.unwrap_or(false),
        state: ReplayState::Running,
        first,
        last,
        cursor: Seq(first.0.saturating_sub(1)),
        examined: 0,
        replayed: 0,
        created_at: now,
        updated_at: now,
    };
    if dry_run == Some(true) {
        return preview(&access, replay).await;
    }
    access.shard.start_replay(&replay).await.map_err(|it| match it {
        Refused::Limit(max) => {
            let detail = format!("{max} replays run already; wait until one has ended");
            Problem::unprocessable("limit_replays", detail)
        }
        other => Problem::named(other, "tenant_not_found"),
    })?;
    let place = format!("{}/{}", REPLAYS.replace("{tenant}", access.slug.as_str()), replay.id);
    Ok(made_at(&place, json_response(StatusCode::ACCEPTED, &render(&replay))))
}

async fn read(access: Access, Path((_, id)): Path<(String, String)>) -> Result {
    let catalog = access.shard.catalog();
    let replay = catalog.tenant(&access.slug).and_then(|it| it.replays.get(&id));
    let replay = replay.ok_or_else(|| Problem::not_found("replay_not_found"))?;
    Ok(json_response(StatusCode::OK, &render(replay)))
}

async fn stop(access: Access, Path((_, id)): Path<(String, String)>) -> Result {
    let stopped = access.shard.stop_replay(&access.slug, &id).await;
    stopped.map_err(|it| Problem::named(it, "replay_not_found"))?;
    Ok(StatusCode::NO_CONTENT.into_response())
}
