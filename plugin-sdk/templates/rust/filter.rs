//! Delivers only events whose data has `"urgent": true`, or all if `all` is configured.

use hookgate_plugin::{Config, Event, Filtered, Plugin};
use serde_json::Value;

struct Urgent {
    all: bool,
}

impl Plugin for Urgent {
    fn configure(config: &Config) -> Result<Self, String> {
        Ok(Self { all: config.parse("all")?.unwrap_or(false) })
    }

    fn filter(&self, event: &Event) -> Result<Filtered, String> {
        let data: Value = event.json()?;
        match self.all || data["urgent"] == true {
            true => Ok(Filtered::Deliver),
            false => Ok(Filtered::drop("it is not urgent")),
        }
    }
}

hookgate_plugin::export!(Urgent: filter);

#[cfg(test)]
mod tests {
    use super::*;
    use hookgate_plugin::testing::{event, filter};

    #[test]
    fn all_are_delivered_when_configured_so() {
        let event = event("order.created", r#"{"urgent": false}"#);
        let verdict = filter::<Urgent>(&[("all", "true")], &event);
        assert_eq!(verdict, Ok(Filtered::Deliver));
    }
}
