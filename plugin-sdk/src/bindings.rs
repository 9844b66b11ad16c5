//! What wit-bindgen makes of the worlds in `wit/`: the types and imports once, and each hook as a
//! world of its own, so that a plugin exports what it names and nothing else.
#![allow(
    unsafe_code,
    missing_docs,
    unreachable_pub,
    clippy::all,
    clippy::mem_forget,
    reason = "generated"
)]
#![allow(clippy::allow_attributes, reason = "the generator decides what would be unfulfilled")]

pub mod imports {
    wit_bindgen::generate!({
        path: "../wit",
        world: "imports",
        additional_derives: [PartialEq, Eq],
        generate_all,
    });
}

pub mod setup {
    wit_bindgen::generate!({
        path: "../wit",
        world: "setup-plugin",
        with: { "hookgate:plugin/host@1.0.0": crate::bindings::imports::hookgate::plugin::host },
        pub_export_macro: true,
        export_macro_name: "export_setup_bindings",
        default_bindings_module: "hookgate_plugin::bindings::setup",
    });
}

pub mod filter {
    wit_bindgen::generate!({
        path: "../wit",
        world: "filter-plugin",
        with: {
            "hookgate:plugin/types@1.0.0": crate::bindings::imports::hookgate::plugin::types,
            "hookgate:plugin/host@1.0.0": crate::bindings::imports::hookgate::plugin::host,
        },
        pub_export_macro: true,
        export_macro_name: "export_filter_bindings",
        default_bindings_module: "hookgate_plugin::bindings::filter",
    });
}

pub mod transform {
    wit_bindgen::generate!({
        path: "../wit",
        world: "transform-plugin",
        with: {
            "hookgate:plugin/types@1.0.0": crate::bindings::imports::hookgate::plugin::types,
            "hookgate:plugin/host@1.0.0": crate::bindings::imports::hookgate::plugin::host,
        },
        pub_export_macro: true,
        export_macro_name: "export_transform_bindings",
        default_bindings_module: "hookgate_plugin::bindings::transform",
    });
}

pub mod ingest {
    wit_bindgen::generate!({
        path: "../wit",
        world: "ingest-plugin",
        with: {
            "hookgate:plugin/types@1.0.0": crate::bindings::imports::hookgate::plugin::types,
            "hookgate:plugin/host@1.0.0": crate::bindings::imports::hookgate::plugin::host,
        },
        pub_export_macro: true,
        export_macro_name: "export_ingest_bindings",
        default_bindings_module: "hookgate_plugin::bindings::ingest",
    });
}

pub mod classify {
    wit_bindgen::generate!({
        path: "../wit",
        world: "classify-plugin",
        with: {
            "hookgate:plugin/types@1.0.0": crate::bindings::imports::hookgate::plugin::types,
            "hookgate:plugin/host@1.0.0": crate::bindings::imports::hookgate::plugin::host,
        },
        pub_export_macro: true,
        export_macro_name: "export_classify_bindings",
        default_bindings_module: "hookgate_plugin::bindings::classify",
    });
}

pub mod sign {
    wit_bindgen::generate!({
        path: "../wit",
        world: "sign-plugin",
        with: {
            "hookgate:plugin/types@1.0.0": crate::bindings::imports::hookgate::plugin::types,
            "hookgate:plugin/host@1.0.0": crate::bindings::imports::hookgate::plugin::host,
            "hookgate:plugin/keys@1.0.0": crate::bindings::imports::hookgate::plugin::keys,
        },
        pub_export_macro: true,
        export_macro_name: "export_sign_bindings",
        default_bindings_module: "hookgate_plugin::bindings::sign",
    });
}
