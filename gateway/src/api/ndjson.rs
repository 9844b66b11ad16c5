//! Events as a stream: a line in, a line out, each as it becomes durable. The lines that have come
//! in while a batch was written make the next batch, so the stream is as fast as the store; and
//! nothing is read while answers are not taken, so the reader's pace is the writer's.

use std::{pin::pin, time::Duration};

use axum::{body::Body, response::Response};
use bytes::{Buf, Bytes, BytesMut};
use futures_util::{FutureExt, stream};
use http::{HeaderValue, StatusCode, header};
use http_body_util::BodyExt;
use serde_json::json;
use tokio::time::Instant;

use crate::api::backlog::Brought;
use crate::api::caller::Access;
use crate::api::events_in::{Facts, count_new, name_within};
use crate::api::gateway::{Gateway, STOPPING};
use crate::api::incoming_trace::Taking;
use crate::api::problem::{FieldError, Problem};
use crate::api::router::RequestId;
use crate::api::{event_body, examine, unpack};
use crate::domain::{Budget, TraceContext};
use crate::storage::{Appended, NewEvent};
use crate::telemetry::EVENTS_REJECTED;

/// How long a line waits at most for its tenant's rate; then it is refused, with when to send it.
const PACE_PATIENCE: Duration = Duration::from_secs(5);
/// What the metrics call it.
const PROTOCOL: &str = "ndjson";
/// Lines in one batch, and bytes that are read for it beyond its first line. What is packed can
/// unpack to thousands of times its size.
const LINES_MAX: usize = 1024;
const BATCH_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Bytes after which others get their turn.
const TURN_BYTES: usize = 1024 * 1024;
/// Bytes without an event, blank lines and what is left of one that is too long, that are read.
const IDLE_BYTES_MAX: usize = 64 * 1024 * 1024;

/// What the head of the request says of all its lines.
pub(super) struct Said {
    /// Its name.
    pub(super) request: RequestId,
    /// What the whole stream belongs to.
    pub(super) trace: Option<TraceContext>,
    /// How many deliveries led to it.
    pub(super) hops: u32,
    /// The request's name: a line that comes again under it, at the same place, is stored once.
    pub(super) idempotency_key: Option<String>,
}

struct Incoming {
    gateway: Gateway,
    access: Access,
    said: Said,
    body: Body,
    buffer: BytesMut,
    /// Up to here the buffer has no line's end.
    searched: usize,
    line: u64,
    /// Lines that were read, and that the tenant's plugins have not come to: their pace is the
    /// stream's.
    waiting: Vec<Line>,
    brought: Brought,
    /// In the middle of a line that is too long: it is skipped.
    skipping: bool,
    ended: bool,
    /// Why the body did not come to its end; told behind the last line.
    broken: Option<Problem>,
}

/// A line that was read: an event or why it is none.
pub(super) type Line = (u64, Result<NewEvent, Problem>);

pub(super) fn accept(gateway: Gateway, access: Access, said: Said, body: Body) -> Response {
    let incoming = Incoming {
        gateway,
        access,
        said,
        body,
        buffer: BytesMut::new(),
        searched: 0,
        line: 0,
        waiting: Vec::new(),
        brought: Brought::default(),
        skipping: false,
        ended: false,
        broken: None,
    };
    let answers = stream::unfold(incoming, |mut incoming| async move {
        let answer = incoming.next().await?;
        Some((Ok::<_, std::convert::Infallible>(answer), incoming))
    });
    let mut response = Response::new(Body::from_stream(answers));
    *response.status_mut() = StatusCode::OK;
    let ndjson = HeaderValue::from_static("application/x-ndjson");
    response.headers_mut().insert(header::CONTENT_TYPE, ndjson);
    response
}

impl Incoming {
    /// The answers to the next batch of lines; `None` when there are no more.
    async fn next(&mut self) -> Option<Bytes> {
        if !self.waiting.is_empty() {
            let waiting = std::mem::take(&mut self.waiting);
            return Some(self.store(waiting).await);
        }
        let (mut lines, mut idle, mut turn) = (Vec::new(), 0, 0);
        let gateway = self.gateway.clone();
        let (mut held, mut stopping) = (gateway.limits.bodies.hold(), pin!(gateway.stopping()));
        while lines.is_empty() {
            if !self.take_lines(&mut lines) && lines.is_empty() {
                if self.ended {
                    let problem = self.broken.take()?;
                    return Some(format!("{}\n", rejected(self.line + 1, &problem)).into());
                }
                let bytes = tokio::select! {
                    biased;
                    bytes = self.read() => bytes,
                    // Nobody knows when more would come, and it would be refused.
                    () = &mut stopping => {
                        self.give_up(Problem::unavailable("unavailable", STOPPING));
                        continue;
                    }
                };
                (idle, turn) = (idle + bytes, turn + bytes);
                if idle > IDLE_BYTES_MAX {
                    let detail =
                        format!("{IDLE_BYTES_MAX} bytes came without an event; no more are read");
                    self.give_up(Problem::too_large(detail));
                }
                if let Err(problem) = held.grow_to(self.buffer.len()).await {
                    self.give_up(problem);
                }
                // What is packed may be there for long without a wait.
                if turn > TURN_BYTES {
                    turn = 0;
                    tokio::task::yield_now().await;
                }
            }
        }
        // What has arrived meanwhile goes along; nothing is waited for.
        let mut bytes = 0;
        let before = self.buffer.len() + lines.iter().map(size_of_line).sum::<usize>();
        let mut room = |bytes: usize| bytes < BATCH_BYTES_MAX && held.try_grow_to(before + bytes);
        while lines.len() < LINES_MAX && room(bytes) && !self.ended {
            let Some(read) = self.read().now_or_never() else { break };
            bytes += read;
            self.take_lines(&mut lines);
        }
        Some(self.store(lines).await)
    }

