use std::time::Duration;

use crate::domain::PluginQuota;

const MIB: usize = 1024 * 1024;

/// What one call of a plugin may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// How long it may have the processor; ten times as long by the clock on the wall.
    pub deadline: Duration,
    /// Instructions it may spend, in wasmtime's unit of fuel; `None`: only the deadline counts.
    /// It binds where the host runs with fuel ([`Config::fuel`](crate::plugins::Config)).
    pub fuel_max: Option<u64>,
    /// Linear memory, in bytes. Bulk operations are not interrupted by the deadline, so this
    /// bounds how late it can be.
    pub memory_bytes_max: usize,
    /// Elements of all tables.
    pub table_elements_max: usize,
    /// Bytes that it may give out, all payloads, headers and reasons together.
    pub output_bytes_max: usize,
    /// Lines that it may log; further ones are left out.
    pub log_lines_max: usize,
    /// Bytes that it may log; further lines are left out.
    pub log_bytes_max: usize,
    /// Calls that it may make to the gateway; one more is a trap.
    pub host_calls_max: usize,
    /// Requests that a transform may make of one event.
    pub parts_max: usize,
}

impl Limits {
    /// These limits as they are for a tenant that is granted `quota`.
    pub(super) fn under(&self, quota: &PluginQuota) -> Self {
        let of = |granted: Option<u64>, own: usize| {
            granted.map_or(own, |it| usize::try_from(it).unwrap_or(usize::MAX))
        };
        Self {
            deadline: quota.deadline.unwrap_or(self.deadline),
            memory_bytes_max: of(quota.memory_bytes_max, self.memory_bytes_max),
            output_bytes_max: of(quota.output_bytes_max, self.output_bytes_max),
            log_lines_max: of(quota.log_lines_max, self.log_lines_max),
            log_bytes_max: of(quota.log_bytes_max, self.log_bytes_max),
            ..*self
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            deadline: Duration::from_millis(50),
            fuel_max: None,
            memory_bytes_max: 16 * MIB,
            table_elements_max: 20_000,
            output_bytes_max: MIB,
            log_lines_max: 100,
            log_bytes_max: 16 * 1024,
            host_calls_max: 10_000,
            parts_max: 16,
        }
    }
}
