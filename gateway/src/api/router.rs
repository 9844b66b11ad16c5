use std::{
    future::ready,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use axum::{
    Router,
    extract::Request,
    response::{IntoResponse, Response},
    routing::{MethodFilter, on_service},
};
use futures_util::{FutureExt, future::BoxFuture};
use http::{HeaderName, HeaderValue, Method, StatusCode, Version, header};
use tokio::time::Instant;
use tower::Service;

use crate::api::admission::Guarded;
use crate::api::gateway::Gateway;
use crate::api::problem::Problem;
use crate::api::rest::{self, Rest};
use crate::api::route::Route;
use crate::api::timed::Timed;
use crate::api::{
    audit, backup, canary, dead_letters, deliveries, endpoints, etag, event_types, events_in,
    events_out, explain, ingest, keys, ops, plugins, portal, replays, short, stats, system, tail,
    tenants,
};
use crate::domain::{Slug, TypeId};
use crate::world::{Clock, Entropy};

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const REQUEST_ID_CHARS_MAX: usize = 128;
const TARGET_BYTES_MAX: usize = 8 * 1024 + 1;
const HEADER_BYTES_MAX: usize = 32 * 1024 + 1;

/// The name of a request: the caller's own, or a new one.
#[derive(Debug, Clone)]
pub(super) struct RequestId(HeaderValue);

impl RequestId {
    pub(super) fn as_str(&self) -> &str {
        self.0.to_str().unwrap_or_default()
    }
}

/// What names of requests are drawn with.
type World = (Arc<dyn Clock>, Arc<dyn Entropy>);

/// The whole API, a row for each operation.
pub(super) fn table() -> Vec<Route> {
    let rooms = [
        tenants::routes(),
        audit::routes(),
        keys::routes(),
        portal::routes(),
        endpoints::routes(),
        event_types::routes(),
        events_in::routes(),
        events_out::routes(),
        tail::routes(),
        deliveries::routes(),
        dead_letters::routes(),
        replays::routes(),
        explain::routes(),
        stats::routes(),
        plugins::routes(),
        canary::routes(),
        ingest::routes(),
        short::routes(),
        system::routes(),
        backup::routes(),
        ops::routes(),
    ];
    rooms.into_iter().flatten().collect()
}

/// The API: all routes, each behind its door, and what every answer goes through, be it of an
/// operation or of none. What surrounds the routes is no layer of theirs: each layer costs every
/// request a box and a clone of all that lies within.
#[derive(Clone)]
pub struct Api {
    routes: Router,
    /// What nearly all requests are for, past the router: each would pay for its boxes, and for
    /// copies of what it finds in the path.
    events_in: Option<Guarded>,
    world: World,
}

impl Api {
    /// The API of a gateway.
    pub fn of(gateway: &Gateway) -> Self {
        let (mut routes, mut events_in) = (Router::new(), None);
        for route in table() {
            let method = MethodFilter::try_from(route.method.clone()).expect("it is a usual one");
            let (path, is_events_in) = (route.path, events_in::is_route(&route));
            let guarded = Guarded::new(gateway, route);
            if is_events_in {
                events_in = Some(guarded.clone());
            }
            routes = routes.route(path, on_service(method, guarded));
        }
        let around = Self::around(routes, (gateway.clock.clone(), gateway.entropy.clone()));
        Self { events_in, ..around }
    }

    fn around(routes: Router, world: World) -> Self {
        let routes = routes.fallback(async || Problem::not_found("route_not_found"));
        Self { routes, events_in: None, world }
    }
}

/// What an answer needs to know of its request.
struct Asked<'a> {
    name: HeaderValue,
    started: Instant,
    method: Method,
    /// What of it the caller has already.
    had: Option<String>,
    direct: Option<&'a Guarded>,
}

impl Asked<'_> {
    /// The answer as it goes out; the metrics and the log are told of it.
    fn gets(self, mut response: Response) -> Response {
        etag::spare(self.had.as_deref(), &mut response);
        let routed = response.extensions_mut().remove::<Arc<Timed>>();
        let timed = self.direct.map(Guarded::timed).or(routed.as_deref());
        // What no operation answered has no route.
        let timed = match timed {
            Some(timed) => timed,
            None => &Timed::new(&self.method, "other"),
        };
        let took = self.started.elapsed();
        timed.note(response.status(), took);
        let tenant = response.extensions_mut().remove::<Slug>();
        tracing::debug!(
            request_id = self.name.to_str().unwrap_or_default(),
            tenant = tenant.as_ref().map(Slug::as_str),
            method = %self.method,
            route = timed.route(),
            status = response.status().as_u16(),
            duration_us = took.as_micros() as u64,
            "a request was answered"
        );
        response.headers_mut().insert(REQUEST_ID, self.name);
        response
    }
}

/// What a request carries whose head told both the length of its body and how its end shows; of
/// its headers one is left by then.
#[derive(Debug, Clone, Copy)]
pub struct FramedTwice;

