//! Running a version that is not active over stored events: what would differ, event by event.
//! Nothing is sent, nothing is stored, and it runs when no live call can.

use std::{collections::BTreeMap, collections::VecDeque, convert::Infallible, sync::Arc};

use axum::{
    body::Body,
    extract::{Path, State},
    response::Response,
};
use bytes::Bytes;
use futures_util::stream;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use serde_json::{Value, json};
use tokio::time::{Duration, Instant};

use crate::api::backtest_body::{Use, Wish};
use crate::api::caller::Access;
use crate::api::difference::difference;
use crate::api::gateway::Gateway;
use crate::api::invoke;
use crate::api::page::{cursor, json_response};
use crate::api::problem::Result;
use crate::api::{body, plugin_follow, plugin_wire};
use crate::domain::{Endpoint, Event, OnError, PluginName, PluginVersion, Seq};
use crate::plugins::{Artifact, Busy, Call, Called, Class, Durations, EventIn, Outgoing, Verdict};

/// How long one request may go on; then it ends with a cursor to go on from.
const TIME_MAX: Duration = Duration::from_secs(30);

/// One version with what it came to.
struct Side {
    version: PluginVersion,
    artifact: Arc<Artifact>,
    errors: u64,
    durations: Durations,
}

/// A back-test on its way through the events.
struct Backtest {
    gateway: Gateway,
    access: Access,
    against: Side,
    version: Side,
    plugin: PluginName,
    uses: Vec<Use>,
    /// Events to look at, the newest first.
    events: VecDeque<Seq>,
    /// Where the next request goes on, if there is more than this one looks at.
    next: Option<Seq>,
    until: Instant,
    rows: VecDeque<Value>,
    examined: u64,
    same: u64,
    different: u64,
    ended: bool,
}

pub(super) async fn run(
    State(gateway): State<Gateway>,
    access: Access,
    Path((_, name)): Path<(String, String)>,
    headers: HeaderMap,
    body: Body,
) -> Result {
    let plugin = access.plugin(&name)?;
    let fields = body::object(&headers, body, gateway.limits.body_bytes_max).await?;
    let wish = Wish::read(fields, &access)?;
    let mut sides = Vec::new();
    for version in [wish.against, Some(wish.version)] {
        let artifact = invoke::artifact(&gateway, &access, &plugin, version).await?;
        plugin_follow::need_delivering(&artifact)?;
        let version = plugin.version(version).expect("its artifact was found").clone();
        let (errors, durations) = Default::default();
        sides.push(Side { version, artifact, errors, durations });
    }
    let (version, against) = (sides.pop().expect("two"), sides.pop().expect("two"));
    let (events, next) = wish.events(&access)?;
    let test = Backtest {
        uses: wish.uses(&access, &plugin.name),
        plugin: plugin.name,
        gateway,
        access,
        against,
        version,
        events,
        next,
        until: Instant::now() + TIME_MAX,
        rows: VecDeque::new(),
        examined: 0,
        same: 0,
        different: 0,
        ended: false,
    };
    let accept = headers.get(header::ACCEPT).and_then(|it| it.to_str().ok());
    match accept.is_some_and(|it| it.contains("application/x-ndjson")) {
        true => Ok(test.stream()),
        false => test.whole().await,
    }
}

impl Backtest {
    /// A line for each event and endpoint as it becomes known, and the summary as the last.
    fn stream(self) -> Response {
        let lines = stream::unfold(self, |mut test| async move {
            let line = match test.next().await {
                Ok(Some(row)) => row,
                Ok(None) if test.ended => return None,
                Ok(None) => {
                    test.ended = true;
                    json!({ "summary": test.summary(), "next_cursor": test.cursor() })
                }
                Err(_) if test.ended => return None,
                Err(problem) => {
                    test.ended = true;
                    json!({ "error": problem })
                }
            };
            Some((Ok::<_, Infallible>(Bytes::from(format!("{line}\n"))), test))
        });
        let mut response = Response::new(Body::from_stream(lines));
        let ndjson = HeaderValue::from_static("application/x-ndjson");
        response.headers_mut().insert(header::CONTENT_TYPE, ndjson);
        response
    }

    /// Everything in one answer.
    async fn whole(mut self) -> Result {
        let mut data = Vec::new();
        while let Some(row) = self.next().await? {
            data.push(row);
        }
        let (summary, next_cursor) = (self.summary(), self.cursor());
        let answer = json!({ "data": data, "summary": summary, "next_cursor": next_cursor });
        Ok(json_response(StatusCode::OK, &answer))
    }