    /// Ends a stream of which no more is read.
    fn give_up(&mut self, why: Problem) {
        (self.ended, self.broken) = (true, Some(why));
        self.buffer.clear();
        (self.searched, self.skipping) = (0, false);
    }

    /// Reads on; how many bytes came.
    async fn read(&mut self) -> usize {
        let before = self.buffer.len();
        match self.body.frame().await {
            Some(Ok(frame)) => {
                if let Ok(data) = frame.into_data() {
                    self.buffer.extend_from_slice(&data);
                }
                return self.buffer.len() - before;
            }
            // A broken body ends the stream; what was answered is stored. What came of a line
            // that has no end is none.
            Some(Err(error)) => {
                self.ended = true;
                self.broken = Some(unpack::broken(&error));
                self.buffer.truncate(memchr::memrchr(b'\n', &self.buffer).map_or(0, |it| it + 1));
                self.searched = 0;
            }
            None => self.ended = true,
        }
        0
    }

    /// Passes over lines without anything on them, however many there are.
    fn skip_blank_lines(&mut self) {
        let blank = self.buffer.iter().take_while(|it| it.is_ascii_whitespace()).count();
        if let Some(last) = memchr::memrchr(b'\n', &self.buffer[..blank]) {
            let count = memchr::memchr_iter(b'\n', &self.buffer[..=last]).count();
            self.line += count as u64;
            self.buffer.advance(last + 1);
        }
    }

    /// Takes whole lines out of the buffer; whether there were any.
    fn take_lines(&mut self, lines: &mut Vec<Line>) -> bool {
        let before = lines.len();
        while lines.len() < LINES_MAX {
            if self.searched == 0 && !self.skipping {
                self.skip_blank_lines();
            }
            let end = memchr::memchr(b'\n', &self.buffer[self.searched..]);
            match end {
                Some(end) => {
                    let line = self.buffer.split_to(self.searched + end);
                    self.buffer.advance(1);
                    self.searched = 0;
                    self.take_line(line.freeze(), lines);
                }
                None if self.ended && !self.buffer.is_empty() => {
                    let line = self.buffer.split();
                    self.searched = 0;
                    self.take_line(line.freeze(), lines);
                }
                None => {
                    self.searched = self.buffer.len();
                    self.skip_what_is_too_long(lines);
                    break;
                }
            }
        }
        lines.len() > before
    }

    fn take_line(&mut self, line: Bytes, lines: &mut Vec<Line>) {
        if std::mem::take(&mut self.skipping) {
            return;
        }
        self.line += 1;
        if line.iter().all(u8::is_ascii_whitespace) {
            return;
        }
        let event = event_body::read(&line, &line, "", self.gateway.limits.data_bytes_max);
        let key = self.said.idempotency_key.as_ref();
        let key = key.map(|it| name_within(it, self.line as usize - 1));
        let event = event.map(|mut it| {
            (it.hops, it.idempotency_key) = (self.said.hops, key);
            it
        });
        lines.push((self.line, event));
    }

    fn skip_what_is_too_long(&mut self, lines: &mut Vec<Line>) {
        let max = self.gateway.limits.data_bytes_max + event_body::SURPLUS_BYTES_MAX;
        if self.buffer.len() <= max {
            return;
        }
        self.buffer.clear();
        self.searched = 0;
        if !std::mem::replace(&mut self.skipping, true) {
            self.line += 1;
            let problem = Problem::too_large(format!("the line is over {max} bytes"));
            lines.push((self.line, Err(problem)));
        }
    }

