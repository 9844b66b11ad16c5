//! An endpoint's JSON, both ways.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use serde_json::{Map, Value, json};

use crate::api::event_body::ID_FORM;
use crate::api::fields::Fields;
use crate::api::problem::{FieldError, Problem, Result};
use crate::api::trust_body::{
    read_headers, read_secret, read_signature, read_tls, render_signature, render_tls,
};
use crate::api::wire::{duration, parse_duration};
use crate::domain::{
    ClientTls, Endpoint, EndpointId, Filter, Format, OnError, Ordering, Pattern, Plugin,
    PluginName, PluginUse, RateLimit, Retry, RetryPolicy, Scheme, Secret, Signature, TracePolicy,
};
use crate::world::Transport;

const TIMEOUT_MAX: Duration = Duration::from_secs(60);
const DELAY_MAX: Duration = Duration::from_secs(7 * 24 * 3600);
const ATTEMPTS_MAX: u32 = 50;
const IN_FLIGHT_MAX: u32 = 1024;
const PLUGINS_MAX: usize = 8;
const DESCRIPTION_CHARS_MAX: usize = 4096;
/// Patterns of event types: each is looked up for every event of the tenant's.
const PATTERNS_MAX: usize = 1000;
/// Names and values together: each list of endpoints carries them all.
const METADATA_BYTES_MAX: usize = 16 * 1024;

/// What a tenant may say of an endpoint.
#[derive(Debug, Clone)]
pub(super) struct Wish {
    pub(super) id: Option<EndpointId>,
    pub(super) url: String,
    description: String,
    metadata: BTreeMap<String, String>,
    event_types: Vec<Pattern>,
    filter: Option<Filter>,
    pub(super) plugins: Vec<PluginUse>,
    format: Format,
    headers: BTreeMap<String, String>,
    pub(super) signature: Signature,
    pub(super) secret: Option<Secret>,
    tls: Option<ClientTls>,
    retry: Retry,
    timeout: Duration,
    ordering: Ordering,
    max_in_flight: u32,
    rate_limit: Option<RateLimit>,
    trace: TracePolicy,
    enabled: bool,
}

/// What a body is checked against.
pub(super) struct Surroundings<'a> {
    pub(super) transport: &'a dyn Transport,
    pub(super) plugin: &'a dyn Fn(&PluginName) -> Option<Plugin>,
}

impl Wish {
    /// Reads a whole body; all that is wrong is told at once.
    pub(super) fn read(mut fields: Fields, around: &Surroundings<'_>) -> Result<Self> {
        // What only the gateway writes may come back as it was read.
        for name in ["created_at", "updated_at", "disabled_reason", "held_reason"] {
            fields.take(name);
        }
        let mut code = "invalid_field";
        let url = fields.string("url");
        let url = fields.need("url", url).map(|url| match around.transport.check_url(&url) {
            Ok(url) => url.to_string(),
            Err((refusal, detail)) => {
                code = refusal;
                fields.refuse("url", detail);
                String::new()
            }
        });
        let id = fields.parsed("id", ID_FORM, EndpointId::choose);
        let event_types = read_patterns(&mut fields);
        let filter = fields.read("filter", |it| {
            Filter::compile(it.as_str().ok_or("must be a CEL expression in a string")?)
        });
        let plugins = fields.array("plugins").unwrap_or_default();
        let signature = read_signature(&mut fields, &mut code);
        let plugins = read_plugins(&mut fields, plugins, around);
        if signature.scheme == Scheme::Plugin && !plugins.iter().any(|it| signs(it, around)) {
            fields.refuse("signature", "no plugin of the endpoint has the `sign` hook");
        }
        let wish = Self {
            id,
            url: url.unwrap_or_default(),
            description: fields.text("description", DESCRIPTION_CHARS_MAX).unwrap_or_default(),
            metadata: read_metadata(&mut fields),
            event_types,
            filter,
            plugins,
            format: one_of(&mut fields, "format", &Format::NAMES),
            headers: read_headers(&mut fields, &mut code),
            secret: read_secret(&mut fields, "secret", signature.scheme, &mut code),
            signature,
            tls: read_tls(&mut fields, around.transport),
            retry: read_retry(&mut fields),
            timeout: span(&mut fields, "timeout", TIMEOUT_MAX).unwrap_or(Duration::from_secs(15)),
            ordering: one_of(&mut fields, "ordering", &Ordering::NAMES),
            max_in_flight: fields.whole("max_in_flight", 1, IN_FLIGHT_MAX).unwrap_or(64),
            rate_limit: read_rate(&mut fields),
            trace: one_of(&mut fields, "trace", &TracePolicy::NAMES),
            enabled: fields.boolean("enabled").unwrap_or(true),
        };
        fields.finish().map_err(|errors| Problem::fields(code, errors))?;
        Ok(wish)
    }

