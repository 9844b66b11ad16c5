use std::{
    fmt,
    sync::{Arc, LazyLock},
};

use cel::common::ast::{Expr, LiteralValue, operators};
use cel::common::types::{CelString, STRING_TYPE};
use cel::common::value::CowVal;
use cel::{Context, Env, ExecutionError, Program, Value};

use crate::domain::filter_cost::{Look, Size};
use crate::domain::{Event, Timestamp};

const SOURCE_BYTES_MAX: usize = 2048;

/// Steps that evaluating a filter may take, each about 30 ns: the events of all tenants wait for
/// it.
const STEPS_MAX: u64 = 1_000_000;

/// What a filter is about.
const VARIABLES: [&str; 5] = ["id", "type", "timestamp", "data", "metadata"];

/// CEL's names of types, which `type(…)` is compared with.
const TYPES: [&str; 9] = ["bool", "bytes", "double", "dyn", "int", "list", "map", "string", "uint"];

/// CEL's functions, as far as they are here.
const FUNCTIONS: [&str; 12] = [
    "bool",
    "bytes",
    "contains",
    "double",
    "dyn",
    "endsWith",
    "int",
    "size",
    "startsWith",
    "string",
    "timestamp",
    "uint",
];

/// What filters can call.
static ENV: LazyLock<Arc<Env>> = LazyLock::new(|| {
    let mut env = Env::stdlib();
    let text = vec![STRING_TYPE];
    env.add_overload("timestamp", "string_to_timestamp", text, timestamp)
        .expect("there is no other");
    Arc::new(env)
});

/// An endpoint's condition on events: a [CEL](https://cel.dev) expression over `id`, `type`,
/// `timestamp`, `data` and `metadata`.
#[derive(Clone)]
pub struct Filter {
    source: Arc<str>,
    program: Arc<Program>,
    look: Arc<Look>,
}

impl Filter {
    /// Compiles an expression.
    ///
    /// # Errors
    /// A sentence for the author: where it does not parse, which name or function it should not
    /// use, or that it is no condition.
    pub fn compile(source: &str) -> Result<Self, String> {
        if source.len() > SOURCE_BYTES_MAX {
            return Err(format!("the expression is longer than {SOURCE_BYTES_MAX} bytes"));
        }
        let filter = Self::stored(source)?;
        let known = |it: &&String| VARIABLES.contains(&it.as_str()) || TYPES.contains(&it.as_str());
        if let Some(name) = filter.look.variables.iter().find(|it| !known(it)) {
            return Err(format!("unknown name `{name}`; there are {}", VARIABLES.join(", ")));
        }
        if let Some(name) = filter.look.functions.iter().find(|it| !is_function(it)) {
            return Err(format!("unknown function `{name}`; there are {}", FUNCTIONS.join(", ")));
        }
        if is_no_condition(&filter.program.expression().expr) {
            return Err("it is no condition: it must come to true or false".to_owned());
        }
        Ok(filter)
    }

