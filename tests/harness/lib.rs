//! What the suites share: a gateway in a bottle, and the real binary with real receivers.

mod sim;
pub use sim::{Receiver, Sim};

pub mod plugin;
