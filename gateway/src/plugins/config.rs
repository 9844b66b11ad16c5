use std::{path::PathBuf, time::Duration};

use crate::domain::PluginQuota;
use crate::plugins::{BreakerConfig, CpuBudget, KeptConfig, Limits};

const MIB: usize = 1024 * 1024;

/// What plugins may use, and where their compiled form is kept.
#[derive(Debug, Clone)]
pub struct Config {
    /// Threads that run plugins, apart from those that accept and deliver. 0: there are none, and
    /// no clock that ends a call: each runs where it is made, and fuel alone bounds it.
    pub workers: usize,
    /// Calls of a tenant that wait for a worker.
    pub queue_max: usize,
    /// Calls of all tenants that wait for a worker; those who have some share it.
    pub queue_total_max: usize,
    /// CPU time that a tenant's calls may take in each second; then they wait.
    pub cpu_per_second: Duration,
    /// When a version that fails is given up for a while.
    pub breaker: BreakerConfig,
    /// What a call may use, unless it brings limits of its own. Memory and tables are bounds of
    /// the pool too: a call's own limits can be lower, not higher.
    pub limits: Limits,
    /// When instances are kept, and how many.
    pub kept: KeptConfig,
    /// Linear memory that no call's own limits go beyond, in bytes.
    pub memory_bytes_cap: usize,
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
            // One is left to the quick where the slow take the others.
            workers: cores.clamp(2, 16),
            queue_max: 64,
            queue_total_max: 512,
            cpu_per_second: Duration::from_millis(500) * cores.clamp(2, 16) as u32,
            breaker: BreakerConfig::default(),
            limits: Limits::default(),
            kept: KeptConfig::default(),
            memory_bytes_cap: 128 * MIB,
            stack_bytes_max: 512 * 1024,
            fuel: false,
            component_bytes_max: 16 * MIB,
            compile_time_max: Duration::from_secs(20),
            compile_memory_max: 4 * 1024 * MIB as u64,
            compiler,
            cache,
        }
    }

    /// For simulated time: a call takes none of it and ends at the same instruction each time,
    /// after this much fuel at the latest.
    pub fn simulated(cache: PathBuf, fuel_max: u64) -> Self {
        let limits = Limits { fuel_max: Some(fuel_max), ..Limits::default() };
        Self { workers: 0, fuel: true, limits, ..Self::new(cache, Compiler::InProcess) }
    }

    /// The CPU time of a tenant that is granted `quota`. After a rest it may use a second's at
    /// once.
    pub(super) fn cpu_budget(&self, quota: &PluginQuota) -> CpuBudget {
        let per_second = quota.cpu_per_second.unwrap_or(self.cpu_per_second);
        CpuBudget { per_second, burst: per_second }
    }

    /// What a call may use that brings no limits of its own, for a tenant that is granted `quota`.
    pub(super) fn limits_of(&self, heavy: bool, quota: &PluginQuota) -> Limits {
        let memory_bytes_max = match heavy {
            true => self.kept.memory_bytes_max.max(self.limits.memory_bytes_max),
            false => self.limits.memory_bytes_max,
        };
        let limits = Limits { memory_bytes_max, ..self.limits }.under(quota);
        let memory_bytes_max = limits.memory_bytes_max.min(self.memory_bytes_cap);
        Limits { memory_bytes_max, ..limits }
    }
}
