use std::collections::BTreeMap;

use serde_json::{Map, Value};

use crate::api::problem::FieldError;

/// How much of a name is told.
const NAME_BYTES_SHOWN: usize = 256;

/// Reads a JSON object field by field. All that is wrong is collected, so that a caller can mend
/// it at once; what nobody asked for is an error too.
#[derive(Debug)]
pub(super) struct Fields {
    members: Map<String, Value>,
    /// What was there before, where it is changed.
    before: Map<String, Value>,
    base: String,
    errors: Vec<FieldError>,
}

impl Fields {
    pub(super) fn new(members: Map<String, Value>, base: &str) -> Self {
        Self { members, before: Map::new(), base: base.to_owned(), errors: Vec::new() }
    }

    /// The fields of `value`, which should be an object.
    pub(super) fn of(value: Value, base: &str) -> Result<Self, Vec<FieldError>> {
        match value {
            Value::Object(members) => Ok(Self::new(members, base)),
            _ => Err(vec![FieldError {
                pointer: base.to_owned(),
                detail: "must be an object".to_owned(),
            }]),
        }
    }

    /// These fields are to take the place of others: what stays as it was is under no limit that
    /// may be newer than it.
    pub(super) fn instead_of(mut self, before: Option<&Value>) -> Self {
        self.before = before.and_then(Value::as_object).cloned().unwrap_or_default();
        self
    }

    /// Whether a field stays as it was. Ask before it is taken.
    pub(super) fn stays(&self, name: &str) -> bool {
        self.members.get(name).is_some_and(|it| self.before.get(name) == Some(it))
    }

    /// What a field was before.
    pub(super) fn before(&self, name: &str) -> Option<&Value> {
        self.before.get(name)
    }

    /// Takes a field as it is; `null` is as if it were not there.
    pub(super) fn take(&mut self, name: &str) -> Option<Value> {
        self.members.remove(name).filter(|it| !it.is_null())
    }

    /// Whether the field is there, be it `null`.
    pub(super) fn has(&self, name: &str) -> bool {
        self.members.contains_key(name)
    }

    /// Whether the field is there and not `null`.
    pub(super) fn is_said(&self, name: &str) -> bool {
        self.members.get(name).is_some_and(|it| !it.is_null())
    }

    pub(super) fn refuse(&mut self, name: &str, detail: impl Into<String>) {
        let name = shown(name).replace('~', "~0").replace('/', "~1");
        let pointer = format!("{}/{name}", self.base);
        self.errors.push(FieldError { pointer, detail: detail.into() });
    }

    /// Whether something was refused already.
    pub(super) fn refused(&self) -> bool {
        !self.errors.is_empty()
    }

    pub(super) fn refuse_all(&mut self, errors: Vec<FieldError>) {
        self.errors.extend(errors);
    }

    /// A field read by `read`, which says what is wrong.
    pub(super) fn read<T>(
        &mut self,
        name: &str,
        read: impl FnOnce(&Value) -> Result<T, String>,
    ) -> Option<T> {
        let value = self.take(name)?;
        read(&value).map_err(|detail| self.refuse(name, detail)).ok()
    }

    pub(super) fn string(&mut self, name: &str) -> Option<String> {
        self.read(name, |it| it.as_str().map(str::to_owned).ok_or("must be a string".to_owned()))
    }

    /// A string of at most so many characters, unless it stays as it was.
    pub(super) fn text(&mut self, name: &str, chars_max: usize) -> Option<String> {
        let (stays, form) =
            (self.stays(name), format!("a string of at most {chars_max} characters"));
        let fits = |it: &str| stays || it.chars().count() <= chars_max;
        self.parsed(name, &form, |it| fits(it).then(|| it.to_owned()))
    }