    /// An expression that was taken before, be it by rules that were less strict.
    ///
    /// # Errors
    /// Where it does not parse.
    pub fn stored(source: &str) -> Result<Self, String> {
        let program = Program::compile(source).map_err(|it| it.to_string())?;
        let look = Look::at(program.expression());
        Ok(Self { source: source.into(), program: Arc::new(program), look: Arc::new(look) })
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
        if self.look.cost(size_of(event, &data)) > STEPS_MAX {
            return Err("the event is too large for the loops and additions of the filter; have \
                        fewer of them, or a plugin"
                .to_owned());
        }
        let metadata = event.metadata.iter().map(|(key, it)| (key.clone(), it.clone().into()));
        let mut context = Context::with_env(ENV.clone());
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

/// An event's `timestamp` is a text that is ordered as times are: RFC 3339, UTC, to the
/// millisecond. This makes such a one of any time, so that both compare.
fn timestamp<'b, 'v>(arguments: Vec<CowVal<'b, 'v>>) -> Result<CowVal<'b, 'v>, ExecutionError> {
    let text = arguments.first().and_then(|it| it.downcast_ref::<CelString<'_>>());
    let text = text.map(|it| it.inner().to_owned()).unwrap_or_default();
    let Some(time) = Timestamp::parse(&text) else {
        let detail = format!("`{text}` is no time such as 2026-01-31T12:00:00Z");
        return Err(ExecutionError::function_error("timestamp", detail));
    };
    Ok(CowVal::owned(CelString::from(time.to_string())))
}

/// Whether filters may call it: a function, or what an operator or a macro is made of.
fn is_function(name: &str) -> bool {
    let operator = !name.starts_with(|it: char| it.is_ascii_alphabetic());
    operator || name == "type" || FUNCTIONS.contains(&name)
}

/// Whether it can be seen that it never comes to true or false.
fn is_no_condition(expression: &Expr) -> bool {
    const ARITHMETIC: [&str; 6] = [
        operators::ADD,
        operators::SUBSTRACT,
        operators::MULTIPLY,
        operators::DIVIDE,
        operators::MODULO,
        operators::NEGATE,
    ];
    match expression {
        Expr::Literal(it) => !matches!(it, LiteralValue::Boolean(_)),
        Expr::List(_) | Expr::Map(_) | Expr::Struct(_) => true,
        Expr::Ident(name) => name != "data",
        Expr::Call(call) => {
            let name = call.func_name.as_str();
            let makes = ["size", "string", "int", "uint", "double", "bytes", "timestamp", "type"];
            ARITHMETIC.contains(&name) || makes.contains(&name)
        }
        // `map` and `filter` make lists.
        Expr::Comprehension(it) => matches!(it.accu_init.expr, Expr::List(_)),
        Expr::Select(_) | Expr::Unspecified => false,
    }
}

/// How much there is to look at.
fn size_of(event: &Event, data: &serde_json::Value) -> Size {
    let metadata: usize = event.metadata.iter().map(|(key, it)| key.len() + it.len()).sum();
    let members = event.metadata.len() as u64;
    let bytes = (event.data.len() + metadata + SOURCE_BYTES_MAX) as u64;
    let mut size = Size { bytes, elements: members, largest: members };
    count(data, &mut size);
    size
}

fn count(at: &serde_json::Value, size: &mut Size) {
    let mut holds = |count: usize| {
        size.elements += count as u64;
        size.largest = size.largest.max(count as u64);
    };
    match at {
        serde_json::Value::Array(items) => {
            holds(items.len());
            items.iter().for_each(|it| count(it, size));
        }
        serde_json::Value::Object(members) => {
            holds(members.len());
            members.values().for_each(|it| count(it, size));
        }
        _ => {}
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
        let data = r#"{"amount": 1200, "currency": "EUR", "f": 1.5, "tags": ["a", "b"],
            "items": [{"parts": []}, {"parts": [{"n": 7}]}], "at": "2026-01-31T13:00:00+01:00"}"#;
        let mut event = event("order.created", data);
        event.timestamp = Timestamp(1_800_000_000_000);
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
            ("data.tags.exists(x, x == 'b') && !data.tags.exists(x, x == 'c')", true),
            ("data.tags.all(t, t.size() == 1) && 'a' in data.tags", true),
            ("data.tags.exists_one(t, t == 'a') && size(data.tags.filter(t, t > 'a')) == 1", true),
            ("data.tags.map(t, t + t) == ['aa', 'bb']", true),
            ("data.items.exists(i, i.parts.exists(p, p.n == 7))", true),
            ("timestamp > timestamp('2020-01-01T01:00:00+01:00')", true),
            ("timestamp < timestamp('2020-01-01T01:00:00+01:00')", false),
            ("timestamp(data.at) == timestamp('2026-01-31T12:00:00Z')", true),
            ("timestamp >= '2020'", true),
            ("timestamp(data.currency) < timestamp", false),
            ("type(data.amount) == int && type(data.currency) == string", true),
            ("string(data.amount) == '1200' && int('3') == 3 && double(data.amount) > 1.5", true),
            ("uint(3) == 3u && bool('true') && dyn(data.amount) == 1200", true),
            ("data.currency.endsWith('R') && data.currency.contains('U')", true),
            ("bytes(data.currency) == b'EUR'", true),
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
        for (source, named) in [
            ("data.l.exists(x, y == 1)", "`y`"),
            ("data.l.exists(x, true) && x", "`x`"),
            ("nothing(data)", "`nothing`"),
            ("data.s.matches('a')", "`matches`"),
            ("timestamp - duration('1h') > timestamp", "`duration`"),
            ("1 + 1", "condition"),
            ("'x'", "condition"),
            ("type", "condition"),
            ("size(data.l)", "condition"),
            ("data.l.map(x, x)", "condition"),
        ] {
            let refused = Filter::compile(source).unwrap_err();
            assert!(refused.contains(named), "{source}: {refused}");
        }
        assert!(Filter::stored("nothing(data)").is_ok(), "what was taken before stays");
    }

    #[test]
    fn loops_cannot_hold_up_everybody() {
        let list: Vec<_> = (0..20_000).map(|it| it.to_string()).collect();
        let data = format!(r#"{{"l": [{}], "s": "{}"}}"#, list.join(","), "x".repeat(100_000));
        let event = event("order.created", &data);
        let told = |source| Filter::compile(source).unwrap().evaluate(&event);
        assert_eq!(told("data.l.exists(x, x == 19999)"), Ok(true));
        for source in [
            "data.l.all(x, data.l.all(y, data.l.all(z, 1 == 1)))",
            "data.l.all(x, data.l.all(y, x + y >= 0))",
            "size(data.l.map(x, data.s + data.s)) > 0",
            "data.l.all(x, x in data.l)",
        ] {
            assert!(told(source).unwrap_err().contains("too large"), "{source}");
        }
    }
}
