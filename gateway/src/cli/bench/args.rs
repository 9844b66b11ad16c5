use std::path::PathBuf;

use clap::{Args, Subcommand};

use crate::cli::authoring::Lang;

/// Measure a gateway beside what the machine can do
///
/// Examples:
///   hookgate bench ingest --producers 1,64
///   hookgate bench e2e --plugin --json > e2e.json
///   hookgate bench backlog --pending 1000000 --dir /var/tmp
///   hookgate bench growth --stored 10000000 --endpoints 100000 --dir /var/tmp
///   hookgate bench ingest --target --server http://127.0.0.1:8080 --key KEY
///
/// It starts gateways of its own on loopback, with their stores in a temporary folder: choose a
/// disk with --dir. The bound is measured in the same run, in turns with the gateway. Figures are
/// medians over the rounds; the spread stands behind them.
#[derive(Debug, Subcommand)]
#[command(verbatim_doc_comment)]
pub(in crate::cli) enum Bench {
    /// Durable acceptance, beside a bare handler that parses, appends and syncs in groups
    Ingest(Ingest),
    /// Signing and sending, beside a bare HTTP client that signs and sends
    Deliver(Deliver),
    /// From acceptance to the stored outcome, beside a loop that syncs, signs and sends
    E2e(EndToEnd),
    /// Many pending deliveries: memory, restart, draining, and the cost of events afterwards
    Backlog(Backlog),
    /// Whether an event costs more where many are stored, and where many endpoints are
    Growth(Growth),
    /// Calls of plugins beside native code; memory, upload, first event
    Plugin(Plugin),
    /// What a tenant at a steady pace notices of others who flood, hang, come back and retry
    Neighbours(Neighbours),
}

/// What all have.
#[derive(Debug, Clone, Args)]
pub(super) struct Common {
    /// Measure so often; the median counts
    #[arg(long, default_value_t = 3, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub(super) rounds: u16,
    /// A round is over after so many seconds at the latest
    #[arg(long, default_value_t = 4.0, value_name = "SECONDS")]
    pub(super) seconds: f64,
    /// A round is over after so many events at the latest
    #[arg(long, default_value_t = 200_000, value_name = "N")]
    pub(super) events: u64,
    /// Bytes of an event
    #[arg(long, default_value_t = 1024, value_name = "BYTES")]
    pub(super) size: usize,
    /// Run so long before anything is measured
    #[arg(long, default_value_t = 1.0, value_name = "SECONDS")]
    pub(super) warm_up: f64,
    /// A folder for stores, on the disk that is to be measured [default: the temporary folder]
    #[arg(long, value_name = "DIR")]
    pub(super) dir: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct Ingest {
    #[command(flatten)]
    pub(super) common: Common,
    /// Producers at once, each waiting for its answers
    #[arg(long, default_value = "1,64,256", value_delimiter = ',', value_name = "N,…")]
    pub(super) producers: Vec<usize>,
    #[command(flatten)]
    pub(super) target: Target,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct Deliver {
    #[command(flatten)]
    pub(super) common: Common,
    /// POSTs in flight at once
    #[arg(long, default_value_t = 64, value_name = "N")]
    pub(super) in_flight: usize,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct EndToEnd {
    #[command(flatten)]
    pub(super) common: Common,
    /// Producers at once, each waiting for its answers
    #[arg(long, default_value = "64,256", value_delimiter = ',', value_name = "N,…")]
    pub(super) producers: Vec<usize>,
    /// Endpoints of the fan-out; 0 leaves it out
    #[arg(long, default_value_t = 10, value_name = "N")]
    pub(super) endpoints: usize,
    /// Measure a filter in Rust on every delivery, too (made with cargo)
    #[arg(long)]
    pub(super) plugin: bool,
    #[command(flatten)]
    pub(super) target: Target,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct Backlog {
    #[command(flatten)]
    pub(super) common: Common,
    /// Pending deliveries
    #[arg(long, default_value_t = 100_000, value_name = "N")]
    pub(super) pending: u64,
    /// Measure so many endpoints with a pending retry each, too
    #[arg(long, default_value_t = 0, value_name = "N")]
    pub(super) endpoints: usize,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct Growth {
    #[command(flatten)]
    pub(super) common: Common,
    /// Measure with so many events stored, one after the other in the same store
    #[arg(long, default_value = "10000,1000000", value_delimiter = ',', value_name = "N,…")]
    pub(super) stored: Vec<u64>,
    /// Measure with so many endpoints of the same tenant, one after the other
    #[arg(long, default_value = "10,10000", value_delimiter = ',', value_name = "N,…")]
    pub(super) endpoints: Vec<usize>,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct Plugin {
    #[command(flatten)]
    pub(super) common: Common,
    /// What the measured plugins are written in
    #[arg(
        long,
        value_enum,
        default_value = "rust,javascript",
        value_delimiter = ',',
        value_name = "LANG,…"
    )]
    pub(super) lang: Vec<Lang>,
    /// Plugins uploaded, and instances kept, to learn how much memory each takes
    #[arg(long, default_value_t = 200, value_name = "N")]
    pub(super) plugins: u32,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct Neighbours {
    #[command(flatten)]
    pub(super) common: Common,
    /// Only these
    #[arg(long, value_enum, value_delimiter = ',', value_name = "NAME,…")]
    pub(super) only: Vec<Noise>,
    /// Endpoints that come back in `recovery`
    #[arg(long, default_value_t = 1000, value_name = "N")]
    pub(super) endpoints: usize,
    /// Events a second of the tenant that is looked at
    #[arg(long, default_value_t = 100.0, value_name = "N")]
    pub(super) pace: f64,
}

/// What others do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(in crate::cli) enum Noise {
    /// A tenant with twenty endpoints floods
    Hot,
    /// Forty endpoints never answer
    Hanging,
    /// Many endpoints come back at once
    Recovery,
    /// Ten endpoints of the same tenant fail every second time
    Retries,
    /// A tenant sends events of 256 KiB
    Large,
    /// Eight endpoints send interim answers without end
    Interim,
}

/// Whose gateway it is.
#[derive(Debug, Clone, Args)]
pub(super) struct Target {
    /// Load the gateway of --server and --key, for a tenant of its own that is deleted at the end
    #[arg(long = "target")]
    pub(super) there: bool,
}
