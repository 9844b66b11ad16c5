use std::time::Duration;

use crate::domain::Retention;

/// What the operator grants one tenant beside the gateway's own settings.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Quota {
    /// Events a second, over time.
    pub events_per_second: Option<f64>,
    /// Events at once after a rest; left out, those of one second.
    pub burst: Option<u32>,
    /// Deliveries that wait; from there on no events are taken.
    pub backlog_max: Option<u64>,
    /// Endpoints.
    pub endpoints_max: Option<u32>,
    /// How long its events are kept; `None`: as long as the gateway's settings say.
    pub retention: Option<Retention>,
    /// What its plugins may use.
    pub plugins: PluginQuota,
}

/// What one tenant's plugins may use; `None`: what the gateway's settings say.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PluginQuota {
    /// How long a call may run.
    pub deadline: Option<Duration>,
    /// Linear memory of an instance, in bytes.
    pub memory_bytes_max: Option<u64>,
    /// Bytes that a transform may give out.
    pub output_bytes_max: Option<u64>,
    /// Lines that a call may log.
    pub log_lines_max: Option<u64>,
    /// Bytes that a call may log.
    pub log_bytes_max: Option<u64>,
    /// CPU time that all its calls may take in each second.
    pub cpu_per_second: Option<Duration>,
}
