//! What a plugin logged: as pages, or as a stream that goes on.

use std::{collections::VecDeque, convert::Infallible, sync::Arc, time::Duration};

use axum::{
    body::Body,
    extract::{Path, State},
    response::Response,
};
use bytes::Bytes;
use futures_util::stream;
use http::{HeaderMap, HeaderValue, header};
use tokio::sync::watch;

use crate::api::caller::Access;
use crate::api::gateway::Gateway;
use crate::api::page::{Query, cursor, page};
use crate::api::problem::{Problem, Result};
use crate::api::{plugin_follow, plugin_wire};
use crate::domain::{PluginName, Timestamp};
use crate::plugins::{LEVELS, Wanted};

const PING_EVERY: Duration = Duration::from_secs(15);
/// Lines sent at once to a reader that is behind.
const AT_ONCE_MAX: usize = 500;

pub(super) async fn read(
    State(gateway): State<Gateway>,
    access: Access,
    Path((_, name)): Path<(String, String)>,
    headers: HeaderMap,
    query: Query,
) -> Result {
    let plugin = access.plugin(&name)?;
    let list = format!("{} {}", access.list("plugin-logs"), plugin.name);
    let (limit, before) = (query.limit()?, query.cursor(&list)?.map(|[it]| it));
    let wanted = Wanted { before, ..read_wanted(&query)? };
    let (tenant, diary) = (access.slug.shared(), gateway.plugins.diary());
    if plugin_follow::flag(&query, "follow", false)? {
        let last_id = headers.get("last-event-id").and_then(|it| it.to_str().ok()?.parse().ok());
        let from = last_id.unwrap_or_else(|| {
            // The newest lines first of all, then what comes.
            let lines = diary.lines(&tenant, &plugin.name, &wanted, limit);
            lines.last().map_or(*diary.watch(&tenant, &plugin.name).borrow(), |it| it.number - 1)
        });
        return Ok(follow(gateway.clone(), access, plugin.name, &wanted, from));
    }
    let lines = diary.lines(&tenant, &plugin.name, &wanted, limit);
    let next = lines.last().filter(|_| lines.len() == limit);
    let next = next.map(|it| cursor(&list, &[it.number]));
    Ok(page(&lines.iter().map(plugin_wire::logged).collect::<Vec<_>>(), next))
}

/// Which lines a query asks for.
fn read_wanted(query: &Query) -> Result<Wanted<'_>> {
    let invalid = |detail: &str| Problem::bad_request("invalid_parameter", detail);
    let version = query.get("version").map(|it| it.parse().ok());
    let version = version.map(|it| it.ok_or_else(|| invalid("`version` must be a number")));
    let level = query.get("level");
    if level.is_some_and(|it| !LEVELS.contains(&it)) {
        return Err(invalid(&format!("`level` must be one of {}", LEVELS.join(", "))));
    }
    let (version, since) = (version.transpose()?, query.time("since")?);
    Ok(Wanted { version, level, since, ..Wanted::default() })
}

struct Following {
    gateway: Gateway,
    access: Access,
    tenant: Arc<str>,
    plugin: PluginName,
    version: Option<u32>,
    level: Option<&'static str>,
    since: Option<Timestamp>,
    /// The number of the last line that was looked at.
    shown_to: u64,
    last: watch::Receiver<u64>,
    waiting: VecDeque<String>,
}

/// A stream of server-sent events, one for each line; its id lets a reader come back.
fn follow(
    gateway: Gateway,
    access: Access,
    plugin: PluginName,
    wanted: &Wanted<'_>,
    from: u64,
) -> Response {
    let tenant = access.slug.shared();
    let following = Following {
        last: gateway.plugins.diary().watch(&tenant, &plugin),
        tenant,
        plugin,
        version: wanted.version,
        level: wanted.level.and_then(|it| LEVELS.into_iter().find(|level| *level == it)),
        since: wanted.since,
        shown_to: from,
        waiting: VecDeque::from([": watching\nretry: 2000\n\n".to_owned()]),
        gateway,
        access,
    };
    let frames = stream::unfold(following, |mut following| async move {
        let frame = following.next().await?;
        Some((Ok::<_, Infallible>(Bytes::from(frame)), following))
    });
    let mut response = Response::new(Body::from_stream(frames));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache, no-transform"));
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    response
}

impl Following {
    async fn next(&mut self) -> Option<String> {
        loop {
            if let Some(frame) = self.waiting.pop_front() {
                // A key that is revoked by now opens nothing more.
                return self.gateway.still_admits(&self.access).is_ok().then_some(frame);
            }
            self.look();
            if !self.waiting.is_empty() {
                continue;
            }
            tokio::select! {
                biased;
                // A stopping gateway ends its streams; the reader comes back to the next one.
                () = self.gateway.stopping() => return None,
                // The plugin was deleted, and its log with it.
                changed = self.last.changed() => changed.ok()?,
                () = tokio::time::sleep(PING_EVERY) => {
                    self.waiting.push_back(": still here\n\n".to_owned());
                }
            }
        }
    }

    /// Takes the lines that came since it last looked.
    fn look(&mut self) {
        let last = *self.last.borrow_and_update();
        let wanted = Wanted {
            version: self.version,
            level: self.level,
            since: self.since,
            before: Some(last + 1),
            after: Some(self.shown_to),
        };
        let lines =
            self.gateway.plugins.diary().lines(&self.tenant, &self.plugin, &wanted, AT_ONCE_MAX);
        for line in lines.iter().rev() {
            let data = plugin_wire::logged(line);
            self.waiting.push_back(format!("event: log\nid: {}\ndata: {data}\n\n", line.number));
        }
        self.shown_to = last;
    }
}
