//! Where deliveries may go: which addresses, schemes and ports.

mod deny_table;

mod policy;
pub use policy::{Allowed, EgressPolicy};

mod target;
pub use target::{Host, Target, UrlRefusal};
