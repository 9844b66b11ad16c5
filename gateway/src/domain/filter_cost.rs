//! What a filter names, and what evaluating it may cost, told from the expression alone.
//!
//! A macro such as `exists` goes round once for each element, and one within another multiplies:
//! three of them over a thousand elements go round a thousand million times. All tenants' events
//! wait while a filter is evaluated, so what it may take is bounded by this number.

use std::collections::BTreeSet;

use cel::IdedExpr;
use cel::common::ast::{CallExpr, ComprehensionExpr, EntryExpr, Expr, operators};

/// What an expression looks at costs a step for so many bytes: copying or searching them.
const BYTES: u64 = 64;

/// Calls whose result is a number, a yes or no, or as short as one.
const SHORT: [&str; 23] = [
    operators::LOGICAL_AND,
    operators::LOGICAL_OR,
    operators::LOGICAL_NOT,
    operators::NOT_STRICTLY_FALSE,
    operators::EQUALS,
    operators::NOT_EQUALS,
    operators::LESS,
    operators::LESS_EQUALS,
    operators::GREATER,
    operators::GREATER_EQUALS,
    operators::IN,
    operators::SUBSTRACT,
    operators::MULTIPLY,
    operators::DIVIDE,
    operators::MODULO,
    operators::NEGATE,
    "contains",
    "endsWith",
    "int",
    "size",
    "startsWith",
    "timestamp",
    "type",
];

/// Calls that never look at all of what they are given.
const LIGHT: [&str; 12] = [
    operators::CONDITIONAL,
    operators::LOGICAL_AND,
    operators::LOGICAL_OR,
    operators::LOGICAL_NOT,
    operators::NOT_STRICTLY_FALSE,
    operators::SUBSTRACT,
    operators::MULTIPLY,
    operators::DIVIDE,
    operators::MODULO,
    operators::NEGATE,
    operators::INDEX,
    operators::OPT_INDEX,
];

/// How much there is for a filter to look at.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Size {
    /// All of it, in bytes.
    pub(super) bytes: u64,
    /// Elements of all lists and members of all objects.
    pub(super) elements: u64,
    /// The same of the largest alone.
    pub(super) largest: u64,
}

/// What is done how often: the place is how many loops multiply.
type Levels = Vec<u64>;

/// What an expression names and may cost.
#[derive(Debug, Clone, Default)]
pub(super) struct Look {
    /// Variables that no macro binds.
    pub(super) variables: BTreeSet<String>,
    /// Functions and operators.
    pub(super) functions: BTreeSet<String>,
    steps: Levels,
    /// Steps that look at all of a value.
    heavy: Levels,
    /// How often something is put together: what is made so can be that much larger.
    additions: u64,
    /// Elements of the longest list or map that is written down.
    written: u64,
}

/// Where the value of an expression comes from. Neither a part nor the whole: it is short.
#[derive(Debug, Clone, Copy, Default)]
struct Use {
    /// How many factors of a list's length it may be large.
    degree: usize,
    /// Of what the innermost loop goes round on: all its rounds together see each part once.
    part: bool,
    /// Of the event, or of what a loop further out goes round on.
    whole: bool,
}

impl Use {
    fn and(self, other: Self) -> Self {
        Self {
            degree: self.degree.max(other.degree),
            part: self.part || other.part,
            whole: self.whole || other.whole,
        }
    }

    fn of(them: &[Self]) -> Self {
        them.iter().copied().fold(Self::default(), Self::and)
    }

    fn is_short(self) -> bool {
        !self.part && !self.whole
    }

    /// How many of `depth` loops multiply what looking at all of it costs; `None` if it is short.
    fn level(self, depth: usize) -> Option<usize> {
        let once = if self.whole { depth } else { depth.saturating_sub(1) };
        (!self.is_short()).then_some(self.degree + once)
    }
}

/// A variable that a macro binds.
struct Bound<'a> {
    name: &'a str,
    degree: usize,
    /// How many loops there are around this one.
    outside: usize,
}

impl Look {
    /// Looks an expression over.
    pub(super) fn at(expression: &IdedExpr) -> Self {
        let mut look = Self::default();
        look.visit(expression, 0, &mut Vec::new());
        look
    }

