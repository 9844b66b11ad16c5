//! What the suites share: a gateway in a bottle, and the real binary with real receivers.

mod sim;
pub use sim::{Machine, Mood, Received, Receiver, Sim};

mod binary;
pub use binary::{Gateway, OPERATOR_KEY, binary};

mod tls;
pub use tls::{Authority, Identity, TlsEndpoint};

mod hostile;
pub use hostile::{Hostile, HostileEndpoint};

mod endpoint;
pub use endpoint::{Delivery, TestEndpoint};

mod ledger;
pub use ledger::{Balance, Ledger};

pub mod guest;
pub mod plugin;
