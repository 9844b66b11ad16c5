//! Every metric of the gateway, each once. `deploy/` names no others. `/metrics` shows from the start
//! all whose labels' values are known, and `process_…`, which `metrics-process` describes.

use crate::telemetry::buckets::{LONG, REQUEST, SHORT, SIZES};
use crate::telemetry::results::ATTEMPT_RESULTS;
use crate::telemetry::{Kind, Label, Metric, Unit, Values};

const fn label(name: &'static str, values: &'static [&'static str]) -> Label {
    Label { name, values: Values::Of(values) }
}

const PROTOCOL: Label = label("protocol", &["json", "ndjson", "cloudevents"]);
const RUNTIME: Label = label("runtime", &["front", "deliver"]);

/// Which gateway it is.
pub const BUILD_INFO: Metric =
    Metric::gauge("hookgate_build_info", Unit::Count, "Always 1; what it is, the labels say.")
        .by(&[Label::one("version"), Label::one("commit"), Label::one("rustc")]);

/// Whether it can take events.
pub const READY: Metric =
    Metric::gauge("hookgate_ready", Unit::Count, "1 if it can take events, as /readyz says.");

/// Events that are on disk.
pub const EVENTS_ACCEPTED: Metric = Metric::counter(
    "hookgate_events_accepted_total",
    "Events that were accepted: they are on disk.",
)
.by(&[PROTOCOL])
.owned();

/// Requests or lines that were refused.
pub const EVENTS_REJECTED: Metric = Metric::counter(
    "hookgate_events_rejected_total",
    "Requests or lines with events that were refused; the reason is the problem's code.",
)
.by(&[PROTOCOL, Label { name: "reason", values: Values::AtMost(64) }]);

/// Opinions of schemas that are not strict.
pub const SCHEMA_WARNINGS: Metric = Metric::counter(
    "hookgate_events_schema_warnings_total",
    "Events that do not match their type's schema and were accepted all the same.",
);

/// How large events are.
pub const EVENT_SIZE: Metric = Metric::new(
    "hookgate_event_size_bytes",
    Kind::Histogram(SIZES),
    Unit::Bytes,
    "Data of accepted events.",
);

/// How long a batch takes.
pub const COMMIT: Metric = Metric::seconds(
    "hookgate_event_commit_duration_seconds",
    SHORT,
    "Writing and syncing a batch of what must be durable before it is acknowledged.",
);

/// How long after its acceptance an event is fanned out.
pub const FAN_OUT: Metric = Metric::seconds(
    "hookgate_event_fanout_duration_seconds",
    SHORT,
    "From an event's acceptance to its deliveries.",
);

/// What fan-out makes.
pub const DELIVERIES_CREATED: Metric = Metric::counter(
    "hookgate_deliveries_created_total",
    "Deliveries that fan-out made of events: one for each endpoint that wants it.",
);

/// How deliveries end.
pub const DELIVERIES: Metric = Metric::counter(
    "hookgate_deliveries_total",
    "Deliveries that ended, by outcome; what is sent again ends once more.",
)
.by(&[label("outcome", &["delivered", "filtered", "dead", "cancelled"])])
.owned();

/// Attempts made.
pub const ATTEMPTS: Metric = Metric::counter(
    "hookgate_delivery_attempts_total",
    "Attempts that ended, by class of status or kind of failure, and by what they were.",
)
.by(&[
    label("result", ATTEMPT_RESULTS),
    label("kind", &["first", "retry", "manual", "replay", "test"]),
])
.owned();

/// How long attempts take.
pub const ATTEMPT_DURATION: Metric = Metric::seconds(
    "hookgate_delivery_attempt_duration_seconds",
    REQUEST,
    "An attempt from its start to its verdict, plugins included.",
);

/// How long deliveries take.
pub const END_TO_END: Metric = Metric::seconds(
    "hookgate_delivery_end_to_end_seconds",
    LONG,
    "From an event's acceptance to the endpoint's 2xx, retries included; replays, redrives not.",
);

/// Attempts that could not be made yet.
pub const DEFERRED: Metric = Metric::counter(
    "hookgate_deliveries_deferred_total",
    "Attempts put off because the tenant's plugins have no turn or rest.",
);

/// Lanes that were forgotten.
pub const LANES_RESTARTED: Metric = Metric::counter(
    "hookgate_lanes_restarted_total",
    "Endpoints whose deliveries could be attempted, were not, and went once the watchdog looked: \
     a fault of the gateway's own.",
);

/// What is not finished.
pub const PENDING: Metric = Metric::gauge(
    "hookgate_deliveries_pending",
    Unit::Count,
    "Deliveries not finished: without an attempt (ready), or waiting for another (scheduled).",
)
.by(&[label("state", &["ready", "scheduled"])]);

/// Attempts under way.
pub const IN_FLIGHT: Metric =
    Metric::gauge("hookgate_attempts_in_flight", Unit::Count, "Attempts under way.");

/// What could be attempted now and is not.
pub const OVERDUE: Metric = Metric::gauge(
    "hookgate_deliveries_overdue",
    Unit::Count,
    "Deliveries that could be attempted now and are not; waiting retries and resting endpoints \
     do not count.",
);

/// For how long.
pub const OVERDUE_OLDEST: Metric = Metric::gauge(
    "hookgate_deliveries_overdue_oldest_seconds",
    Unit::Seconds,
    "For how long the first of the overdue deliveries could have been attempted.",
);

/// What was given up and is kept.
pub const DEAD_LETTERS: Metric =
    Metric::gauge("hookgate_dead_letters", Unit::Count, "Dead letters that are kept.");

/// What is given up.
pub const DIED: Metric =
    Metric::counter("hookgate_deliveries_died_total", "Deliveries given up, by reason.").by(&[
        label(
            "reason",
            &[
                "retries_exhausted",
                "gone",
                "plugin_error",
                "endpoint_disabled",
                "expired",
                "internal_error",
                "refused",
                "loop",
            ],
        ),
    ]);

/// Endpoints there are.
pub const ENDPOINTS: Metric = Metric::gauge(
    "hookgate_endpoints",
    Unit::Count,
    "Endpoints: enabled, disabled, or held because their secrets cannot be opened.",
)
.by(&[label("state", &["enabled", "disabled", "held"])]);

/// Endpoints that were given up.
pub const ENDPOINTS_DISABLED: Metric = Metric::counter(
    "hookgate_endpoints_disabled_total",
    "Endpoints that the gateway disabled: after a 410, or days of nothing but failures.",
);

/// Breakers now.
pub const BREAKERS_OPEN: Metric =
    Metric::gauge("hookgate_breakers_open", Unit::Count, "Endpoints whose breaker is not closed.");

/// Breakers that moved.
pub const BREAKER_TRANSITIONS: Metric = Metric::counter(
    "hookgate_breaker_transitions_total",
    "Breakers of endpoints that opened or closed.",
)
.by(&[label("to", &["open", "closed"])]);

/// Calls of plugins.
pub const PLUGIN_CALLS: Metric =
    Metric::counter("hookgate_plugin_calls_total", "Calls of plugins, by what came of them.").by(
        &[label(
            "result",
            &[
                "configured",
                "pass",
                "drop",
                "modified",
                "split",
                "reject",
                "classified",
                "signed",
                "plugin_error",
                "plugin_timeout",
                "plugin_trap",
                "plugin_limit",
                "plugin_output_invalid",
                "plugin_suspended",
                "plugin_overloaded",
            ],
        )],
    );

/// How long they run.
pub const PLUGIN_DURATION: Metric =
    Metric::seconds("hookgate_plugin_duration_seconds", SHORT, "A call of a plugin.");

/// What they spend.
pub const PLUGIN_FUEL: Metric = Metric::counter(
    "hookgate_plugin_fuel_total",
    "Fuel that plugins spent, in wasmtime's unit; 0 where it is not counted (fuel_max).",
);

/// Calls under way.
pub const PLUGIN_INSTANCES: Metric = Metric::gauge(
    "hookgate_plugin_instances",
    Unit::Count,
    "Instances of plugins that are at work now.",
);

/// How long compiling takes.
pub const PLUGIN_COMPILE: Metric =
    Metric::seconds("hookgate_plugin_compile_seconds", REQUEST, "Compiling an uploaded plugin.");

/// Cached code that was not trusted.
pub const PLUGIN_ARTIFACTS_REFUSED: Metric = Metric::counter(
    "hookgate_plugin_artifacts_refused_total",
    "Compiled plugins in the cache that were not as they were written, and were compiled again.",
);

/// How long the disk takes.
pub const STORE_FSYNC: Metric = Metric::seconds(
    "hookgate_store_fsync_seconds",
    SHORT,
    "Making the store's journal durable: the sync alone.",
);

/// How large the store is.
pub const STORE_BYTES: Metric = Metric::gauge(
    "hookgate_store_bytes",
    Unit::Bytes,
    "Disk that the store takes, by table; `journal` is what all tables' newest rows lie in.",
)
.by(&[Label { name: "keyspace", values: Values::AtMost(32) }]);

/// What is left.
pub const STORE_FREE: Metric =
    Metric::gauge("hookgate_store_free_bytes", Unit::Bytes, "Space left where the store lies.");

/// Events beyond retention.
pub const EVENTS_TRIMMED: Metric =
    Metric::counter("hookgate_events_trimmed_total", "Events removed since they were too old.");

/// What retention leaves.
pub const EVENTS_OLDEST: Metric =
    Metric::gauge("hookgate_events_oldest_age_seconds", Unit::Seconds, "Age of the oldest event.");

/// Compactions.
pub const STORE_COMPACTIONS: Metric =
    Metric::counter("hookgate_store_compactions_total", "Compactions that the store finished.");

/// Who watches.
pub const TAIL_CLIENTS: Metric =
    Metric::gauge("hookgate_sse_clients", Unit::Count, "Clients that watch the tail.");

/// What watchers did not see.
pub const TAIL_DROPPED: Metric = Metric::counter(
    "hookgate_sse_dropped_total",
    "Notices that a client of the tail was too slow for; it was told how many.",
);

/// How long requests take; OpenTelemetry's name.
pub const REQUESTS: Metric = Metric::seconds(
    "http_server_request_duration_seconds",
    REQUEST,
    "Requests to this gateway, to the head of the answer, by route and class of status.",
)
.by(&[
    label("method", &["GET", "PUT", "POST", "PATCH", "DELETE", "HEAD", "OPTIONS", "other"]),
    Label { name: "route", values: Values::AtMost(128) },
    label("status", &["1xx", "2xx", "3xx", "4xx", "5xx"]),
]);

/// The machine's clock.
pub const CLOCK_SKEWED: Metric = Metric::gauge(
    "hookgate_clock_skewed",
    Unit::Count,
    "1 while the machine's clock has jumped, or was far ahead of the store at the start.",
);

/// Threads of a runtime.
pub const RUNTIME_WORKERS: Metric =
    Metric::gauge("hookgate_runtime_workers", Unit::Count, "Threads of the runtime.")
        .by(&[RUNTIME]);

/// What lives on it.
pub const RUNTIME_ALIVE: Metric =
    Metric::gauge("hookgate_runtime_alive_tasks", Unit::Count, "What lives on the runtime.")
        .by(&[RUNTIME]);

/// What waits for it.
pub const RUNTIME_QUEUE: Metric = Metric::gauge(
    "hookgate_runtime_queue_depth",
    Unit::Count,
    "What waits for a thread of the runtime.",
)
.by(&[RUNTIME]);

/// How busy it is.
pub const RUNTIME_BUSY: Metric = Metric::new(
    "hookgate_runtime_busy_seconds_total",
    Kind::Counter,
    Unit::Seconds,
    "Time that the runtime's threads were at work, in whole seconds.",
)
.by(&[RUNTIME]);

/// All of them.
pub const TABLE: &[&Metric] = &[
    &BUILD_INFO,
    &READY,
    &EVENTS_ACCEPTED,
    &EVENTS_REJECTED,
    &SCHEMA_WARNINGS,
    &EVENT_SIZE,
    &EVENTS_TRIMMED,
    &EVENTS_OLDEST,
    &COMMIT,
    &FAN_OUT,
    &DELIVERIES_CREATED,
    &DELIVERIES,
    &ATTEMPTS,
    &ATTEMPT_DURATION,
    &END_TO_END,
    &DEFERRED,
    &PENDING,
    &IN_FLIGHT,
    &OVERDUE,
    &OVERDUE_OLDEST,
    &DEAD_LETTERS,
    &DIED,
    &ENDPOINTS,
    &ENDPOINTS_DISABLED,
    &LANES_RESTARTED,
    &BREAKERS_OPEN,
    &BREAKER_TRANSITIONS,
    &PLUGIN_CALLS,
    &PLUGIN_DURATION,
    &PLUGIN_FUEL,
    &PLUGIN_INSTANCES,
    &PLUGIN_COMPILE,
    &PLUGIN_ARTIFACTS_REFUSED,
    &STORE_FSYNC,
    &STORE_BYTES,
    &STORE_FREE,
    &STORE_COMPACTIONS,
    &TAIL_CLIENTS,
    &TAIL_DROPPED,
    &REQUESTS,
    &CLOCK_SKEWED,
    &RUNTIME_WORKERS,
    &RUNTIME_ALIVE,
    &RUNTIME_QUEUE,
    &RUNTIME_BUSY,
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_follow_prometheus() {
        let mut seen = BTreeSet::new();
        for metric in TABLE {
            assert!(seen.insert(metric.name), "{} stands twice", metric.name);
            let counter = metric.kind == Kind::Counter;
            assert_eq!(metric.name.ends_with("_total"), counter, "{}", metric.name);
            let stem = metric.name.trim_end_matches("_total");
            for (unit, suffix) in [(Unit::Seconds, "_seconds"), (Unit::Bytes, "_bytes")] {
                assert_eq!(stem.ends_with(suffix), metric.unit == unit, "{}", metric.name);
            }
            assert!(metric.help.ends_with('.') && metric.help.len() < 160, "{}", metric.name);
        }
    }

    #[test]
    fn nobody_is_a_label_who_did_not_ask() {
        for metric in TABLE {
            for label in metric.labels {
                let owner = ["tenant", "endpoint", "event", "delivery", "plugin"];
                assert!(!owner.contains(&label.name), "{}", metric.name);
            }
        }
    }

    #[test]
    fn series_are_few() {
        for metric in TABLE {
            let count = |label: &Label| match label.values {
                Values::Of(values) => values.len(),
                Values::AtMost(most) => most,
            };
            let series: usize = metric.labels.iter().map(count).product();
            let most = if metric.name.starts_with("http_") { 8000 } else { 200 };
            assert!(series <= most, "{} has {series}", metric.name);
        }
    }
}