    /// Steps that evaluating it on so much may take at most.
    pub(super) fn cost(&self, size: Size) -> u64 {
        let grown = self.additions.saturating_add(1);
        let bytes = size.bytes.saturating_mul(grown);
        let elements = size.elements.max(self.written).saturating_mul(grown);
        let largest = size.largest.max(self.written).max(1).saturating_mul(grown);
        let (mut sum, mut times) = (0_u64, 1_u64);
        for level in 0..self.steps.len().max(self.heavy.len()) {
            let of = |levels: &Levels| levels.get(level).copied().unwrap_or(0);
            // Elements are compared each by itself.
            let look = (bytes / BYTES).saturating_add(elements);
            let here = of(&self.steps).saturating_add(of(&self.heavy).saturating_mul(look));
            sum = sum.saturating_add(here.saturating_mul(times));
            // The innermost loops may go round on parts: together as often as there are elements.
            times = times.saturating_mul(if level == 0 { elements.max(1) } else { largest });
        }
        sum
    }

    fn count(levels: &mut Levels, level: usize) {
        if levels.len() <= level {
            levels.resize(level + 1, 0);
        }
        levels[level] += 1;
    }

    fn visit<'a>(&mut self, at: &'a IdedExpr, depth: usize, bound: &mut Vec<Bound<'a>>) -> Use {
        Self::count(&mut self.steps, depth);
        match &at.expr {
            Expr::Unspecified | Expr::Literal(_) => Use::default(),
            Expr::Ident(name) => self.name(name, bound),
            Expr::Select(select) => {
                let of = self.visit(&select.operand, depth, bound);
                if select.test { Use::default() } else { of }
            }
            Expr::Call(call) => self.call(call, depth, bound),
            Expr::Comprehension(it) => self.go_round(it, depth, bound),
            Expr::List(list) => self.put_together(list.elements.iter(), depth, bound),
            Expr::Map(map) => {
                self.put_together(map.entries.iter().flat_map(|it| parts(&it.expr)), depth, bound)
            }
            Expr::Struct(it) => {
                self.functions.insert(it.type_name.clone());
                self.put_together(it.entries.iter().flat_map(|it| parts(&it.expr)), depth, bound)
            }
        }
    }

    fn put_together<'a>(
        &mut self,
        them: impl Iterator<Item = &'a IdedExpr>,
        depth: usize,
        bound: &mut Vec<Bound<'a>>,
    ) -> Use {
        let uses: Vec<_> = them.map(|it| self.visit(it, depth, bound)).collect();
        let long = uses.iter().filter(|it| !it.is_short()).count() as u64;
        self.written = self.written.max(uses.len() as u64);
        self.additions += long.saturating_sub(1);
        Use::of(&uses)
    }

    fn name(&mut self, name: &str, bound: &[Bound<'_>]) -> Use {
        let innermost = bound.last().map(|it| it.outside);
        match bound.iter().rev().find(|it| it.name == name) {
            Some(it) => {
                let part = Some(it.outside) == innermost;
                Use { degree: it.degree, part, whole: !part }
            }
            // What a macro gathers.
            None if name.starts_with('@') => Use::default(),
            None => {
                self.variables.insert(name.to_owned());
                let whole = !matches!(name, "id" | "type" | "timestamp");
                Use { whole, ..Use::default() }
            }
        }
    }

    fn call<'a>(&mut self, call: &'a CallExpr, depth: usize, bound: &mut Vec<Bound<'a>>) -> Use {
        let name = call.func_name.as_str();
        self.functions.insert(name.to_owned());
        let given = call.target.as_deref().into_iter().chain(&call.args);
        let uses: Vec<_> = given.map(|it| self.visit(it, depth, bound)).collect();
        if gathers(call) {
            return uses.last().copied().unwrap_or_default();
        }
        if name == operators::ADD {
            self.additions += 1;
        }
        if let Some(level) = looked_at(name, &uses, depth) {
            Self::count(&mut self.heavy, level);
        }
        match name {
            // Which it is does not become a part of it.
            operators::CONDITIONAL => Use::of(uses.get(1..).unwrap_or_default()),
            _ if SHORT.contains(&name) => Use::default(),
            _ => Use::of(&uses),
        }
    }

    fn go_round<'a>(
        &mut self,
        it: &'a ComprehensionExpr,
        depth: usize,
        bound: &mut Vec<Bound<'a>>,
    ) -> Use {
        let range = self.visit(&it.iter_range, depth, bound);
        self.visit(&it.accu_init, depth, bound);
        // Each element is handed over.
        if let Some(level) = range.level(depth) {
            Self::count(&mut self.heavy, level);
        }
        // Over parts of what the loop around goes round on, it goes round, all in all, as often as
        // there are elements.
        let parts = range.part && !range.whole && range.degree == 0;
        let within = if parts { depth } else { depth + 1 };
        let outside = bound.last().map_or(0, |it| it.outside + 1);
        let before = bound.len();
        let names = [Some(it.iter_var.as_str()), it.iter_var2.as_deref()];
        let degree = range.degree;
        bound.extend(names.into_iter().flatten().map(|name| Bound { name, degree, outside }));
        self.visit(&it.loop_cond, within, bound);
        let step = self.visit(&it.loop_step, within, bound);
        bound.truncate(before);
        self.visit(&it.result, depth, bound);
        match it.accu_init.expr {
            // It gathers parts of the range, or in each round as much again.
            Expr::List(_) if step.whole => {
                Use { degree: step.degree.max(degree) + 1, part: false, whole: true }
            }
            Expr::List(_) => Use { degree: step.degree.max(degree), ..range },
            _ => Use::default(),
        }
    }
}

