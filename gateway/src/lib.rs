//! Hookgate: a webhook gateway. Events come in over HTTP and are durable before they are
//! acknowledged; tenants' plugins filter and rewrite them in a sandbox; signed deliveries go out
//! with retries until they are delivered, or kept where one can see why not.
//!
//! `ARCHITECTURE.md` tells which room may use which; `tests/tidy.rs` holds the code to it.

pub mod domain;
pub mod telemetry;
pub mod world;
pub mod storage;
pub mod plugins;
pub mod fanout;
pub mod replay;
pub mod retention;
pub mod dispatch;
pub mod api;
pub mod app;
pub mod cli;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
