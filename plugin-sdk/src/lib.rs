//! Write plugins for the Hookgate webhook gateway in Rust.
//!
//! A filter decides whether an endpoint gets an event; a transform rewrites what it gets. Implement
//! [`Filter`] or [`Transform`], export it with [`export_filter!`] or [`export_transform!`], and
//! build for `wasm32-wasip2`:
//!
//! ```
//! use hookgate_plugin::{Config, Event, Filter, Filtered};
//!
//! struct BigOrders {
//!     minimum: f64,
//! }
//!
//! impl Filter for BigOrders {
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
//! hookgate_plugin::export_filter!(BigOrders);
//! # fn main() {
//! let event = hookgate_plugin::testing::event("order.created", r#"{"amount": 7}"#);
//! let verdict = hookgate_plugin::testing::filter::<BigOrders>(&[], &event);
//! assert_eq!(verdict, Ok(Filtered::drop("7 is under 100")));
//! # }
//! ```
//!
//! A plugin has no network, files, environment or clock, and each event meets a fresh instance.

mod config;
pub use config::Config;

mod event;
pub use event::{Event, Outgoing};

mod hooks;
pub use hooks::{Filter, Filtered, Transform, Transformed};

mod log;
pub use log::{debug, error, info, warn};

pub mod testing;

#[doc(hidden)]
pub mod bindings;

mod export;
