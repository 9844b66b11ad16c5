//! The short API, for a client that wants no more than a webhook. What is registered here is an
//! endpoint like any other.

use axum::{
    body::Body,
    extract::{Path, State},
    response::IntoResponse,
};
use http::{HeaderMap, StatusCode};
use serde_json::{Value, json};

use crate::api::body;
use crate::api::caller::{Access, Need};
use crate::api::gateway::Gateway;
use crate::api::page::{Query, made_at, page, secret_response};
use crate::api::problem::{FieldError, Problem, Result};
use crate::api::route::{Route, delete, get, post};
use crate::domain::{Endpoint, Scope};

pub(super) fn routes() -> Vec<Route> {
    let (read_, manage) = (Need::Own(Scope::Read), Need::Own(Scope::Manage));
    vec![
        post(
            "/api/webhooks/register",
            manage,
            register,
            ("registerWebhook", "Registers an address for a type of event."),
        )
        .takes("NewWebhook")
        .gives(201, "MadeWebhook")
        .located(),
        get("/api/webhooks", read_, list, ("listWebhooks", "What is registered, newest first."))
            .gives_page("Webhook"),
        delete("/api/webhooks/{id}", manage, remove, ("deleteWebhook", "Removes a registration."))
            .gives_nothing()
            .refuses(404, "endpoint_not_found"),
    ]
}

async fn register(
    State(gateway): State<Gateway>,
    access: Access,
    headers: HeaderMap,
    body: Body,
) -> Result {
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
    let place = format!("/v1/tenants/{}/endpoints/{}", access.slug, endpoint.id);
    Ok(made_at(&place, secret_response(StatusCode::CREATED, &rendered)))
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

async fn list(access: Access, query: Query) -> Result {
    let (endpoints, next) = access.endpoints(&query)?;
    let data: Vec<_> = endpoints.iter().map(|it| render(it)).collect();
    Ok(page(&data, next))
}

async fn remove(access: Access, Path(id): Path<String>) -> Result {
    let id = access.endpoint(&id)?.id;
    let deleted = access.shard.delete_endpoint(&access.slug, &id, |_| Ok(())).await;
    deleted.map_err(|it| Problem::named(it, "endpoint_not_found"))?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

fn render(it: &Endpoint) -> Value {
    let types: Vec<_> = it.event_types.iter().map(|it| it.as_str()).collect();
    let event_type = if types.is_empty() { "**".to_owned() } else { types.join(",") };
    json!({ "id": it.id.as_str(), "event_type": event_type, "callback_url": it.url })
}
