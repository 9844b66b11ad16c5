//! What comparing data with a schema may cost, told from the schema alone.
//!
//! A validator meets each value of the data once for every schema that applies to it, and `$ref`s
//! make more of few: two in each of twenty definitions are a million schemas for one value, and a
//! definition that leads to itself twice doubles with each level of the data. What the author of a
//! schema or the sender of data could do with that is bounded by this number.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

/// Schemas are nested, or refer to others, at most this deep.
const DEPTH_MAX: usize = 128;
/// The same of schemas for one value. A validator calls itself so often for each level of the data,
/// which may have 64.
const IN_PLACE_DEPTH_MAX: usize = 20;
/// Entries of an `enum` that cost as much as a schema.
const ENTRIES: u64 = 16;
/// Up to this size a pattern that looks at no more of a text than it is long costs nothing beside.
const SHORT: u64 = 256;
/// What a pattern costs, in schemas.
const PATTERN: u64 = 4;

/// Keywords with a schema that applies to the value itself.
const IN_PLACE: [&str; 4] = ["not", "if", "then", "else"];
/// The same with several.
const IN_PLACE_MANY: [&str; 3] = ["allOf", "anyOf", "oneOf"];
/// Keywords with a schema for any member of an object.
const MEMBERS: [&str; 3] = ["additionalProperties", "unevaluatedProperties", "propertyNames"];
/// Keywords with a schema for any element of an array.
const ELEMENTS: [&str; 3] = ["items", "contains", "unevaluatedItems"];

/// What a schema may cost.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Cost {
    /// Schemas that a value, and those that it lies in, are compared with at most. Where a schema
    /// leads to itself through members of the data, the way round counts once: a validator
    /// remembers its result.
    pub(super) breadth: u64,
    /// How many ways lead back to such a schema from a level of the data to a deeper one. With more
    /// than one, naming each violation takes that to the power of the depth.
    pub(super) branching: u64,
    /// Steps that patterns may take at most for each byte of a text.
    pub(super) steps: u64,
}

/// A schema by its place in memory: the document does not change meanwhile.
type Place = *const Value;

struct Walk<'a> {
    root: &'a Value,
    anchors: BTreeMap<&'a str, &'a Value>,
    id: Option<&'a str>,
    /// Schemas that are being looked at, from the root on.
    path: Vec<Place>,
    /// Schemas that lead to themselves through the data.
    loops: BTreeMap<Place, &'a Value>,
    /// Schemas that apply to one value beside each other: how many, and how deep.
    in_place: BTreeMap<Place, (u64, usize)>,
    whole: BTreeMap<Place, Cost>,
}

/// What a schema may cost at most.
///
/// # Errors
/// A sentence for the author where that cannot be told.
pub(super) fn of(root: &Value) -> Result<Cost, String> {
    let (mut anchors, mut nested) = (BTreeMap::new(), false);
    each_schema(root, 0, &mut |it: &Map<String, Value>, whole| {
        for name in ["$anchor", "$dynamicAnchor"] {
            anchors.extend(it.get(name).and_then(Value::as_str).map(|it| (it, whole)));
        }
        nested |= it.contains_key("$id") && !std::ptr::eq(whole, root);
    })?;
    if nested {
        return Err("only the whole schema may have an `$id`".to_owned());
    }
    let id = root.get("$id").and_then(Value::as_str).map(|it| it.trim_end_matches('#'));
    let mut walk = Walk {
        root,
        anchors,
        id,
        path: Vec::new(),
        loops: BTreeMap::new(),
        in_place: BTreeMap::new(),
        whole: BTreeMap::new(),
    };
    walk.find_loops(root, &mut BTreeSet::new())?;
    let mut total = walk.cost(root)?;
    for it in walk.loops.clone().into_values() {
        let cost = walk.cost(it)?;
        total.breadth = total.breadth.saturating_add(cost.breadth);
        total.branching = total.branching.max(cost.branching);
        total.steps = total.steps.saturating_add(cost.steps);
    }
    Ok(total)
}

