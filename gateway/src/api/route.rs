//! The API as a table: each row is one operation with its path, what a caller needs for it, its
//! handler, and what the OpenAPI document says of it. The router, the admission of callers and
//! the document are all made from these rows, so none can tell another story than the others.

use std::sync::Arc;

use axum::{extract::Request, handler::Handler, response::Response};
use futures_util::future::BoxFuture;
use http::Method;

use crate::api::caller::Need;
use crate::api::gateway::Gateway;

/// An operation's handler, whatever it takes out of a request.
pub(super) type Run = Arc<dyn Fn(Request, Gateway) -> BoxFuture<'static, Response> + Send + Sync>;

/// One operation of the API.
pub(super) struct Route {
    pub(super) method: Method,
    pub(super) path: &'static str,
    pub(super) need: Need,
    pub(super) doc: Doc,
    pub(super) run: Run,
    /// Whether its body may come compressed.
    pub(super) unpacks: bool,
}

/// What the document says of an operation, beyond method, path and need.
#[derive(Debug, Clone, Default)]
pub(super) struct Doc {
    /// The `operationId`, which is stable.
    pub(super) name: &'static str,
    /// One sentence.
    pub(super) summary: &'static str,
    /// Names of query parameters; only these may occur.
    pub(super) query: Vec<&'static str>,
    /// Names of request headers that matter.
    pub(super) headers: Vec<&'static str>,
    /// Media types of the body, each with the name of its schema.
    pub(super) bodies: Vec<(&'static str, &'static str)>,
    /// Whether the body may be left out.
    pub(super) body_optional: bool,
    /// What it answers when all is well.
    pub(super) answers: Vec<Answer>,
    /// Codes of problems beyond those that every operation has.
    pub(super) refusals: Vec<(u16, &'static str)>,
}

/// An answer that is no problem.
#[derive(Debug, Clone)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) body: AnswerBody,
    /// Whether it carries an `ETag`.
    pub(super) tagged: bool,
    /// Whether it carries a `Location`.
    pub(super) located: bool,
}

/// What an answer carries: media type and the name of its schema.
#[derive(Debug, Clone)]
pub(super) enum AnswerBody {
    Empty,
    Json(&'static str),
    /// A page of a list of this schema.
    Page(&'static str),
    Other(&'static str, &'static str),
}

/// A name for the document, and a sentence.
type Said = (&'static str, &'static str);

/// A function as a handler. Its future is in a box already, which needs none of its own.
pub(super) trait Runs<T>:
    Handler<T, Gateway, Future = BoxFuture<'static, Response>>
{
}

impl<H, T> Runs<T> for H where H: Handler<T, Gateway, Future = BoxFuture<'static, Response>> {}

pub(super) fn get<H, T>(path: &'static str, need: Need, handler: H, said: Said) -> Route
where
    H: Runs<T>,
    T: 'static,
{
    Route::new((Method::GET, path), need, running(handler), said)
}

pub(super) fn put<H, T>(path: &'static str, need: Need, handler: H, said: Said) -> Route
where
    H: Runs<T>,
    T: 'static,
{
    Route::new((Method::PUT, path), need, running(handler), said)
}

pub(super) fn post<H, T>(path: &'static str, need: Need, handler: H, said: Said) -> Route
where
    H: Runs<T>,
    T: 'static,
{
    Route::new((Method::POST, path), need, running(handler), said)
}

pub(super) fn patch<H, T>(path: &'static str, need: Need, handler: H, said: Said) -> Route
where
    H: Runs<T>,
    T: 'static,
{
    Route::new((Method::PATCH, path), need, running(handler), said)
}

pub(super) fn delete<H, T>(path: &'static str, need: Need, handler: H, said: Said) -> Route
where
    H: Runs<T>,
    T: 'static,
{
    Route::new((Method::DELETE, path), need, running(handler), said)
}

fn running<H, T>(handler: H) -> Run
where
    H: Runs<T>,
    T: 'static,
{
    Arc::new(move |request, gateway| handler.clone().call(request, gateway))
}

impl Route {
    fn new(
        (method, path): (Method, &'static str),
        need: Need,
        run: Run,
        (name, summary): Said,
    ) -> Self {
        let doc = Doc { name, summary, ..Doc::default() };
        Self { method, path, need, doc, run, unpacks: false }
    }

    /// Query parameters, described in `schemas/parameters.json`.
    pub(super) fn query(mut self, names: &[&'static str]) -> Self {
        self.doc.query.extend(names);
        self
    }

    /// Request headers, described in `schemas/parameters.json`.
    pub(super) fn header(mut self, name: &'static str) -> Self {
        self.doc.headers.push(name);
        self
    }

    /// A JSON body of this schema.
    pub(super) fn takes(self, schema: &'static str) -> Self {
        self.takes_as("application/json", schema)
    }

    /// A JSON body that may be left out.
    pub(super) fn may_take(mut self, schema: &'static str) -> Self {
        self.doc.body_optional = true;
        self.takes(schema)
    }

    /// A body of another media type.
    pub(super) fn takes_as(mut self, media_type: &'static str, schema: &'static str) -> Self {
        self.doc.bodies.push((media_type, schema));
        self
    }

    fn answer(mut self, status: u16, body: AnswerBody) -> Self {
        self.doc.answers.push(Answer { status, body, tagged: false, located: false });
        self
    }

    /// Answers JSON of this schema.
    pub(super) fn gives(self, status: u16, schema: &'static str) -> Self {
        self.answer(status, AnswerBody::Json(schema))
    }

    /// Answers a page of a list.
    pub(super) fn gives_page(self, schema: &'static str) -> Self {
        self.query(&["limit", "cursor"]).answer(200, AnswerBody::Page(schema))
    }

    /// Answers without a body.
    pub(super) fn gives_nothing(self) -> Self {
        self.answer(204, AnswerBody::Empty)
    }

    /// Answers in another media type.
    pub(super) fn gives_as(
        self,
        status: u16,
        media_type: &'static str,
        schema: &'static str,
    ) -> Self {
        self.answer(status, AnswerBody::Other(media_type, schema))
    }

    /// Its answers carry an `ETag`; what reads honours `If-None-Match`, what changes something
    /// `If-Match`, and what may make something both.
    pub(super) fn tagged(mut self) -> Self {
        self.doc.answers.iter_mut().for_each(|it| it.tagged = true);
        match self.method {
            Method::GET => self.header("If-None-Match").answer(304, AnswerBody::Empty),
            Method::POST => self,
            Method::PUT => {
                self.header("If-Match").header("If-None-Match").refuses(412, "precondition_failed")
            }
            _ => self.header("If-Match").refuses(412, "precondition_failed"),
        }
    }

    /// What it makes is at the `Location` that it answers.
    pub(super) fn located(mut self) -> Self {
        self.doc.answers.iter_mut().for_each(|it| it.located = true);
        self
    }

    /// Whether it is a POST without a body.
    pub(super) fn takes_nothing(&self) -> bool {
        self.method == Method::POST && self.doc.bodies.is_empty()
    }

    /// Its body may come compressed; limits count what it unpacks to.
    pub(super) fn compressible(mut self) -> Self {
        self.unpacks = true;
        self.refuses(400, "body_broken").refuses(415, "unsupported_encoding")
    }

    /// Refuses with this status and code, beside what all operations refuse.
    pub(super) fn refuses(mut self, status: u16, code: &'static str) -> Self {
        self.doc.refusals.push((status, code));
        self
    }
}
