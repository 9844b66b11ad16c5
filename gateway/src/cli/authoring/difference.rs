use serde_json::Value;

/// Where two documents differ: the place, what was expected there and what came.
pub fn differences(expected: &Value, came: &Value) -> Vec<String> {
    let mut found = Vec::new();
    compare("", Some(expected), Some(came), &mut found);
    found
}

fn compare(place: &str, expected: Option<&Value>, came: Option<&Value>, found: &mut Vec<String>) {
    match (expected, came) {
        (Some(Value::Object(left)), Some(Value::Object(right))) => {
            let further = right.keys().filter(|it| !left.contains_key(*it));
            for key in left.keys().chain(further) {
                let inner = if place.is_empty() { key.clone() } else { format!("{place}.{key}") };
                compare(&inner, left.get(key), right.get(key), found);
            }
        }
        (Some(Value::Array(left)), Some(Value::Array(right))) => {
            for at in 0..left.len().max(right.len()) {
                compare(&format!("{place}[{at}]"), left.get(at), right.get(at), found);
            }
        }
        _ if expected == came => {}
        _ => {
            let shown = |it: Option<&Value>| it.map_or("nothing".to_owned(), Value::to_string);
            let place = if place.is_empty() { "all of it" } else { place };
            let (expected, came) = (shown(expected), shown(came));
            found.push(format!("{place}: expected {expected}, came {came}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn only_what_differs_is_told() {
        let expected = json!({"outcome": "deliver", "data": {"a": 1, "b": [1, {"c": 2}], "d": 0}});
        let came = json!({"outcome": "deliver", "data": {"a": 1, "b": [1, {"c": 3}, 4]}, "e": "x"});
        assert_eq!(
            differences(&expected, &came),
            [
                "data.b[1].c: expected 2, came 3",
                "data.b[2]: expected nothing, came 4",
                "data.d: expected 0, came nothing",
                "e: expected nothing, came \"x\"",
            ]
        );
        assert!(differences(&came, &came).is_empty());
    }
}
