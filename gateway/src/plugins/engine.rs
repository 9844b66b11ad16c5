use wasmparser::WasmFeatures;
use wasmtime::{
    Config as EngineConfig, Enabled, Engine, InstanceAllocationStrategy, PoolingAllocationConfig,
};

use crate::plugins::Config;

/// Core instances, memories and tables that a component may consist of: a guest, and the shims
/// that adapt it.
const CORE_INSTANCES_MAX: u32 = 64;
const TABLES_MAX: u32 = 16;
const MEMORIES_MAX: u32 = 4;
/// What modules may not use; a component that does is refused before it is compiled.
const DENIED: [WasmFeatures; 9] = [
    WasmFeatures::THREADS,
    WasmFeatures::MULTI_MEMORY,
    WasmFeatures::MEMORY64,
    WasmFeatures::GC,
    WasmFeatures::FUNCTION_REFERENCES,
    WasmFeatures::EXCEPTIONS,
    WasmFeatures::TAIL_CALL,
    WasmFeatures::RELAXED_SIMD,
    WasmFeatures::WIDE_ARITHMETIC,
];
const KEEP_RESIDENT_BYTES: usize = 16 * 1024 * 1024;

/// The engine that runs components: instances come from a pool, which finds what an instance
/// has touched by the kernel's page map where it can (Linux 6.7).
pub(super) fn running(config: &Config) -> wasmtime::Result<Engine> {
    let at_once = u32::try_from(config.workers).unwrap_or(1) + 2 + config.kept.instances_max;
    let memory_bytes_max = config.memory_bytes_cap.max(config.limits.memory_bytes_max);
    let mut pool = PoolingAllocationConfig::default();
    pool.total_component_instances(at_once)
        .max_core_instances_per_component(CORE_INSTANCES_MAX)
        .max_memories_per_component(MEMORIES_MAX)
        .max_tables_per_component(TABLES_MAX)
        .total_core_instances(at_once * CORE_INSTANCES_MAX)
        .total_memories(at_once * MEMORIES_MAX)
        .total_tables(at_once * TABLES_MAX)
        .max_component_instance_size(4 * 1024 * 1024)
        .max_core_instance_size(4 * 1024 * 1024)
        .table_elements(config.limits.table_elements_max)
        .max_memory_size(memory_bytes_max)
        .pagemap_scan(Enabled::Auto)
        .linear_memory_keep_resident(KEEP_RESIDENT_BYTES)
        .table_keep_resident(64 * 1024);
    let mut engine = common(config);
    engine.allocation_strategy(InstanceAllocationStrategy::Pooling(pool));
    Engine::new(&engine)
}

/// The engine that only compiles: what it makes runs on the other.
pub(super) fn compiling(config: &Config) -> wasmtime::Result<Engine> {
    Engine::new(&common(config))
}

/// Whatever decides what compiled code looks like.
fn common(config: &Config) -> EngineConfig {
    let mut engine = EngineConfig::new();
    for feature in DENIED {
        engine.wasm_features(feature, false);
    }
    engine
        .wasm_component_model(true)
        .concurrency_support(false)
        .epoch_interruption(true)
        // Nobody reads a plugin's machine code in a debugger; without these it is a sixth smaller.
        .generate_address_map(false)
        .native_unwind_info(false)
        .consume_fuel(config.fuel)
        .max_wasm_stack(config.stack_bytes_max);
    engine
}
