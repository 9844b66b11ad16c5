//! Masks fields of the data before an endpoint sees them.
//!
//! Config: `fields` (comma separated, needed; a dot leads inward: `card,customer.email`), `keep`
//! (how many of the last characters stay, default 4). Numbers, objects, and texts of no more than
//! that many characters become `"***"`: of these nothing would be masked.

use hookgate_plugin::{Config, Event, Outgoing, Plugin, Transformed};
use serde_json::Value;

struct Redact {
    pointers: Vec<String>,
    keep: usize,
}

impl Plugin for Redact {
    fn configure(config: &Config) -> Result<Self, String> {
        config.require("fields")?;
        let pointers = config.list("fields");
        let pointers = pointers.iter().map(|it| format!("/{}", it.replace('.', "/"))).collect();
        Ok(Self { pointers, keep: config.parse("keep")?.unwrap_or(4) })
    }

    fn transform(&self, event: &Event) -> Result<Transformed, String> {
        let mut data: Value = event.json()?;
        let mut changed = false;
        for pointer in &self.pointers {
            if let Some(field) = data.pointer_mut(pointer) {
                *field = Value::String(mask(field, self.keep));
                changed = true;
            }
        }
        Ok(match changed {
            true => Transformed::Replace(Outgoing::json(&data)?),
            false => Transformed::Unchanged,
        })
    }
}

fn mask(field: &Value, keep: usize) -> String {
    let Some(text) = field.as_str() else { return "***".to_owned() };
    let masked = text.chars().count().saturating_sub(keep);
    if masked == 0 {
        return "***".to_owned();
    }
    text.chars().enumerate().map(|(place, it)| if place < masked { '*' } else { it }).collect()
}

hookgate_plugin::export!(Redact: transform);

#[cfg(test)]
mod tests {
    use super::*;
    use hookgate_plugin::testing::{event, transform};

    #[test]
    fn fields_are_masked() {
        let config = [("fields", "card.number, cvc")];
        let event_ =
            event("payment.success", r#"{"card": {"number": "4242424242424242"}, "cvc": 1}"#);
        let Ok(Transformed::Replace(out)) = transform::<Redact>(&config, &event_) else {
            panic!("it should be rewritten");
        };
        let data: Value = serde_json::from_slice(&out.payload).unwrap();
        assert_eq!(data["card"]["number"], "************4242");
        assert_eq!(data["cvc"], "***");
    }

    #[test]
    fn what_is_too_short_to_be_masked_is_not_shown() {
        for (text, keep, masked) in [
            ("1234", "4", "***"),
            ("12", "4", "***"),
            ("", "4", "***"),
            ("12345", "4", "*2345"),
            ("ab", "0", "**"),
        ] {
            let config = [("fields", "pin"), ("keep", keep)];
            let event_ = event("a", &serde_json::json!({ "pin": text }).to_string());
            let Ok(Transformed::Replace(out)) = transform::<Redact>(&config, &event_) else {
                panic!("it should be rewritten");
            };
            let data: Value = serde_json::from_slice(&out.payload).unwrap();
            assert_eq!(data["pin"], masked, "{text}");
        }
    }

    #[test]
    fn what_has_none_of_them_stays() {
        let config = [("fields", "card")];
        let verdict = transform::<Redact>(&config, &event("a", r#"{"b": 1}"#));
        assert_eq!(verdict, Ok(Transformed::Unchanged));
    }
}
