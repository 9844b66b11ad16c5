//! Delivers only events whose amount reaches a minimum.
//!
//! Config: `minimum` (a number, needed), `field` (where the amount is, default `amount`; a dot
//! leads inward), `currency` (deliver only this one, default any).

use hookgate_plugin::{Config, Event, Filtered, Plugin};
use serde_json::Value;

struct AmountFilter {
    minimum: f64,
    pointer: String,
    currency: Option<String>,
}

impl Plugin for AmountFilter {
    fn configure(config: &Config) -> Result<Self, String> {
        config.require("minimum")?;
        let field = config.get("field").unwrap_or("amount");
        Ok(Self {
            minimum: config.parse("minimum")?.unwrap_or_default(),
            pointer: format!("/{}", field.replace('.', "/")),
            currency: config.get("currency").map(str::to_owned),
        })
    }

    fn filter(&self, event: &Event) -> Result<Filtered, String> {
        let data: Value = event.json()?;
        let Some(amount) = data.pointer(&self.pointer).and_then(Value::as_f64) else {
            return Err(format!("there is no number at {}", self.pointer));
        };
        if let Some(wanted) = &self.currency
            && data["currency"].as_str() != Some(wanted)
        {
            return Ok(Filtered::drop(format!("the currency is not {wanted}")));
        }
        if amount < self.minimum {
            return Ok(Filtered::drop(format!("{amount} is under {}", self.minimum)));
        }
        Ok(Filtered::Deliver)
    }
}

hookgate_plugin::export!(AmountFilter: filter);

#[cfg(test)]
mod tests {
    use super::*;
    use hookgate_plugin::testing::{event, filter};

    #[test]
    fn small_amounts_are_dropped() {
        let config = [("minimum", "100"), ("field", "order.total")];
        let small = event("order.created", r#"{"order": {"total": 99.5}}"#);
        let big = event("order.created", r#"{"order": {"total": 100}}"#);
        let verdict = filter::<AmountFilter>(&config, &small);
        assert_eq!(verdict, Ok(Filtered::drop("99.5 is under 100")));
        assert_eq!(filter::<AmountFilter>(&config, &big), Ok(Filtered::Deliver));
    }

    #[test]
    fn a_minimum_is_needed() {
        assert!(filter::<AmountFilter>(&[], &event("a", "{}")).is_err());
        assert!(filter::<AmountFilter>(&[("minimum", "x")], &event("a", "{}")).is_err());
    }
}
