use axum::{
    body::Body,
    extract::{Path, State},
    response::IntoResponse,
};
use http::{HeaderMap, StatusCode};
use serde_json::{Value, json};
use tokio::sync::Mutex;

use crate::api::body;
use crate::api::caller::{Access, Need};
use crate::api::etag::{Belief, tagged};
use crate::api::gateway::Gateway;
use crate::api::page::{Query, cursor, page};
use crate::api::problem::{FieldError, Problem, Result};
use crate::api::route::{Route, delete, get, put};
use crate::domain::{Budget, EventType, KnownType, Schema, Scope, Timestamp, Violation};
use crate::storage::{NewEvent, Refused};
use crate::telemetry::SCHEMA_WARNINGS;

const TYPES: &str = "/v1/tenants/{tenant}/event-types";
const TYPE: &str = "/v1/tenants/{tenant}/event-types/{type}";
const DESCRIPTION_BYTES_MAX: usize = 4096;

pub(super) fn routes() -> Vec<Route> {
    let (read_, manage) = (Need::Scope(Scope::Read), Need::Scope(Scope::Manage));
    vec![
        get(TYPES, read_, list, ("listEventTypes", "The catalogue of event types, by name."))
            .gives_page("KnownType"),
        get(TYPE, read_, read, ("getEventType", "One event type."))
            .gives(200, "KnownType")
            .tagged()
            .refuses(404, "event_type_not_found"),
        put(TYPE, manage, describe, ("putEventType", "Describes an event type, with a schema."))
            .takes("KnownTypePut")
            .gives(201, "KnownType")
            .gives(200, "KnownType")
            .tagged()
            .refuses(422, "invalid_event_type")
            .refuses(422, "limit_event_types"),
        delete(TYPE, manage, forget, ("deleteEventType", "Forgets a description; events stay."))
            .gives_nothing()
            .tagged()
            .refuses(404, "event_type_not_found"),
    ]
}

pub(super) fn render(it: &KnownType) -> Value {
    let schema = it.schema.as_ref().map(Schema::source);
    let schema = schema.and_then(|it| serde_json::from_str::<Value>(it).ok());
    json!({
        "type": it.name.as_str(),
        "description": it.description,
        "schema": schema,
        "strict": it.strict,
        "created_at": it.created_at.to_string(),
        "updated_at": it.updated_at.to_string(),
    })
}

fn missing() -> Problem {
    Problem::not_found("event_type_not_found")
}

async fn list(access: Access, query: Query) -> Result {
    let kind = access.list("event-types");
    let (limit, [skip]) = (query.limit()?, query.cursor(&kind)?.unwrap_or([0]));
    let skip = usize::try_from(skip).unwrap_or(usize::MAX);
    let catalog = access.shard.catalog();
    let types = catalog.tenant(&access.slug).into_iter().flat_map(|it| it.types.values());
    let mut types = types.skip(skip);
    let data: Vec<_> = types.by_ref().take(limit).map(|it| render(it)).collect();
    let next = types.next().map(|_| cursor(&kind, &[(skip + limit) as u64]));
    Ok(page(&data, next))
}

async fn read(access: Access, Path((_, name)): Path<(String, String)>) -> Result {
    let catalog = access.shard.catalog();
    let name = EventType::parse(&name).ok_or_else(missing)?;
    let known = catalog.tenant(&access.slug).and_then(|it| it.types.get(&name));
    Ok(tagged(StatusCode::OK, &render(known.ok_or_else(missing)?)))
}

