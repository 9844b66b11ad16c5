use std::path::Path;

use wasmtime::{
    Engine, ResourceLimiter, Store, Trap,
    component::{Component, HasSelf, InstancePre, Linker},
};

use crate::plugins::artifact::Hooks;
use crate::plugins::call::{EventIn, Fault, FaultKind, LogLine, Outgoing, Verdict};
use crate::plugins::wit::{filter, host, transform, types};
use crate::plugins::{Config, Refusal};

const HOST: &str = "hookgate:plugin/host@1.0.0";
const TYPES: &str = "hookgate:plugin/types@1.0.0";
const FILTER: &str = "hookgate:plugin/filter@1.0.0";
const TRANSFORM: &str = "hookgate:plugin/transform@1.0.0";
/// Header names that belong to HTTP, to the connection or to the signature.
const HEADERS_DENIED: [&str; 10] = [
    "host",
    "content-length",
    "content-encoding",
    "transfer-encoding",
    "connection",
    "te",
    "trailer",
    "upgrade",
    "expect",
    "keep-alive",
];

/// A component, linked to what it may use and to nothing else.
pub(super) struct Sandboxed {
    instance: InstancePre<State>,
    filter: Option<filter::FilterPluginIndices>,
    transform: Option<transform::TransformPluginIndices>,
}

/// What a call leaves behind, and what it has left to use.
pub(super) struct State {
    limits: Limits,
    logs: Vec<LogLine>,
    log_lines_left: usize,
    log_bytes_left: usize,
}

struct Limits {
    memory_bytes_max: usize,
    table_elements_max: usize,
    hit: bool,
}

impl Sandboxed {
    /// Maps a compiled component that this process or an earlier one made.
    pub(super) fn load(engine: &Engine, path: &Path) -> Result<(Self, Hooks), Refusal> {
        let component = map(engine, path);
        let component =
            component.map_err(|it| Refusal::new("plugin_invalid", format!("{it:#}")))?;
        Self::link(engine, &component)
    }

    fn link(engine: &Engine, component: &Component) -> Result<(Self, Hooks), Refusal> {
        let shape = component.component_type();
        let allowed = |name: &str| name == HOST || name == TYPES || name.starts_with("wasi:");
        let denied: Vec<_> = shape.imports(engine).map(|(name, _)| name.to_owned()).collect();
        let denied: Vec<_> = denied.into_iter().filter(|it| !allowed(it)).collect();
        if !denied.is_empty() {
            let detail =
                format!("it imports what the sandbox does not give: {}", denied.join(", "));
            return Err(Refusal::new("plugin_import_denied", detail));
        }
        let exports: Vec<_> = shape.exports(engine).map(|(name, _)| name.to_owned()).collect();
        let has = |name: &str| exports.iter().any(|it| it == name);
        let hooks = Hooks { filter: has(FILTER), transform: has(TRANSFORM) };
        if !hooks.filter && !hooks.transform {
            let detail = format!("it exports neither {FILTER} nor {TRANSFORM}");
            return Err(Refusal::new("plugin_no_hook", detail));
        }
        let invalid = |it: wasmtime::Error| Refusal::new("plugin_invalid", format!("{it:#}"));
        let mut linker = Linker::new(engine);
        host::add_to_linker::<_, HasSelf<State>>(&mut linker, |it| it).map_err(invalid)?;
        // WASI is there by name, since std brings its imports along; using it traps.
        linker.define_unknown_imports_as_traps(component).map_err(invalid)?;
        let instance = linker.instantiate_pre(component).map_err(invalid)?;
        let filter = hooks.filter.then(|| filter::FilterPluginIndices::new(&instance));
        let transform = hooks.transform.then(|| transform::TransformPluginIndices::new(&instance));
        let filter = filter.transpose().map_err(invalid)?;
        let transform = transform.transpose().map_err(invalid)?;
        Ok((Self { instance, filter, transform }, hooks))
    }

    /// Runs one event through a fresh instance. The deadline is `ticks` of the engine's epoch.
    pub(super) fn run(
        &self,
        config: &[(String, String)],
        event: Option<&EventIn>,
        limits: &Config,
        ticks: u64,
    ) -> (Result<Verdict, Fault>, Vec<LogLine>) {
        let mut store = Store::new(self.instance.engine(), State::new(limits));
        store.limiter(|it| &mut it.limits);
        store.set_epoch_deadline(ticks);
        store.set_hostcall_fuel(limits.output_bytes_max + limits.output_bytes_max / 2);
        let outcome = self.ask(&mut store, config, event);
        let state = store.into_data();
        let verdict = match outcome {
            Ok(verdict) => verdict.and_then(|it| check(it, limits)),
            Err(error) => Err(fault(&error, state.limits.hit)),
        };
        (verdict, state.logs)
    }

    fn ask(
        &self,
        store: &mut Store<State>,
        config: &[(String, String)],
        event: Option<&EventIn>,
    ) -> wasmtime::Result<Result<Verdict, Fault>> {
        let instance = self.instance.instantiate(&mut *store)?;
        let mut verdict = Verdict::Deliver;
        if let Some(indices) = &self.filter {
            let plugin = indices.load(&mut *store, &instance)?;
            let plugin = plugin.hookgate_plugin_filter();
            if let Err(refusal) = plugin.call_configure(&mut *store, config)? {
                return Ok(Err(failed(refusal)));
            }
            if let Some(event) = event {
                match plugin.call_filter(&mut *store, &to_guest(event))? {
                    Ok(types::Filtered::Deliver) => {}
                    Ok(types::Filtered::Drop(reason)) => return Ok(Ok(Verdict::Drop(reason))),
                    Err(refusal) => return Ok(Err(failed(refusal))),
                }
            }
        }
        if let Some(indices) = &self.transform {
            let plugin = indices.load(&mut *store, &instance)?;
            let plugin = plugin.hookgate_plugin_transform();
            if let Err(refusal) = plugin.call_configure(&mut *store, config)? {
                return Ok(Err(failed(refusal)));
            }
            if let Some(event) = event {
                match plugin.call_transform(&mut *store, &to_guest(event))? {
                    Ok(types::Transformed::Unchanged) => {}
                    Ok(types::Transformed::Drop(reason)) => verdict = Verdict::Drop(reason),
                    Ok(types::Transformed::Replace(it)) => verdict = Verdict::Replace(it.into()),
                    Err(refusal) => return Ok(Err(failed(refusal))),
                }
            }
        }
        Ok(Ok(verdict))
    }
}

