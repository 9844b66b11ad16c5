use std::{fmt, sync::Arc};

use cel::{Context, Env, Program, Value};

use crate::domain::Event;

const SOURCE_BYTES_MAX: usize = 2048;

/// An endpoint's condition on events: a [CEL](https://cel.dev) expression over `id`, `type`,
/// `timestamp`, `data` and `metadata`.
#[derive(Clone)]
pub struct Filter {
    source: Arc<str>,
    program: Arc<Program>,
}

impl Filter {
    /// Compiles an expression.
    ///
    /// # Errors
    /// A sentence for the author: where it does not parse, or which name it should not use.
    pub fn compile(source: &str) -> Result<Self, String> {
        if source.len() > SOURCE_BYTES_MAX {
            return Err(format!("the expression is longer than {SOURCE_BYTES_MAX} bytes"));
        }
        let program = Program::compile(source).map_err(|it| it.to_string())?;
        let known = ["id", "type", "timestamp", "data", "metadata"];
        let references = program.references();
        if let Some(name) = references.variables().iter().find(|it| !known.contains(it)) {
            return Err(format!("unknown name `{name}`; there are {}", known.join(", ")));
        }
        drop(references);
        Ok(Self { source: source.into(), program: Arc::new(program) })
    }

    /// The expression as it was written.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// Whether the event is wanted. What cannot be evaluated, such as a comparison with a member
    /// that is not there, is not wanted.
    pub fn wants(&self, event: &Event) -> bool {
        self.evaluate(event) == Ok(true)
    }

    /// What it comes to.
    ///
    /// # Errors
    /// A sentence that tells why it cannot be evaluated, or is no condition.
    pub fn evaluate(&self, event: &Event) -> Result<bool, String> {
        let data = serde_json::from_slice(&event.data).unwrap_or(serde_json::Value::Null);
        let metadata = event.metadata.iter().map(|(key, it)| (key.clone(), it.clone().into()));
        let mut context = Context::with_env(Arc::new(Env::stdlib()));
        context.add_variable_from_value("id", event.id.as_str());
        context.add_variable_from_value("type", event.event_type.as_str());
        context.add_variable_from_value("timestamp", event.timestamp.to_string());
        context.add_variable_from_value("data", cel_value(data));
        context.add_variable_from_value(
            "metadata",
            cel_value(serde_json::Value::Object(metadata.collect())),
        );
        match self.program.execute(&context) {
            Ok(Value::Bool(wanted)) => Ok(wanted),
            Ok(_) => Err("it is neither true nor false".to_owned()),
            Err(error) => Err(error.to_string()),
        }
    }
}

/// JSON as CEL sees it: whole numbers are `int`, so that they compare with literals.
fn cel_value(json: serde_json::Value) -> Value {
    match json {
        serde_json::Value::Null => Value::Null,
        serde_json::Value::Bool(it) => Value::Bool(it),
        serde_json::Value::Number(it) => match it.as_i64() {
            Some(whole) => Value::Int(whole),
            None => Value::Float(it.as_f64().unwrap_or(f64::NAN)),
        },
        serde_json::Value::String(it) => it.into(),
        serde_json::Value::Array(items) => {
            Value::List(Arc::new(items.into_iter().map(cel_value).collect()))
        }
        serde_json::Value::Object(members) => {
            let members = members.into_iter().map(|(key, it)| (key.into(), cel_value(it)));
            Value::Map(cel::objects::Map { map: Arc::new(members.collect()) })
        }
    }
}

impl fmt::Debug for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Filter({:?})", self.source)
    }
}

impl PartialEq for Filter {
    fn eq(&self, other: &Self) -> bool {
        self.source == other.source
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::event_for_tests as event;

    #[test]
    fn filters_look_into_the_event() {
        let mut event = event("order.created", r#"{"amount": 1200, "currency": "EUR", "f": 1.5}"#);
        event.metadata.insert("region".into(), "eu".into());
        for (source, expected) in [
            ("data.amount > 1000 && data.currency == 'EUR'", true),
            ("data.amount > 1200", false),
            ("data.amount == 1200", true),
            ("data.f > 1.0", true),
            ("data.missing > 1", false),
            ("has(data.missing)", false),
            ("type.startsWith('order.')", true),
            ("metadata.region == 'eu'", true),
            ("data.amount", false),
        ] {
            let filter = Filter::compile(source).unwrap();
            assert_eq!(filter.wants(&event), expected, "{source}");
        }
    }

    #[test]
    fn it_tells_why_it_cannot_be_evaluated() {
        let event = event("order.created", r#"{"amount": 1200}"#);
        let told = |source| Filter::compile(source).unwrap().evaluate(&event);
        assert_eq!(told("data.amount > 2000"), Ok(false));
        assert!(told("data.missing > 1").unwrap_err().contains("missing"));
        assert!(told("data.amount").is_err());
    }

    #[test]
    fn a_bad_filter_is_refused_with_the_reason() {
        assert!(Filter::compile("data.amount >").is_err());
        assert!(Filter::compile("payload.amount > 1").unwrap_err().contains("`payload`"));
        assert!(Filter::compile(&"1".repeat(3000)).unwrap_err().contains("2048"));
    }
}
