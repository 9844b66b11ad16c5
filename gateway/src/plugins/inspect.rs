//! What can be told of a component before it is compiled: its size and shape.

use wasmparser::{Encoding, Parser, Payload, Validator, WasmFeatures};

use crate::plugins::{Config, Refusal};

/// Bounds of what compiling is let loose on; toolchains' output is far below.
const FUNCTIONS_MAX: u32 = 50_000;
const FUNCTION_BYTES_MAX: usize = 512 * 1024;
const LOCALS_MAX: u32 = 10_000;
const MEMORIES_MAX: u32 = 4;

/// Refuses what is no component or is out of all proportion.
pub(super) fn inspect(component: &[u8], config: &Config) -> Result<(), Refusal> {
    if component.len() > config.component_bytes_max {
        let max = config.component_bytes_max;
        let detail = format!("the component has {} bytes; at most {max}", component.len());
        return Err(Refusal::new("plugin_too_large", detail));
    }
    let invalid = |it: &dyn std::fmt::Display| {
        Refusal::new("plugin_invalid", format!("this is no WebAssembly component: {it}"))
    };
    let mut features = WasmFeatures::default();
    features.set(WasmFeatures::COMPONENT_MODEL, true);
    features.set(WasmFeatures::THREADS, false);
    features.set(WasmFeatures::MEMORY64, false);
    let mut validator = Validator::new_with_features(features);
    validator.validate_all(component).map_err(|it| invalid(&it))?;
    let (mut functions, mut memories) = (0, 0);
    for payload in Parser::new(0).parse_all(component) {
        match payload.map_err(|it| invalid(&it))? {
            Payload::Version { encoding: Encoding::Module, range, .. } if range.start == 0 => {
                let why = "it is a core module; build it for wasm32-wasip2";
                return Err(invalid(&why));
            }
            Payload::CodeSectionStart { count, .. } => functions += count,
            Payload::MemorySection(section) => memories += section.count(),
            Payload::CodeSectionEntry(body) => check_function(&body)?,
            _ => {}
        }
    }
    if functions > FUNCTIONS_MAX || memories > MEMORIES_MAX {
        let detail = format!(
            "it has {functions} functions and {memories} memories; at most {FUNCTIONS_MAX} and \
             {MEMORIES_MAX}"
        );
        return Err(Refusal::new("plugin_compile_limit", detail));
    }
    Ok(())
}

fn check_function(body: &wasmparser::FunctionBody<'_>) -> Result<(), Refusal> {
    let limit = |detail: String| Refusal::new("plugin_compile_limit", detail);
    let bytes = body.range().len();
    if bytes > FUNCTION_BYTES_MAX {
        return Err(limit(format!("a function has {bytes} bytes; at most {FUNCTION_BYTES_MAX}")));
    }
    let mut locals = 0_u32;
    for local in body.get_locals_reader().into_iter().flatten() {
        locals = locals.saturating_add(local.map_or(0, |(count, _)| count));
    }
    if locals > LOCALS_MAX {
        return Err(limit(format!("a function has {locals} locals; at most {LOCALS_MAX}")));
    }
    Ok(())
}