    async fn store(&mut self, lines: Vec<Line>) -> Bytes {
        let (mut events, mut places) =
            (Vec::with_capacity(lines.len()), Vec::with_capacity(lines.len()));
        let (lines, later) = self.brought.fit(&self.gateway, &self.access, lines).await;
        let (examined, waiting) = ingested(&self.gateway, &self.access, lines).await;
        self.waiting = waiting.into_iter().chain(later).collect();
        for (line, event) in examined {
            match judged(&self.access, event).await {
                Ok((event, warnings)) => {
                    events.push(event);
                    places.push((line, Ok(warnings)));
                }
                Err(problem) => places.push((line, Err(problem))),
            }
        }
        let refused = wait_for_pace(&self.gateway, &self.access, events.len()).await;
        // However long the stream is, it is open to no key that is revoked by now.
        let left = self.gateway.still_admits(&self.access).err();
        if let Some(problem) = left.as_ref().or(refused.as_ref()) {
            events.clear();
            for (_, fate) in places.iter_mut().filter(|(_, it)| left.is_some() || it.is_ok()) {
                *fate = Err(problem.clone());
            }
        }
        let ready = self.gateway.ready();
        let taking = Taking::begin(self.said.trace, &mut events);
        let facts: Vec<_> = events.iter().map(Facts::of).collect();
        let appended = match ready {
            Ok(()) => self.access.shard.append(&self.access.slug, events, false).await,
            Err(_) => Err(crate::storage::Error::Unavailable("it is stopping".to_owned())),
        };
        taking.end(&self.access, appended.as_deref().unwrap_or_default());
        self.brought.note(appended.as_deref().unwrap_or_default());
        for (appended, facts) in appended.iter().flatten().zip(&facts) {
            count_new(&self.access, (PROTOCOL, &self.said.request), appended, facts);
        }
        let mut appended = appended.map(Vec::into_iter);
        let mut answers = Vec::with_capacity(64 * places.len());
        for (line, fate) in places {
            let answer = match (fate, &mut appended) {
                (Err(problem), _) => rejected(line, &problem),
                (Ok(warnings), Ok(appended)) => match appended.next() {
                    Some(it) => answered(line, &it, &warnings),
                    None => rejected(line, &unavailable()),
                },
                (Ok(_), Err(_)) => rejected(line, &unavailable()),
            };
            answers.extend_from_slice(answer.to_string().as_bytes());
            answers.push(b'\n');
        }
        // After a failure nothing more can be taken: the producer goes on from the last answer.
        if appended.is_err() || left.is_some() {
            self.ended = true;
            self.buffer.clear();
            self.waiting.clear();
            self.searched = 0;
        }
        answers.into()
    }
}

fn size_of_line((_, event): &Line) -> usize {
    event.as_ref().map_or(0, |it| it.data.len())
}

/// An event that its type's schema lets pass, and what that warns of. Each line is a request of its
/// own, and others get their turn between them.
async fn judged(
    access: &Access,
    event: Result<NewEvent, Problem>,
) -> Result<(NewEvent, Vec<FieldError>), Problem> {
    let (event, mut budget) = (event?, Budget::of_request());
    let opinion = access.opinion(&event, "", &mut budget).await;
    if budget.is_dented() {
        tokio::task::yield_now().await;
    }
    match opinion.errors.is_empty() {
        true => Ok((event, opinion.warnings)),
        false => Err(Problem::fields("schema_violation", opinion.errors)),
    }
}

/// What the tenant's ingest chain leaves of the lines, and those that it has not come to.
async fn ingested(gateway: &Gateway, access: &Access, lines: Vec<Line>) -> (Vec<Line>, Vec<Line>) {
    let (mut numbers, mut events) = (Vec::new(), Vec::new());
    let mut through = Vec::with_capacity(lines.len());
    for (number, event) in lines {
        match event {
            Ok(event) => {
                numbers.push(number);
                events.push(event);
            }
            Err(problem) => through.push((number, Err(problem))),
        }
    }
    let (events, waiting) = examine::some(gateway, access, events).await;
    let (first, numbers) = (numbers.len() - waiting.len(), numbers);
    through.extend(numbers[..first].iter().copied().zip(events));
    through.sort_by_key(|(number, _)| *number);
    let waiting = waiting.into_iter().map(Ok);
    (through, numbers[first..].iter().copied().zip(waiting).collect())
}

/// Waits until the tenant may bring so many events: the stream slows down to its rate. What
/// waiting would not help is refused, and so is what a producer, or a proxy before it, would take
/// for a dead connection.
async fn wait_for_pace(gateway: &Gateway, access: &Access, count: usize) -> Option<Problem> {
    let patience = Instant::now() + PACE_PATIENCE;
    loop {
        let problem = gateway.meter(access, count).err()?;
        match problem.wait().map(|it| Instant::now() + it) {
            Some(again) if again <= patience => tokio::time::sleep_until(again).await,
            _ => return Some(problem),
        }
    }
}

fn answered(line: u64, appended: &Appended, warnings: &[FieldError]) -> serde_json::Value {
    let (id, status) = match appended {
        Appended::New { id, .. } => (id, "accepted"),
        Appended::Duplicate { id, .. } => (id, "duplicate"),
        Appended::Conflict | Appended::NotStored => {
            let problem = Problem::conflict("id_conflict", "another event has this id");
            return rejected(line, &problem);
        }
    };
    let mut answer = json!({ "line": line, "id": id.as_str(), "status": status });
    if !warnings.is_empty() {
        answer["warnings"] = json!(warnings);
    }
    answer
}

fn rejected(line: u64, problem: &Problem) -> serde_json::Value {
    EVENTS_REJECTED.count(1, &[PROTOCOL, problem.code()]);
    json!({ "line": line, "status": "rejected", "error": problem })
}

fn unavailable() -> Problem {
    Problem::unavailable("storage_unavailable", "not stored; send it again")
}
