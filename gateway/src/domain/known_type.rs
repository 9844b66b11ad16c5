use std::{fmt, sync::Arc};

use jsonschema::{Draft, PatternOptions, Validator};
use serde_json::Value;

use crate::domain::schema_cost::{self, Cost};
use crate::domain::{EventType, Timestamp};

/// How schemas are read.
const DIALECT: &str = "https://json-schema.org/draft/2020-12/schema";
const SOURCE_BYTES_MAX: usize = 64 * 1024;
/// Violations that are told at once.
const VIOLATIONS_MAX: usize = 100;
/// What a schema may cost for a value, in schemas that it is compared with.
const BREADTH_MAX: u64 = 2000;
/// What comparing one event may cost: its values, times what the schema costs for each.
const WORK_MAX: u64 = 5_000_000;
/// What naming all violations of one event may cost; over it, only that there are some is told.
const NAMING_MAX: u64 = 200_000;
/// What costs more takes milliseconds.
const SHORT_MAX: u64 = 200_000;
/// Steps of a pattern that cost as much as a value.
const STEPS: u64 = 4;
/// Bytes of text that cost as much as a value.
const TEXT_BYTES: u64 = 32;
/// Bytes that the patterns of a schema may take when they are compiled.
const PATTERN_BYTES_MAX: usize = 1024 * 1024;

/// A JSON Schema ([2020-12](https://json-schema.org/draft/2020-12)) for the data of events. It
/// reaches nothing outside itself.
#[derive(Clone)]
pub struct Schema {
    source: Arc<str>,
    validator: Arc<Validator>,
    /// Nothing where it costs more than a schema may, by a limit that came after it.
    cost: Option<Cost>,
}

/// What comparing events with schemas may still cost within a request.
#[derive(Debug, Clone, Copy)]
pub struct Budget(u64);

impl Budget {
    /// What a whole request with many events may cost: as much as four of the costliest.
    pub fn of_request() -> Self {
        Self(4 * WORK_MAX)
    }

    /// Whether something took a while: others should have their turn.
    pub fn is_dented(&self) -> bool {
        self.0 < 4 * WORK_MAX - SHORT_MAX
    }
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
        let (schema, too_costly) = Self::build(source)?;
        let value: Value = serde_json::from_str(source).map_err(|it| it.to_string())?;
        // Read by other rules than its author's, it would let through what it should not.
        if let Some(dialect) = value.get("$schema")
            && dialect.as_str().map(|it| it.trim_end_matches('#')) != Some(DIALECT)
        {
            return Err(format!("`$schema` must be {DIALECT}, or left out"));
        }
        too_costly.map_or(Ok(schema), Err)
    }

    /// The same of a schema that was taken once: limits that came later do not make it unreadable.
    /// Data is not compared with what is over them.
    ///
    /// # Errors
    /// A sentence when it is no schema.
    pub fn restore(source: &str) -> Result<Self, String> {
        Self::build(source).map(|(schema, _)| schema)
    }

    fn build(source: &str) -> Result<(Self, Option<String>), String> {
        if source.len() > SOURCE_BYTES_MAX {
            return Err(format!("the schema is longer than {SOURCE_BYTES_MAX} bytes"));
        }
        let value: Value = serde_json::from_str(source).map_err(|it| it.to_string())?;
        if !value.is_object() && !value.is_boolean() {
            return Err("must be a JSON Schema: an object, true or false".to_owned());
        }
        let cost = schema_cost::of(&value).and_then(|cost| match cost.breadth {
            ..=BREADTH_MAX => Ok(cost),
            _ => Err(format!(
                "comparing one value would take over {BREADTH_MAX} schemas, all `$ref`s followed: \
                 use fewer alternatives, or fewer `$ref`s to the same"
            )),
        });
        // Patterns run in linear time, so that no producer can make them slow.
        let patterns =
            PatternOptions::regex().size_limit(PATTERN_BYTES_MAX).dfa_size_limit(PATTERN_BYTES_MAX);
        let (cost, too_costly) = match cost {
            Ok(cost) => (Some(cost), None),
            // Its validator would be as costly to make.
            Err(detail) => {
                let validator = jsonschema::options().build(&Value::Bool(true));
                let validator = Arc::new(validator.map_err(|it| it.to_string())?);
                return Ok((Self { source: source.into(), validator, cost: None }, Some(detail)));
            }
        };
        let validator = jsonschema::options()
            .with_draft(Draft::Draft202012)
            .with_pattern_options(patterns)
            .build(&value)
            .map_err(|it| it.to_string())?;
        Ok((Self { source: source.into(), validator: Arc::new(validator), cost }, too_costly))
    }

    /// The schema as it was written.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// All that is wrong with the data, up to a hundred; or that it cannot be told within the
    /// budget, which shrinks by what it costs.
    pub fn violations(&self, data: &Value, budget: &mut Budget) -> Vec<Violation> {
        let whole =
            |detail: &str| vec![Violation { pointer: String::new(), detail: detail.to_owned() }];
        let (work, ways) = match self.work(data) {
            Ok(work) => work,
            Err(detail) => return whole(detail),
        };
        if work > budget.0 {
            return whole(
                "there is too much in the request to be compared with schemas: send fewer events \
                 at once",
            );
        }
        budget.0 -= work;
        if self.validator.is_valid(data) {
            return Vec::new();
        }
        // Only whether data is valid is remembered where a schema leads back to itself.
        if work.saturating_mul(ways) > NAMING_MAX {
            return whole("does not match its type's schema; it is too large to say where");
        }
        let errors = self.validator.iter_errors(data).take(VIOLATIONS_MAX);
        let violation = |it: jsonschema::ValidationError<'_>| Violation {
            pointer: it.instance_path().to_string(),
            detail: it.to_string(),
        };
        errors.map(violation).collect()
    }

    /// Whether comparing the data would hold up whoever waits for the same thread.
    pub fn takes_long(&self, data: &Value) -> bool {
        self.work(data).is_ok_and(|(work, _)| work > SHORT_MAX)
    }

    /// What comparing the data costs, and how many times as much naming each violation.
    fn work(&self, data: &Value) -> Result<(u64, u64), &'static str> {
        let Some(cost) = self.cost else {
            return Err("its type's schema is too complex to be used: describe the type anew");
        };
        let Size { values, bytes, depth } = measure(data);
        let steps = bytes.saturating_mul(cost.steps) / STEPS;
        if steps > WORK_MAX {
            return Err(
                "has too much text for the patterns of its type's schema: begin them with \
                        ^ and give their repetitions an end",
            );
        }
        let work = values.saturating_mul(cost.breadth).saturating_add(steps);
        if work > WORK_MAX {
            return Err("has too many values to be compared with its type's schema: send it in \
                        parts, or give the schema fewer alternatives");
        }
        Ok((work, cost.branching.max(1).saturating_pow(depth)))
    }
}

