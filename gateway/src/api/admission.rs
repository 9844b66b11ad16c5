use std::{
    convert::Infallible,
    sync::Arc,
    task::{Context, Poll},
};

use axum::{
    extract::{FromRequestParts, RawPathParams, Request},
    response::{IntoResponse, Response},
};
use futures_util::future::BoxFuture;
use http::{StatusCode, request::Parts};
use tokio::time::Instant;
use tower::Service;

use crate::api::caller::{Access, Caller, Need};
use crate::api::gateway::Gateway;
use crate::api::page::Query;
use crate::api::problem::Problem;
use crate::api::route::{Route, Run};
use crate::api::router::{RequestId, tells_of_requests};
use crate::api::timed::Timed;
use crate::api::{audit, body, events_in, unpack};
use crate::domain::{ApiKey, RateLimit, Scope};
use crate::storage::Author;

/// How often a key's refusals are written down.
const REFUSALS_TOLD: RateLimit = RateLimit { per_second: 0.1, burst: 20 };

/// An operation behind its door: nobody reaches its handler without what the table asks for. One
/// service, not a handler in layers, each of which would cost a request a box and a clone of all
/// that lies within.
#[derive(Clone)]
pub(super) struct Guarded(Arc<Operation>);

struct Operation {
    gateway: Gateway,
    door: Arc<Door>,
    timed: Arc<Timed>,
    run: Run,
    unpacks: bool,
    /// Whether it is asked to do something and takes no body for that.
    mute: bool,
}

/// What the door needs to know of the operation behind it.
#[derive(Debug)]
struct Door {
    name: &'static str,
    need: Need,
    query: Vec<&'static str>,
}

/// Who passed the door, for those who take it out of the request.
#[derive(Clone)]
struct Passed {
    door: Arc<Door>,
    access: Option<Access>,
}

impl Guarded {
    pub(super) fn new(gateway: &Gateway, route: Route) -> Self {
        let mute = route.takes_nothing();
        let (name, need, query) = (route.doc.name, route.need, route.doc.query);
        Self(Arc::new(Operation {
            gateway: gateway.clone(),
            timed: Arc::new(Timed::new(&route.method, route.path)),
            door: Arc::new(Door { name, need, query }),
            run: route.run,
            unpacks: route.unpacks,
            mute,
        }))
    }

    /// Answers a request whose path names this tenant, if it names one.
    pub(super) fn answer(
        &self,
        request: Request,
        tenant: Option<&str>,
    ) -> impl Future<Output = Response> + Send {
        self.0.admit(request, tenant)
    }

    /// Where the time that an answer took is noted.
    pub(super) fn timed(&self) -> &Timed {
        &self.0.timed
    }
}

impl Service<Request> for Guarded {
    type Response = Response;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request) -> Self::Future {
        let this = self.clone();
        Box::pin(async move {
            let (mut head, body) = request.into_parts();
            let mut response = match RawPathParams::from_request_parts(&mut head, &()).await {
                Ok(params) => {
                    let tenant = params.iter().find(|(name, _)| *name == "tenant");
                    let request = Request::from_parts(head, body);
                    this.answer(request, tenant.map(|(_, it)| it)).await
                }
                Err(refused) => refused.into_response(),
            };
            // For who knows only what the router answered.
            response.extensions_mut().insert(this.0.timed.clone());
            Ok(response)
        })
    }
}

impl Operation {
    async fn admit(&self, mut request: Request, slug: Option<&str>) -> Response {
        let (gateway, door) = (&self.gateway, &self.door);
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
                    Box::pin(tell_refusal(gateway, &key, author)).await;
                }
                return refusal;
            }
        };
        let author = admitted.as_ref().and_then(|it| door.author(&it.caller, &request));
        if brings_events && admitted.as_ref().is_some_and(|it| it.access.is_none()) {
            events_in::count_refused(request.headers(), "tenant_not_found");
        }
        let access = admitted.and_then(|it| it.access);
        let tenant = access.as_ref().filter(|_| tells_of_requests()).map(|it| it.slug.clone());
        let passed = Passed { door: door.clone(), access };
        request.extensions_mut().insert(passed);
        let request = match (self.unpacks, self.mute) {
            (true, _) => unpack::unpacked(request),
            (false, true) => Box::pin(body::need_none(request)).await,
            (false, false) => Ok(request),
        };
        let ran = match request {
            Ok(request) => (self.run)(request, gateway.clone()),
            Err(problem) => return problem.into_response(),
        };
        let mut response = match author {
            Some(author) => author.makes(ran).await,
            None => ran.await,
        };
        if let Some(tenant) = tenant {
            response.extensions_mut().insert(tenant);
        }
        response
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
        Author {
            by: caller.name().to_owned(),
            request_id: name.map(RequestId::as_str).unwrap_or_default().to_owned(),
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
        let passed = parts.extensions.get_mut::<Passed>();
        let access = passed.and_then(|it| it.access.take());
        access.ok_or_else(|| Problem::not_found("tenant_not_found"))
    }
}

/// The query; only what the table names may occur in it.
impl<S: Sync> FromRequestParts<S> for Query {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let passed = parts.extensions.get::<Passed>();
        Self::parse(&parts.uri, passed.map_or(&[], |it| &it.door.query))
    }
}
