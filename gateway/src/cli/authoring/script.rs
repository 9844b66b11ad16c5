//! JavaScript without a toolchain: the script is run in an engine that this binary carries
//! (`plugin-sdk/script-engine/`), and a snapshot of the engine's memory becomes the component.

use anyhow::{Context as _, Result, anyhow, bail};
use futures_util::FutureExt;
use wasm_encoder::{ExportSection, Module, RawSection};
use wasmparser::{ExternalKind, Parser, Payload, ValType};
use wasmtime::{Caller, Engine, Extern, Instance, Linker, OptLevel, Store, Val};
use wasmtime_wizer::{InstanceState, SnapshotVal, Wizer};

use crate::cli::authoring::world;

const ENGINE: &[u8] = include_bytes!("../../../../plugin-sdk/script-engine/engine.wasm");
/// What a script's top level may spend, so that one without end is found out: some seconds.
const FUEL: u64 = 5_000_000_000;
/// The hooks, in the order of the bits that the engine gives.
const HOOKS: [(&str, &str); 6] = [
    ("configure", "setup"),
    ("filter", "filter"),
    ("transform", "transform"),
    ("ingest", "ingest"),
    ("classify", "classify"),
    ("sign", "sign"),
];

/// A script as a component.
pub(super) struct Script {
    /// The component.
    pub(super) component: Vec<u8>,
    /// What it is asked: `filter`, `transform`, …
    pub(super) hooks: Vec<&'static str>,
    /// What its top level wrote to `console`.
    pub(super) logs: Vec<String>,
}

/// Runs the top level of a script, and makes a component of how it stands then.
///
/// # Errors
/// What is wrong with the script, with the place in it.
pub(super) fn build(name: &str, source: &str) -> Result<Script> {
    let wizer = Wizer::new();
    let (context, instrumented) = wizer.instrument(ENGINE).map_err(broken)?;
    let mut loaded = Loaded::start(&instrumented)?;
    let bits = loaded.load(name, source)?;
    let has = |(place, hook): (usize, &(&'static str, &'static str))| {
        (bits & (1 << place) != 0).then_some(hook.1)
    };
    let interfaces: Vec<_> = HOOKS.iter().enumerate().filter_map(has).collect();
    let hooks: Vec<_> = interfaces.iter().copied().filter(|it| *it != "setup").collect();
    if hooks.is_empty() {
        bail!(
            "{name} has no hook: write `export default {{ filter(event) {{ … }} }}`, or \
             transform, ingest, classify or sign"
        );
    }
    let snapshot = wizer.snapshot(&context, &mut loaded);
    let snapshot = snapshot.now_or_never().expect("nothing in it waits").map_err(broken)?;
    let component = encode(&snapshot, &interfaces).context("the script does not fit its world")?;
    Ok(Script { component, hooks, logs: loaded.store.into_data() })
}

/// The engine with a script in it.
struct Loaded {
    store: Store<Vec<String>>,
    instance: Instance,
}

impl Loaded {
    fn start(module: &[u8]) -> Result<Self> {
        let mut config = wasmtime::Config::new();
        // It runs once: compiling fast is worth more than running fast.
        config.cranelift_opt_level(OptLevel::None).consume_fuel(true);
        let engine = Engine::new(&config).map_err(broken)?;
        let module = wasmtime::Module::new(&engine, module).map_err(broken)?;
        let mut store = Store::new(&engine, Vec::new());
        store.set_fuel(FUEL).map_err(broken)?;
        let mut linker = Linker::new(&engine);
        linker.func_wrap("hookgate:plugin/host@1.0.0", "log", log).map_err(broken)?;
        // The keys are there only while the gateway has a request signed.
        linker.define_unknown_imports_as_traps(&module).map_err(broken)?;
        let instance = linker.instantiate(&mut store, &module).map_err(broken)?;
        Ok(Self { store, instance })
    }

    fn load(&mut self, name: &str, source: &str) -> Result<i32> {
        let text = format!("{name}\0{source}");
        let Self { store, instance } = self;
        let memory = instance.get_memory(&mut *store, "memory").context("no memory")?;
        let buffer = instance.get_typed_func::<u32, u32>(&mut *store, "script_buffer");
        let load = instance.get_typed_func::<(), i32>(&mut *store, "script_load");
        let wrong = instance.get_typed_func::<(), u32>(&mut *store, "script_wrong");
        let (buffer, load) = (buffer.map_err(broken)?, load.map_err(broken)?);
        let place = buffer.call(&mut *store, u32::try_from(text.len())?).map_err(broken)?;
        memory.write(&mut *store, place as usize, text.as_bytes())?;
        let bits = load.call(&mut *store, ()).map_err(|error| match store.get_fuel() {
            Ok(0) => anyhow!("{name}: its top level does not end"),
            _ => anyhow!("{name}: its top level fails: {error:#}"),
        })?;
        if bits >= 0 {
            return Ok(bits);
        }
        let place = wrong.map_err(broken)?.call(&mut *store, ()).map_err(broken)? as usize;
        let told = memory.data(&*store).get(place..place + bits.unsigned_abs() as usize);
        bail!("{}", String::from_utf8_lossy(told.unwrap_or_default()))
    }
}

