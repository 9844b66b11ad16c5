//! Everything the gateway cannot predict: time, chance, other people's servers, and when memory
//! is given back.
//!
//! **Invariant:** these traits are the only doors to the outside besides storage and the API
//! listener; `.clippy.toml` bars the others. Waiting uses `tokio::time`, which tests pause.

mod alarm;
pub use alarm::Alarm;

mod clock;
pub use clock::{Clock, SimClock, SteadyClock, SystemClock};

mod entropy;
pub use entropy::{Entropy, SeededEntropy, SystemEntropy};

mod failpoint;
pub use failpoint::{forgets, reach};

pub mod allocator;
pub mod client;
pub mod egress;

mod joined;
pub use joined::poll_write_joined;

mod transport;
pub use transport::{FailureClass, Request, Response, SendResult, Timings, Transport};