/// On which level a call looks at all of something.
fn looked_at(name: &str, uses: &[Use], depth: usize) -> Option<usize> {
    let all = || uses.iter().filter_map(|it| it.level(depth)).max();
    match name {
        // They end where the shorter does.
        operators::EQUALS
        | operators::NOT_EQUALS
        | operators::LESS
        | operators::LESS_EQUALS
        | operators::GREATER
        | operators::GREATER_EQUALS
        | "startsWith"
        | "endsWith" => uses.iter().map(|it| it.level(depth)).min().flatten(),
        "contains" => uses.first().and_then(|it| it.level(depth)),
        _ if LIGHT.contains(&name) => None,
        _ => all(),
    }
}

fn parts(entry: &EntryExpr) -> impl Iterator<Item = &IdedExpr> {
    let (first, second) = match entry {
        EntryExpr::StructField(field) => (&field.value, None),
        EntryExpr::MapEntry(entry) => (&entry.key, Some(&entry.value)),
    };
    std::iter::once(first).chain(second)
}

/// Whether it is how a macro adds to what it has gathered.
fn gathers(call: &CallExpr) -> bool {
    let first = call.args.first().map(|it| &it.expr);
    matches!(first, Some(Expr::Ident(name)) if name.starts_with('@'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cost(source: &str, size: Size) -> u64 {
        let program = cel::Program::compile(source).unwrap();
        Look::at(program.expression()).cost(size)
    }

    const THOUSAND: Size = Size { bytes: 20_000, elements: 1_000, largest: 1_000 };

    #[test]
    fn loops_within_loops_multiply_and_loops_over_parts_do_not() {
        let one = cost("data.l.exists(x, x == 1)", THOUSAND);
        let parts = cost("data.l.exists(x, x.l.exists(y, y == 1))", THOUSAND);
        let two = cost("data.l.exists(x, data.l.exists(y, y == 1))", THOUSAND);
        let three = cost("data.l.all(x, data.l.all(y, data.l.all(z, true)))", THOUSAND);
        assert!((5_000..30_000).contains(&one), "{one}");
        assert!((one..60_000).contains(&parts), "{parts}");
        assert!((5_000_000..60_000_000).contains(&two), "{two}");
        assert!(three > 1_000_000_000, "{three}");
        let chained = cost("data.l.filter(x, x > 1).map(x, x).exists(x, x == 1)", THOUSAND);
        assert!((2 * one..100_000).contains(&chained), "{chained}");
        let beside = cost("data.l.all(x, x.m.all(y, x.m.all(z, true)))", THOUSAND);
        assert!(beside > 1_000_000, "of one x alone: {beside}");
        let looked_up = cost("data.l.exists(x, x.n == data.n && size(x.l) > 2)", THOUSAND);
        assert!(looked_up < 50_000, "{looked_up}");
    }

    #[test]
    fn what_is_put_together_grows() {
        let big = Size { bytes: 1 << 20, elements: 2, largest: 2 };
        let chain = |n: usize| cost(&format!("size(data.s{}) > 1", " + data.s".repeat(n)), big);
        assert!(chain(2) < 500_000, "{}", chain(2));
        assert!(chain(100) > 10_000_000, "{}", chain(100));
        assert!(cost("data.s.contains('x') && data.t.contains('y')", big) < 50_000);
        let copies = "size(data.l.map(x, data.s + 'x')) > 1";
        assert!(cost(copies, Size { elements: 1_000, largest: 1_000, ..big }) > 1_000_000);
        let compared = "data.l.map(x, data) == data.l.map(x, data)";
        assert!(cost(compared, THOUSAND) > 1_000_000);
    }

    #[test]
    fn names_are_those_that_no_macro_binds() {
        let source = "data.l.exists(x, x.n == y && size(x.t) > 1) && x == 1 && f(id)";
        let program = cel::Program::compile(source).unwrap();
        let look = Look::at(program.expression());
        let named: Vec<_> = look.variables.iter().map(String::as_str).collect();
        assert_eq!(named, ["data", "id", "x", "y"]);
        assert!(look.functions.contains("f") && look.functions.contains("size"));
    }
}
