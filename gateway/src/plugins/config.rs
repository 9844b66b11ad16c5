use std::{path::PathBuf, time::Duration};

use crate::plugins::Limits;

const MIB: usize = 1024 * 1024;

/// What plugins may use, and where their compiled form is kept.
#[derive(Debug, Clone)]
pub struct Config {
    /// Threads that run plugins, apart from those that accept and deliver.
    pub workers: usize,
    /// Calls that wait for a worker, per tenant.
    pub queue_max: usize,
    /// What a call may use, unless it brings limits of its own. Memory and tables are bounds of
    /// the pool too: a call's own limits can be lower, not higher.
    pub limits: Limits,
    /// Stack of an instance, in bytes.
    pub stack_bytes_max: usize,
    /// Whether instructions are counted: a run then ends at the same one each time, and each call
    /// tells what it spent. It costs about a tenth of the speed.
    pub fuel: bool,
    /// Bytes of a component.
    pub component_bytes_max: usize,
    /// How long compiling may take.
    pub compile_time_max: Duration,
    /// Address space that compiling may use, in bytes.
    pub compile_memory_max: u64,
    /// Where components are compiled.
    pub compiler: Compiler,
    /// Where compiled components are kept. It can be deleted at any time.
    pub cache: PathBuf,
}

/// Where components are compiled. Compiling is the largest surface that strangers' code has, so
/// a process of its own with limits does it.
#[derive(Debug, Clone)]
pub enum Compiler {
    /// This executable, called with `plugin-compiler`.
    Child(PathBuf),
    /// Here, without limits: for trusted components, as in tests and in authors' tools.
    InProcess,
}

impl Config {
    /// Settings that suit most, with the cache in this folder.
    pub fn new(cache: PathBuf, compiler: Compiler) -> Self {
        let cores = std::thread::available_parallelism().map_or(2, usize::from);
        Self {
            workers: cores.clamp(1, 16),
            queue_max: 256,
            limits: Limits::default(),
            stack_bytes_max: 512 * 1024,
            fuel: false,
            component_bytes_max: 16 * MIB,
            compile_time_max: Duration::from_secs(20),
            compile_memory_max: 4 * 1024 * MIB as u64,
            compiler,
            cache,
        }
    }
}
