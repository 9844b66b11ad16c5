//! What is left of a body when its request is refused before all was read: a client that is still
//! writing when the connection closes would not see why.

use std::{
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
};

use axum::{body::Body, extract::Request};
use bytes::Bytes;
use http::{StatusCode, header};
use http_body::{Body as HttpBody, Frame, SizeHint};

use crate::api::body;

/// What connections take in by themselves.
const SMALL_BYTES: u64 = 64 * 1024;

/// A hand on a request's body.
pub(super) struct Rest(Arc<Mutex<Body>>);

impl Rest {
    /// Keeps a hand on the body while an operation reads it; nothing for small ones, and for those
    /// that are only sent when they are asked for.
    pub(super) fn of(request: Request) -> (Request, Option<Self>) {
        let small = request.body().size_hint().upper().is_some_and(|it| it <= SMALL_BYTES);
        if small || request.headers().contains_key(header::EXPECT) {
            return (request, None);
        }
        let (head, body) = request.into_parts();
        let shared = Arc::new(Mutex::new(body));
        let request = Request::from_parts(head, Body::new(Shared(shared.clone())));
        (request, Some(Self(shared)))
    }

    /// Reads and drops what nobody has read.
    pub(super) async fn drain(self) {
        let rest = std::mem::take(&mut *lock(&self.0));
        body::drop_rest(rest).await;
    }
}

/// Whether a client with this answer is listened to first. Of what comes too slowly or is too large,
/// enough was read already.
pub(super) fn is_owed(status: StatusCode) -> bool {
    let done = [StatusCode::REQUEST_TIMEOUT, StatusCode::PAYLOAD_TOO_LARGE].contains(&status);
    (status.is_client_error() || status.is_server_error()) && !done
}

struct Shared(Arc<Mutex<Body>>);

impl HttpBody for Shared {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut *lock(&self.0)).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        lock(&self.0).is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        lock(&self.0).size_hint()
    }
}

fn lock(body: &Mutex<Body>) -> MutexGuard<'_, Body> {
    body.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use futures_util::{StreamExt, stream};
    use http_body_util::BodyExt;

    use super::*;

    #[tokio::test]
    async fn what_nobody_read_is_read_to_its_end() {
        let read = Arc::new(AtomicUsize::new(0));
        let counted = read.clone();
        let pieces = stream::iter(0..100).map(move |_| {
            counted.fetch_add(1, Ordering::Relaxed);
            Ok::<_, std::convert::Infallible>(Bytes::from_static(&[0; 4096]))
        });
        let (request, rest) = Rest::of(Request::new(Body::from_stream(pieces)));
        let mut body = request.into_body();
        assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap().len(), 4096);
        drop(body);
        assert_eq!(read.load(Ordering::Relaxed), 1);
        rest.unwrap().drain().await;
        assert_eq!(read.load(Ordering::Relaxed), 100);
    }

    #[test]
    fn small_bodies_and_those_that_wait_to_be_asked_for_are_left_alone() {
        assert!(Rest::of(Request::new(Body::from("{}"))).1.is_none());
        let big = || Body::from(vec![0; 100_000]);
        assert!(Rest::of(Request::new(big())).1.is_some());
        let asks = Request::builder().header("expect", "100-continue").body(big()).unwrap();
        assert!(Rest::of(asks).1.is_none());
    }
}
