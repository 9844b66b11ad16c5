//! The front door: HTTP in, JSON out. Routes, callers, problems and streams.
//!
//! **Invariant:** an event is acknowledged only after storage said that it is durable, and a
//! tenant's data is reached only through [`Gateway::tenant`], which checks the caller.

mod gateway;
pub use body_memory::BodyMemory;
pub use gateway::{Gateway, Limits, Parts, STOPPING};

#[cfg(any(test, fuzzing))]
pub mod fuzz;

mod route;
mod timed;
mod admission;
mod router;
pub use router::{Api, FramedTwice};

mod openapi;
pub use openapi::document;

mod caller;
pub use caller::{hash_key, new_key};

mod problem;
mod fields;
mod unpack;
mod body;
mod body_memory;
mod page;
mod wire;

mod etag;
mod pace;
pub use pace::Pace;

mod tenants;
mod audit;
mod keys;
mod portal;
mod endpoint_body;
mod trust_body;
mod endpoint_patch;
mod endpoints;
mod event_types;
mod examine;
mod rest;
mod json_limits;
mod event_body;
mod cloud_event;
mod hops;
mod incoming_trace;
mod events_in;
mod backlog;
mod ndjson;
mod events_out;
mod tail;
mod deliveries;
mod dead_letters;
mod plugin_wire;
mod canary;
mod plugin_follow;
mod plugin_log;
mod difference;
mod backtest_body;
mod backtest;
mod quota_body;
mod replays;
mod remedy;
mod explain;
mod stats;
mod plugins;
mod invoke;
mod ingest;
mod short;
mod system;
mod ops;
mod backup;