/// Compiled code is trusted like our own, so it is only ever read from the cache, after its MAC.
#[expect(unsafe_code, reason = "the file's MAC was checked: it is what our compiler wrote")]
fn map(engine: &Engine, path: &Path) -> wasmtime::Result<Component> {
    unsafe { Component::deserialize_file(engine, path) }
}

fn to_guest(event: &EventIn) -> types::Event {
    types::Event {
        id: event.id.clone(),
        event_type: event.event_type.clone(),
        timestamp_ms: event.timestamp_ms,
        content_type: event.content_type.clone(),
        metadata: event.metadata.clone(),
        payload: event.payload.to_vec(),
    }
}

impl From<types::Outgoing> for Outgoing {
    fn from(it: types::Outgoing) -> Self {
        let (content_type, headers, path_suffix) = (it.content_type, it.headers, it.path_suffix);
        Self { payload: it.payload.into(), content_type, headers, path_suffix }
    }
}

/// Refuses what must not be sent.
fn check(verdict: Verdict, limits: &Config) -> Result<Verdict, Fault> {
    let Verdict::Replace(out) = &verdict else { return Ok(verdict) };
    let invalid = |detail: String| Err(Fault { kind: FaultKind::OutputInvalid, detail });
    if out.payload.len() > limits.output_bytes_max {
        let detail = format!("the output has {} bytes", out.payload.len());
        return Err(Fault { kind: FaultKind::Limit, detail });
    }
    let json = out.content_type.starts_with("application/json");
    if json && serde_json::from_slice::<&serde_json::value::RawValue>(&out.payload).is_err() {
        return invalid("the output says it is JSON and is not".to_owned());
    }
    for (name, value) in
        out.headers.iter().chain([&("content-type".into(), out.content_type.clone())])
    {
        let lower = name.to_ascii_lowercase();
        let denied = HEADERS_DENIED.contains(&lower.as_str())
            || lower.starts_with("proxy-")
            || lower.starts_with("webhook-");
        let plain = value.bytes().all(|it| (0x20..0x7f).contains(&it) || it == b'\t');
        if denied || !plain || http::HeaderName::from_bytes(lower.as_bytes()).is_err() {
            return invalid(format!("the header `{name}` must not be set"));
        }
    }
    match &out.path_suffix {
        Some(suffix) if !is_path(suffix) => invalid(format!("`{suffix}` is no part of a path")),
        _ => Ok(verdict),
    }
}

fn is_path(suffix: &str) -> bool {
    let plain = |it: u8| it.is_ascii_alphanumeric() || b"-._~/%".contains(&it);
    suffix.len() <= 1024 && suffix.bytes().all(plain) && !suffix.contains("..")
}

fn failed(detail: String) -> Fault {
    Fault { kind: FaultKind::Failed, detail }
}

fn fault(error: &wasmtime::Error, limit_hit: bool) -> Fault {
    let kind = match error.downcast_ref::<Trap>() {
        Some(Trap::Interrupt | Trap::OutOfFuel) => FaultKind::Timeout,
        Some(Trap::StackOverflow) => FaultKind::Limit,
        _ if limit_hit => FaultKind::Limit,
        _ if format!("{error:#}").contains("fuel") => FaultKind::Limit,
        _ => FaultKind::Trap,
    };
    let detail = match kind {
        FaultKind::Timeout => "it ran over its deadline".to_owned(),
        _ => format!("{error:#}").lines().next().unwrap_or_default().to_owned(),
    };
    Fault { kind, detail }
}

impl State {
    fn new(limits: &Config) -> Self {
        Self {
            limits: Limits {
                memory_bytes_max: limits.memory_bytes_max,
                table_elements_max: limits.table_elements_max,
                hit: false,
            },
            logs: Vec::new(),
            log_lines_left: limits.log_lines_max,
            log_bytes_left: limits.log_bytes_max,
        }
    }
}

impl host::Host for State {
    /// Lines over the limit are left out; a plugin is not failed for being talkative, but a flood
    /// runs into the deadline.
    fn log(&mut self, level: host::Level, message: String) {
        if self.log_lines_left == 0 || self.log_bytes_left < message.len() {
            return;
        }
        self.log_lines_left -= 1;
        self.log_bytes_left -= message.len();
        let level = match level {
            host::Level::Debug => "debug",
            host::Level::Info => "info",
            host::Level::Warn => "warn",
            host::Level::Error => "error",
        };
        self.logs.push(LogLine { level, message });
    }
}

impl types::Host for State {}

impl ResourceLimiter for Limits {
    fn memory_growing(
        &mut self,
        _current: usize,
        desired: usize,
        _maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        let fits = desired <= self.memory_bytes_max;
        self.hit |= !fits;
        Ok(fits)
    }

    fn table_growing(
        &mut self,
        _current: usize,
        desired: usize,
        _maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        let fits = desired <= self.table_elements_max;
        self.hit |= !fits;
        Ok(fits)
    }
}