async fn describe(
    State(gateway): State<Gateway>,
    access: Access,
    Path((_, name)): Path<(String, String)>,
    belief: Belief,
    headers: HeaderMap,
    body: Body,
) -> Result {
    let form = "a type is segments of A-Za-z0-9_- with dots between, at most 256 characters";
    let name = EventType::parse(&name)
        .ok_or_else(|| Problem::unprocessable("invalid_event_type", form))?;
    let mut fields = body::object(&headers, body, gateway.limits.body_bytes_max).await?;
    let fits = |it: &str| (it.len() <= DESCRIPTION_BYTES_MAX).then(|| it.to_owned());
    let description = fields.parsed("description", "a string of at most 4096 bytes", fits);
    let schema = fields.read("schema", |it| Schema::compile(&it.to_string()));
    let strict = fields.boolean("strict").unwrap_or(false);
    // What only the gateway writes may come back as it was read.
    for shown in ["type", "created_at", "updated_at"] {
        fields.take(shown);
    }
    fields.finish().map_err(Problem::invalid_fields)?;
    let described = KnownType {
        name: name.clone(),
        description: description.unwrap_or_default(),
        schema,
        strict,
        created_at: Timestamp(0),
        updated_at: Timestamp(0),
    };
    let change = move |there: Option<&KnownType>| {
        belief.holds(there.map(render).as_ref())?;
        Ok(described)
    };
    let put = access.shard.put_event_type(&access.slug, &name, change).await;
    let (known, created) = put.map_err(|it| match it {
        Refused::Limit(max) => {
            let detail = format!("there are {max} event types already, which is the limit");
            Problem::unprocessable("limit_event_types", detail)
        }
        other => Problem::named(other, "tenant_not_found"),
    })?;
    let status = if created { StatusCode::CREATED } else { StatusCode::OK };
    Ok(tagged(status, &render(&known)))
}

async fn forget(access: Access, Path((_, name)): Path<(String, String)>, belief: Belief) -> Result {
    let name = EventType::parse(&name).ok_or_else(missing)?;
    let agrees = move |there: &KnownType| belief.holds(Some(&render(there)));
    let deleted = access.shard.delete_event_type(&access.slug, &name, agrees).await;
    deleted.map_err(|it| Problem::named(it, "event_type_not_found"))?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// What the tenant's schemas have to say of an event.
#[derive(Debug, Default)]
pub(super) struct Opinion {
    /// The event must not be taken.
    pub(super) errors: Vec<FieldError>,
    /// The event is taken, and its producer should know.
    pub(super) warnings: Vec<FieldError>,
}

/// Compares data on a thread of its own: requests that need no such thing go on meanwhile. One at a
/// time in the whole process.
async fn compare_aside(schema: Schema, data: Value, budget: &mut Budget) -> Vec<Violation> {
    static TURN: Mutex<()> = Mutex::const_new(());
    let turn = TURN.lock().await;
    let mut left = *budget;
    let compared = tokio::task::spawn_blocking(move || {
        // It goes on where the client has left meanwhile.
        let _turn = turn;
        let found = schema.violations(&data, &mut left);
        (found, left)
    });
    match compared.await {
        Ok((found, left)) => {
            *budget = left;
            found
        }
        Err(ended) => std::panic::resume_unwind(ended.into_panic()),
    }
}

impl Access {
    /// Compares an event's data with the schema of its type, if there is one. `base` is the
    /// event's pointer in the body, `budget` what the request may still cost.
    pub(super) async fn opinion(
        &self,
        event: &NewEvent,
        base: &str,
        budget: &mut Budget,
    ) -> Opinion {
        let known = {
            let catalog = self.shard.catalog();
            let types = catalog.tenant(&self.slug).map(|it| &it.types);
            types.and_then(|it| it.get(&event.event_type).cloned())
        };
        let Some((known, schema)) = known.as_ref().and_then(|it| Some((it, it.schema.as_ref()?)))
        else {
            return Opinion::default();
        };
        let data = serde_json::from_slice(&event.data).unwrap_or(Value::Null);
        let error = |it: crate::domain::Violation| FieldError {
            pointer: format!("{base}/data{}", it.pointer),
            detail: it.detail,
        };
        let found = match schema.takes_long(&data) {
            true => Box::pin(compare_aside(schema.clone(), data, budget)).await,
            false => schema.violations(&data, budget),
        };
        let found: Vec<_> = found.into_iter().map(error).collect();
        if !found.is_empty() && !known.strict {
            SCHEMA_WARNINGS.count(1, &[]);
        }
        match known.strict {
            true => Opinion { errors: found, warnings: Vec::new() },
            false => Opinion { errors: Vec::new(), warnings: found },
        }
    }
}
