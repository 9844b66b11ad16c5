//! Where two JSON texts differ, for people: the place, what was there and what is there.

use serde_json::{Value, json};

/// Differences that are told of one pair; the rest is cut off.
const CHANGES_MAX: usize = 50;
/// Bytes of a value that are shown; a longer one is shown by its beginning.
const SHOWN_BYTES_MAX: usize = 512;

/// The places, as JSON pointers, at which `to` differs from `from`. What is missing on one side
/// is missing in the change.
pub(super) fn difference(from: &Value, to: &Value) -> Vec<Value> {
    let mut changes = Vec::new();
    compare(from, to, &mut String::new(), &mut changes);
    changes
}

fn compare(from: &Value, to: &Value, path: &mut String, changes: &mut Vec<Value>) {
    if from == to || changes.len() >= CHANGES_MAX {
        return;
    }
    match (from, to) {
        (Value::Object(one), Value::Object(other)) => {
            let added = other.keys().filter(|it| !one.contains_key(*it));
            for key in one.keys().chain(added) {
                let step = key.replace('~', "~0").replace('/', "~1");
                inside(&step, (one.get(key), other.get(key)), path, changes);
            }
        }
        (Value::Array(one), Value::Array(other)) => {
            for place in 0..one.len().max(other.len()) {
                inside(&place.to_string(), (one.get(place), other.get(place)), path, changes);
            }
        }
        _ => changes.push(json!({ "path": path, "from": shown(from), "to": shown(to) })),
    }
}

fn inside(
    step: &str,
    pair: (Option<&Value>, Option<&Value>),
    path: &mut String,
    changes: &mut Vec<Value>,
) {
    let before = path.len();
    path.push('/');
    path.push_str(step);
    match pair {
        (Some(from), Some(to)) => compare(from, to, path, changes),
        _ if changes.len() >= CHANGES_MAX => {}
        (Some(from), None) => changes.push(json!({ "path": path, "from": shown(from) })),
        (None, Some(to)) => changes.push(json!({ "path": path, "to": shown(to) })),
        (None, None) => {}
    }
    path.truncate(before);
}

fn shown(value: &Value) -> Value {
    let text = value.to_string();
    if text.len() <= SHOWN_BYTES_MAX {
        return value.clone();
    }
    let end = (0..=SHOWN_BYTES_MAX).rev().find(|it| text.is_char_boundary(*it)).unwrap_or(0);
    Value::String(format!("{}…", &text[..end]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_place_is_named_once() {
        let from = json!({ "a": 1, "b": { "c": [1, 2], "gone": true }, "same": "x" });
        let to = json!({ "a": 2, "b": { "c": [1, 3, 4] }, "same": "x", "n/w": null });
        let changes = difference(&from, &to);
        let expected = [
            json!({ "path": "/a", "from": 1, "to": 2 }),
            json!({ "path": "/b/c/1", "from": 2, "to": 3 }),
            json!({ "path": "/b/c/2", "to": 4 }),
            json!({ "path": "/b/gone", "from": true }),
            json!({ "path": "/n~1w", "to": null }),
        ];
        assert_eq!(changes, expected);
        assert!(difference(&to, &to).is_empty());
    }

    #[test]
    fn what_is_told_is_bounded() {
        let from = Value::Array((0..1000).map(Value::from).collect());
        let to = Value::Array((1..1001).map(Value::from).collect());
        assert_eq!(difference(&from, &to).len(), CHANGES_MAX);
        let long = difference(&json!("ä".repeat(9000)), &json!(""));
        assert!(long[0]["from"].as_str().unwrap().len() <= SHOWN_BYTES_MAX + 4);
    }
}
