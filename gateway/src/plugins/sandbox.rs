use std::path::Path;

use wasmtime::{
    Engine, Store, Trap, UpdateDeadline,
    component::{Component, HasSelf, InstancePre, Linker},
};

use crate::domain::duration;
use crate::plugins::artifact::Hooks;
use crate::plugins::call::{Called, Fault, FaultKind};
use crate::plugins::kept::{Kept, Key, Live};
use crate::plugins::state::State;
use crate::plugins::wit::{classify, filter, host, ingest, keys, setup, sign, transform};
use crate::plugins::{Answer, Call, Keep, Limits, Question, Refusal, ask, output, wasi};

const PACKAGE: &str = "hookgate:plugin/";
const VERSION: &str = "@1.0.0";

/// A component, linked to what it may use and to nothing else.
pub(super) struct Sandboxed {
    instance: InstancePre<State>,
    /// Whether it brings a whole language's runtime, which takes more memory.
    pub(super) heavy: bool,
    /// Whether its instances are kept for further calls.
    kept: bool,
    pub(super) setup: Option<setup::SetupPluginIndices>,
    pub(super) filter: Option<filter::FilterPluginIndices>,
    pub(super) transform: Option<transform::TransformPluginIndices>,
    pub(super) ingest: Option<ingest::IngestPluginIndices>,
    pub(super) classify: Option<classify::ClassifyPluginIndices>,
    pub(super) sign: Option<sign::SignPluginIndices>,
}

impl Sandboxed {
    /// Maps a compiled component that this process or an earlier one made.
    pub(super) fn load(
        engine: &Engine,
        path: &Path,
        heavy: bool,
        keep: Option<Keep>,
    ) -> Result<(Self, Hooks), Refusal> {
        let component = map(engine, path).map_err(invalid)?;
        let (mut sandboxed, hooks) = Self::link(engine, &component)?;
        sandboxed.heavy = heavy;
        sandboxed.kept = keep.map_or(heavy, |it| it == Keep::Kept);
        Ok((sandboxed, hooks))
    }

    fn link(engine: &Engine, component: &Component) -> Result<(Self, Hooks), Refusal> {
        let shape = component.component_type();
        let exports: Vec<_> = shape.exports(engine).map(|(name, _)| name.to_owned()).collect();
        let hooks = Hooks::among(|hook| exports.contains(&name(hook)));
        let imports = shape.imports(engine).map(|(name, _)| name.to_owned());
        let denied: Vec<_> = imports.filter(|it| !is_given(it, hooks)).collect();
        if !denied.is_empty() {
            let detail =
                format!("it imports what the sandbox does not give: {}", denied.join(", "));
            return Err(Refusal::new("plugin_import_denied", detail));
        }
        if hooks == Hooks::default() {
            let wanted: Vec<_> = Hooks::NAMES.iter().map(|it| name(it)).collect();
            let detail = format!("it exports none of {}", wanted.join(", "));
            return Err(Refusal::new("plugin_no_hook", detail));
        }
        let mut linker = Linker::new(engine);
        host::add_to_linker::<_, HasSelf<State>>(&mut linker, |it| it).map_err(invalid)?;
        if hooks.sign {
            keys::add_to_linker::<_, HasSelf<State>>(&mut linker, |it| it).map_err(invalid)?;
        }
        wasi::add_to_linker(&mut linker, engine, component).map_err(invalid)?;
        let instance = linker.instantiate_pre(component).map_err(invalid)?;
        let pre = &instance;
        macro_rules! indices {
            ($wanted:expr, $indices:ty) => {
                $wanted.then(|| <$indices>::new(pre)).transpose().map_err(invalid)?
            };
        }
        let sandboxed = Self {
            setup: indices!(exports.contains(&name("setup")), setup::SetupPluginIndices),
            filter: indices!(hooks.filter, filter::FilterPluginIndices),
            transform: indices!(hooks.transform, transform::TransformPluginIndices),
            ingest: indices!(hooks.ingest, ingest::IngestPluginIndices),
            classify: indices!(hooks.classify, classify::ClassifyPluginIndices),
            sign: indices!(hooks.sign, sign::SignPluginIndices),
            instance,
            heavy: false,
            kept: false,
        };
        Ok((sandboxed, hooks))
    }

