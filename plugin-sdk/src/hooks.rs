use crate::{Config, Event, Outgoing};

/// Decides whether an endpoint gets an event.
pub trait Filter: Sized {
    /// Takes the endpoint's configuration.
    ///
    /// # Errors
    /// A sentence for whoever saves the endpoint.
    fn configure(config: &Config) -> Result<Self, String>;

    /// Decides. An error is treated as the endpoint's `on_error` says.
    ///
    /// # Errors
    /// A sentence that tells why it cannot decide.
    fn filter(&self, event: &Event) -> Result<Filtered, String>;
}

/// What a filter says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Filtered {
    /// The endpoint gets it.
    Deliver,
    /// It does not, and why.
    Drop(String),
}

impl Filtered {
    /// Drops with a reason.
    pub fn drop(reason: impl Into<String>) -> Self {
        Self::Drop(reason.into())
    }
}

/// Rewrites what an endpoint gets.
pub trait Transform: Sized {
    /// Takes the endpoint's configuration.
    ///
    /// # Errors
    /// A sentence for whoever saves the endpoint.
    fn configure(config: &Config) -> Result<Self, String>;

    /// Rewrites. An error is treated as the endpoint's `on_error` says.
    ///
    /// # Errors
    /// A sentence that tells why it cannot be rewritten.
    fn transform(&self, event: &Event) -> Result<Transformed, String>;
}

/// What a transform says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Transformed {
    /// Send what came in.
    Unchanged,
    /// Send this instead.
    Replace(Outgoing),
    /// Send nothing, and why.
    Drop(String),
}
