//! The nouns of the gateway and the rules between them.
//!
//! **Invariant:** nothing here does I/O, awaits, logs, or reads a clock. Time and chance arrive
//! as arguments, so every rule can be tested with plain values.

mod time;
pub use time::Timestamp;
