//! The Wasm host: tenants' components, compiled once, run in a sandbox.
//!
//! **Invariant:** each event meets a fresh instance in a fresh store, with a deadline and limits on
//! memory, tables, stack, output and log; after a trap nothing of it is used again.

mod config;
pub use config::{Compiler, Config};

mod limits;
pub use limits::Limits;

mod host;
pub use host::{Error, Host};

mod artifact;
pub use artifact::{Artifact, Digest, Hooks, Refusal};

mod call;
pub use call::{Call, Called, Fault, FaultKind, LogLine};

mod question;
pub use question::{
    Answer, Asked, Classified, Configure, EventIn, Incoming, Ingested, Outgoing, Question,
    Replacement, RequestIn, ResponseIn, Signed, Verdict,
};

mod diary;
pub use diary::{Diary, Logged, Stats};

mod cache;
mod compile;
pub use compile::compiler_main;

mod engine;
mod inspect;
mod ask;
mod output;
mod sandbox;
mod state;
mod wit;
mod workers;
