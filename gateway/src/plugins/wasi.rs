//! WASI 0.2 by name, for standard libraries and runtimes that cannot start without it: nothing in
//! the environment, no files, nothing to read, a clock that stands still at the event's time and
//! chance that the event's id decides, so that a run repeats exactly. What is written to stdout
//! and stderr becomes lines of the plugin's log. Whatever else is used is a trap that names it.

use wasmtime::{
    Engine, StoreContextMut,
    component::{Component, Linker, ResourceDynamic, ResourceType, Val, types::ComponentItem},
};

use crate::plugins::state::State;

/// The one version that there is; its patch number does not matter.
const VERSION: &str = "@0.2.";
const PACKAGES: [&str; 7] = [
    "wasi:cli/",
    "wasi:io/",
    "wasi:clocks/",
    "wasi:random/",
    "wasi:filesystem/",
    "wasi:sockets/",
    "wasi:http/",
];
/// Bytes that a guest may draw or write at once.
const CHUNK_BYTES_MAX: u64 = 64 * 1024;

/// Called on a resource, with arguments: a value, or nothing to say.
type Stub = fn(&mut StoreContextMut<'_, State>, u32, &[Val]) -> wasmtime::Result<Option<Val>>;

/// Whether an import is WASI as the sandbox knows it.
pub(super) fn is_known(import: &str) -> bool {
    let known = PACKAGES.iter().any(|it| import.starts_with(it));
    known && import.split_once('@').is_some_and(|(_, it)| format!("@{it}").starts_with(VERSION))
}

/// Links what a component imports of it.
pub(super) fn add_to_linker(
    linker: &mut Linker<State>,
    engine: &Engine,
    component: &Component,
) -> wasmtime::Result<()> {
    for (import, item) in component.component_type().imports(engine) {
        let ComponentItem::ComponentInstance(instance) = item.ty else { continue };
        if !is_known(import) {
            continue;
        }
        let interface = import.split('@').next().unwrap_or_default();
        let mut place = linker.instance(import)?;
        for (name, item) in instance.exports(engine) {
            match item.ty {
                ComponentItem::Resource(_) => {
                    place.resource(name, ResourceType::host_dynamic(kind(name)), |_, _| Ok(()))?;
                }
                ComponentItem::ComponentFunc(_) => {
                    let full = format!("{import}#{name}");
                    let stub = stub(interface, name);
                    place.func_new(name, move |mut store, _, arguments, results| {
                        store.data_mut().count()?;
                        let Some(stub) = stub else {
                            wasmtime::bail!(
                                "the plugin used {full}, which the sandbox does not give"
                            );
                        };
                        let on = release(&mut store, arguments)?;
                        let value = stub(&mut store, on, arguments)?;
                        if let (Some(place), Some(value)) = (results.first_mut(), value) {
                            *place = value;
                        }
                        Ok(())
                    })?;
                }
                _ => {}
            }
        }
    }
    Ok(())
}

/// Resources of one name are of one type, in whichever interface they are used.
fn kind(resource: &str) -> u32 {
    // As `wasi:http` calls it.
    let name = if resource == "io-error" { "error" } else { resource };
    name.bytes().fold(17, |hash: u32, it| hash.wrapping_mul(31).wrapping_add(u32::from(it)))
}

fn stub(interface: &str, function: &str) -> Option<Stub> {
    let package = interface.split('/').next().unwrap_or_default();
    Some(match (package, function) {
        ("wasi:cli", "get-environment" | "get-arguments") => |_, _, _| some(Val::List(Vec::new())),
        ("wasi:filesystem", "get-directories") => |_, _, _| some(Val::List(Vec::new())),
        ("wasi:filesystem", "filesystem-error-code") => |_, _, _| some(Val::Option(None)),
        ("wasi:cli", "initial-cwd") => |_, _, _| some(Val::Option(None)),
        ("wasi:cli", "get-terminal-stdin" | "get-terminal-stdout" | "get-terminal-stderr") => {
            |_, _, _| some(Val::Option(None))
        }
        ("wasi:cli", "get-stdin") => |store, _, _| resource(store, "input-stream", 0),
        ("wasi:cli", "get-stdout") => |store, _, _| resource(store, "output-stream", 1),
        ("wasi:cli", "get-stderr") => |store, _, _| resource(store, "output-stream", 2),
        ("wasi:io", _) => return io_stub(function),
        ("wasi:clocks" | "wasi:random", _) => return world_stub(interface, function),
        _ => return None,
    })
}

fn io_stub(function: &str) -> Option<Stub> {
    let method = function.split_once(']').map_or(function, |(_, it)| it);
    Some(match method {
        "input-stream.read"
        | "input-stream.blocking-read"
        | "input-stream.skip"
        | "input-stream.blocking-skip"
        | "output-stream.splice"
        | "output-stream.blocking-splice" => |_, _, _| some(closed()),
        "input-stream.subscribe" | "output-stream.subscribe" => {
            |store, _, _| resource(store, "pollable", 0)
        }
        "output-stream.check-write" => {
            |_, _, _| some(Val::Result(Ok(Some(Box::new(Val::U64(CHUNK_BYTES_MAX))))))
        }
        "output-stream.write" | "output-stream.blocking-write-and-flush" => {
            |store, on, arguments| {
                write(store, on, arguments);
                some(Val::Result(Ok(None)))
            }
        }
        "output-stream.flush"
        | "output-stream.blocking-flush"
        | "output-stream.write-zeroes"
        | "output-stream.blocking-write-zeroes-and-flush" => |_, _, _| some(Val::Result(Ok(None))),
        "pollable.ready" => |_, _, _| some(Val::Bool(true)),
        "pollable.block" => |_, _, _| Ok(None),
        "poll" => |_, _, arguments| {
            let count = match arguments.first() {
                Some(Val::List(pollables)) => pollables.len(),
                _ => 0,
            };
            some(Val::List((0..count as u32).map(Val::U32).collect()))
        },
        "error.to-debug-string" => |_, _, _| some(Val::String("closed".into())),
        _ => return None,
    })
}

fn world_stub(interface: &str, function: &str) -> Option<Stub> {
    Some(match (interface, function) {
        ("wasi:clocks/monotonic-clock", "now") => {
            |store, _, _| some(Val::U64(store.data().now_ms().saturating_mul(1_000_000)))
        }
        ("wasi:clocks/monotonic-clock", "resolution") => |_, _, _| some(Val::U64(1_000_000)),
        ("wasi:clocks/monotonic-clock", "subscribe-instant" | "subscribe-duration") => {
            |store, _, _| resource(store, "pollable", 0)
        }
        ("wasi:clocks/wall-clock", "now") => |store, _, _| some(datetime(store.data().now_ms())),
        ("wasi:clocks/wall-clock", "resolution") => |_, _, _| some(datetime(1)),
        (_, "get-random-bytes" | "get-insecure-random-bytes") => |store, _, arguments| {
            let wanted = match arguments.first() {
                Some(Val::U64(wanted)) => *wanted,
                _ => 0,
            };
            if wanted > CHUNK_BYTES_MAX {
                wasmtime::bail!("the plugin wants {wanted} random bytes at once");
            }
            let drawn = (0..wanted).map(|_| Val::U8(store.data_mut().draw() as u8));
            some(Val::List(drawn.collect()))
        },
        (_, "get-random-u64" | "get-insecure-random-u64") => {
            |store, _, _| some(Val::U64(store.data_mut().draw()))
        }
        (_, "insecure-seed" | "get-insecure-seed") => |store, _, _| {
            let seed = [store.data_mut().draw(), store.data_mut().draw()];
            some(Val::Tuple(seed.map(Val::U64).into()))
        },
        _ => return None,
    })
}

fn some(value: Val) -> wasmtime::Result<Option<Val>> {
    Ok(Some(value))
}

fn closed() -> Val {
    Val::Result(Err(Some(Box::new(Val::Variant("closed".into(), None)))))
}

fn datetime(ms: u64) -> Val {
    let nanoseconds = (ms % 1000) as u32 * 1_000_000;
    Val::Record(vec![
        ("seconds".into(), Val::U64(ms / 1000)),
        ("nanoseconds".into(), Val::U32(nanoseconds)),
    ])
}

fn resource(
    store: &mut StoreContextMut<'_, State>,
    name: &str,
    number: u32,
) -> wasmtime::Result<Option<Val>> {
    let own = ResourceDynamic::new_own(number, kind(name));
    some(Val::Resource(own.try_into_resource_any(store)?))
}

/// Gives back what a call has borrowed, which must not outlive it. Which resource it is called on.
fn release(store: &mut StoreContextMut<'_, State>, arguments: &[Val]) -> wasmtime::Result<u32> {
    let mut first = None;
    for argument in arguments {
        match argument {
            Val::Resource(resource) => {
                let resource = ResourceDynamic::try_from_resource_any(*resource, &mut *store)?;
                first = first.or(Some(resource.rep()));
            }
            Val::List(several) => {
                release(store, several)?;
            }
            _ => {}
        }
    }
    Ok(first.unwrap_or_default())
}

fn write(store: &mut StoreContextMut<'_, State>, stream: u32, arguments: &[Val]) {
    let Some(Val::List(bytes)) = arguments.get(1) else { return };
    let bytes = bytes.iter().map(|it| if let Val::U8(it) = it { *it } else { b'?' });
    let bytes: Vec<_> = bytes.collect();
    store.data_mut().write(stream == 2, &bytes);
}