/// Looks at each object that stands where a schema may.
fn each_schema<'a>(
    at: &'a Value,
    depth: usize,
    look: &mut impl FnMut(&'a Map<String, Value>, &'a Value),
) -> Result<(), String> {
    if depth > DEPTH_MAX {
        return Err(too_deep());
    }
    let Value::Object(members) = at else {
        let elements = at.as_array().into_iter().flatten();
        return elements.into_iter().try_for_each(|it| each_schema(it, depth + 1, look));
    };
    look(members, at);
    for (name, value) in members {
        match (name.as_str(), value) {
            ("const" | "enum" | "default" | "examples", _) => {}
            ("properties" | "patternProperties" | "$defs" | "definitions", Value::Object(them))
            | ("dependentSchemas", Value::Object(them)) => {
                them.values().try_for_each(|it| each_schema(it, depth + 1, look))?;
            }
            _ => each_schema(value, depth + 1, look)?,
        }
    }
    Ok(())
}

fn too_deep() -> String {
    format!("its schemas are nested, or refer to others, more than {DEPTH_MAX} deep")
}

impl<'a> Walk<'a> {
    /// What a reference leads to.
    fn target(&self, text: &str) -> Result<&'a Value, String> {
        let strange = || format!("`$ref` {text} leads to no schema in it; use `#/$defs/…`");
        let rest = self.id.and_then(|id| text.strip_prefix(id)).unwrap_or(text);
        if rest.is_empty() {
            return Ok(self.root);
        }
        let fragment = rest.strip_prefix('#').ok_or_else(strange)?;
        let fragment = percent_decoded(fragment).ok_or_else(strange)?;
        let found = match fragment.is_empty() || fragment.starts_with('/') {
            true => self.root.pointer(&fragment),
            false => self.anchors.get(fragment.as_str()).copied(),
        };
        found.ok_or_else(strange)
    }

    /// The schemas that apply to the same value.
    fn beside(&self, members: &'a Map<String, Value>) -> Result<Vec<&'a Value>, String> {
        let many = IN_PLACE_MANY.iter().filter_map(|it| members.get(*it)?.as_array()).flatten();
        let dependent = ["dependentSchemas", "dependencies"].into_iter();
        let dependent = dependent.filter_map(|it| members.get(it)?.as_object());
        let dependent = dependent.flat_map(|it| it.values()).filter(|it| !it.is_array());
        let mut all: Vec<_> = IN_PLACE.iter().filter_map(|it| members.get(*it)).collect();
        all.extend(many.chain(dependent));
        for name in ["$ref", "$dynamicRef"] {
            if let Some(text) = members.get(name).and_then(Value::as_str) {
                all.push(self.target(text)?);
            }
        }
        Ok(all)
    }

    /// The schemas for what lies in the value: those for any member or element, and those for one
    /// of them each.
    fn below(members: &'a Map<String, Value>) -> [(Vec<&'a Value>, Vec<&'a Value>); 2] {
        let values = |name: &str| {
            let object = members.get(name).and_then(Value::as_object);
            object.into_iter().flat_map(|it| it.values())
        };
        let named = |names: &[&str]| -> Vec<&'a Value> {
            names.iter().filter_map(|it| members.get(*it)).collect()
        };
        let mut any_member = named(&MEMBERS);
        any_member.extend(values("patternProperties"));
        let elements = members.get("prefixItems").and_then(Value::as_array);
        let elements = elements.into_iter().flatten().collect();
        [(any_member, values("properties").collect()), (named(&ELEMENTS), elements)]
    }

    /// Finds a schema in each way round that leads through the data.
    fn find_loops(&mut self, at: &'a Value, done: &mut BTreeSet<Place>) -> Result<(), String> {
        let Value::Object(members) = at else { return Ok(()) };
        let place = std::ptr::from_ref(at);
        if self.path.contains(&place) {
            self.loops.insert(place, at);
            return Ok(());
        }
        if done.contains(&place) {
            return Ok(());
        }
        self.enter(place)?;
        let mut next = self.beside(members)?;
        for (any, one) in Self::below(members) {
            next.extend(any.into_iter().chain(one));
        }
        next.into_iter().try_for_each(|it| self.find_loops(it, done))?;
        self.path.pop();
        done.insert(place);
        Ok(())
    }

    fn enter(&mut self, place: Place) -> Result<(), String> {
        self.path.push(place);
        if self.path.len() > DEPTH_MAX { Err(too_deep()) } else { Ok(()) }
    }

    /// Schemas that apply to one value beside each other: how many, and how deep.
    fn in_place(&mut self, at: &'a Value) -> Result<(u64, usize), String> {
        let Value::Object(members) = at else { return Ok((1, 1)) };
        let place = std::ptr::from_ref(at);
        if let Some(known) = self.in_place.get(&place) {
            return Ok(*known);
        }
        if self.path.contains(&place) {
            return Err("its `$ref`s lead back to themselves".to_owned());
        }
        self.enter(place)?;
        let (mut sum, mut depth) = (own(members), 1);
        for it in self.beside(members)? {
            let (more, below) = self.in_place(it)?;
            (sum, depth) = (sum.saturating_add(more), depth.max(below + 1));
        }
        self.path.pop();
        if depth > IN_PLACE_DEPTH_MAX {
            return Err(format!(
                "more than {IN_PLACE_DEPTH_MAX} schemas for one value lie in each other, or refer \
                 to each other: it is too deep"
            ));
        }
        self.in_place.insert(place, (sum, depth));
        Ok((sum, depth))
    }

    /// The cost of a schema, up to where it leads to one that leads to itself.
    fn cost(&mut self, at: &'a Value) -> Result<Cost, String> {
        let Value::Object(members) = at else { return Ok(Cost { breadth: 1, ..Cost::default() }) };
        let place = std::ptr::from_ref(at);
        if let Some(known) = self.whole.get(&place) {
            return Ok(*known);
        }
        self.in_place(at)?;
        let mut sum = Cost { breadth: own(members), branching: 0, steps: steps(members) };
        for it in self.beside(members)? {
            sum.add(self.cost_behind(it)?);
        }
        let mut most = Cost::default();
        for (any, one) in Self::below(members) {
            let (mut always, mut single) = (Cost::default(), Cost::default());
            for it in any {
                always.add(self.cost_behind(it)?);
            }
            for it in one {
                single = single.max(self.cost_behind(it)?);
            }
            always.add(single);
            most = most.max(always);
        }
        sum.add(most);
        self.whole.insert(place, sum);
        Ok(sum)
    }

    fn cost_behind(&mut self, at: &'a Value) -> Result<Cost, String> {
        match self.loops.contains_key(&std::ptr::from_ref(at)) {
            true => Ok(Cost { breadth: self.in_place(at)?.0, branching: 1, steps: 0 }),
            false => self.cost(at),
        }
    }
}