fn log(mut caller: Caller<'_, Vec<String>>, _level: i32, place: u32, length: u32) {
    let Some(Extern::Memory(memory)) = caller.get_export("memory") else { return };
    let (place, length) = (place as usize, length as usize);
    let line = memory.data(&caller).get(place..place + length).unwrap_or_default();
    let line = String::from_utf8_lossy(line).into_owned();
    caller.data_mut().push(line);
}

impl InstanceState for Loaded {
    async fn global_get(&mut self, name: &str, _: ValType) -> SnapshotVal {
        let global = self.instance.get_global(&mut self.store, name).expect("it is exported");
        match global.get(&mut self.store) {
            Val::I32(it) => SnapshotVal::I32(it),
            Val::I64(it) => SnapshotVal::I64(it),
            Val::F32(it) => SnapshotVal::F32(it),
            Val::F64(it) => SnapshotVal::F64(it),
            _ => unreachable!("the engine has plain globals only"),
        }
    }

    async fn memory_contents(&mut self, name: &str, contents: impl FnOnce(&[u8]) + Send) {
        let memory = self.instance.get_memory(&mut self.store, name).expect("it is exported");
        contents(memory.data(&self.store));
    }
}

/// The snapshot as a component that exports these interfaces and no others.
fn encode(snapshot: &[u8], interfaces: &[&str]) -> Result<Vec<u8>> {
    let module = export_only(snapshot, interfaces)?;
    let no_keys = no_keys();
    let adapter = ("hookgate:plugin/keys@1.0.0", no_keys.as_slice());
    world::encode(module, interfaces, (!interfaces.contains(&"sign")).then_some(adapter))
}

/// The module without the exports of other interfaces, and without what the engine says of its
/// own world.
fn export_only(module: &[u8], interfaces: &[&str]) -> Result<Vec<u8>> {
    let wanted = |name: &str| {
        let function = name.strip_prefix("cabi_post_").unwrap_or(name);
        let interface = function.strip_prefix("hookgate:plugin/").and_then(|it| it.split_once('@'));
        let ours = interface.is_some_and(|(it, _)| interfaces.contains(&it));
        ours || name == "memory" || name == "cabi_realloc"
    };
    let mut made = Module::new();
    for payload in Parser::new(0).parse_all(module) {
        let payload = payload?;
        match &payload {
            Payload::ExportSection(exports) => {
                let mut section = ExportSection::new();
                for export in exports.clone() {
                    let export = export?;
                    let kind = match export.kind {
                        ExternalKind::Memory => wasm_encoder::ExportKind::Memory,
                        ExternalKind::Func => wasm_encoder::ExportKind::Func,
                        _ => continue,
                    };
                    if wanted(export.name) {
                        section.export(export.name, kind, export.index);
                    }
                }
                made.section(&section);
            }
            Payload::CustomSection(it) if it.name().starts_with("component-type") => {}
            other => {
                if let Some((id, range)) = other.as_section() {
                    made.section(&RawSection { id, data: &module[range] });
                }
            }
        }
    }
    Ok(made.finish())
}

/// Stands in for the keys, which only a plugin that signs may import.
fn no_keys() -> Vec<u8> {
    use wasm_encoder::{
        CodeSection, ExportKind, Function, FunctionSection, Instruction, TypeSection, ValType,
    };
    let mut types = TypeSection::new();
    types.ty().function([ValType::I32; 4], []);
    let mut functions = FunctionSection::new();
    let mut exports = ExportSection::new();
    let mut code = CodeSection::new();
    for (index, name) in (0..).zip(["hmac", "hmac-each"]) {
        functions.function(0);
        exports.export(name, ExportKind::Func, index);
        let mut body = Function::new([]);
        body.instruction(&Instruction::Unreachable).instruction(&Instruction::End);
        code.function(&body);
    }
    let mut module = Module::new();
    module.section(&types).section(&functions).section(&exports).section(&code);
    module.finish()
}

fn broken(error: wasmtime::Error) -> anyhow::Error {
    anyhow!("the script engine does not run: {error:#}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_becomes_a_component_with_its_hooks() {
        let built = build("a.js", "export default { filter: () => true, configure() {} }").unwrap();
        assert_eq!(built.hooks, ["filter"]);
        assert!(Parser::is_component(&built.component));
        let named = build("a.js", "console.log('up', {a: 1}); export function sign() {}").unwrap();
        assert_eq!((named.hooks, named.logs), (vec!["sign"], vec!["up {\"a\":1}".to_owned()]));
    }

    #[test]
    fn what_is_wrong_with_a_script_is_told_with_its_place() {
        for (source, told) in [
            ("export default {\n  filter(event) { return event. }\n}", "a.js:2:33"),
            ("const a = 1;\nfetch('http://a')", "ReferenceError: fetch is not defined"),
            ("export const hello = 1", "has no hook"),
            ("export const filter = 1", "`filter` is exported and no function"),
            ("import x from './other.js'; export default {}", "other.js"),
            ("for (;;) {}", "does not end"),
            ("function f() { f() } f()", "stack"),
        ] {
            let error = build("a.js", source).err().expect(source);
            assert!(format!("{error:#}").contains(told), "{source}: {error:#}");
        }
    }
}
