use std::{
    convert::Infallible,
    future::ready,
    sync::Arc,
    task::{Context, Poll},
};

use axum::{
    extract::{FromRequestParts, RawPathParams, Request},
    response::{IntoResponse, Response},
};
use futures_util::{FutureExt, future::BoxFuture};
use http::{Method, StatusCode, request::Parts};
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
use crate::domain::{ApiKey, RateLimit, Scope, Slug};
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

/// Who is let in: to which tenant, in whose name, and the tenant that the log is told of.
struct Entered {
    access: Option<Access>,
    author: Option<Author>,
    tenant: Option<Slug>,
}

/// Who is not let in, and what is written down of it.
struct Refused {
    answer: Response,
    tell: Option<(Arc<ApiKey>, Author)>,
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

    /// Answers a request of this name with events, past the extractors: each would cost it a box.
    pub(super) fn take_events(&self, request: Request, name: RequestId) -> BoxFuture<'_, Response> {
        self.0.take_events(request, name)
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
                    this.0.answer(request, tenant.map(|(_, it)| it)).await
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
    /// Answers a request whose path names this tenant, if it names one.
    async fn answer(&self, mut request: Request, slug: Option<&str>) -> Response {
        let Entered { access, author, tenant } = match self.admit(&request, None, slug) {
            Ok(entered) => entered,
            Err(refused) => return self.refuse(*refused).await,
        };
        request.extensions_mut().insert(Passed { door: self.door.clone(), access });
        let request = match (self.unpacks, self.mute) {
            (true, _) => unpack::unpacked(request),
            (false, true) => Box::pin(body::need_none(request)).await,
            (false, false) => Ok(request),
        };
        let ran = match request {
            Ok(request) => (self.run)(request, self.gateway.clone()),
            Err(problem) => return problem.into_response(),
        };
        let response = match author {
            Some(author) => author.makes(ran).await,
            None => ran.await,
        };
        told_of(response, tenant)
    }

    fn take_events(&self, request: Request, name: RequestId) -> BoxFuture<'_, Response> {
        let slug = events_in::tenant_in(request.uri().path());
        let Entered { access, tenant, .. } = match self.admit(&request, Some(&name), slug) {
            Ok(entered) => entered,
            Err(refused) => return Box::pin(self.refuse(*refused)),
        };
        let known = access.ok_or_else(|| Problem::not_found("tenant_not_found"));
        match known.and_then(|access| Ok((access, unpack::unpacked(request)?))) {
            Ok((access, request)) => {
                let accepted = events_in::take_in(self.gateway.clone(), name, access, request);
                Box::pin(accepted.map(|it| told_of(it.into_response(), tenant)))
            }
            Err(problem) => Box::pin(ready(told_of(problem.into_response(), tenant))),
        }
    }

    /// Whether a request may come in. Its name is what its extensions tell where it is not given.
    fn admit(
        &self,
        request: &Request,
        name: Option<&RequestId>,
        slug: Option<&str>,
    ) -> Result<Entered, Box<Refused>> {
        let (gateway, door) = (&self.gateway, &self.door);
        let name = || name.or_else(|| request.extensions().get()).map(RequestId::as_str);
        let brings_events = door.need == Need::Scope(Scope::Produce);
        let admitted = gateway.admit(door.need, request.headers(), slug).map_err(|problem| {
            if brings_events {
                events_in::count_refused(request.headers(), problem.code());
            }
            let answer = problem.into_response();
            let mut tell = None;
            if answer.status() == StatusCode::FORBIDDEN
                && let Ok(Caller::Key(key)) = gateway.caller(request.headers())
            {
                let author = door.author_of(&Caller::Key(key.clone()), name());
                tell = Some((key, author));
            }
            Refused { answer, tell }
        })?;
        let author = admitted.as_ref().filter(|_| door.changes_things(request.method()));
        let author = author.map(|it| door.author_of(&it.caller, name()));
        if brings_events && admitted.as_ref().is_some_and(|it| it.access.is_none()) {
            events_in::count_refused(request.headers(), "tenant_not_found");
        }
        let access = admitted.and_then(|it| it.access);
        let tenant = access.as_ref().filter(|_| tells_of_requests()).map(|it| it.slug.clone());
        Ok(Entered { access, author, tenant })
    }

    async fn refuse(&self, Refused { answer, tell }: Refused) -> Response {
        if let Some((key, author)) = tell {
            Box::pin(tell_refusal(&self.gateway, &key, author)).await;
        }
        answer
    }
}

/// Tells the log of whom an answer is about.
fn told_of(mut response: Response, tenant: Option<Slug>) -> Response {
    if let Some(tenant) = tenant {
        response.extensions_mut().insert(tenant);
    }
    response
}

impl Door {
    /// Whether the operation changes what the audit log tells of. Taking events in does not.
    fn changes_things(&self, method: &Method) -> bool {
        !method.is_safe() && self.need != Need::Scope(Scope::Produce)
    }

    /// In whose name it does what the request of this name asks for.
    fn author_of(&self, caller: &Caller, name: Option<&str>) -> Author {
        Author {
            by: caller.name().to_owned(),
            request_id: name.unwrap_or_default().to_owned(),
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