impl Cost {
    fn add(&mut self, other: Self) {
        self.breadth = self.breadth.saturating_add(other.breadth);
        self.branching = self.branching.saturating_add(other.branching);
        self.steps = self.steps.saturating_add(other.steps);
    }

    fn max(self, other: Self) -> Self {
        Self {
            breadth: self.breadth.max(other.breadth),
            branching: self.branching.max(other.branching),
            steps: self.steps.max(other.steps),
        }
    }
}

/// What a schema costs without those in it.
fn own(members: &Map<String, Value>) -> u64 {
    let count = |name: &str| members.get(name).and_then(Value::as_array).map_or(0, Vec::len) as u64;
    let patterns = members.get("patternProperties").and_then(Value::as_object);
    let patterns = patterns.map_or(0, Map::len) as u64;
    let pattern = u64::from(members.contains_key("pattern"));
    1 + (count("enum") + count("required")) / ENTRIES + (patterns + pattern) * PATTERN
}

/// Steps that a schema's own patterns may take for each byte of a text.
fn steps(members: &Map<String, Value>) -> u64 {
    let one = members.get("pattern").and_then(Value::as_str);
    let many = members.get("patternProperties").and_then(Value::as_object);
    let all = one.into_iter().chain(many.into_iter().flat_map(|it| it.keys()).map(String::as_str));
    all.map(steps_of).sum()
}

