//! The Wasm host: tenants' components, compiled once, run in a sandbox.
//!
//! **Invariant:** each event meets a fresh instance in a fresh store, with a deadline and limits on
//! memory, tables, stack, output and log; after a trap nothing of it is used again.

mod config;
pub use config::{Compiler, Config};

mod host;
pub use host::{Error, Host};

mod artifact;
pub use artifact::{Artifact, Digest, Refusal};

mod call;
pub use call::{Call, Called, EventIn, Fault, FaultKind, LogLine, Outgoing, Verdict};

mod diary;
pub use diary::{Diary, Logged, Stats};

mod cache;
mod compile;
pub use compile::compiler_main;

mod engine;
mod inspect;
mod sandbox;
mod wit;
mod workers;
