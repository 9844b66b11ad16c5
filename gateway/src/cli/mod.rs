//! The command line: `serve`, `demo` and `bench` run a gateway; everything else is a client of its API.

mod run;
pub use run::main;

mod args;
mod client;
mod values;
mod output;
mod serve;
mod store;
mod bench;
mod demo;
mod receiver;
mod login;
mod resources;
mod sure;
mod access;
mod deliveries;
mod event_types;
mod ingest;
mod portal_sessions;
mod replays;
mod system;
mod doctor;
mod explain;
mod send;
mod archive;
mod tail;
mod sse;
mod plugin;
mod plugin_cases;
mod plugin_life;
mod plugin_logs;
mod plugin_run;
pub mod authoring;
