use crate::telemetry::Histogram;

/// Times of what is done here: a sync, a plugin, a fan-out.
pub(super) const SHORT: Histogram =
    &[0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5];
/// Times of requests; OpenTelemetry's buckets for HTTP and three more.
pub(super) const REQUEST: Histogram = &[
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0,
    30.0,
];
/// Times that retries stretch to days.
pub(super) const LONG: Histogram = &[
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0,
    300.0, 1800.0, 7200.0, 43_200.0, 172_800.0,
];
/// Bytes of an event.
pub(super) const SIZES: Histogram =
    &[64.0, 256.0, 1024.0, 4096.0, 16_384.0, 65_536.0, 262_144.0, 1_048_576.0];
