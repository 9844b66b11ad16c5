use std::time::Duration;

use serde::Deserialize;

use crate::app::config::{ConfigError, bounded};
use crate::plugins;

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;

/// What plugins may use: the table `[plugins]` of the file, `--plugin-…` among the flags,
/// `HOOKGATE_PLUGIN_…` in the environment.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, clap::Args)]
#[serde(deny_unknown_fields)]
pub struct PluginSettings {
    /// Threads that run plugins [default: one a core, at least 2]
    #[arg(long = "plugin-workers", value_name = "N", env = "HOOKGATE_PLUGIN_WORKERS")]
    pub workers: Option<usize>,
    /// Calls of a tenant that wait for a thread [default: 64]
    #[arg(long = "plugin-queue-max", value_name = "N", env = "HOOKGATE_PLUGIN_QUEUE_MAX")]
    pub queue_max: Option<usize>,
    /// CPU time that a tenant's plugins may take in each second, in ms
    #[arg(
        long = "plugin-cpu-ms-per-second",
        value_name = "N",
        env = "HOOKGATE_PLUGIN_CPU_MS_PER_SECOND"
    )]
    pub cpu_ms_per_second: Option<u64>,
    /// Failures in a row after which a plugin's version rests [default: 10]
    #[arg(
        long = "plugin-breaker-failures",
        value_name = "N",
        env = "HOOKGATE_PLUGIN_BREAKER_FAILURES"
    )]
    pub breaker_failures: Option<u32>,
    /// How long it rests at first, in ms [default: 30000]
    #[arg(
        long = "plugin-breaker-cool-down-ms",
        value_name = "N",
        env = "HOOKGATE_PLUGIN_BREAKER_COOL_DOWN_MS"
    )]
    pub breaker_cool_down_ms: Option<u64>,
    /// How many milliseconds of processor time a call may take [default: 50]
    #[arg(long = "plugin-deadline-ms", value_name = "N", env = "HOOKGATE_PLUGIN_DEADLINE_MS")]
    pub deadline_ms: Option<u64>,
    /// Memory of an instance, in MiB [default: 16]
    #[arg(long = "plugin-memory-mib", value_name = "N", env = "HOOKGATE_PLUGIN_MEMORY_MIB")]
    pub memory_mib: Option<usize>,
    /// Memory that no tenant's own limit goes beyond, in MiB [default: 128]
    #[arg(
        long = "plugin-memory-cap-mib",
        value_name = "N",
        env = "HOOKGATE_PLUGIN_MEMORY_CAP_MIB"
    )]
    pub memory_cap_mib: Option<usize>,
    /// Elements of an instance's tables [default: 20000]
    #[arg(
        long = "plugin-table-elements-max",
        value_name = "N",
        env = "HOOKGATE_PLUGIN_TABLE_ELEMENTS_MAX"
    )]
    pub table_elements_max: Option<usize>,
    /// Stack of an instance, in KiB [default: 512]
    #[arg(long = "plugin-stack-kib", value_name = "N", env = "HOOKGATE_PLUGIN_STACK_KIB")]
    pub stack_kib: Option<usize>,
    /// What a call may give out, in KiB [default: 1024]
    #[arg(long = "plugin-output-kib", value_name = "N", env = "HOOKGATE_PLUGIN_OUTPUT_KIB")]
    pub output_kib: Option<usize>,
    /// Lines that a call may log [default: 100]
    #[arg(long = "plugin-log-lines-max", value_name = "N", env = "HOOKGATE_PLUGIN_LOG_LINES_MAX")]
    pub log_lines_max: Option<usize>,
    /// What a call may log, in KiB [default: 16]
    #[arg(long = "plugin-log-kib", value_name = "N", env = "HOOKGATE_PLUGIN_LOG_KIB")]
    pub log_kib: Option<usize>,
    /// Calls that an instance may make to the gateway [default: 10000]
    #[arg(
        long = "plugin-host-calls-max",
        value_name = "N",
        env = "HOOKGATE_PLUGIN_HOST_CALLS_MAX"
    )]
    pub host_calls_max: Option<usize>,
    /// Requests that a transform may make of one event [default: 16]
    #[arg(long = "plugin-parts-max", value_name = "N", env = "HOOKGATE_PLUGIN_PARTS_MAX")]
    pub parts_max: Option<usize>,
    /// Instructions that a call may spend; counting them costs a tenth of the speed
    #[arg(long = "plugin-fuel-max", value_name = "N", env = "HOOKGATE_PLUGIN_FUEL_MAX")]
    pub fuel_max: Option<u64>,
    /// How long compiling an upload may take [default: 20]
    #[arg(
        long = "plugin-compile-seconds",
        value_name = "N",
        env = "HOOKGATE_PLUGIN_COMPILE_SECONDS"
    )]
    pub compile_seconds: Option<u64>,
    /// Address space that compiling may use, in MiB [default: 4096]
    #[arg(
        long = "plugin-compile-memory-mib",
        value_name = "N",
        env = "HOOKGATE_PLUGIN_COMPILE_MEMORY_MIB"
    )]
    pub compile_memory_mib: Option<u64>,
    /// Size of a component, in MiB; Python's need 32 [default: 16]
    #[arg(long = "plugin-component-mib", value_name = "N", env = "HOOKGATE_PLUGIN_COMPONENT_MIB")]
    pub component_mib: Option<usize>,
    /// Instances of heavy runtimes that are kept [default: 32]
    #[arg(
        long = "plugin-kept-instances-max",
        value_name = "N",
        env = "HOOKGATE_PLUGIN_KEPT_INSTANCES_MAX"
    )]
    pub kept_instances_max: Option<u32>,
    /// How often a kept instance is asked [default: 1000]
    #[arg(
        long = "plugin-kept-calls-max",
        value_name = "N",
        env = "HOOKGATE_PLUGIN_KEPT_CALLS_MAX"
    )]
    pub kept_calls_max: Option<u32>,
    /// Memory of a heavy runtime's instance, in MiB [default: 64]
    #[arg(
        long = "plugin-kept-memory-mib",
        value_name = "N",
        env = "HOOKGATE_PLUGIN_KEPT_MEMORY_MIB"
    )]
    pub kept_memory_mib: Option<usize>,
}

