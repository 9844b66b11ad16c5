use crate::domain::{DeadReason, EndpointNo, Seq, Timestamp, TypeId};

const ENDPOINT_BITS: u32 = 30;

/// One event on its way to one endpoint: its name inside a shard. Derived, not drawn, so that
/// fanning an event out twice changes nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DeliveryKey {
    /// The event.
    pub seq: Seq,
    /// The endpoint.
    pub endpoint: EndpointNo,
}

impl DeliveryKey {
    /// Reads a `dlv_…` id.
    pub fn parse(text: &str) -> Option<Self> {
        let tail = TypeId::parse("dlv", text)?.tail();
        let endpoint = EndpointNo((tail & ((1 << ENDPOINT_BITS) - 1)) as u32);
        Some(Self { seq: Seq((tail >> ENDPOINT_BITS) as u64), endpoint })
    }
}

/// The `dlv_…` id of the delivery of an event accepted at `accepted_at`.
pub fn delivery_id(key: DeliveryKey, accepted_at: Timestamp) -> String {
    let tail = (u128::from(key.seq.0) << ENDPOINT_BITS) | u128::from(key.endpoint.0);
    TypeId::new("dlv", accepted_at, tail).to_string()
}

/// Whose capacity an attempt uses, so that no kind of work crowds out another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Claim {
    /// The first attempt of a delivery.
    First,
    /// A further attempt, by the endpoint's retry policy.
    Retry,
    /// Somebody asked for this one and waits for it: a test, a manual retry.
    Asked,
    /// One of many that were asked for at once: a replay, a redrive.
    Bulk,
}

/// Where a delivery stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DeliveryState {
    /// No attempt has finished yet.
    Pending,
    /// An attempt failed or someone asked for another; the next is due then.
    Retrying {
        /// When the next attempt is due.
        due: Timestamp,
    },
    /// The endpoint accepted it.
    Delivered,
    /// A plugin dropped it for this endpoint.
    Filtered {
        /// What the plugin said.
        reason: String,
    },
    /// Given up; kept as a dead letter.
    Dead {
        /// Why.
        reason: DeadReason,
    },
    /// Withdrawn: its endpoint was deleted, or its dead letter thrown away.
    Cancelled,
}

impl DeliveryState {
    /// Its name in the API.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Retrying { .. } => "retrying",
            Self::Delivered => "delivered",
            Self::Filtered { .. } => "filtered",
            Self::Dead { .. } => "dead",
            Self::Cancelled => "cancelled",
        }
    }

    /// The names of all states.
    pub const NAMES: [&'static str; 6] =
        ["pending", "retrying", "delivered", "filtered", "dead", "cancelled"];
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_tells_its_event_and_endpoint() {
        let key = DeliveryKey { seq: Seq((1 << 44) - 1), endpoint: EndpointNo((1 << 30) - 1) };
        let id = delivery_id(key, Timestamp(1_800_000_000_000));
        assert_eq!(DeliveryKey::parse(&id), Some(key));
        assert_eq!(DeliveryKey::parse("dlv_nonsense"), None);
    }
}