    /// Asks a fresh instance, or one that was kept for calls of this kind.
    pub(super) fn run(
        &self,
        call: &Call<Question>,
        limits: &Limits,
        kept: &Kept,
    ) -> Called<Answer> {
        let key = self.kept.then(|| Key::of(call));
        let mut state = State::new(limits);
        state.decide(&call.question);
        let mut live = match key.as_ref().and_then(|it| kept.take(it)) {
            Some(mut live) => {
                live.store.data_mut().renew(state);
                live
            }
            None => {
                let mut store = Store::new(self.instance.engine(), state);
                store.limiter(|it| it);
                store.epoch_deadline_callback(|store| match store.data().deadline.left() {
                    Some(ticks) => Ok(UpdateDeadline::Continue(ticks)),
                    None => Err(Trap::Interrupt.into()),
                });
                Live { store, instance: None, calls: 0 }
            }
        };
        live.calls += 1;
        let ticks = live.store.data().deadline.ticks();
        live.store.set_epoch_deadline(ticks);
        live.store.set_hostcall_fuel(limits.output_bytes_max + limits.output_bytes_max / 2);
        let fuel_before = limits.fuel_max.unwrap_or(u64::MAX);
        let counted = live.store.set_fuel(fuel_before).is_ok();
        let outcome = self.answer(&mut live, call);
        let fuel = live.store.get_fuel().ok().filter(|_| counted);
        let state = live.store.data_mut();
        let (limit_hit, logs) = (state.limit_hit.take(), state.take_logs());
        let verdict = match outcome {
            Ok(Ok(answer)) => output::check_answer(answer, limits),
            Ok(Err(fault)) => Err(because_of(limit_hit, fault)),
            Err(error) => Err(fault(&error, limit_hit, limits)),
        };
        if let (Some(key), Ok(_)) = (key, &verdict) {
            kept.put(key, live);
        }
        let mut called = Called::new(verdict);
        (called.logs, called.fuel) = (logs, fuel.map(|left| fuel_before - left));
        called
    }

    fn answer(
        &self,
        live: &mut Live,
        call: &Call<Question>,
    ) -> wasmtime::Result<Result<Answer, Fault>> {
        let store = &mut live.store;
        let instance = match live.instance {
            Some(instance) => instance,
            None => {
                let instance = self.instance.instantiate(&mut *store)?;
                if let Err(refusal) = ask::configure(self, store, &instance, &call.config)? {
                    return Ok(Err(refusal));
                }
                *live.instance.insert(instance)
            }
        };
        ask::ask(self, store, &instance, &call.question)
    }
}

fn name(interface: &str) -> String {
    format!("{PACKAGE}{interface}{VERSION}")
}

fn is_given(import: &str, hooks: Hooks) -> bool {
    let ours = import.strip_prefix(PACKAGE).and_then(|it| it.strip_suffix(VERSION));
    match ours {
        Some("host" | "types") => true,
        Some("keys") => hooks.sign,
        _ => wasi::is_known(import),
    }
}

/// Compiled code is trusted like our own, so it is only ever read from the cache, after its MAC.
#[expect(unsafe_code, reason = "the file's MAC was checked: it is what our compiler wrote")]
fn map(engine: &Engine, path: &Path) -> wasmtime::Result<Component> {
    unsafe { Component::deserialize_file(engine, path) }
}

fn invalid(error: wasmtime::Error) -> Refusal {
    Refusal::new("plugin_invalid", format!("{error:#}"))
}

/// What a plugin failed at by its own words, with the limit that it had run into before.
fn because_of(limit_hit: Option<String>, fault: Fault) -> Fault {
    match limit_hit {
        Some(limit) => Fault { detail: format!("{}; {limit}", fault.detail), ..fault },
        None => fault,
    }
}

fn fault(error: &wasmtime::Error, limit_hit: Option<String>, limits: &Limits) -> Fault {
    // Whatever follows a limit that was run into, the limit is what to tell.
    if let Some(limit) = limit_hit {
        return Fault::limit(limit);
    }
    let trap = error.downcast_ref::<Trap>();
    let over = match (trap, limits.fuel_max) {
        (Some(Trap::OutOfFuel), Some(max)) => Some(format!("{max} of fuel")),
        (Some(Trap::Interrupt | Trap::OutOfFuel), _) => {
            Some(format!("{} of processor time", duration(limits.deadline)))
        }
        _ => None,
    };
    if let Some(over) = over {
        let detail = format!("it ran over its deadline, {over}");
        return Fault { kind: FaultKind::Timeout, detail };
    }
    // The outer words tell where it happened, by addresses that mean nothing to an author.
    let detail = error.root_cause().to_string().lines().next().unwrap_or_default().to_owned();
    let text = format!("{error:#}");
    // What comes out of an instance is bounded by the fuel of host calls.
    if text.contains("fuel allocated for hostcalls") {
        let max = limits.output_bytes_max;
        return Fault::limit(format!(
            "it gives out too much at once: an output has at most {max} bytes"
        ));
    }
    let limit = trap == Some(&Trap::StackOverflow) || text.contains("fuel");
    let kind = if limit { FaultKind::Limit } else { FaultKind::Trap };
    Fault { kind, detail }
}
