//! The short API, for a client that wants no more than a webhook. What is registered here is an
//! endpoint like any other.

use axum::{
    Router,
    body::Body,
    extract::{Path, State},
    response::IntoResponse,
    routing::{delete, get, post},
};
use http::{HeaderMap, StatusCode};
use serde_json::{Value, json};

use crate::api::body;
use crate::api::gateway::Gateway;
use crate::api::page::json_response;
use crate::api::problem::{FieldError, Problem, Result};
use crate::domain::{Endpoint, Scope};

pub(super) fn routes() -> Router<Gateway> {
    Router::new()
        .route("/api/webhooks/register", post(register))
        .route("/api/webhooks", get(list))
        .route("/api/webhooks/{id}", delete(remove))
}

async fn register(State(gateway): State<Gateway>, headers: HeaderMap, body: Body) -> Result {
    let access = gateway.own_tenant(&headers, Scope::Manage)?;
    let mut fields = body::object(&headers, body, gateway.limits.body_bytes_max).await?;
    let event_type = fields.string("event_type");
    let url = fields.string("callback_url");
    fields.need("event_type", event_type.as_ref());
    fields.need("callback_url", url.as_ref());
    fields.finish().map_err(Problem::invalid_fields)?;
    let wish = json!({ "url": url, "event_types": [event_type] });
    let fields = crate::api::fields::Fields::of(wish, "").map_err(Problem::invalid_fields)?;
    let wish = gateway.read_wish(&access, fields).await.map_err(in_short_words)?;
    let endpoint = gateway.make_endpoint(&access, wish).await?;
    let mut rendered = render(&endpoint);
    rendered["secret"] = endpoint.secrets[0].secret.reveal().as_str().into();
    Ok(json_response(StatusCode::CREATED, &rendered))
}

/// Problems point to the fields of this API, not to those of the endpoint.
fn in_short_words(problem: Problem) -> Problem {
    let code = problem.code();
    let short = |it: FieldError| FieldError {
        pointer: if it.pointer == "/url" { "/callback_url" } else { "/event_type" }.to_owned(),
        ..it
    };
    match problem.into_errors("") {
        Ok(errors) => Problem::fields(code, errors.into_iter().map(short).collect()),
        Err(problem) => problem,
    }
}

async fn list(State(gateway): State<Gateway>, headers: HeaderMap) -> Result {
    let access = gateway.own_tenant(&headers, Scope::Read)?;
    let catalog = access.shard.catalog();
    let endpoints = catalog.tenant(&access.slug).into_iter().flat_map(|it| it.endpoints.values());
    let mut endpoints: Vec<_> = endpoints.collect();
    endpoints.sort_by_key(|it| std::cmp::Reverse(it.no));
    let data: Vec<_> = endpoints.iter().map(|it| render(it)).collect();
    Ok(json_response(StatusCode::OK, &json!({ "data": data, "next_cursor": null })))
}

async fn remove(
    State(gateway): State<Gateway>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result {
    let access = gateway.own_tenant(&headers, Scope::Manage)?;
    let id = access.endpoint(&id)?.id;
    let deleted = access.shard.delete_endpoint(&access.slug, &id).await;
    deleted.map_err(|it| Problem::named(it, "endpoint_not_found"))?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

fn render(it: &Endpoint) -> Value {
    let types: Vec<_> = it.event_types.iter().map(|it| it.as_str()).collect();
    let event_type = if types.is_empty() { "**".to_owned() } else { types.join(",") };
    json!({ "id": it.id.as_str(), "event_type": event_type, "callback_url": it.url })
}