    /// Writes it over an endpoint.
    pub(super) fn write(self, endpoint: Endpoint) -> Endpoint {
        Endpoint {
            url: self.url,
            description: self.description,
            metadata: self.metadata,
            event_types: self.event_types,
            filter: self.filter,
            plugins: self.plugins,
            format: self.format,
            headers: self.headers,
            signature: self.signature,
            tls: self.tls.map(Arc::new),
            retry: self.retry,
            timeout: self.timeout,
            ordering: self.ordering,
            max_in_flight: self.max_in_flight,
            rate_limit: self.rate_limit,
            trace: self.trace,
            disabled_reason: endpoint.disabled_reason.filter(|_| !self.enabled),
            enabled: self.enabled,
            ..endpoint
        }
    }
}

/// An endpoint as tenants see it; its secret is asked for by itself.
pub(super) fn render(it: &Endpoint) -> Value {
    let plugins: Vec<_> = it.plugins.iter().map(render_plugin).collect();
    let rate = it.rate_limit.map(|it| json!({ "per_second": it.per_second, "burst": it.burst }));
    json!({
        "id": it.id.as_str(),
        "url": it.url,
        "description": it.description,
        "metadata": it.metadata,
        "event_types": it.event_types.iter().map(Pattern::as_str).collect::<Vec<_>>(),
        "filter": it.filter.as_ref().map(Filter::source),
        "plugins": plugins,
        "format": name_of(&Format::NAMES, it.format),
        "headers": it.headers,
        "signature": render_signature(&it.signature),
        "tls": it.tls.as_deref().map(render_tls),
        "retry": render_retry(&it.retry),
        "timeout": duration(it.timeout),
        "ordering": name_of(&Ordering::NAMES, it.ordering),
        "max_in_flight": it.max_in_flight,
        "rate_limit": rate,
        "trace": name_of(&TracePolicy::NAMES, it.trace),
        "enabled": it.enabled,
        "disabled_reason": it.disabled_reason,
        "held_reason": it.secret_unavailable.then_some("secret_unavailable"),
        "created_at": it.created_at.to_string(),
        "updated_at": it.updated_at.to_string(),
    })
}

/// Changes `target` by a merge patch
/// ([RFC 7396](https://www.rfc-editor.org/rfc/rfc7396#section-2)).
pub(super) fn merge(target: &mut Value, patch: Value) {
    let Value::Object(patch) = patch else {
        *target = patch;
        return;
    };
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    let members = target.as_object_mut().expect("it was made one");
    for (name, value) in patch {
        if value.is_null() {
            members.remove(&name);
        } else {
            merge(members.entry(name).or_insert(Value::Null), value);
        }
    }
}

fn read_metadata(fields: &mut Fields) -> BTreeMap<String, String> {
    let stays = fields.stays("metadata");
    let metadata = fields.strings("metadata").unwrap_or_default();
    let bytes: usize = metadata.iter().map(|(name, value)| name.len() + value.len()).sum();
    if bytes > METADATA_BYTES_MAX && !stays {
        fields.refuse("metadata", format!("has at most {METADATA_BYTES_MAX} bytes"));
    }
    metadata
}

fn read_patterns(fields: &mut Fields) -> Vec<Pattern> {
    let stays = fields.stays("event_types");
    let values = fields.array("event_types").unwrap_or_default();
    if values.len() > PATTERNS_MAX && !stays {
        fields.refuse("event_types", format!("at most {PATTERNS_MAX}; `*` and `**` take several"));
    }
    let mut patterns = Vec::new();
    for (place, value) in values.iter().enumerate() {
        match value.as_str().and_then(Pattern::parse) {
            Some(pattern) => patterns.push(pattern),
            None => fields.refuse_all(vec![FieldError {
                pointer: format!("/event_types/{place}"),
                detail: "must be segments of A-Za-z0-9_- with dots between; `*` takes one, a last \
                         `**` any number"
                    .to_owned(),
            }]),
        }
    }
    patterns
}

fn read_plugins(
    fields: &mut Fields,
    values: Vec<Value>,
    around: &Surroundings<'_>,
) -> Vec<PluginUse> {
    if values.len() > PLUGINS_MAX {
        fields.refuse("plugins", format!("at most {PLUGINS_MAX}"));
    }
    let mut plugins = Vec::new();
    for (place, value) in values.into_iter().enumerate() {
        match read_plugin(value, &format!("/plugins/{place}"), around) {
            Ok(plugin) => plugins.extend(plugin),
            Err(errors) => fields.refuse_all(errors),
        }
    }
    plugins
}

fn signs(it: &PluginUse, around: &Surroundings<'_>) -> bool {
    let plugin = (around.plugin)(&it.plugin);
    let version = plugin.as_ref().and_then(|plugin| plugin.version(it.version));
    version.is_some_and(|it| it.kind.split('+').any(|hook| hook == "sign"))
}

