//! What wit-bindgen makes of the worlds in `wit/`, and its types turned into the SDK's.
#![allow(
    unsafe_code,
    missing_docs,
    unreachable_pub,
    clippy::all,
    clippy::mem_forget,
    reason = "generated"
)]
#![allow(clippy::allow_attributes, reason = "the generator decides what would be unfulfilled")]

use crate::{Event, Filtered, Transformed};

pub mod filter {
    wit_bindgen::generate!({
        path: "../wit",
        world: "filter-plugin",
        pub_export_macro: true,
        export_macro_name: "export_filter_bindings",
        default_bindings_module: "hookgate_plugin::bindings::filter",
    });
}

pub mod transform {
    wit_bindgen::generate!({
        path: "../wit",
        world: "transform-plugin",
        pub_export_macro: true,
        export_macro_name: "export_transform_bindings",
        default_bindings_module: "hookgate_plugin::bindings::transform",
    });
}

impl From<filter::hookgate::plugin::types::Event> for Event {
    fn from(it: filter::hookgate::plugin::types::Event) -> Self {
        let (id, event_type, timestamp_ms) = (it.id, it.event_type, it.timestamp_ms);
        let (content_type, metadata, payload) = (it.content_type, it.metadata, it.payload);
        Self { id, event_type, timestamp_ms, content_type, metadata, payload }
    }
}

impl From<transform::hookgate::plugin::types::Event> for Event {
    fn from(it: transform::hookgate::plugin::types::Event) -> Self {
        let (id, event_type, timestamp_ms) = (it.id, it.event_type, it.timestamp_ms);
        let (content_type, metadata, payload) = (it.content_type, it.metadata, it.payload);
        Self { id, event_type, timestamp_ms, content_type, metadata, payload }
    }
}

impl From<Filtered> for filter::hookgate::plugin::types::Filtered {
    fn from(it: Filtered) -> Self {
        match it {
            Filtered::Deliver => Self::Deliver,
            Filtered::Drop(reason) => Self::Drop(reason),
        }
    }
}

impl From<Transformed> for transform::hookgate::plugin::types::Transformed {
    fn from(it: Transformed) -> Self {
        match it {
            Transformed::Unchanged => Self::Unchanged,
            Transformed::Drop(reason) => Self::Drop(reason),
            Transformed::Replace(it) => {
                Self::Replace(transform::hookgate::plugin::types::Outgoing {
                    payload: it.payload,
                    content_type: it.content_type,
                    headers: it.headers,
                    path_suffix: it.path_suffix,
                })
            }
        }
    }
}

/// Names what each hook answers, for the export macro.
pub trait Answer {
    type Filter;
    type Transform;
}
