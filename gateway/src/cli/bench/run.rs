use std::process::ExitCode;

use anyhow::Result;
use serde_json::{Value, json};

use crate::cli::args::ClientArgs;
use crate::cli::bench::args::{Bench, Common};
use crate::cli::bench::progress::Progress;
use crate::cli::bench::report::{self, Section};
use crate::cli::bench::{backlog, deliver, end_to_end, growth, ingest, neighbours, plugin};
use crate::cli::client::Failure;
use crate::cli::output;

/// Measures, and prints what it found.
pub(in crate::cli) async fn run(bench: Bench, args: ClientArgs) -> ExitCode {
    let progress = Progress::start();
    let measured = measure(&bench, &args, &progress).await;
    progress.end();
    match measured {
        Ok(sections) => {
            let (name, settings) = settings(&bench);
            report::print(args.json, name, &settings, &sections);
            ExitCode::SUCCESS
        }
        Err(error) => {
            output::complain(&Failure::other(format!("{error:#}")));
            ExitCode::FAILURE
        }
    }
}

async fn measure(bench: &Bench, args: &ClientArgs, progress: &Progress) -> Result<Vec<Section>> {
    match bench {
        Bench::Ingest(it) => ingest::run(it, args, progress).await,
        Bench::Deliver(it) => deliver::run(it, progress).await,
        Bench::E2e(it) => end_to_end::run(it, args, progress).await,
        Bench::Backlog(it) => backlog::run(it, progress).await,
        Bench::Growth(it) => growth::run(it, progress).await,
        Bench::Plugin(it) => plugin::run(it, progress).await,
        Bench::Neighbours(it) => neighbours::run(it, progress).await,
    }
}

/// Its name, and what it was told.
fn settings(bench: &Bench) -> (&'static str, Value) {
    let (name, it, own) = match bench {
        Bench::Ingest(it) => ("ingest", &it.common, json!({ "producers": it.producers })),
        Bench::Deliver(it) => ("deliver", &it.common, json!({ "in_flight": it.in_flight })),
        Bench::E2e(it) => {
            let own = json!({ "producers": it.producers, "endpoints": it.endpoints });
            ("e2e", &it.common, own)
        }
        Bench::Backlog(it) => {
            let own = json!({ "pending": it.pending, "endpoints": it.endpoints });
            ("backlog", &it.common, own)
        }
        Bench::Growth(it) => {
            let own = json!({ "stored": it.stored, "endpoints": it.endpoints });
            ("growth", &it.common, own)
        }
        Bench::Plugin(it) => ("plugin", &it.common, json!({ "plugins": it.plugins })),
        Bench::Neighbours(it) => {
            ("neighbours", &it.common, json!({ "endpoints": it.endpoints, "pace": it.pace }))
        }
    };
    let Common { rounds, seconds, events, size, warm_up, dir: _ } = it;
    let mut settings = json!({
        "rounds": rounds, "seconds": seconds, "events": events, "size": size, "warm_up": warm_up,
    });
    for (name, value) in own.as_object().into_iter().flatten() {
        settings[name] = value.clone();
    }
    (name, settings)
}
