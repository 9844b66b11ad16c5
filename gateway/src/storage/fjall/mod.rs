//! The embedded edition: the journal is its own view. One fjall batch carries a batch's rows and
//! its number, and one sync makes it durable for all who wait.

mod database;
pub use database::{Config, Fjall};

mod backup;
pub use backup::{check_backup, restore};

mod verify;
pub use verify::{Step, Verified, has_store, shards_of, verify};

mod opening;
pub use opening::AS_THE_TABLES_TELL;

mod inspect;
mod loss;
mod memtables;
mod oldest;
mod scrub;
mod retention;
mod settling;

#[cfg(any(test, fuzzing))]
pub(super) mod fuzz;

mod high_water;
mod journal_file;
mod manifest;