impl PluginSettings {
    /// These, and where they say nothing, `other`.
    pub(super) fn or(self, other: Self) -> Self {
        Self {
            workers: self.workers.or(other.workers),
            queue_max: self.queue_max.or(other.queue_max),
            cpu_ms_per_second: self.cpu_ms_per_second.or(other.cpu_ms_per_second),
            breaker_failures: self.breaker_failures.or(other.breaker_failures),
            breaker_cool_down_ms: self.breaker_cool_down_ms.or(other.breaker_cool_down_ms),
            deadline_ms: self.deadline_ms.or(other.deadline_ms),
            memory_mib: self.memory_mib.or(other.memory_mib),
            memory_cap_mib: self.memory_cap_mib.or(other.memory_cap_mib),
            table_elements_max: self.table_elements_max.or(other.table_elements_max),
            stack_kib: self.stack_kib.or(other.stack_kib),
            output_kib: self.output_kib.or(other.output_kib),
            log_lines_max: self.log_lines_max.or(other.log_lines_max),
            log_kib: self.log_kib.or(other.log_kib),
            host_calls_max: self.host_calls_max.or(other.host_calls_max),
            parts_max: self.parts_max.or(other.parts_max),
            fuel_max: self.fuel_max.or(other.fuel_max),
            compile_seconds: self.compile_seconds.or(other.compile_seconds),
            compile_memory_mib: self.compile_memory_mib.or(other.compile_memory_mib),
            component_mib: self.component_mib.or(other.component_mib),
            kept_instances_max: self.kept_instances_max.or(other.kept_instances_max),
            kept_calls_max: self.kept_calls_max.or(other.kept_calls_max),
            kept_memory_mib: self.kept_memory_mib.or(other.kept_memory_mib),
        }
    }

    /// Writes what is said over the defaults.
    pub(super) fn apply(&self, plugins: &mut plugins::Config) -> Result<(), ConfigError> {
        self.apply_to_host(plugins)?;
        self.apply_to_calls(plugins)
    }

