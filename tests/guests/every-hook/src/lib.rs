//! A guest of the tests: it answers every hook, in a way that the data asks for.

use hookgate_plugin::{
    Algorithm, Classified, Config, Event, Filtered, Incoming, Ingested, Keys, Outgoing, Plugin,
    Request, Response, Transformed,
};
use serde_json::{Value, json};

struct EveryHook {
    team: String,
}

impl Plugin for EveryHook {
    fn configure(config: &Config) -> Result<Self, String> {
        Ok(Self { team: config.require("team")?.to_owned() })
    }

    fn filter(&self, event: &Event) -> Result<Filtered, String> {
        let data: Value = event.json()?;
        Ok(if data["drop"] == true { Filtered::drop("as told") } else { Filtered::Deliver })
    }

    /// An order with `items` becomes a request for each.
    fn transform(&self, event: &Event) -> Result<Transformed, String> {
        let data: Value = event.json()?;
        let Some(items) = data["items"].as_array() else { return Ok(Transformed::Unchanged) };
        let part = |item: &Value| {
            let mut out = Outgoing::json(&json!({ "item": item }))?;
            out.headers.push(("x-team".to_owned(), self.team.clone()));
            Ok(out)
        };
        Ok(Transformed::Split(items.iter().map(part).collect::<Result<_, String>>()?))
    }

    /// Amounts must not be negative; the team is written down, old names are renamed.
    fn ingest(&self, event: &Incoming) -> Result<Ingested, String> {
        let data: Value = event.json()?;
        if data["amount"].as_f64().is_some_and(|it| it < 0.0) {
            return Ok(Ingested::reject("the amount is negative"));
        }
        if data["fail"] == true {
            return Err("it cannot tell".to_owned());
        }
        let mut replacement = event.replacement();
        replacement.metadata.push(("team".to_owned(), self.team.clone()));
        if event.event_type == "old.name" {
            replacement.event_type = "new.name".to_owned();
        }
        Ok(Ingested::Replace(replacement))
    }

    /// Some receivers answer 200 and say in the body that they did not take it.
    fn classify(&self, response: &Response) -> Result<Classified, String> {
        let Ok(body) = response.json::<Value>() else { return Ok(Classified::Undecided) };
        Ok(match (body["ok"].as_bool(), body["final"].as_bool()) {
            (Some(true), _) => Classified::Success,
            (Some(false), Some(true)) => Classified::final_failure("it never will"),
            (Some(false), _) => Classified::failure("not ok"),
            (None, _) => Classified::Undecided,
        })
    }

    fn sign(&self, request: &Request, keys: &Keys) -> Result<Vec<(String, String)>, String> {
        let message = [format!("{}:{}:", self.team, request.path).as_bytes(), &request.body].concat();
        let hex = |mac: Vec<u8>| mac.iter().map(|it| format!("{it:02x}")).collect::<String>();
        let macs = keys.hmac_each(Algorithm::Sha256, &message).into_iter().map(hex);
        Ok(vec![("x-team-signature".to_owned(), macs.collect::<Vec<_>>().join(","))])
    }
}

hookgate_plugin::export!(EveryHook: filter, transform, ingest, classify, sign);
