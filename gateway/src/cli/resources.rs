//! Commands that show or change what the gateway keeps: a call of the API each.

use std::process::ExitCode;

use clap::{Args, Subcommand};
use reqwest::Method;
use serde_json::{Map, Value, json};

use crate::cli::client::{Client, Failure};
use crate::cli::sure::Sure;
use crate::cli::{archive, output, values};
use crate::domain::{DeadReason, Format};

type Outcome = Result<ExitCode, Failure>;

/// Which page of a list.
#[derive(Debug, Args)]
pub(super) struct Page {
    /// How many
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=250))]
    limit: u32,
    /// Where the page before ended
    #[arg(long)]
    cursor: Option<String>,
}

/// What of a list, by time and event type.
#[derive(Debug, Args)]
pub(super) struct Range {
    /// Not before this time: 2026-01-31T12:00:00Z, or 6h ago: 6h
    #[arg(long, value_name = "TIME", value_parser = values::past)]
    since: Option<String>,
    /// Before this time
    #[arg(long, value_name = "TIME", value_parser = values::past)]
    until: Option<String>,
    /// Only these event types: `order.*`
    #[arg(long = "type", value_name = "PATTERN")]
    event_type: Option<String>,
}

#[derive(Debug, Subcommand)]
pub(super) enum Events {
    /// The newest events
    List {
        #[command(flatten)]
        range: Range,
        #[command(flatten)]
        page: Page,
    },
    /// One event with its data
    Get {
        id: String,
    },
    /// What became of an event at each endpoint
    Deliveries {
        id: String,
    },
    Export(archive::Export),
    Import(archive::Import),
}

#[derive(Debug, Subcommand)]
pub(super) enum Endpoints {
    /// All endpoints
    List(Page),
    /// One endpoint
    Get { id: String },
    /// Register an endpoint
    Create(Create),
    /// Change an endpoint by a JSON merge patch
    Update {
        id: String,
        /// What changes, as JSON (RFC 7396): `{"enabled": false}`
        patch: String,
    },
    /// Delete an endpoint
    Delete {
        id: String,
        #[command(flatten)]
        sure: Sure,
    },
    /// Show its signing secret
    Secret { id: String },
    /// Make a new signing secret; the old one signs along for a while
    RotateSecret {
        id: String,
        /// How long the old one signs along
        #[arg(long, default_value = "24h")]
        grace: String,
    },
    /// Send a test event and show the answer; exit 1 if the endpoint did not take it
    Test { id: String },
    /// What came of its attempts lately, and how it does
    Stats {
        id: String,
        /// Over how long: 1m to 1h
        #[arg(long, default_value = "10m", value_name = "DURATION")]
        window: String,
    },
}

#[derive(Debug, Args)]
pub(super) struct Create {
    /// Where to POST
    url: String,
    /// Which event types: `order.*` (repeatable; all if left out)
    #[arg(long = "type", value_name = "PATTERN")]
    event_types: Vec<String>,
    /// A CEL expression: `data.amount > 1000`
    #[arg(long)]
    filter: Option<String>,
    /// Plugins in order: NAME[@VERSION][:key=value,…] (repeatable)
    #[arg(long = "plugin", value_name = "PLUGIN")]
    plugins: Vec<String>,
    /// What it is sent: with an envelope, or the data alone (raw) [default: envelope]
    #[arg(long, value_parser = Format::NAMES.map(|(_, name)| name))]
    format: Option<String>,
    /// Your own id
    #[arg(long)]
    id: Option<String>,
    /// For people
    #[arg(long)]
    description: Option<String>,
    /// Further fields, as JSON
    #[arg(long, value_name = "JSON")]
    with: Option<String>,
}

#[derive(Debug, Subcommand)]
pub(super) enum DeadLetters {
    /// The newest dead letters
    List {
        /// Only of this endpoint
        #[arg(long)]
        endpoint: Option<String>,
        /// Only those that died of this
        #[arg(long, value_parser = DeadReason::NAMES.map(|(_, name)| name))]
        reason: Option<String>,
        #[command(flatten)]
        range: Range,
        #[command(flatten)]
        page: Page,
    },
    /// Deliver them again
    Redrive {
        /// These
        ids: Vec<String>,
        /// Those of this endpoint
        #[arg(long)]
        endpoint: Option<String>,
        /// Those that died since
        #[arg(long, value_name = "TIME", value_parser = values::past)]
        since: Option<String>,
        /// Those that died before
        #[arg(long, value_name = "TIME", value_parser = values::past)]
        until: Option<String>,
    },
    /// Throw one away
    Delete {
        id: String,
        #[command(flatten)]
        sure: Sure,
    },
}

