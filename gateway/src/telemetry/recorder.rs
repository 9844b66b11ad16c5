use std::{sync::OnceLock, time::Duration};

use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};

use crate::telemetry::{
    BUILD_INFO, EVENTS_ACCEPTED, Kind, Metric, Owners, TABLE, Unit, Values, owners, series,
};

/// How often observations are put into their buckets when nobody asks for metrics: until then
/// each is kept by itself.
const UPKEEP_EVERY: Duration = Duration::from_secs(5);

/// What it was built of. Whoever builds it says so; asking git would fail where there is none, and
/// make every commit a new build.
const COMMIT: &str = match option_env!("HOOKGATE_COMMIT") {
    Some(commit) => commit,
    None => "unknown",
};

/// Renders the metrics of the process.
#[derive(Clone)]
pub struct Rendering {
    handle: PrometheusHandle,
    process: metrics_process::Collector,
}

impl Rendering {
    /// All metrics in Prometheus' text format 0.0.4, with those of the process as it is now.
    pub fn render(&self) -> String {
        self.process.collect();
        self.handle.render()
    }

    /// Keeps what is observed small, for ever.
    pub async fn keep_small(&self) {
        loop {
            tokio::time::sleep(UPKEEP_EVERY).await;
            self.handle.run_upkeep();
        }
    }
}

/// Makes the one recorder of the process and writes the table into it, so that every metric is
/// there from the start. A second gateway in the process (as in tests) shares it.
pub fn install(owners: Owners) -> Rendering {
    static INSTALLED: OnceLock<Rendering> = OnceLock::new();
    let make = || {
        owners::set(owners);
        let mut builder = PrometheusBuilder::new();
        for metric in TABLE {
            if let Kind::Histogram(buckets) = metric.kind {
                let matcher = Matcher::Full(metric.name.to_owned());
                let with_buckets = builder.set_buckets_for_metric(matcher, buckets);
                builder = with_buckets.expect("there are buckets");
            }
        }
        let recorder = builder.build_recorder();
        let handle = recorder.handle();
        // Somebody embeds the gateway beside a recorder of their own: theirs stays.
        let _ = metrics::set_global_recorder(recorder);
        series::begin();
        TABLE.iter().for_each(|it| begin(it));
        // So that it can be told from the start that nobody sends anything.
        for values in known_values(&EVENTS_ACCEPTED) {
            for tenant in owners::tenants() {
                let mut labels = EVENTS_ACCEPTED.named(&values);
                owners::name(&mut labels, tenant, None);
                metrics::counter!(EVENTS_ACCEPTED.name, labels).absolute(0);
            }
        }
        BUILD_INFO.show(1.0, &[env!("CARGO_PKG_VERSION"), COMMIT, env!("HOOKGATE_RUSTC")]);
        let process = metrics_process::Collector::default();
        process.describe();
        Rendering { handle, process }
    };
    INSTALLED.get_or_init(make).clone()
}

/// Describes a metric and makes the series that are known in advance.
fn begin(metric: &Metric) {
    let unit = match metric.unit {
        Unit::Count => metrics::Unit::Count,
        Unit::Seconds => metrics::Unit::Seconds,
        Unit::Bytes => metrics::Unit::Bytes,
    };
    match metric.kind {
        Kind::Counter => metrics::describe_counter!(metric.name, unit, metric.help),
        Kind::Gauge => metrics::describe_gauge!(metric.name, unit, metric.help),
        Kind::Histogram(_) => metrics::describe_histogram!(metric.name, unit, metric.help),
    }
    if metric.owned && owners::asked_for() {
        // Its series come with those they are of.
        return;
    }
    for values in known_values(metric) {
        let labels = metric.named(&values);
        match metric.kind {
            Kind::Counter => metrics::counter!(metric.name, labels).absolute(0),
            Kind::Gauge => metrics::gauge!(metric.name, labels).set(0.0),
            Kind::Histogram(_) => drop(metrics::histogram!(metric.name, labels)),
        }
    }
}

/// Every combination of its labels' values; none where some are not known in advance.
fn known_values(metric: &Metric) -> Vec<Vec<&'static str>> {
    let mut combinations = vec![Vec::new()];
    for label in metric.labels {
        let Values::Of(values) = label.values else { return Vec::new() };
        let longer = combinations.iter().flat_map(|it: &Vec<_>| {
            values.iter().map(|value| it.iter().copied().chain([*value]).collect())
        });
        combinations = longer.collect();
    }
    combinations
}