    fn apply_to_host(&self, plugins: &mut plugins::Config) -> Result<(), ConfigError> {
        if let Some(it) = self.workers {
            let it = bounded("plugins.workers", Some(it), 1..=256, it)?;
            plugins.workers = it;
        }
        if let Some(it) = self.queue_max {
            let it = bounded("plugins.queue_max", Some(it), 1..=65_536, it)?;
            plugins.queue_max = it;
        }
        if let Some(it) = self.cpu_ms_per_second {
            let it = bounded("plugins.cpu_ms_per_second", Some(it), 1..=1_000_000, it)?;
            plugins.cpu_per_second = Duration::from_millis(it);
        }
        self.apply_to_breaker(&mut plugins.breaker)?;
        if let Some(it) = self.memory_cap_mib {
            let it = bounded("plugins.memory_cap_mib", Some(it), 1..=4096, it)?;
            plugins.memory_bytes_cap = it * MIB;
        }
        if let Some(it) = self.stack_kib {
            let it = bounded("plugins.stack_kib", Some(it), 64..=8192, it)?;
            plugins.stack_bytes_max = it * KIB;
        }
        if let Some(it) = self.compile_seconds {
            let it = bounded("plugins.compile_seconds", Some(it), 1..=600, it)?;
            plugins.compile_time_max = Duration::from_secs(it);
        }
        if let Some(it) = self.compile_memory_mib {
            let it = bounded("plugins.compile_memory_mib", Some(it), 256..=65_536, it)?;
            plugins.compile_memory_max = it * MIB as u64;
        }
        if let Some(it) = self.component_mib {
            let it = bounded("plugins.component_mib", Some(it), 1..=256, it)?;
            plugins.component_bytes_max = it * MIB;
        }
        if let Some(it) = self.kept_instances_max {
            let it = bounded("plugins.kept_instances_max", Some(it), 0..=4096, it)?;
            plugins.kept.instances_max = it;
        }
        if let Some(it) = self.kept_calls_max {
            let it = bounded("plugins.kept_calls_max", Some(it), 1..=1_000_000, it)?;
            plugins.kept.calls_max = it;
        }
        if let Some(it) = self.kept_memory_mib {
            let it = bounded("plugins.kept_memory_mib", Some(it), 1..=4096, it)?;
            plugins.kept.memory_bytes_max = it * MIB;
        }
        Ok(())
    }

    fn apply_to_breaker(&self, breaker: &mut plugins::BreakerConfig) -> Result<(), ConfigError> {
        if let Some(it) = self.breaker_failures {
            breaker.failures = bounded("plugins.breaker_failures", Some(it), 1..=1000, it)?;
        }
        if let Some(it) = self.breaker_cool_down_ms {
            let it = bounded("plugins.breaker_cool_down_ms", Some(it), 1..=3_600_000, it)?;
            breaker.cool_down = Duration::from_millis(it);
            breaker.cool_down_max = breaker.cool_down_max.max(breaker.cool_down);
        }
        Ok(())
    }

    fn apply_to_calls(&self, plugins: &mut plugins::Config) -> Result<(), ConfigError> {
        if let Some(it) = self.deadline_ms {
            let it = bounded("plugins.deadline_ms", Some(it), 1..=10_000, it)?;
            plugins.limits.deadline = Duration::from_millis(it);
        }
        if let Some(it) = self.memory_mib {
            let it = bounded("plugins.memory_mib", Some(it), 1..=1024, it)?;
            plugins.limits.memory_bytes_max = it * MIB;
        }
        if let Some(it) = self.table_elements_max {
            let it = bounded("plugins.table_elements_max", Some(it), 1..=10_000_000, it)?;
            plugins.limits.table_elements_max = it;
        }
        if let Some(it) = self.output_kib {
            let it = bounded("plugins.output_kib", Some(it), 1..=65_536, it)?;
            plugins.limits.output_bytes_max = it * KIB;
        }
        if let Some(it) = self.log_lines_max {
            let it = bounded("plugins.log_lines_max", Some(it), 0..=100_000, it)?;
            plugins.limits.log_lines_max = it;
        }
        if let Some(it) = self.log_kib {
            let it = bounded("plugins.log_kib", Some(it), 0..=65_536, it)?;
            plugins.limits.log_bytes_max = it * KIB;
        }
        if let Some(it) = self.host_calls_max {
            let it = bounded("plugins.host_calls_max", Some(it), 1..=100_000_000, it)?;
            plugins.limits.host_calls_max = it;
        }
        if let Some(it) = self.parts_max {
            let it = bounded("plugins.parts_max", Some(it), 1..=64, it)?;
            plugins.limits.parts_max = it;
        }
        if let Some(it) = self.fuel_max {
            let it = bounded("plugins.fuel_max", Some(it), 1..=u64::MAX, it)?;
            plugins.limits.fuel_max = Some(it);
            plugins.fuel = true;
        }
        Ok(())
    }
}