/// Refuses a head that two readers could understand in two ways, which is how a request is smuggled
/// past a proxy (RFC 9112, 3.2 and 6.1), or that is larger than any client of ours needs.
fn refused_head(request: &Request) -> Option<Problem> {
    let ambiguous = |detail| Some(Problem::bad_request("ambiguous_request", detail));
    let headers = request.headers();
    let hosts = headers.get_all(header::HOST).iter().count();
    // HTTP/1.0 knows of none.
    if hosts > 1 || (hosts == 0 && request.version() == Version::HTTP_11) {
        return ambiguous("a request has one `Host`");
    }
    let mut codings = headers.get_all(header::TRANSFER_ENCODING).iter();
    let is_strange = codings.next().is_some_and(|it| !is_chunked(it.as_bytes()));
    let is_twice = request.extensions().get::<FramedTwice>().is_some();
    if is_strange || is_twice || codings.next().is_some() {
        return ambiguous("a body comes with `Content-Length`, or `Transfer-Encoding: chunked`");
    }
    let headers = headers.iter().map(|(name, it)| name.as_str().len() + it.len()).sum();
    let target = request.uri().path_and_query().map_or(0, |it| it.as_str().len());
    let (status, code, detail) = match (target, headers) {
        (TARGET_BYTES_MAX.., _) => {
            (StatusCode::URI_TOO_LONG, "uri_too_long", "a path with its query has at most 8 KiB")
        }
        (_, HEADER_BYTES_MAX..) => (
            StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            "headers_too_large",
            "all headers together have at most 32 KiB",
        ),
        _ => return None,
    };
    Some(Problem::new(status, code, detail))
}

fn is_chunked(coding: &[u8]) -> bool {
    coding.trim_ascii().eq_ignore_ascii_case(b"chunked")
}

/// What the framework refuses by itself gets the form of all other problems.
fn as_problem(response: Response) -> Response {
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

/// The last answer on its connection.
fn last(problem: Problem) -> Response {
    let mut response = problem.into_response();
    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    response
}

fn panicked() -> Response {
    tracing::error!("a request's handler panicked");
    let detail = "this is a fault of the gateway; its log tells more";
    Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", detail).into_response()
}

/// Whether the log wants to be told of requests: asked here, since who tells of them is asked for by
/// the name of its module.
pub(super) fn tells_of_requests() -> bool {
    tracing::enabled!(tracing::Level::DEBUG)
}

impl Api {
    /// Answers in the form that all answers have, and under the request's name: the caller's own,
    /// or a new one.
    ///
    /// Not `async` as a whole: what that is keeps the request in its future, and is copied with it
    /// on its way to the connection.
    pub fn answer(&self, request: Request) -> impl Future<Output = Response> + Send {
        let refused = refused_head(&request);
        let direct = self.direct(&request).filter(|_| refused.is_none());
        let asked = Asked {
            name: self.name(&request),
            started: Instant::now(),
            method: request.method().clone(),
            had: etag::had(&request),
            direct,
        };
        let (running, rest) = match refused {
            Some(problem) => (ready(last(problem)).boxed(), None),
            None => {
                let (request, rest) = Rest::of(request);
                (self.run((request, RequestId(asked.name.clone())), direct), rest)
            }
        };
        async move {
            let response = AssertUnwindSafe(running).catch_unwind().await;
            let response = as_problem(response.unwrap_or_else(|_| panicked()));
            // Who is refused while still writing is heard to the end first.
            if let Some(rest) = rest.filter(|_| rest::is_owed(response.status())) {
                Box::pin(rest.drain()).await;
            }
            asked.gets(response)
        }
    }

    fn name(&self, request: &Request) -> HeaderValue {
        let fits = |it: &&HeaderValue| (1..=REQUEST_ID_CHARS_MAX).contains(&it.len());
        let given = request.headers().get(REQUEST_ID).filter(fits);
        given.cloned().unwrap_or_else(|| {
            let (clock, entropy) = &self.world;
            let name = TypeId::new("req", clock.now(), entropy.draw().into());
            name.with_text(HeaderValue::from_str).expect("it is plain")
        })
    }

    /// Runs the operation. A panic in it is its own request's end and nobody else's.
    fn run<'a>(
        &'a self,
        (mut request, name): (Request, RequestId),
        direct: Option<&'a Guarded>,
    ) -> BoxFuture<'a, Response> {
        let begun = catch_unwind(AssertUnwindSafe(|| match direct {
            Some(guarded) => guarded.take_events(request, name),
            None => {
                request.extensions_mut().insert(name);
                let answered = self.routes.clone().call(request);
                answered.map(|it| it.unwrap_or_else(|never| match never {})).boxed()
            }
        }));
        begun.unwrap_or_else(|_| ready(panicked()).boxed())
    }

    /// The operation that this request reaches past the router.
    fn direct(&self, request: &Request) -> Option<&Guarded> {
        let is_for_it = request.method() == Method::POST
            && events_in::tenant_in(request.uri().path()).is_some();
        self.events_in.as_ref().filter(|_| is_for_it)
    }
}

#[cfg(test)]
mod tests {
    use axum::{body::Body, routing::get};
    use http_body_util::BodyExt;

    use super::*;
    use crate::domain::Timestamp;
    use crate::world::{SeededEntropy, SimClock};

    #[tokio::test(start_paused = true)]
    async fn a_handler_that_panics_is_a_problem_and_the_next_request_is_served() {
        let clock = Arc::new(SimClock::starting_at(Timestamp(1_800_000_000_000)));
        let world: World = (clock, Arc::new(SeededEntropy::new(1)));
        let router = Router::new()
            .route("/panics", get(async || -> &'static str { panic!("of its own accord") }))
            .route("/well", get(async || "well"));
        let api = Api::around(router, world);
        let ask = async |path: &str| {
            let request = Request::builder().uri(path).header(REQUEST_ID, "mine");
            let request = request.header(header::HOST, "x").body(Body::empty()).unwrap();
            let response = api.answer(request).await;
            assert_eq!(response.headers()[REQUEST_ID], "mine");
            let status = response.status();
            (status, response.into_body().collect().await.unwrap().to_bytes())
        };
        let (status, body) = ask("/panics").await;
        let problem: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert_eq!((status.as_u16(), &problem["code"]), (500, &"internal".into()));
        assert!(!problem.to_string().contains("accord"), "what it said is for the log");
        assert_eq!(ask("/well").await, (StatusCode::OK, "well".into()));
    }
}
