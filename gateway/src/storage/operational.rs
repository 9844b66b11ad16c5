//! Events that the gateway itself raises at a tenant: ordinary ones, durable, signed, and
//! delivered to those endpoints that ask for `hookgate.…` by name.

use bytes::Bytes;
use serde_json::Value;

use crate::domain::{EventType, Slug};
use crate::storage::{NewEvent, Shard};

impl Shard {
    /// Raises one, if an endpoint asks for its type. **Nobody may raise one on account of
    /// another**, or they would never end.
    pub async fn raise(&self, tenant: &Slug, event_type: &str, data: &Value) {
        let event_type = EventType::parse(event_type).expect("it is well formed");
        debug_assert!(event_type.is_operational(), "{event_type}");
        let is_wanted = self.catalog().tenant(tenant).is_some_and(|it| it.listens(&event_type));
        if !is_wanted {
            return;
        }
        let event = NewEvent::new(event_type, Bytes::from(data.to_string()));
        if let Err(error) = self.append(tenant, vec![event], true).await {
            tracing::error!(%error, %tenant, "an operational event cannot be stored");
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::domain::{EndpointNo, Pattern, event_for_tests};
    use crate::storage::conformance::endpoint;

    #[test]
    fn only_who_asks_for_it_by_name_is_told_what_the_gateway_tells() {
        let failing = event_for_tests("hookgate.plugin.failing", "{}");
        let paid = event_for_tests("hookgateway.paid", "{}");
        for (types, told, ordinary) in [
            (&[][..], false, true),
            (&["**"], false, true),
            (&["*.plugin.failing"], false, false),
            (&["hookgate.**"], true, false),
            (&["hookgate.plugin.*"], true, false),
            (&["**", "hookgate.plugin.failing"], true, true),
        ] {
            let mut endpoint = endpoint(EndpointNo(1));
            endpoint.event_types = types.iter().map(|it| Pattern::parse(it).unwrap()).collect();
            assert_eq!(endpoint.wants(&failing), told, "{types:?}");
            assert_eq!(endpoint.wants(&paid), ordinary, "{types:?}");
        }
    }
}