fn read_plugin(
    value: Value,
    base: &str,
    around: &Surroundings<'_>,
) -> Result<Option<PluginUse>, Vec<FieldError>> {
    let mut fields = Fields::of(value, base)?;
    let name = fields.parsed("plugin", "a plugin's name", PluginName::parse);
    let name = fields.need("plugin", name);
    let version = fields.whole("version", 1, u32::MAX);
    let config = fields.strings("config").unwrap_or_default();
    let on_error = one_of(&mut fields, "on_error", &OnError::NAMES);
    if let Some(name) = &name {
        match (around.plugin)(name) {
            None => {
                fields.refuse("plugin", format!("there is no plugin `{name}`; upload it first"))
            }
            Some(plugin) if plugin.version(version).is_none() => {
                fields.refuse("version", format!("`{name}` has no such version"));
            }
            Some(_) => {}
        }
    }
    fields.finish()?;
    Ok(name.map(|plugin| PluginUse { plugin, version, config, on_error }))
}

fn read_retry(fields: &mut Fields) -> Retry {
    let Some(value) = fields.take("retry") else { return Retry::default() };
    let mut inner = match Fields::of(value, "/retry") {
        Ok(inner) => inner,
        Err(errors) => {
            fields.refuse_all(errors);
            return Retry::default();
        }
    };
    let default = Retry::default();
    let jitter = inner.number("jitter", 0.0, 1.0).unwrap_or(default.jitter);
    // A member that is null is as if it were not there.
    let backoff = ["base", "factor", "max_delay", "max_attempts"];
    let policy = if inner.is_said("schedule") {
        let waits = inner.read("schedule", |it| {
            let waits = it.as_array().filter(|it| it.len() < ATTEMPTS_MAX as usize);
            let waits =
                waits.and_then(|it| it.iter().map(|it| parse_duration(it.as_str()?)).collect());
            let fits = |it: &Vec<Duration>| it.iter().all(|it| *it <= DELAY_MAX);
            waits
                .filter(fits)
                .ok_or("must be at most 49 durations such as \"5s\", up to 7d".to_owned())
        });
        RetryPolicy::Schedule(waits.unwrap_or_default())
    } else if !backoff.iter().any(|it| inner.is_said(it)) {
        for name in backoff.iter().chain(&["schedule"]) {
            inner.take(name);
        }
        default.policy
    } else {
        inner.take("schedule");
        let second = Duration::from_secs(1);
        RetryPolicy::Backoff {
            base: span(&mut inner, "base", DELAY_MAX).unwrap_or(second),
            factor: inner.number("factor", 1.0, 100.0).unwrap_or(2.0),
            max_delay: span(&mut inner, "max_delay", DELAY_MAX).unwrap_or(3600 * second),
            max_attempts: inner.whole("max_attempts", 1, ATTEMPTS_MAX).unwrap_or(8),
        }
    };
    if let Err(errors) = inner.finish() {
        fields.refuse_all(errors);
    }
    Retry { policy, jitter }
}

pub(super) fn read_rate(fields: &mut Fields) -> Option<RateLimit> {
    let mut inner = match Fields::of(fields.take("rate_limit")?, "/rate_limit") {
        Ok(inner) => inner,
        Err(errors) => {
            fields.refuse_all(errors);
            return None;
        }
    };
    let per_second = inner.number("per_second", 0.001, 1_000_000.0);
    let burst = inner.whole("burst", 1, 1_000_000);
    let per_second = inner.need("per_second", per_second);
    if let Err(errors) = inner.finish() {
        fields.refuse_all(errors);
    }
    let per_second = per_second?;
    Some(RateLimit { per_second, burst: burst.unwrap_or(per_second.max(1.0) as u32) })
}

fn span(fields: &mut Fields, name: &str, max: Duration) -> Option<Duration> {
    let form = format!("a duration such as \"15s\" or \"250ms\", up to {}", duration(max));
    let fits = |it: &Duration| !it.is_zero() && *it <= max;
    fields.parsed(name, &form, |it| parse_duration(it).filter(fits))
}

pub(super) fn one_of<T: Copy + Default>(fields: &mut Fields, name: &str, names: &[(T, &str)]) -> T {
    let words: Vec<_> = names.iter().map(|(_, word)| *word).collect();
    let form = format!("one of {}", words.join(", "));
    let find = |text: &str| names.iter().find(|(_, word)| *word == text).map(|(it, _)| *it);
    fields.parsed(name, &form, find).unwrap_or_default()
}

pub(super) fn name_of<T: PartialEq>(names: &[(T, &'static str)], value: T) -> &'static str {
    names.iter().find(|(it, _)| *it == value).expect("each has a name").1
}

fn render_plugin(it: &PluginUse) -> Value {
    json!({
        "plugin": it.plugin.as_str(),
        "version": it.version,
        "config": it.config,
        "on_error": name_of(&OnError::NAMES, it.on_error),
    })
}

fn render_retry(it: &Retry) -> Value {
    match &it.policy {
        RetryPolicy::Schedule(waits) => {
            let waits: Vec<_> = waits.iter().map(|it| duration(*it)).collect();
            json!({ "schedule": waits, "jitter": it.jitter })
        }
        RetryPolicy::Backoff { base, factor, max_delay, max_attempts } => json!({
            "base": duration(*base),
            "factor": factor,
            "max_delay": duration(*max_delay),
            "max_attempts": max_attempts,
            "jitter": it.jitter,
        }),
    }
}
