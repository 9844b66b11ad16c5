//! Where hand-offs become durable: one state machine over a journal of logical records.
//!
//! Rooms call a [`Shard`]: accept events, read them, enqueue deliveries, lease and settle them,
//! change the catalog, look things up. Every change becomes a record; the one writer of the shard
//! groups records into batches, the journal makes a batch durable, and the batch is folded into
//! the rows of the view. Whatever is in memory beside it is derived and made again at a start.
//!
//! **Invariant:** when [`Shard::append`] or a change of the catalog returns `Ok`, it survives a
//! power failure; and a record is never on disk without all those before it.

mod error;
pub use error::{Error, Result};

mod folder;
pub use folder::create_folder;

mod store;
pub use store::{Config, RunningWriters, Store, Writers};

mod shard;
pub use shard::{Notice, Shard};

mod operational;

mod floors;
pub use floors::Floors;

mod trim;
pub use trim::{Keep, Trimmed};

mod time;
mod dead_hours;
mod deleted;

mod answering;
mod append;
pub use append::{Appended, NewEvent};

mod company;

mod fan_out;
pub use fan_out::Wanted;

mod lend;
pub use lend::{Lease, Lent};

mod requeue;
mod under_way;

mod look;
pub use look::{Backlog, Overdue};

mod names;
mod late;
pub use late::Late;

mod taken;
pub use taken::Allowance;

mod lane;
mod loan_end;

mod queue;
pub use queue::Ready;

mod queue_load;
mod waiting;
mod health;

mod stats;
pub use stats::Figures;

mod keyring;
pub use keyring::{MasterKey, MasterKeys};

mod subscriptions;

mod call_off;
mod catalog;
pub use catalog::{Catalog, EndpointCounts, TenantEntry};

mod ingest;
mod audit;
pub use audit::{Author, Noun};

mod configure;
pub use configure::Refused;

mod plugin_versions;
pub use plugin_versions::Uploaded;

mod known_types;
mod order;
mod reorder;
mod repeats;
mod replays;

mod read;

mod history_row;
pub use history_row::Entry;

mod writer;
mod record;
mod fold;
mod timers;
mod tail;
mod verify;
#[cfg(any(test, fuzzing))]
pub mod fuzz;

mod journal;
pub use journal::{Batch, Durability, Journal, View};

mod table;
pub use table::{Changes, Table};

mod keys;
mod codec;
mod event_row;
mod catalog_row;
mod plugin_row;
mod quota_row;
mod known_row;

pub mod conformance;
mod conformance_names;
mod conformance_retention;
pub mod fjall;
pub mod memory;