    /// The next line; `None` when all events were looked at or the time is up.
    async fn next(&mut self) -> Result<Option<Value>> {
        loop {
            if let Some(row) = self.rows.pop_front() {
                return Ok(Some(row));
            }
            let Some(seq) = self.events.pop_front() else { return Ok(None) };
            if Instant::now() >= self.until {
                self.next = Some(seq.next());
                self.events.clear();
                return Ok(None);
            }
            let Some(event) = self.access.shard.event(seq)? else { continue };
            self.examined += 1;
            for (endpoint, config) in self.uses.clone() {
                if endpoint.as_ref().is_none_or(|it| it.wants(&event)) {
                    for question in self.reaching(&event, endpoint.as_deref()).await? {
                        let of = (&*event, endpoint.as_deref());
                        let row = self.compare(of, &question, &config).await;
                        self.rows.push_back(row);
                    }
                }
            }
        }
    }

    async fn compare(
        &mut self,
        (event, endpoint): (&Event, Option<&Endpoint>),
        question: &EventIn,
        config: &BTreeMap<String, String>,
    ) -> Value {
        let against = self.call(&self.against.artifact, question, config).await;
        let version = self.call(&self.version.artifact, question, config).await;
        self.against.note(&against);
        self.version.note(&version);
        let data = serde_json::from_slice(&question.payload).unwrap_or(Value::Null);
        let view = |called: &Called| plugin_wire::verdict(called, &data);
        let changes = difference(&view(&against), &view(&version));
        match changes.is_empty() {
            true => self.same += 1,
            false => self.different += 1,
        }
        json!({
            "event_id": event.id.as_str(),
            "event_type": event.event_type.as_str(),
            "endpoint_id": endpoint.map(|it| it.id.as_str()),
            "same": changes.is_empty(),
            "against": self.against.render(&against),
            "version": self.version.render(&version),
            "changes": changes,
        })
    }

    /// The event as the plugins before this one at the endpoint leave it: several where one splits
    /// it, none where it does not come so far.
    async fn reaching(&self, event: &Event, endpoint: Option<&Endpoint>) -> Result<Vec<EventIn>> {
        let mut parts = vec![EventIn::new(event, event.data.clone())];
        let chain = endpoint.map(|it| it.plugins.as_slice()).unwrap_or_default();
        for link in chain.iter().take_while(|it| it.plugin != self.plugin) {
            let plugin = self.access.plugin(link.plugin.as_str())?;
            let artifact = invoke::artifact(&self.gateway, &self.access, &plugin, link.version);
            let artifact = artifact.await?;
            if !artifact.hooks().delivers() {
                continue;
            }
            let mut next = Vec::new();
            for part in parts {
                let verdict = self.call(&artifact, &part, &link.config).await.verdict;
                match verdict {
                    Ok(Verdict::Deliver) => next.push(part),
                    Err(_) if link.on_error == OnError::Pass => next.push(part),
                    Ok(Verdict::Replace(out)) => next.push(left(part, out)),
                    Ok(Verdict::Split(made)) => {
                        next.extend(made.into_iter().map(|it| left(part.clone(), it)));
                    }
                    Ok(Verdict::Drop(_)) | Err(_) => {}
                }
            }
            parts = next;
        }
        Ok(parts)
    }

    async fn call(
        &self,
        artifact: &Arc<Artifact>,
        question: &EventIn,
        config: &BTreeMap<String, String>,
    ) -> Called {
        let config: Vec<_> =
            config.iter().map(|(key, value)| (key.clone(), value.clone())).collect();
        loop {
            let (tenant, question) = (self.access.slug.shared(), question.clone());
            let (artifact, config) = (artifact.clone(), config.clone());
            let call = Call { tenant, artifact, config, question, limits: None, dry: true };
            match self.gateway.plugins.try_call(call, Class::Background).await {
                Ok(called) => return called,
                Err(Busy { retry_after }) => tokio::time::sleep(retry_after).await,
            }
        }
    }

    fn summary(&self) -> Value {
        json!({
            "events": self.examined,
            "same": self.same,
            "different": self.different,
            "against": self.against.summary(),
            "version": self.version.summary(),
        })
    }

    fn cursor(&self) -> Option<String> {
        self.next.map(|it| cursor(&self.access.list("backtest"), &[it.0]))
    }
}

fn left(before: EventIn, out: Outgoing) -> EventIn {
    EventIn { payload: out.payload, content_type: out.content_type, ..before }
}

impl Side {
    fn note(&mut self, called: &Called) {
        self.errors += u64::from(called.verdict.is_err());
        self.durations.note(called.duration);
    }

    fn render(&self, called: &Called) -> Value {
        let mut rendered = plugin_wire::outcome(called);
        rendered["version"] = self.version.version.into();
        rendered
    }

    fn summary(&self) -> Value {
        let micros = |it: Duration| u64::try_from(it.as_micros()).unwrap_or(u64::MAX);
        json!({
            "version": self.version.version,
            "sha256": crate::plugins::Digest(self.version.digest).to_string(),
            "errors": self.errors,
            "duration_us": {
                "p50": self.durations.at(0.5).map(micros),
                "p99": self.durations.at(0.99).map(micros),
            },
        })
    }
}
