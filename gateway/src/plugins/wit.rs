//! The one file that knows the WIT package, as wasmtime's bindings.

pub(super) mod filter {
    wasmtime::component::bindgen!({ path: "../wit", world: "filter-plugin" });
}

pub(super) mod transform {
    wasmtime::component::bindgen!({
        path: "../wit",
        world: "transform-plugin",
        with: {
            "hookgate:plugin/host": super::filter::hookgate::plugin::host,
            "hookgate:plugin/types": super::filter::hookgate::plugin::types,
        },
    });
}

pub(super) use filter::hookgate::plugin::{host, types};
