use std::{fmt, sync::Arc};

use jsonschema::{Draft, PatternOptions, Validator};
use serde_json::Value;

use crate::domain::{EventType, Timestamp};

const SOURCE_BYTES_MAX: usize = 64 * 1024;
/// Violations that are told at once.
const VIOLATIONS_MAX: usize = 100;
/// Schemas that apply in place to one value, all `$ref`s followed.
const UNFOLDED_MAX: u32 = 10_000;
/// Bytes that the patterns of a schema may take when they are compiled.
const PATTERN_BYTES_MAX: usize = 1024 * 1024;

/// A JSON Schema ([2020-12](https://json-schema.org/draft/2020-12)) for the data of events. It
/// reaches nothing outside itself.
#[derive(Clone)]
pub struct Schema {
    source: Arc<str>,
    validator: Arc<Validator>,
}

/// Where data breaks its schema: a JSON pointer into the data, and a sentence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// Where, below the data.
    pub pointer: String,
    /// What is wrong there.
    pub detail: String,
}

impl Schema {
    /// Compiles a schema from its JSON text.
    ///
    /// # Errors
    /// A sentence for the author.
    pub fn compile(source: &str) -> Result<Self, String> {
        if source.len() > SOURCE_BYTES_MAX {
            return Err(format!("the schema is longer than {SOURCE_BYTES_MAX} bytes"));
        }
        let value: Value = serde_json::from_str(source).map_err(|it| it.to_string())?;
        if !value.is_object() && !value.is_boolean() {
            return Err("must be a JSON Schema: an object, true or false".to_owned());
        }
        let mut unfolded = UNFOLDED_MAX;
        if unfolds_too_far(&value, &value, (0, &mut unfolded)) {
            let detail = "its `$ref`s lead back to themselves, or unfold to very many schemas";
            return Err(detail.to_owned());
        }
        // Patterns run in linear time, so that no producer can make them slow.
        let patterns =
            PatternOptions::regex().size_limit(PATTERN_BYTES_MAX).dfa_size_limit(PATTERN_BYTES_MAX);
        let validator = jsonschema::options()
            .with_draft(Draft::Draft202012)
            .with_pattern_options(patterns)
            .build(&value)
            .map_err(|it| it.to_string())?;
        Ok(Self { source: source.into(), validator: Arc::new(validator) })
    }

    /// The schema as it was written.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// All that is wrong with the data, up to a hundred.
    pub fn violations(&self, data: &Value) -> Vec<Violation> {
        if self.validator.is_valid(data) {
            return Vec::new();
        }
        let errors = self.validator.iter_errors(data).take(VIOLATIONS_MAX);
        let violation = |it: jsonschema::ValidationError<'_>| Violation {
            pointer: it.instance_path().to_string(),
            detail: it.to_string(),
        };
        errors.map(violation).collect()
    }
}

/// Whether following `$ref` and the schemas that apply in place comes back to where it began, or
/// to very many places: a validator would never end.
fn unfolds_too_far(root: &Value, at: &Value, (depth, left): (usize, &mut u32)) -> bool {
    const DEPTH_MAX: usize = 64;
    *left = left.saturating_sub(1);
    if depth > DEPTH_MAX || *left == 0 {
        return true;
    }
    let Value::Object(members) = at else { return false };
    let in_place = ["allOf", "anyOf", "oneOf"];
    let groups = in_place.iter().filter_map(|it| members.get(*it)?.as_array()).flatten();
    let single = ["not", "if", "then", "else"].iter().filter_map(|it| members.get(*it));
    let dependent = members.get("dependentSchemas").and_then(Value::as_object);
    let dependent = dependent.into_iter().flat_map(|it| it.values());
    let referred = ["$ref", "$dynamicRef"].iter().filter_map(|it| {
        let pointer = members.get(*it)?.as_str()?.strip_prefix('#')?;
        root.pointer(pointer)
    });
    let mut next = groups.chain(single).chain(dependent).chain(referred);
    next.any(|it| unfolds_too_far(root, it, (depth + 1, &mut *left)))
}

impl fmt::Debug for Schema {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Schema({})", self.source)
    }
}

impl PartialEq for Schema {
    fn eq(&self, other: &Self) -> bool {
        self.source == other.source
    }
}

/// An event type that a tenant has described.
#[derive(Debug, Clone, PartialEq)]
pub struct KnownType {
    /// The type itself.
    pub name: EventType,
    /// For people.
    pub description: String,
    /// What its events' data must look like.
    pub schema: Option<Schema>,
    /// Whether events that break the schema are refused; else they are taken with a warning.
    pub strict: bool,
    /// When it was first described.
    pub created_at: Timestamp,
    /// When it was last changed.
    pub updated_at: Timestamp,
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn every_violation_is_told_with_its_place() {
        let schema = json!({
            "type": "object",
            "required": ["order_id"],
            "properties": { "order_id": { "type": "integer" }, "lines": { "items": { "type": "string" } } },
            "additionalProperties": false,
        });
        let schema = Schema::compile(&schema.to_string()).unwrap();
        assert_eq!(schema.violations(&json!({ "order_id": 1 })), []);
        let found = schema.violations(&json!({ "order_id": "x", "lines": ["a", 1], "more": 1 }));
        let mut places: Vec<_> = found.iter().map(|it| it.pointer.as_str()).collect();
        places.sort_unstable();
        assert_eq!(places, ["", "/lines/1", "/order_id"]);
    }

    #[test]
    fn what_is_no_schema_or_would_not_end_is_refused() {
        for bad in [
            "{",
            "[]",
            r#"{"type": "strin"}"#,
            r#"{"pattern": "("}"#,
            r##"{"$ref": "#"}"##,
            r##"{"$defs": {"a": {"allOf": [{"$ref": "#/$defs/a"}]}}, "$ref": "#/$defs/a"}"##,
            r#"{"$ref": "https://example.com/schema.json"}"#,
            r#"{"$ref": "file:///etc/passwd"}"#,
            r#"{"pattern": "(?:a{1000}){1000}"}"#,
        ] {
            assert!(Schema::compile(bad).is_err(), "{bad}");
        }
        let tree = r##"{"type": "object", "properties": {"child": {"$ref": "#"}}}"##;
        let tree = Schema::compile(tree).unwrap();
        assert_eq!(tree.violations(&json!({ "child": { "child": 1 } })).len(), 1);
        let long = format!("{{}}{}", " ".repeat(70_000));
        assert!(Schema::compile(&long).is_err());
    }
}