pub(super) async fn events(client: &Client, command: Events) -> Outcome {
    match command {
        Events::List { range, page } => {
            let columns = ["id", "type", "accepted_at"];
            list(client, "events", &page, &range.query([]), &columns).await
        }
        Events::Get { id } => show(client, &["events", &id]).await,
        Events::Export(it) => archive::export(client, it).await,
        Events::Import(it) => archive::import(client, it).await,
        Events::Deliveries { id } => {
            let path = client.path(&["events", &id, "deliveries"])?;
            let page = client.get(&format!("{path}?limit=250")).await?;
            output::list(client.json, &page, &DELIVERY_COLUMNS);
            Ok(ExitCode::SUCCESS)
        }
    }
}

pub(super) const DELIVERY_COLUMNS: [&str; 7] =
    ["id", "event_type", "endpoint_id", "status", "attempts", "last_status_code", "last_error"];

pub(super) async fn endpoints(client: &Client, command: Endpoints) -> Outcome {
    let at = |id: &str| client.path(&["endpoints", id]);
    let of = |id: &str, what: &[&str]| client.path(&[&["endpoints", id], what].concat());
    let answer = match command {
        Endpoints::List(page) => {
            let columns = ["id", "url", "event_types", "enabled"];
            return list(client, "endpoints", &page, &[], &columns).await;
        }
        Endpoints::Get { id } => client.get(&at(&id)?).await?,
        Endpoints::Create(create) => {
            client.post(&client.path(&["endpoints"])?, &create.into_body()?).await?
        }
        Endpoints::Update { id, patch } => {
            let patch = parse(&patch)?;
            client.json(client.request(Method::PATCH, &at(&id)?).json(&patch)).await?
        }
        Endpoints::Delete { id, sure } => {
            let path = at(&id)?;
            sure.of(client, "endpoint", &id)?;
            return delete(client, &path).await;
        }
        Endpoints::Secret { id } => client.get(&of(&id, &["secret"])?).await?,
        Endpoints::RotateSecret { id, grace } => {
            client.post(&of(&id, &["secret", "rotate"])?, &json!({ "grace": grace })).await?
        }
        Endpoints::Test { id } => {
            let attempt = client.post(&of(&id, &["test"])?, &json!({})).await?;
            output::one(client.json, &attempt);
            return tested(&attempt);
        }
        Endpoints::Stats { id, window } => {
            let query = query_of(&[("window", Some(window))]);
            client.get(&format!("{}?{query}", of(&id, &["stats"])?)).await?
        }
    };
    output::one(client.json, &answer);
    Ok(ExitCode::SUCCESS)
}

/// A test that was not taken is none that a script may go on behind.
fn tested(attempt: &Value) -> Outcome {
    if attempt["outcome"] == "delivered" {
        return Ok(ExitCode::SUCCESS);
    }
    let said = attempt["error"].as_str().or(attempt["outcome"].as_str());
    let said = said.unwrap_or("nobody says why");
    Err(Failure::other(format!("the endpoint did not take the test: {said}")))
}

impl Create {
    fn into_body(self) -> Result<Value, Failure> {
        let mut body = match self.with {
            Some(with) => parse(&with)?.as_object().cloned().unwrap_or_default(),
            None => Map::new(),
        };
        body.insert("url".to_owned(), self.url.into());
        let plugins: Result<Vec<_>, _> = self.plugins.iter().map(|it| plugin_use(it)).collect();
        let texts = [
            ("filter", self.filter),
            ("format", self.format),
            ("id", self.id),
            ("description", self.description),
        ];
        for (name, value) in texts {
            if let Some(value) = value {
                body.insert(name.to_owned(), value.into());
            }
        }
        if !self.event_types.is_empty() {
            body.insert("event_types".to_owned(), self.event_types.into());
        }
        if !self.plugins.is_empty() {
            body.insert("plugins".to_owned(), plugins?.into());
        }
        Ok(body.into())
    }
}

