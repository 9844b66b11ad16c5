//! What happens, live, as server-sent events: accepted events and outcomes of attempts.

use std::{collections::VecDeque, convert::Infallible, pin::Pin, sync::Arc, time::Duration};

use axum::{body::Body, extract::State, response::Response};
use bytes::Bytes;
use futures_util::stream;
use http::{HeaderMap, HeaderValue, header};
use serde_json::{Value, json};
use tokio::{
    sync::broadcast::{Receiver, error::RecvError},
    time::{Instant, Sleep, sleep},
};

use crate::api::caller::{Access, Need};
use crate::api::events_out::parse_pattern;
use crate::api::gateway::Gateway;
use crate::api::page::{EXAMINED_MAX, Query};
use crate::api::problem::Result;
use crate::api::route::{Route, get};
use crate::api::wire;
use crate::domain::{Attempt, Event, Pattern, Scope, Seq, Verdict};
use crate::storage::Notice;
use crate::telemetry::{TAIL_CLIENTS, TAIL_DROPPED};

const PING_EVERY: Duration = Duration::from_secs(15);
/// Events that are caught up on after a reconnection.
const CAUGHT_UP_MAX: usize = 1000;
/// Characters of an id that is not known here which the reader is told.
const ID_CHARS_MAX: usize = 64;

pub(super) fn routes() -> Vec<Route> {
    vec![
        get(
            "/v1/tenants/{tenant}/events/tail",
            Need::Scope(Scope::Read),
            tail,
            ("tailEvents", "Accepted events and outcomes of attempts, live."),
        )
        .query(&["type"])
        .header("Last-Event-ID")
        .gives_as(200, "text/event-stream", "EventStream"),
    ]
}

struct Watching {
    gateway: Gateway,
    access: Access,
    wanted: Option<Pattern>,
    notices: Receiver<Notice>,
    /// Events from before the connection, and notices that wait to be sent.
    waiting: VecDeque<String>,
    shown_to: Seq,
    beat: Beat,
    _counted: Counted,
}

/// When the reader is told that the stream lives: so long after the last that it was given, and not
/// after what happened elsewhere.
struct Beat(Pin<Box<Sleep>>);

impl Beat {
    fn new() -> Self {
        Self(Box::pin(sleep(PING_EVERY)))
    }

    /// Something was given.
    fn begin_again(&mut self) {
        self.0.as_mut().reset(Instant::now() + PING_EVERY);
    }

    /// What comes first: something to look at, or `None`: the time to say so. However much there
    /// is to look at, the time comes.
    async fn or<T>(&mut self, other: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            biased;
            () = &mut self.0 => None,
            it = other => Some(it),
        }
    }
}

/// Counts a client while it is there.
struct Counted;

impl Counted {
    fn new() -> Self {
        TAIL_CLIENTS.shift(1.0, &[]);
        Self
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        TAIL_CLIENTS.shift(-1.0, &[]);
    }
}

async fn tail(
    State(gateway): State<Gateway>,
    access: Access,
    headers: HeaderMap,
    query: Query,
) -> Result {
    let wanted = query.get("type").map(parse_pattern).transpose()?;
    let mut watching = Watching {
        notices: access.shard.watch(),
        shown_to: access.shard.last_seq(),
        waiting: VecDeque::from([": watching\nretry: 2000\n\n".to_owned()]),
        beat: Beat::new(),
        _counted: Counted::new(),
        gateway,
        access,
        wanted,
    };
    if let Some(last) = headers.get("last-event-id").filter(|it| !it.is_empty()) {
        let last = String::from_utf8_lossy(last.as_bytes());
        watching.resume(&last)?;
    }
    let frames = stream::unfold(watching, |mut watching| async move {
        let frame = watching.next().await?;
        Some((Ok::<_, Infallible>(Bytes::from(frame)), watching))
    });
    let mut response = Response::new(Body::from_stream(frames));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache, no-transform"));
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    Ok(response)
}

impl Watching {
    /// Goes on behind the last event that the reader saw, and tells what it did not see: outcomes
    /// of that time are looked up, not sent again.
    fn resume(&mut self, last: &str) -> Result<()> {
        let known = last.parse().ok().map(Seq).filter(|it| *it <= self.shown_to);
        let Some(known) = known else {
            // Of another store, or none of ours: nobody knows how much it missed.
            let last: String = last.chars().take(ID_CHARS_MAX).collect();
            self.missed(&json!({ "unknown_event_id": last }));
            return Ok(());
        };
        self.missed(&json!({ "attempts": true }));
        self.catch_up(known)
    }

