//! Receivers for the demo: real HTTP servers that check every signature.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    time::Duration,
};

use axum::{Router, body::Bytes, extract::State, routing::post};
use hdrhistogram::Histogram;
use http::{HeaderMap, StatusCode};
use serde_json::Value;
use tokio::{net::TcpListener, task::JoinSet, time::Instant};

use crate::domain::{Secret, Signature, Timestamp};
use crate::world::{Clock, SystemClock};

/// When a receiver refuses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mood {
    /// Never.
    Healthy,
    /// Everything for this long from the first request on; then only what it cannot read.
    FailsAtFirst(Duration),
}

/// A receiver and what it got.
#[derive(Clone)]
pub(super) struct Receiver {
    pub(super) url: String,
    shared: Arc<Shared>,
}

struct Shared {
    mood: Mood,
    /// When the first request came.
    asked_at: OnceLock<Instant>,
    secret: Mutex<Option<Secret>>,
    tally: Mutex<Tally>,
}

/// What a receiver got.
pub(super) struct Tally {
    pub(super) requests: u64,
    pub(super) refused: u64,
    pub(super) unsigned: u64,
    pub(super) rewritten: u64,
    /// Ids of the events that were accepted.
    pub(super) accepted: BTreeSet<String>,
    /// Milliseconds from acceptance to arrival, of what arrived at the first attempt.
    pub(super) latency: Histogram<u64>,
    seen: BTreeMap<String, u32>,
}

impl Receiver {
    /// Starts one on a free port of loopback.
    pub(super) async fn start(mood: Mood, tasks: &mut JoinSet<()>) -> std::io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("http://{}/hooks", listener.local_addr()?);
        let latency = Histogram::new(3).expect("three digits are allowed");
        let tally = Tally {
            requests: 0,
            refused: 0,
            unsigned: 0,
            rewritten: 0,
            accepted: BTreeSet::new(),
            latency,
            seen: BTreeMap::new(),
        };
        let (secret, tally) = (Mutex::default(), Mutex::new(tally));
        let shared = Arc::new(Shared { mood, asked_at: OnceLock::new(), secret, tally });
        let router = Router::new().route("/hooks", post(receive)).with_state(shared.clone());
        tasks.spawn(async move {
            // It ends with the demo.
            let _ = axum::serve(listener, router).await;
        });
        Ok(Self { url, shared })
    }

    /// From now on signatures are checked against this secret.
    pub(super) fn trust(&self, secret: Secret) {
        *self.shared.secret.lock().unwrap_or_else(PoisonError::into_inner) = Some(secret);
    }

    pub(super) fn tally(&self) -> MutexGuard<'_, Tally> {
        self.shared.tally.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn receive(State(shared): State<Arc<Shared>>, headers: HeaderMap, body: Bytes) -> StatusCode {
    let now = SystemClock.now();
    let text = |name: &str| headers.get(name).and_then(|it| it.to_str().ok()).unwrap_or_default();
    let id = text("webhook-id").to_owned();
    let seconds: u64 = text("webhook-timestamp").parse().unwrap_or_default();
    let secret = shared.secret.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let signed = secret.is_some() && {
        let mut expected =
            Signature::default().headers(secret.as_ref(), (&id, seconds), &body).into_iter();
        expected.all(|(name, it)| text(&name) == it)
    };
    let event: Value = serde_json::from_slice(&body).unwrap_or_default();
    let mut tally = shared.tally.lock().unwrap_or_else(PoisonError::into_inner);
    tally.requests += 1;
    tally.unsigned += u64::from(!signed);
    let seen = tally.seen.entry(id.clone()).or_default();
    *seen += 1;
    let first = *seen == 1;
    let unreadable = event["data"]["card"]["number"].is_null();
    let refused = match shared.mood {
        Mood::Healthy => false,
        Mood::FailsAtFirst(span) => {
            shared.asked_at.get_or_init(Instant::now).elapsed() < span || unreadable
        }
    };
    if refused || !signed {
        tally.refused += 1;
        return StatusCode::SERVICE_UNAVAILABLE;
    }
    let masked = event["data"]["card"]["number"].as_str().is_some_and(|it| it.contains('*'));
    tally.rewritten += u64::from(masked);
    if first && let Some(accepted) = parse_millis(event["timestamp"].as_str().unwrap_or_default()) {
        tally.latency.saturating_record((now - accepted).as_millis() as u64);
    }
    tally.accepted.insert(id);
    StatusCode::OK
}

fn parse_millis(text: &str) -> Option<Timestamp> {
    let parsed: jiff::Timestamp = text.parse().ok()?;
    u64::try_from(parsed.as_millisecond()).ok().map(Timestamp)
}
