//! The one file that knows the WIT package, as wasmtime's bindings: the imports and types once,
//! and each hook as a world of its own, since each is optional.

pub(super) mod imports {
    wasmtime::component::bindgen!({ path: "../wit", world: "imports", imports: { default: trappable } });
}

pub(super) mod setup {
    wasmtime::component::bindgen!({
        path: "../wit",
        world: "setup-plugin",
        with: { "hookgate:plugin/host": super::imports::hookgate::plugin::host },
    });
}

pub(super) mod filter {
    wasmtime::component::bindgen!({
        path: "../wit",
        world: "filter-plugin",
        with: {
            "hookgate:plugin/host": super::imports::hookgate::plugin::host,
            "hookgate:plugin/types": super::imports::hookgate::plugin::types,
        },
    });
}

pub(super) mod transform {
    wasmtime::component::bindgen!({
        path: "../wit",
        world: "transform-plugin",
        with: {
            "hookgate:plugin/host": super::imports::hookgate::plugin::host,
            "hookgate:plugin/types": super::imports::hookgate::plugin::types,
        },
    });
}

pub(super) mod ingest {
    wasmtime::component::bindgen!({
        path: "../wit",
        world: "ingest-plugin",
        with: {
            "hookgate:plugin/host": super::imports::hookgate::plugin::host,
            "hookgate:plugin/types": super::imports::hookgate::plugin::types,
        },
    });
}

pub(super) mod classify {
    wasmtime::component::bindgen!({
        path: "../wit",
        world: "classify-plugin",
        with: {
            "hookgate:plugin/host": super::imports::hookgate::plugin::host,
            "hookgate:plugin/types": super::imports::hookgate::plugin::types,
        },
    });
}

pub(super) mod sign {
    wasmtime::component::bindgen!({
        path: "../wit",
        world: "sign-plugin",
        with: {
            "hookgate:plugin/host": super::imports::hookgate::plugin::host,
            "hookgate:plugin/keys": super::imports::hookgate::plugin::keys,
            "hookgate:plugin/types": super::imports::hookgate::plugin::types,
        },
    });
}

pub(super) use imports::hookgate::plugin::{host, keys, types};