/// How many places of a pattern may be tried beside each other at a byte: its length with all
/// counted repetitions written out. One that begins at the text's beginning and has an end looks at
/// no more of the text than it is long itself.
fn steps_of(pattern: &str) -> u64 {
    let mut open = false;
    // Sizes of the groups that are open, and in each of what a repetition would be about.
    let mut groups: Vec<(u64, u64)> = vec![(0, 0)];
    let mut text = pattern.chars().peekable();
    while let Some(it) = text.next() {
        let nested = groups.len() > 1;
        let (size, last) = groups.last_mut().expect("there is the whole");
        match it {
            '(' => groups.push((0, 0)),
            ')' if nested => {
                let (inner, _) = groups.pop().expect("there are two");
                let (size, last) = groups.last_mut().expect("there is the whole");
                (*size, *last) = (size.saturating_add(inner), inner);
            }
            '{' => {
                let counts: String = text.by_ref().take_while(|it| *it != '}').collect();
                let most = counts.rsplit(',').find_map(|it| it.trim().parse::<u64>().ok());
                open |= counts.trim_end().ends_with(',');
                let more = last.saturating_mul(most.unwrap_or(1).saturating_sub(1));
                (*size, *last) = (size.saturating_add(more), last.saturating_add(more));
            }
            '[' => {
                let mut before = ' ';
                for it in text.by_ref() {
                    if it == ']' && before != '\\' && before != ' ' {
                        break;
                    }
                    before = if before == '\\' { '.' } else { it };
                }
                (*size, *last) = (size.saturating_add(1), 1);
            }
            '*' | '+' | '|' => open = true,
            _ => {
                if it == '\\' {
                    text.next();
                }
                (*size, *last) = (size.saturating_add(1), 1);
            }
        }
    }
    let whole = groups.iter().fold(0_u64, |sum, (size, _)| sum.saturating_add(*size));
    if pattern.starts_with('^') && !open && whole <= SHORT { 0 } else { whole }
}

