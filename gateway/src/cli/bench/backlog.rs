use anyhow::{Context, Result, anyhow};
use reqwest::Method;
use serde_json::{Value, json};

use crate::cli::bench::args::Backlog;
use crate::cli::bench::end_to_end::endpoint;
use crate::cli::bench::event::Template;
use crate::cli::bench::figures::{each, share};
use crate::cli::bench::gateway::Gateway;
use crate::cli::bench::progress::Progress;
use crate::cli::bench::report::{Round, Section, Summary};
use crate::cli::bench::stage::{Run, Stage, Whose};
use crate::cli::bench::{idle_retries, receiver};
use crate::world::SystemClock;

const PRODUCERS: usize = 64;

pub(super) async fn run(flags: &Backlog, progress: &Progress) -> Result<Vec<Section>> {
    let mut sections = vec![backlog(flags, progress).await?];
    if flags.endpoints > 0 {
        sections.push(idle_retries::run(flags, progress).await?);
    }
    Ok(sections)
}

async fn backlog(flags: &Backlog, progress: &Progress) -> Result<Section> {
    let mut stage = Stage::set(&flags.common, progress).await?;
    let folder = stage.folder()?;
    let data = folder.path().join("data");
    let gateway = Gateway::start(&data).await?;
    let mut section = Section::new(format!("{} pending deliveries", flags.pending));
    section.figure("resident_idle_mib", resident(&gateway)?);
    let tenant = gateway.client.tenant.clone();
    let id = gateway.make_endpoint(&tenant, &endpoint(&stage.receiver.url)).await?;
    let path = gateway.client.path(&["endpoints", &id]).map_err(|it| anyhow!("{it}"))?;
    let before = rounds(&mut stage, &gateway, "before").await?;
    section.figure("resident_before_mib", resident(&gateway)?);

    // So slow that next to nothing goes out.
    let slow = json!({ "rate_limit": { "per_second": 0.001, "burst": 1 } });
    gateway.call(Method::PATCH, &path, &slow).await?;
    stage.tell_receiver(receiver::Order::Forget).await?;
    progress.tell(format!("publishing {} events", flags.pending));
    let event = Template::new(flags.common.size).at(SystemClock::microseconds());
    let accepted = gateway.flood(&tenant, &event, flags.pending).await?;
    // One is let go at once, another every quarter of an hour.
    gateway.await_pending(|it| it + 5 >= accepted).await?;
    section.figure("accepted", accepted as f64);
    section.figure("pending", gateway.pending().await? as f64);
    section.figure("resident_pending_mib", resident(&gateway)?);

    progress.tell("restarting");
    let (gateway, seconds) = gateway.restart(&data).await?;
    section.figure("restart_seconds", seconds);
    section.figure("resident_after_restart_mib", resident(&gateway)?);

    progress.tell("draining");
    let (used, started) = (usage(&gateway)?, tokio::time::Instant::now());
    gateway.call(Method::PATCH, &path, &json!({ "rate_limit": Value::Null })).await?;
    let received = stage.await_taken(accepted).await?;
    gateway.await_pending(|it| it == 0).await?;
    let seconds = started.elapsed().as_secs_f64();
    section.figure("drained_per_second", share(accepted as f64, seconds));
    let cpu = (usage(&gateway)?.cpu_seconds - used.cpu_seconds) * 10_000.0;
    section.figure("drain_cpu_seconds_per_10000", each(cpu, accepted));
    section.figure("received", received.count as f64);
    section.figure("resident_drained_mib", resident(&gateway)?);

    section.figure("at_rest_after_seconds", gateway.await_rest().await?);
    let after = rounds(&mut stage, &gateway, "after").await?;
    gateway.leave().await?;
    let (before, after) = (Summary::of(&before), Summary::of(&after));
    section.figure("throughput_after_in_terms_of_before", after.share_of(&before));
    section.figure("cpu_after_in_terms_of_before", after.cpu_of(&before));
    section.side("before", before);
    section.side("after", after);
    Ok(section)
}

async fn rounds(stage: &mut Stage, gateway: &Gateway, when: &str) -> Result<Vec<Round>> {
    let mut rounds = Vec::new();
    for round in 1..=stage.common.rounds {
        stage.tell(&format!("end to end {when}"), round);
        let run = Run::at(gateway, PRODUCERS);
        rounds.push(stage.end_to_end(&Whose::Gateway(gateway), &run).await?);
    }
    Ok(rounds)
}

fn usage(gateway: &Gateway) -> Result<crate::cli::bench::usage::Usage> {
    gateway.usage()?.context("the gateway has ended")
}

fn resident(gateway: &Gateway) -> Result<f64> {
    Ok(usage(gateway)?.resident_mib())
}
