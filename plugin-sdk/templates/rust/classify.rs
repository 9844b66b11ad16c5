//! A receiver that answers 200 with `{"ok": false}` has not taken the event.

use hookgate_plugin::{Classified, Config, Plugin, Response};
use serde_json::Value;

struct Ok200;

impl Plugin for Ok200 {
    fn configure(_: &Config) -> Result<Self, String> {
        Ok(Self)
    }

    fn classify(&self, response: &Response) -> Result<Classified, String> {
        let Ok(body) = response.json::<Value>() else { return Ok(Classified::Undecided) };
        if body["ok"] == false {
            return Ok(Classified::failure(body["error"].as_str().unwrap_or("it is not ok")));
        }
        Ok(Classified::Undecided)
    }
}

hookgate_plugin::export!(Ok200: classify);

#[cfg(test)]
mod tests {
    use super::*;
    use hookgate_plugin::testing::{classify, response};

    #[test]
    fn the_status_decides_over_everything_else() {
        let verdict = classify::<Ok200>(&[], &response(200, &[], "thanks"));
        assert_eq!(verdict, Ok(Classified::Undecided));
    }
}
