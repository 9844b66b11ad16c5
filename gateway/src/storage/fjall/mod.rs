//! The embedded edition: the journal is its own view. One fjall batch carries a batch's rows and
//! its number, and one sync makes it durable for all who wait.

mod database;
pub use database::{Config, Fjall};

mod high_water;
