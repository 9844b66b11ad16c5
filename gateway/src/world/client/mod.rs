//! The one client that speaks to endpoints: HTTP/1.1 over connections it has checked itself.
//!
//! **Invariant:** a connection leads to an address that the egress policy permitted after
//! resolution; there is no second look-up, no proxy, no redirect and no decompression.

mod http_transport;
pub use http_transport::{Config, HttpTransport};

mod budget;
mod connect;
mod pool;
mod route;
mod resolve;
mod tls;
mod proxy;
