//! Takes only events whose data has an `id`; puts `prefix`, if configured, before their type.

use hookgate_plugin::{Config, Incoming, Ingested, Plugin};
use serde_json::Value;

struct Door {
    prefix: Option<String>,
}

impl Plugin for Door {
    fn configure(config: &Config) -> Result<Self, String> {
        Ok(Self { prefix: config.get("prefix").map(str::to_owned) })
    }

    fn ingest(&self, event: &Incoming) -> Result<Ingested, String> {
        let data: Value = event.json()?;
        if data["id"].is_null() {
            return Ok(Ingested::reject("the data has no `id`"));
        }
        let Some(prefix) = &self.prefix else { return Ok(Ingested::Accept) };
        let mut replacement = event.replacement();
        replacement.event_type = format!("{prefix}{}", event.event_type);
        Ok(Ingested::Replace(replacement))
    }
}

hookgate_plugin::export!(Door: ingest);

#[cfg(test)]
mod tests {
    use super::*;
    use hookgate_plugin::testing::{incoming, ingest};

    #[test]
    fn types_get_a_prefix() {
        let event = incoming("created", r#"{"id": 1}"#);
        let Ok(Ingested::Replace(out)) = ingest::<Door>(&[("prefix", "order.")], &event) else {
            panic!("it should be renamed");
        };
        assert_eq!(out.event_type, "order.created");
    }
}