/// How large data is.
#[derive(Debug, Default)]
struct Size {
    /// Values in it; long texts count as several.
    values: u64,
    /// Bytes of its texts.
    bytes: u64,
    /// How deep it is nested.
    depth: u32,
}

impl Size {
    fn text(text: &str) -> Self {
        let bytes = text.len() as u64;
        Self { values: 1 + bytes / TEXT_BYTES, bytes, depth: 0 }
    }

    fn add(&mut self, inner: &Self) {
        self.values += inner.values;
        self.bytes += inner.bytes;
        self.depth = self.depth.max(inner.depth + 1);
    }
}

fn measure(data: &Value) -> Size {
    let mut size = Size { values: 1, ..Size::default() };
    match data {
        Value::Array(elements) => elements.iter().for_each(|it| size.add(&measure(it))),
        Value::Object(members) => {
            for (key, value) in members {
                size.add(&measure(value));
                size.values += key.len() as u64 / TEXT_BYTES;
                size.bytes += key.len() as u64;
            }
        }
        Value::String(text) => return Size::text(text),
        _ => {}
    }
    size
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

    fn found_in(schema: &Schema, data: &Value) -> Vec<Violation> {
        schema.violations(data, &mut Budget::of_request())
    }

    #[test]
    fn every_violation_is_told_with_its_place() {
        let schema = json!({
            "type": "object",
            "required": ["order_id"],
            "properties": { "order_id": { "type": "integer" }, "lines": { "items": { "type": "string" } } },
            "additionalProperties": false,
        });
        let schema = Schema::compile(&schema.to_string()).unwrap();
        assert_eq!(found_in(&schema, &json!({ "order_id": 1 })), []);
        let found = found_in(&schema, &json!({ "order_id": "x", "lines": ["a", 1], "more": 1 }));
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
        assert_eq!(found_in(&tree, &json!({ "child": { "child": 1 } })).len(), 1);
        let long = format!("{{}}{}", " ".repeat(70_000));
        assert!(Schema::compile(&long).is_err());
    }
}
