//! `hookgate bench`: what a gateway does, beside what the machine can do, measured in one run.
//!
//! The gateway, the load and the receiver are processes of their own (`part.rs`), and so is the
//! **bound**: the least that would have to be done for the same promise, without a gateway.

mod args;
pub(super) use args::Bench;

mod run;
pub(super) use run::run;

mod play;
pub(super) use play::play;

mod backlog;
mod bound;
mod deliver;
mod end_to_end;
mod event;
mod figures;
mod gateway;
mod growth;
mod idle_retries;
mod ingest;
mod load;
mod neighbours;
mod node;
mod part;
mod plugin;
mod plugin_host;
mod progress;
mod receiver;
mod report;
mod sender;
mod stage;
mod usage;
