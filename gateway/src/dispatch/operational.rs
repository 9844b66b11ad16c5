//! Events that the gateway itself raises at a tenant: ordinary ones, durable, signed, and
//! delivered to whoever subscribes to their type.

use bytes::Bytes;
use serde_json::Value;

use crate::domain::{EventType, Slug};
use crate::storage::{NewEvent, Shard};

/// What all types of the gateway's own events begin with.
const PREFIX: &str = "hookgate.";

/// Whether an event of this type is one of the gateway's own.
pub(super) fn is(event_type: &EventType) -> bool {
    event_type.as_str().starts_with(PREFIX)
}

/// Raises one. **Nobody may raise one on account of another**, or they would never end.
pub(super) async fn raise(shard: &Shard, tenant: &Slug, event_type: &str, data: &Value) {
    let event_type = EventType::parse(event_type).expect("it is well formed");
    let event = NewEvent::new(event_type, Bytes::from(data.to_string()));
    if let Err(error) = shard.append(tenant, vec![event], true).await {
        tracing::error!(%error, %tenant, "an operational event cannot be stored");
    }
}