    fn missed(&mut self, what: &Value) {
        self.waiting.push_back(frame("missed", None, what));
    }

    /// Shows what was accepted since the reader's last event, as far as that is reasonable.
    fn catch_up(&mut self, last: Seq) -> Result<()> {
        let (shard, tenant) = (self.access.shard.clone(), self.access.no);
        let before = shard.events_before(tenant, self.shown_to.next());
        let mut missed = Vec::new();
        for (examined, event) in before.enumerate() {
            let event = event?;
            if event.seq <= last {
                break;
            }
            if missed.len() == CAUGHT_UP_MAX || examined == EXAMINED_MAX {
                self.missed(&json!({ "more_than": missed.len() }));
                break;
            }
            if self.wants(&event) {
                missed.push(event);
            }
        }
        let shown = missed.into_iter().rev().filter_map(|it| self.show_event(&it));
        let shown: Vec<_> = shown.collect();
        self.waiting.extend(shown);
        Ok(())
    }

    async fn next(&mut self) -> Option<String> {
        loop {
            if let Some(frame) = self.waiting.pop_front() {
                self.beat.begin_again();
                // A key that is revoked by now opens nothing more.
                return self.gateway.still_admits(&self.access).is_ok().then_some(frame);
            }
            let notice = tokio::select! {
                biased;
                // A stopping gateway ends its streams; the reader comes back to the next one.
                () = self.gateway.stopping() => return None,
                notice = self.beat.or(self.notices.recv()) => notice,
            };
            let Some(notice) = notice else {
                self.waiting.push_back(": still here\n\n".to_owned());
                continue;
            };
            let shown = match notice {
                Ok(Notice::Accepted(event)) if event.seq > self.shown_to => self.show_event(&event),
                Ok(Notice::Accepted(_)) => None,
                Ok(Notice::Attempted { tenant, attempt }) if tenant == self.access.no => {
                    self.show_attempt(&attempt)
                }
                Ok(Notice::Attempted { .. }) => None,
                Err(RecvError::Lagged(count)) => {
                    TAIL_DROPPED.count(count, &[]);
                    Some(frame("missed", None, &json!({ "notices": count })))
                }
                Err(RecvError::Closed) => return None,
            };
            self.waiting.extend(shown);
        }
    }

    fn show_event(&self, event: &Arc<Event>) -> Option<String> {
        let wanted = event.tenant_no == self.access.no && self.wants(event);
        wanted.then(|| frame("event", Some(event.seq), &wire::event(event, true)))
    }

    fn show_attempt(&self, attempt: &Attempt) -> Option<String> {
        let shard = &self.access.shard;
        let event = shard.event(attempt.delivery.seq).ok().flatten()?;
        if !self.wants(&event) {
            return None;
        }
        let mut rendered = wire::attempt(shard, attempt, &event);
        rendered["event_type"] = event.event_type.as_str().into();
        rendered["status"] = match &attempt.verdict {
            Verdict::Delivered => "delivered",
            Verdict::Filtered(_) => "filtered",
            Verdict::RetryAt(_) => "retrying",
            Verdict::Dead(_) => "dead",
        }
        .into();
        if let Verdict::RetryAt(due) = &attempt.verdict {
            rendered["next_attempt_at"] = due.to_string().into();
        }
        let members = rendered.as_object_mut().expect("it is an object");
        members.remove("response_body");
        members.remove("response_headers");
        Some(frame("attempt", None, &rendered))
    }

    fn wants(&self, event: &Event) -> bool {
        self.wanted.as_ref().is_none_or(|it| it.matches(&event.event_type))
    }
}

/// One event of the stream. Only accepted events carry an id: a reader that comes back goes on
/// behind the last it saw, and outcomes can be looked up.
fn frame(name: &str, id: Option<Seq>, data: &Value) -> String {
    let id = id.map(|it| format!("id: {}\n", it.0)).unwrap_or_default();
    format!("event: {name}\n{id}data: {data}\n\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_nobody_is_shown_does_not_put_the_beat_off() {
        let (mut beat, started) = (Beat::new(), Instant::now());
        while beat.or(sleep(Duration::from_secs(1))).await.is_some() {
            assert!(started.elapsed() < 2 * PING_EVERY, "there is no beat");
        }
        assert_eq!(started.elapsed(), PING_EVERY);
        beat.begin_again();
        assert!(beat.or(sleep(Duration::from_secs(14))).await.is_some());
        assert!(beat.or(std::future::pending::<()>()).await.is_none());
        assert_eq!(started.elapsed(), 2 * PING_EVERY);
    }
}
