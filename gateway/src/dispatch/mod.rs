//! Attempts deliveries until they are delivered or given up.
//!
//! **Invariant:** what is lent from the queue is settled or goes back; a worker that is dropped
//! anywhere loses nothing.

mod dispatcher;
pub use dispatcher::{Config, Dispatcher};

#[cfg(any(test, fuzzing))]
pub mod fuzz;

mod floor;
mod crew;
mod watchdog;
mod scheduler;
mod capacity;
mod shares;
mod lane;
mod breaker;
mod pace;
mod attempt;
mod evidence;
mod bulletins;
mod plugin_chain;
mod plugin_link;
mod plugin_watch;
mod traced;
mod deaths;
mod sending;
mod request;