/// A URI's fragment as text.
fn percent_decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        rest = tail;
        if *first == b'%' {
            let (digits, behind) = tail.split_at_checked(2)?;
            bytes.push(u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?);
            rest = behind;
        } else {
            bytes.push(*first);
        }
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::domain::{Budget, Schema};

    /// Definitions `d0` to `dN`, each made of the next.
    fn chain(length: usize, next: impl Fn(&str) -> Value, last: Value) -> Value {
        let mut definitions = Map::new();
        for n in 0..length {
            definitions.insert(format!("d{n}"), next(&format!("#/$defs/d{}", n + 1)));
        }
        definitions.insert(format!("d{length}"), last);
        json!({ "$defs": definitions, "$ref": "#/$defs/d0" })
    }

    /// Data nested so deep, each level the only member `c` of the one before.
    fn nested(depth: usize, inside: Value) -> Value {
        (0..depth).fold(inside, |it, _| json!({ "c": it }))
    }

    fn violations(schema: &Value, data: &Value) -> usize {
        let schema = Schema::compile(&schema.to_string()).unwrap();
        schema.violations(data, &mut Budget::of_request()).len()
    }

    #[test]
    fn what_cannot_be_bounded_is_refused_with_what_to_change() {
        let twice = |it: &str| json!({ "anyOf": [{ "$ref": it }, { "$ref": it }] });
        let four = |it: &str| {
            let one = json!({ "$ref": it });
            json!({ "anyOf": [one, one, one, one] })
        };
        let below = |it: &str| {
            let c = json!({ "properties": { "c": { "$ref": it } } });
            json!({ "allOf": [c, c] })
        };
        let hidden = json!({ "properties": { "x": chain(40, twice, json!(false))["$defs"]["d0"] },
            "$defs": chain(40, twice, json!(false))["$defs"] });
        let wide: Vec<_> = (0..2100).map(|n| json!({ "const": n })).collect();
        let deep = (0..30).fold(json!({}), |it, _| json!({ "not": it }));
        let long = |it: &str| json!({ "properties": { "c": { "$ref": it } } });
        let patterns: Map<_, _> = (0..600).map(|n| (format!("a{n}"), json!({}))).collect();
        for (schema, why) in [
            (chain(8, four, json!(false)), "fewer"),
            (chain(40, twice, json!(false)), "deep"),
            (chain(130, long, json!(false)), "deep"),
            (chain(40, below, json!({ "c": false })), "fewer"),
            (hidden, "deep"),
            (json!({ "items": { "oneOf": wide } }), "fewer"),
            (json!({ "patternProperties": patterns }), "fewer"),
            (deep, "deep"),
            (json!({ "properties": { "a": { "$ref": "#/properties/a" } } }), "themselves"),
            (json!({ "items": { "$anchor": "a", "anyOf": [{ "$ref": "#a" }] } }), "themselves"),
            (
                json!({ "items": { "$dynamicAnchor": "a", "not": { "$dynamicRef": "#a" } } }),
                "themselves",
            ),
            (json!({ "$defs": { "a": { "$id": "https://x.example/a" } } }), "$id"),
            (json!({ "$ref": "#nowhere" }), "#/$defs/"),
            (json!({ "$ref": "other.json" }), "#/$defs/"),
        ] {
            let text = schema.to_string();
            let refused = Schema::compile(&text).expect_err(&text[..text.len().min(200)]);
            assert!(refused.contains(why), "{refused}: {}", &text[..text.len().min(200)]);
            // It may have been taken before there were these limits.
            if why == "fewer" {
                let stored = Schema::restore(&text).unwrap();
                let told = stored.violations(&json!({}), &mut Budget::of_request());
                assert!(told[0].detail.contains("anew"), "{told:?}");
            }
        }
    }

    #[test]
    fn ordinary_schemas_cost_little() {
        let order = json!({
            "$id": "https://shop.example/order.json",
            "type": "object",
            "required": ["id", "lines"],
            "properties": {
                "id": { "type": "string", "pattern": "^[A-Z]{3}-[0-9]+$" },
                "state": { "enum": ["new", "paid"] },
                "lines": { "type": "array", "items": { "$ref": "#/$defs/line" } },
                "gift": { "$ref": "https://shop.example/order.json#/$defs/line" },
                "total": { "$ref": "#money" },
            },
            "$defs": {
                "line": { "properties": { "price": { "$ref": "#/$defs/mon%65y" } } },
                "money": { "$anchor": "money", "type": "number" },
            },
        });
        assert_eq!(of(&order).unwrap(), Cost { breadth: 6, branching: 0, steps: 7 });
        assert_eq!(violations(&order, &json!({ "id": "ABC-1", "lines": [{ "price": 1 }] })), 0);
        assert_eq!(violations(&order, &json!({ "id": "1", "lines": [{ "price": "1" }] })), 2);
        let tree = json!({ "properties": { "l": { "$ref": "#" }, "r": { "$ref": "#" } } });
        assert_eq!(of(&tree).unwrap().branching, 1, "each member is another value");
        // Shared by many, and still one for each value.
        let shared =
            |it: &str| json!({ "properties": { "c": { "$ref": it }, "d": { "$ref": it } } });
        let shared = chain(40, shared, json!({ "type": "number" }));
        assert!(of(&shared).unwrap().breadth < 200);
        assert_eq!(violations(&shared, &nested(40, json!("x"))), 1);
    }

    #[test]
    fn patterns_cost_what_they_try() {
        for (pattern, steps) in [
            ("^[A-Z]{3}-[0-9]{1,9}$", 0),
            ("^\\w{1,50}$", 0),
            ("^a|b{7}$", 9),
            ("^(?:[a-z]-){4}x+", 14),
            ("a[ab]{900}c", 902),
            ("^[ab]{900}c", 902),
            ("(a{10}b{2,}){5}", 60),
            ("[]a]{3}[\\]x]{4}", 7),
        ] {
            // Signs of a group's kind count as if they were letters.
            let got = steps_of(pattern);
            assert!((steps..steps + 12).contains(&got), "{pattern}: {got}");
        }
        let schema = json!({ "properties": { "code": { "pattern": "a[ab]{900}c" } } });
        let schema = Schema::compile(&schema.to_string()).unwrap();
        let told = |bytes: usize| {
            let data = json!({ "code": "ab".repeat(bytes / 2) });
            schema.violations(&data, &mut Budget::of_request()).remove(0).detail
        };
        assert!(told(1000).contains("does not match"), "{}", told(1000));
        assert!(told(1 << 20).contains("too much text"), "{}", told(1 << 20));
        let bounded = json!({ "properties": { "code": { "pattern": "^\\w{1,50}$" } } });
        let large = json!({ "code": "x", "file": "x".repeat(1 << 20) });
        assert_eq!(violations(&bounded, &large), 0);
    }

    #[test]
    fn what_leads_to_itself_twice_costs_no_more_with_each_level() {
        let child = json!({ "properties": { "c": { "$ref": "#/$defs/n" } } });
        for several in ["anyOf", "allOf", "oneOf"] {
            let schema = json!({
                "$ref": "#/$defs/n",
                "$defs": { "n": { several: [child, child], "type": "object" } },
            });
            assert_eq!(of(&schema).unwrap().branching, 2);
            // It would not end if each level doubled it.
            assert_eq!(violations(&schema, &nested(60, json!(1))), 1, "{several}");
            let shallow = violations(&schema, &nested(2, json!(1)));
            assert!(shallow > 0, "{several}");
        }
    }

    #[test]
    fn what_is_as_deep_as_may_be_does_not_exhaust_the_stack() {
        let inner = json!({ "properties": { "c": { "$ref": "#/$defs/d0" } }, "type": "object" });
        let schema = chain(8, |it| json!({ "allOf": [{ "$ref": it }] }), inner);
        assert_eq!(violations(&schema, &nested(63, json!({}))), 0);
        assert_eq!(violations(&schema, &nested(63, json!(1))), 1);
    }

    #[test]
    fn large_data_has_its_limit_too() {
        let kinds: Vec<_> = (0..900).map(|n| json!({ "const": format!("k{n}") })).collect();
        let schema = json!({ "items": { "anyOf": kinds } });
        let schema = Schema::compile(&schema.to_string()).unwrap();
        let few: Vec<_> = (0..2000).map(|n| json!(format!("k{}", n % 900))).collect();
        let many: Vec<_> = (0..20_000).map(|_| json!("k1")).collect();
        let mut budget = Budget::of_request();
        assert_eq!(schema.violations(&few.clone().into(), &mut budget), []);
        let told = schema.violations(&many.into(), &mut budget);
        assert!(told[0].detail.contains("in parts"), "{told:?}");
        for _ in 0..10 {
            let _ = schema.violations(&few.clone().into(), &mut budget);
        }
        let told = schema.violations(&few.clone().into(), &mut budget);
        assert!(told[0].detail.contains("fewer events"), "{told:?}");
        let bad: Vec<_> = (0..2000).map(|_| json!("x")).collect();
        let told = schema.violations(&bad.into(), &mut Budget::of_request());
        assert!(told[0].detail.contains("too large to say where"), "{told:?}");
        let wide = Schema::compile(r#"{"items": {"type": "string"}}"#).unwrap();
        let wide = wide.violations(&vec![json!(1); 500_000].into(), &mut Budget::of_request());
        assert_eq!(wide.len(), 1, "not half a million of them");
    }
}
