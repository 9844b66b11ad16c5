//! Write plugins for the Hookgate webhook gateway in Rust.
//!
//! A plugin answers one or more hooks: a filter decides whether an endpoint gets an event, a
//! transform rewrites what it gets, an ingest hook judges an event before it is stored, classify
//! tells what an endpoint's answer means, and sign signs a request. Implement [`Plugin`], export
//! the hooks by name with [`export!`], and build for `wasm32-wasip2`:
//!
//! ```
//! use hookgate_plugin::{Config, Event, Filtered, Plugin};
//!
//! struct BigOrders {
//!     minimum: f64,
//! }
//!
//! impl Plugin for BigOrders {
//!     fn configure(config: &Config) -> Result<Self, String> {
//!         Ok(Self { minimum: config.parse("minimum")?.unwrap_or(100.0) })
//!     }
//!
//!     fn filter(&self, event: &Event) -> Result<Filtered, String> {
//!         let order: serde_json::Value = event.json()?;
//!         let amount = order["amount"].as_f64().ok_or("the order has no amount")?;
//!         Ok(match amount >= self.minimum {
//!             true => Filtered::Deliver,
//!             false => Filtered::drop(format!("{amount} is under {}", self.minimum)),
//!         })
//!     }
//! }
//!
//! hookgate_plugin::export!(BigOrders: filter);
//! # fn main() {
//! let event = hookgate_plugin::testing::event("order.created", r#"{"amount": 7}"#);
//! let verdict = hookgate_plugin::testing::filter::<BigOrders>(&[], &event);
//! assert_eq!(verdict, Ok(Filtered::drop("7 is under 100")));
//! # }
//! ```
//!
//! A plugin has no network, files, environment or clock, and each event meets a fresh instance.

mod plugin;
pub use plugin::Plugin;

mod config;
pub use config::Config;

mod event;
pub use bindings::imports::hookgate::plugin::types::{
    Classified, Event, Filtered, Incoming, Ingested, Outgoing, Replacement, Request, Response,
    Transformed,
};

mod keys;
pub use keys::{Algorithm, Keys};

mod log;
pub use log::{debug, error, info, warn};

pub mod testing;

#[doc(hidden)]
pub mod bindings;

mod export;
