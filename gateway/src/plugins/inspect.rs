//! What can be told of a component before it is compiled: what it is, what it needs of the
//! engine, and whether its size and shape are in proportion. Compiling is the largest surface that
//! strangers' code has, and its time grows with these numbers.

use wasmparser::{Encoding, FunctionBody, Operator, Parser, Payload, Validator, WasmFeatures};

use crate::plugins::{Config, Refusal};

/// Bounds of what compiling is let loose on; toolchains' output is far below.
const FUNCTIONS_MAX: u32 = 49_999;
const FUNCTION_BYTES_MAX: usize = 512 * 1024;
const LOCALS_MAX: u32 = 10_000;
const NESTING_MAX: usize = 2_000;
const LOOPS_MAX: usize = 5_000;
const BLOCKS_MAX: usize = 50_000;
const BRANCHES_MAX: u32 = 100_000;
const MEMORIES_MAX: u32 = 4;

/// What modules may use of WebAssembly. Not: threads, several memories in a module, 64-bit
/// memories, garbage collection, exceptions, tail calls, relaxed SIMD.
pub(super) fn features() -> WasmFeatures {
    let mut features = WasmFeatures::WASM2;
    features.set(WasmFeatures::COMPONENT_MODEL, true);
    features.set(WasmFeatures::EXTENDED_CONST, true);
    features.set(WasmFeatures::BULK_MEMORY_OPT, true);
    features.set(WasmFeatures::CALL_INDIRECT_OVERLONG, true);
    features
}

/// Looks at a component before it is compiled.
///
/// # Errors
/// When it is none, needs what the engine does not give, or is out of all proportion.
pub fn inspect(component: &[u8], config: &Config) -> Result<(), Refusal> {
    if component.len() > config.component_bytes_max {
        let max = config.component_bytes_max;
        let detail = format!("the component has {} bytes; at most {max}", component.len());
        return Err(Refusal::new("plugin_too_large", detail));
    }
    let (mut functions, mut memories) = (0_u32, 0_u32);
    for payload in Parser::new(0).parse_all(component) {
        match payload.map_err(invalid)? {
            Payload::Version { encoding: Encoding::Module, range, .. } if range.start == 0 => {
                return Err(invalid("it is a core module; build it for wasm32-wasip2"));
            }
            Payload::CodeSectionStart { count, .. } => functions = functions.saturating_add(count),
            Payload::MemorySection(section) => memories = memories.saturating_add(section.count()),
            Payload::CodeSectionEntry(body) => check_function(&body)?,
            _ => {}
        }
    }
    if functions > FUNCTIONS_MAX {
        return Err(limit(format!("it has {functions} functions; at most {FUNCTIONS_MAX}")));
    }
    validate(component)?;
    if memories > MEMORIES_MAX {
        return Err(denied(format!("it has {memories} memories; at most {MEMORIES_MAX}")));
    }
    Ok(())
}

fn validate(component: &[u8]) -> Result<(), Refusal> {
    let Err(error) = Validator::new_with_features(features()).validate_all(component) else {
        return Ok(());
    };
    // What is valid elsewhere asks for something that is switched off here.
    match Validator::new_with_features(WasmFeatures::all()).validate_all(component) {
        Ok(_) => Err(denied(format!("it needs what the sandbox does not give: {error}"))),
        Err(_) => Err(invalid(error)),
    }
}

fn check_function(body: &FunctionBody<'_>) -> Result<(), Refusal> {
    let bytes = body.range().len();
    if bytes > FUNCTION_BYTES_MAX {
        return Err(limit(format!("a function has {bytes} bytes; at most {FUNCTION_BYTES_MAX}")));
    }
    let mut locals = 0_u32;
    for local in body.get_locals_reader().map_err(invalid)? {
        locals = locals.saturating_add(local.map_err(invalid)?.0);
    }
    if locals > LOCALS_MAX {
        return Err(limit(format!("a function has {locals} locals; at most {LOCALS_MAX}")));
    }
    let (mut nesting, mut loops, mut blocks, mut branches) = (0_usize, 0, 0, 0_u32);
    let mut operators = body.get_operators_reader().map_err(invalid)?;
    while !operators.eof() {
        match operators.read().map_err(invalid)? {
            it @ (Operator::Block { .. } | Operator::Loop { .. } | Operator::If { .. }) => {
                (nesting, blocks) = (nesting + 1, blocks + 1);
                loops += usize::from(matches!(it, Operator::Loop { .. }));
            }
            Operator::End => nesting = nesting.saturating_sub(1),
            Operator::BrTable { targets } => branches = branches.saturating_add(targets.len()),
            _ => {}
        }
        if nesting > NESTING_MAX || loops > LOOPS_MAX || blocks > BLOCKS_MAX {
            return Err(limit(format!(
                "a function has more than {NESTING_MAX} blocks within each other, {LOOPS_MAX} \
                 loops or {BLOCKS_MAX} blocks"
            )));
        }
    }
    if branches > BRANCHES_MAX {
        return Err(limit(format!("a function's tables lead to {branches} places")));
    }
    Ok(())
}

fn invalid(error: impl std::fmt::Display) -> Refusal {
    Refusal::new("plugin_invalid", format!("this is no WebAssembly component: {error}"))
}

fn limit(detail: String) -> Refusal {
    Refusal::new("plugin_compile_limit", detail)
}

fn denied(detail: String) -> Refusal {
    Refusal::new("plugin_import_denied", detail)
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use proptest::prelude::*;

    use super::*;
    use crate::plugins::Compiler;

    fn refusal(component: &[u8]) -> Option<Refusal> {
        inspect(component, &Config::new(PathBuf::new(), Compiler::InProcess)).err()
    }

    /// An empty component: its preamble alone.
    const EMPTY: &[u8] = b"\0asm\x0d\0\x01\0";

    proptest! {
        #[test]
        fn any_bytes_are_refused_and_nothing_panics(
            noise in proptest::collection::vec(any::<u8>(), 0..512),
            preamble in any::<bool>(),
        ) {
            let component = if preamble { [EMPTY, &noise].concat() } else { noise };
            if let Some(refusal) = refusal(&component) {
                prop_assert!(refusal.code.starts_with("plugin_"));
            }
        }
    }

    #[test]
    fn an_empty_component_is_one() {
        assert_eq!(refusal(EMPTY), None);
    }
}