/// `redact@2:fields=card,keep=4`; a value may hold commas as long as no `=` follows.
pub(super) fn plugin_use(text: &str) -> Result<Value, Failure> {
    let (name, config) = text.split_once(':').unwrap_or((text, ""));
    let (name, version) = match name.split_once('@') {
        Some((name, version)) => {
            let number: u32 = version
                .parse()
                .map_err(|_| Failure::usage(format!("`{version}` is no version of {name}")))?;
            (name, Some(number))
        }
        None => (name, None),
    };
    let mut entries: Vec<(String, String)> = Vec::new();
    for part in config.split(',').filter(|it| !it.is_empty()) {
        match (part.split_once('='), entries.last_mut()) {
            (Some((key, value)), _) => entries.push((key.to_owned(), value.to_owned())),
            (None, Some((_, value))) => {
                value.push(',');
                value.push_str(part);
            }
            (None, None) => return Err(Failure::usage(format!("`{part}` is not key=value"))),
        }
    }
    let config: Map<String, Value> = entries.into_iter().map(|(k, v)| (k, v.into())).collect();
    Ok(json!({ "plugin": name, "version": version, "config": config }))
}

pub(super) async fn dead_letters(client: &Client, command: DeadLetters) -> Outcome {
    match command {
        DeadLetters::List { endpoint, reason, range, page } => {
            let columns = ["id", "event_type", "endpoint_id", "reason", "died_at", "last_error"];
            let query = range.query([("endpoint", endpoint), ("reason", reason)]);
            list(client, "dead-letters", &page, &query, &columns).await
        }
        DeadLetters::Redrive { ids, endpoint, since, until } => {
            let mut body = Map::new();
            if !ids.is_empty() {
                body.insert("ids".to_owned(), ids.into());
            }
            for (name, value) in [("endpoint", endpoint), ("since", since), ("until", until)] {
                if let Some(value) = value {
                    body.insert(name.to_owned(), value.into());
                }
            }
            if body.is_empty() {
                return Err(Failure::usage("which dead letters are to be delivered again?")
                    .with_help("give their ids, or --endpoint, --since or --until"));
            }
            let answer =
                client.post(&client.path(&["dead-letters", "redrive"])?, &body.into()).await?;
            output::one(client.json, &answer);
            Ok(ExitCode::SUCCESS)
        }
        DeadLetters::Delete { id, sure } => {
            let path = client.path(&["dead-letters", &id])?;
            sure.of(client, "dead letter", &id)?;
            delete(client, &path).await
        }
    }
}

type Narrowing = Vec<(&'static str, Option<String>)>;

impl Range {
    /// With what else narrows the list.
    pub(super) fn query<const N: usize>(
        self,
        more: [(&'static str, Option<String>); N],
    ) -> Narrowing {
        let own = [("since", self.since), ("until", self.until), ("type", self.event_type)];
        own.into_iter().chain(more).collect()
    }
}

impl Page {
    pub(super) fn query(&self, more: &[(&str, Option<String>)]) -> String {
        let own = [("limit", Some(self.limit.to_string())), ("cursor", self.cursor.clone())];
        query_of(&[&own, more].concat())
    }
}

fn query_of(pairs: &[(&str, Option<String>)]) -> String {
    let mut query = url::form_urlencoded::Serializer::new(String::new());
    query.extend_pairs(pairs.iter().filter_map(|(name, it)| Some((name, it.as_ref()?))));
    query.finish()
}

pub(super) async fn list(
    client: &Client,
    what: &str,
    page: &Page,
    query: &[(&str, Option<String>)],
    columns: &[&str],
) -> Outcome {
    let listed = client.get(&format!("{}?{}", client.path(&[what])?, page.query(query))).await?;
    output::list(client.json, &listed, columns);
    Ok(ExitCode::SUCCESS)
}

pub(super) async fn show(client: &Client, what: &[&str]) -> Outcome {
    output::one(client.json, &client.get(&client.path(what)?).await?);
    Ok(ExitCode::SUCCESS)
}

pub(super) async fn delete(client: &Client, path: &str) -> Outcome {
    // No content, or JSON: what answers otherwise is no gateway, and has deleted nothing.
    client.json(client.request(Method::DELETE, path)).await?;
    if !client.json {
        output::note("deleted");
    }
    Ok(ExitCode::SUCCESS)
}

pub(super) fn parse(text: &str) -> Result<Value, Failure> {
    serde_json::from_str(text).map_err(|it| Failure::usage(format!("this is no JSON: {it}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plugins_are_named_with_version_and_config() {
        for (text, expected) in [
            ("redact", json!({"plugin": "redact", "version": null, "config": {}})),
            (
                "redact@2:fields=card,cvc,keep=4",
                json!({"plugin": "redact", "version": 2, "config": {"fields": "card,cvc", "keep": "4"}}),
            ),
        ] {
            assert_eq!(plugin_use(text).unwrap(), expected);
        }
        assert!(plugin_use("redact@x").is_err() && plugin_use("redact:x").is_err());
    }
}
