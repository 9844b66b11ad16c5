//! The Wasm host: tenants' components, compiled once, run in a sandbox.
//!
//! **Invariant:** each event meets a fresh instance in a fresh store (a heavy runtime's is kept, for
//! one tenant, version and configuration), with a deadline and limits on memory, tables, stack,
//! output, log and calls; after a trap nothing of it is used again.

mod config;
pub use config::{Compiler, Config};

mod kept;
pub use kept::{Keep, KeptConfig};

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

mod tally;
pub use tally::{Durations, LastError, Tally};

mod trial;
pub use trial::{Example, TRIAL_CALLS_MIN, Trial};

mod diary;
pub use diary::{Diary, LEVELS, Logged, Noted, Wanted};

mod deadline;
mod turns;
pub use turns::{Class, CpuBudget};

mod breaker;
pub use breaker::{BreakerConfig, Breakers, Change, Gate, Standing, Subject};

mod cache;
mod compile;
pub use compile::compiler_main;

mod engine;
mod inspect;
pub use inspect::inspect;

mod ask;
mod output;
pub use output::{check_answer, is_json, is_path};

mod sandbox;
mod state;
mod wasi;
mod wit;

mod line;
mod workers;
pub use workers::Busy;
