//! Where deliveries may go: which addresses, schemes and ports.

mod deny_table;
mod ports;

mod policy;
pub use policy::{Allowed, Denial, EgressPolicy, Proxy, own_addresses};

mod target;
pub use target::{Host, Target, UrlRefusal};