    /// A string that `parse` makes something of; `form` tells what it should be.
    pub(super) fn parsed<T>(
        &mut self,
        name: &str,
        form: &str,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Option<T> {
        self.read(name, |it| it.as_str().and_then(parse).ok_or_else(|| format!("must be {form}")))
    }

    pub(super) fn boolean(&mut self, name: &str) -> Option<bool> {
        self.read(name, |it| it.as_bool().ok_or("must be true or false".to_owned()))
    }

    pub(super) fn number(&mut self, name: &str, from: f64, to: f64) -> Option<f64> {
        self.read(name, |it| {
            let number = it.as_f64().filter(|it| (from..=to).contains(it));
            number.ok_or_else(|| format!("must be a number from {from} to {to}"))
        })
    }

    pub(super) fn whole(&mut self, name: &str, from: u32, to: u32) -> Option<u32> {
        self.read(name, |it| {
            let number = it.as_u64().and_then(|it| u32::try_from(it).ok());
            let number = number.filter(|it| (from..=to).contains(it));
            number.ok_or_else(|| format!("must be a whole number from {from} to {to}"))
        })
    }

    pub(super) fn array(&mut self, name: &str) -> Option<Vec<Value>> {
        self.read(name, |it| it.as_array().cloned().ok_or("must be an array".to_owned()))
    }

    /// An object of strings.
    pub(super) fn strings(&mut self, name: &str) -> Option<BTreeMap<String, String>> {
        self.read(name, |it| {
            let members = it.as_object().ok_or("must be an object of strings".to_owned())?;
            let text = |(key, value): (&String, &Value)| {
                let text = || format!("`{}` must be a string", shown(key));
                let value = value.as_str().ok_or_else(text)?;
                Ok((key.clone(), value.to_owned()))
            };
            members.iter().map(text).collect()
        })
    }

    /// A field that must be there.
    pub(super) fn need<T>(&mut self, name: &str, value: Option<T>) -> Option<T> {
        let pointer = format!("{}/{name}", self.base);
        if value.is_none() && !self.errors.iter().any(|it| it.pointer == pointer) {
            self.refuse(name, "is required");
        }
        value
    }

    /// Ends reading: what is left was not asked for.
    pub(super) fn finish(mut self) -> Result<(), Vec<FieldError>> {
        let unknown: Vec<_> = self.members.keys().cloned().collect();
        for name in unknown {
            self.refuse(&name, "is not known here; check the spelling");
        }
        if self.errors.is_empty() { Ok(()) } else { Err(self.errors) }
    }
}

/// As much of a name as is told of one that may be no name at all.
pub(super) fn shown(name: &str) -> &str {
    let end = (0..=NAME_BYTES_SHOWN.min(name.len())).rev().find(|it| name.is_char_boundary(*it));
    &name[..end.unwrap_or_default()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_wrong_is_named_at_once() {
        let body = serde_json::json!({"a": 1, "b": "x", "c/d": true, "n": 7});
        let mut fields = Fields::of(body, "/0").unwrap();
        assert_eq!(fields.string("a"), None);
        assert_eq!(fields.string("b"), Some("x".to_owned()));
        assert_eq!(fields.whole("n", 1, 5), None);
        let missing = fields.string("missing");
        fields.need("missing", missing);
        let errors = fields.finish().unwrap_err();
        let pointers: Vec<_> = errors.iter().map(|it| it.pointer.as_str()).collect();
        assert_eq!(pointers, ["/0/a", "/0/n", "/0/missing", "/0/c~1d"]);
    }

    #[test]
    fn what_stays_as_it_was_is_under_no_limit() {
        let (before, body) = (serde_json::json!({"a": "long"}), serde_json::json!({"a": "long"}));
        let fields = |body: Value| Fields::of(body, "").unwrap().instead_of(Some(&before));
        assert_eq!(fields(body.clone()).text("a", 3), Some("long".to_owned()));
        assert_eq!(fields(serde_json::json!({"a": "lone"})).text("a", 3), None);
        assert_eq!(Fields::of(body, "").unwrap().text("a", 3), None);
    }

    #[test]
    fn a_name_is_told_as_far_as_it_helps() {
        let name = "é".repeat(1000);
        let fields = Fields::of(serde_json::json!({ name: 1 }), "").unwrap();
        let errors = fields.finish().unwrap_err();
        assert_eq!(errors[0].pointer, format!("/{}", "é".repeat(128)));
    }
}
