use std::sync::Arc;

use axum::{
    extract::{FromRequestParts, RawPathParams, Request},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::MethodRouter,
};
use http::{StatusCode, request::Parts};
use tokio::time::Instant;

use crate::api::caller::{Access, Caller, Need};
use crate::api::gateway::Gateway;
use crate::api::page::Query;
use crate::api::problem::Problem;
use crate::api::route::Route;
use crate::api::router::RequestId;
use crate::api::timed::Timed;
use crate::api::{audit, events_in};
use crate::domain::{ApiKey, RateLimit, Scope};
use crate::storage::Author;

/// How often a key's refusals are written down.
const REFUSALS_TOLD: RateLimit = RateLimit { per_second: 0.1, burst: 20 };

/// What the door needs to know of the operation behind it.
#[derive(Debug, Clone)]
pub(super) struct Door {
    name: &'static str,
    need: Need,
    query: Arc<[&'static str]>,
    timed: Arc<Timed>,
}

/// Puts a door before the operation: nobody reaches its handler without what the table asks for.
pub(super) fn guarded(gateway: &Gateway, route: Route) -> MethodRouter<Gateway> {
    let door = Door {
        name: route.doc.name,
        need: route.need,
        query: route.doc.query.into(),
        timed: Arc::new(Timed::new(&route.method, route.path)),
    };
    let gateway = gateway.clone();
    let admit = move |params: RawPathParams, request: Request, next: Next| {
        admit(gateway.clone(), door.clone(), params, request, next)
    };
    route.handler.route_layer(middleware::from_fn(admit))
}

async fn admit(
    gateway: Gateway,
    door: Door,
    params: RawPathParams,
    request: Request,
    next: Next,
) -> Response {
    let timed = door.timed.clone();
    let mut response = pass(gateway, door, params, request, next).await;
    response.extensions_mut().insert(timed);
    response
}

async fn pass(
    gateway: Gateway,
    door: Door,
    params: RawPathParams,
    mut request: Request,
    next: Next,
) -> Response {
    let slug = params.iter().find(|(name, _)| *name == "tenant").map(|(_, slug)| slug);
    let brings_events = door.need == Need::Scope(Scope::Produce);
    let admitted = match gateway.admit(door.need, request.headers(), slug) {
        Ok(admitted) => admitted,
        Err(problem) => {
            if brings_events {
                events_in::count_refused(request.headers(), problem.code());
            }
            let refusal = problem.into_response();
            if refusal.status() == StatusCode::FORBIDDEN
                && let Ok(Caller::Key(key)) = gateway.caller(request.headers())
            {
                let author = door.author_of(&Caller::Key(key.clone()), &request);
                tell_refusal(&gateway, &key, author).await;
            }
            return refusal;
        }
    };
    let author = admitted.as_ref().and_then(|it| door.author(&it.caller, &request));
    if brings_events && admitted.as_ref().is_some_and(|it| it.access.is_none()) {
        events_in::count_refused(request.headers(), "tenant_not_found");
    }
    request.extensions_mut().insert(door);
    if let Some(access) = admitted.and_then(|it| it.access) {
        request.extensions_mut().insert(access);
    }
    match author {
        Some(author) => author.makes(next.run(request)).await,
        None => next.run(request).await,
    }
}

impl Door {
    /// In whose name the operation changes things. Taking events in changes nothing that the
    /// audit log tells of.
    fn author(&self, caller: &Caller, request: &Request) -> Option<Author> {
        let changes = !request.method().is_safe() && self.need != Need::Scope(Scope::Produce);
        changes.then(|| self.author_of(caller, request))
    }

    fn author_of(&self, caller: &Caller, request: &Request) -> Author {
        let name = request.extensions().get::<RequestId>();
        let name = name.and_then(|it| it.0.to_str().ok()).unwrap_or_default();
        Author {
            by: caller.name().to_owned(),
            request_id: name.to_owned(),
            operation: self.name,
            render: audit::render,
        }
    }
}

/// Writes down that a key tried what it may not do. A key that goes on trying is told of now and
/// then.
async fn tell_refusal(gateway: &Gateway, key: &ApiKey, author: Author) {
    let owner = format!("refusals of {}", key.id);
    if gateway.pace.take(&owner, REFUSALS_TOLD, 1, Instant::now()).is_err() {
        return;
    }
    let told = gateway.store.shard(&key.tenant).tell_refusal(&key.tenant, &key.id);
    if let Err(error) = author.makes(told).await {
        tracing::warn!(%error, key = key.id, "a refusal could not be written down");
    }
}

/// The tenant that the caller was let into.
impl<S: Sync> FromRequestParts<S> for Access {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        parts.extensions.remove::<Self>().ok_or_else(|| Problem::not_found("tenant_not_found"))
    }
}

/// The query; only what the table names may occur in it.
impl<S: Sync> FromRequestParts<S> for Query {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let door = parts.extensions.get::<Door>();
        Self::parse(&parts.uri, door.map_or(&[], |it| &it.query))
    }
}
