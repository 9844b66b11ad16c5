//! Adds the member `source` to the data.

use hookgate_plugin::{Config, Event, Outgoing, Plugin, Transformed};
use serde_json::Value;

struct Source {
    source: String,
}

impl Plugin for Source {
    fn configure(config: &Config) -> Result<Self, String> {
        Ok(Self { source: config.get("source").unwrap_or("hookgate").to_owned() })
    }

    fn transform(&self, event: &Event) -> Result<Transformed, String> {
        let mut data: Value = event.json()?;
        let Some(members) = data.as_object_mut() else { return Ok(Transformed::Unchanged) };
        members.insert("source".to_owned(), self.source.clone().into());
        Ok(Transformed::Replace(Outgoing::json(&data)?))
    }
}

hookgate_plugin::export!(Source: transform);

#[cfg(test)]
mod tests {
    use super::*;
    use hookgate_plugin::testing::{event, transform};

    #[test]
    fn what_is_no_object_stays() {
        let verdict = transform::<Source>(&[], &event("order.created", "[1]"));
        assert_eq!(verdict, Ok(Transformed::Unchanged));
    }
}
