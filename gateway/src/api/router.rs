use std::any::Any;

use axum::{
    Router,
    extract::Request,
    middleware::{self, Next},
    response::{IntoResponse, Response},
};
use http::{HeaderValue, StatusCode, header};
use tower_http::catch_panic::CatchPanicLayer;

use crate::api::gateway::Gateway;
use crate::api::problem::Problem;
use crate::api::{
    canary, dead_letters, deliveries, endpoints, events_in, events_out, ingest, keys, ops, plugins,
    short, system, tail, tenants,
};
use crate::domain::TypeId;

const REQUEST_ID: &str = "x-request-id";
const REQUEST_ID_CHARS_MAX: usize = 128;

/// All routes.
pub fn router(gateway: Gateway) -> Router {
    let naming = gateway.clone();
    Router::new()
        .merge(tenants::routes())
        .merge(keys::routes())
        .merge(endpoints::routes())
        .merge(tail::routes())
        .merge(events_in::routes())
        .merge(ingest::routes())
        .merge(events_out::routes())
        .merge(deliveries::routes())
        .merge(dead_letters::routes())
        .merge(plugins::routes())
        .merge(canary::routes())
        .merge(short::routes())
        .merge(system::routes())
        .merge(ops::routes())
        .fallback(async || Problem::not_found("route_not_found"))
        .layer(middleware::from_fn(as_problems))
        .layer(CatchPanicLayer::custom(panicked))
        .layer(middleware::from_fn(move |request, next| name(naming.clone(), request, next)))
        .with_state(gateway)
}

/// What the framework refuses by itself gets the form of all other problems.
async fn as_problems(request: Request, next: Next) -> Response {
    let response = next.run(request).await;
    let problem = match response.status() {
        StatusCode::METHOD_NOT_ALLOWED => {
            let detail = "the route does not take this method; `Allow` tells which it takes";
            Problem::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", detail)
        }
        StatusCode::BAD_REQUEST if !is_json(&response) => {
            Problem::bad_request("invalid_path", "the path cannot be read")
        }
        _ => return response,
    };
    let allow = response.headers().get(header::ALLOW).cloned();
    let mut answer = problem.into_response();
    if let Some(allow) = allow {
        answer.headers_mut().insert(header::ALLOW, allow);
    }
    answer
}

fn is_json(response: &Response) -> bool {
    let content_type = response.headers().get(header::CONTENT_TYPE);
    content_type.is_some_and(|it| it.as_bytes().ends_with(b"json"))
}

fn panicked(_: Box<dyn Any + Send>) -> Response {
    tracing::error!("a request's handler panicked");
    let detail = "this is a fault of the gateway; its log tells more";
    Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", detail).into_response()
}

/// Gives each response the request's name: the caller's own, or a new one.
async fn name(gateway: Gateway, request: Request, next: Next) -> Response {
    let given = request.headers().get(REQUEST_ID).filter(|it| it.len() <= REQUEST_ID_CHARS_MAX);
    let name = given.cloned().unwrap_or_else(|| {
        let tail = u128::from(gateway.entropy.draw());
        let name = TypeId::new("req", gateway.clock.now(), tail).to_string();
        HeaderValue::from_str(&name).expect("it is plain")
    });
    let mut response = next.run(request).await;
    response.headers_mut().insert(REQUEST_ID, name);
    response
}
