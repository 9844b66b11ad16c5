use crate::domain::{DeliveryKey, Timestamp};

/// Why a delivery was given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeadReason {
    /// The last attempt of its schedule failed.
    RetriesExhausted,
    /// The endpoint answered 410 Gone.
    Gone,
    /// A plugin failed and the endpoint asks for a dead letter then.
    PluginError,
    /// The endpoint is disabled.
    EndpointDisabled,
    /// Its time ran out before it could be delivered.
    Expired,
    /// A fault of the gateway's own hit it again and again.
    InternalError,
    /// A plugin says that the endpoint's answer is final.
    Refused,
    /// The endpoint published it to a gateway again, which told that it goes in a circle.
    Loop,
}

impl DeadReason {
    /// Each reason with its name in the API.
    pub const NAMES: [(Self, &'static str); 8] = [
        (Self::RetriesExhausted, "retries_exhausted"),
        (Self::Gone, "gone"),
        (Self::PluginError, "plugin_error"),
        (Self::EndpointDisabled, "endpoint_disabled"),
        (Self::Expired, "expired"),
        (Self::InternalError, "internal_error"),
        (Self::Refused, "refused"),
        (Self::Loop, "loop"),
    ];

    /// Its name in the API.
    pub fn name(self) -> &'static str {
        Self::NAMES.iter().find(|(it, _)| *it == self).expect("each reason has a name").1
    }
}

/// A delivery that was given up and is kept until someone redrives or deletes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetter {
    /// Which delivery.
    pub delivery: DeliveryKey,
    /// Why.
    pub reason: DeadReason,
    /// Since when.
    pub died_at: Timestamp,
}
