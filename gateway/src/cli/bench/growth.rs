use std::path::Path;

use anyhow::{Context, Result, anyhow};
use reqwest::Method;
use serde_json::json;

use crate::cli::bench::args::Growth;
use crate::cli::bench::end_to_end::endpoint;
use crate::cli::bench::event::Template;
use crate::cli::bench::gateway::Gateway;
use crate::cli::bench::progress::Progress;
use crate::cli::bench::report::{Round, Section, Summary};
use crate::cli::bench::stage::{Run, Stage, Whose};
use crate::world::SystemClock;

const PRODUCERS: usize = 64;
/// Events on their way at once while a store is filled.
const AT_ONCE: u64 = 100_000;

/// A gateway that grows, beside a young one: the same work in turns, so that what differs is what
/// has grown. The young one stays for all rounds: one that is new in each ends before it has written
/// its memtables out, and looks cheaper than any gateway is.
struct Bench {
    stage: Stage,
}

pub(super) async fn run(flags: &Growth, progress: &Progress) -> Result<Vec<Section>> {
    let mut bench = Bench { stage: Stage::set(&flags.common, progress).await? };
    let mut sections = bench.stored(&flags.stored).await?;
    sections.extend(bench.endpoints(&flags.endpoints).await?);
    Ok(sections)
}

impl Bench {
    async fn stored(&mut self, marks: &[u64]) -> Result<Vec<Section>> {
        let folder = self.stage.folder()?;
        let data = folder.path().join("data");
        let mut grown = self.start(&data).await?;
        let (mut sections, mut stored) = (Vec::new(), 0);
        for &mark in marks {
            self.fill(&grown, mark.saturating_sub(stored)).await?;
            let rest = grown.await_rest().await?;
            let mut section = self.beside_young(format!("{mark} events stored"), &grown).await?;
            section.figure("at_rest_after_seconds", rest);
            // Counted from the start of a process on.
            let accepted = grown.client.gauge("hookgate_events_accepted_total").await;
            stored += accepted.map_err(|it| anyhow!("{it}"))? as u64;
            let seconds;
            (grown, seconds) = grown.restart(&data).await?;
            section.figure("stored_at_restart", stored as f64);
            section.figure("restart_seconds", seconds);
            sections.push(section);
        }
        grown.leave().await?;
        Ok(sections)
    }

    async fn endpoints(&mut self, marks: &[usize]) -> Result<Vec<Section>> {
        let folder = self.stage.folder()?;
        let grown = self.start(&folder.path().join("data")).await?;
        let tenant = grown.client.tenant.clone();
        let most = marks.iter().max().copied().unwrap_or_default() + 1;
        let wide = json!({ "name": tenant, "quota": { "endpoints_max": most } });
        grown.call(Method::PUT, &format!("/v1/tenants/{tenant}"), &wide).await?;
        let (mut sections, mut made) = (Vec::new(), 1);
        for &mark in marks {
            self.stage.progress.tell(format!("{made} of {mark} endpoints are made"));
            let url = self.stage.receiver.url.clone();
            // They ask for something else.
            let other = |it: usize| json!({ "url": url, "event_types": [format!("other.{it}")] });
            let more = mark.saturating_sub(made);
            grown.make_endpoints(&tenant, more, |it| other(made + it)).await?;
            made += more;
            grown.await_rest().await?;
            sections
                .push(self.beside_young(format!("{mark} endpoints of a tenant"), &grown).await?);
        }
        grown.leave().await?;
        Ok(sections)
    }

    async fn start(&self, data: &Path) -> Result<Gateway> {
        let gateway = Gateway::start(data).await?;
        let body = endpoint(&self.stage.receiver.url);
        gateway.make_endpoint(&gateway.client.tenant, &body).await?;
        Ok(gateway)
    }

    /// Has so many events more delivered.
    async fn fill(&mut self, gateway: &Gateway, more: u64) -> Result<()> {
        let event = Template::new(self.stage.common.size).at(SystemClock::microseconds());
        let mut left = more;
        while left > 0 {
            self.stage.progress.tell(format!("{} of {more} events are stored", more - left));
            let now = left.min(AT_ONCE);
            gateway.flood(&gateway.client.tenant, &event, now).await?;
            gateway.await_pending(|it| it == 0).await?;
            left -= now;
        }
        Ok(())
    }

    async fn beside_young(&mut self, name: String, grown: &Gateway) -> Result<Section> {
        let folder = self.stage.folder()?;
        let young = self.start(&folder.path().join("data")).await?;
        let (mut ours, mut its) = (Vec::new(), Vec::new());
        for round in 1..=self.stage.common.rounds {
            self.stage.tell(&name, round);
            its.push(self.round(&young).await?);
            ours.push(self.round(grown).await?);
        }
        young.leave().await?;
        let resident = grown.usage()?.context("the gateway has ended")?.resident_mib();
        let (ours, its) = (Summary::of(&ours), Summary::of(&its));
        let mut section = Section::new(name);
        section.figure("throughput_in_terms_of_young", ours.share_of(&its));
        section.figure("cpu_in_terms_of_young", ours.cpu_of(&its));
        // Files are merged now and then, which a median does not tell of.
        section.figure("mean_cpu_in_terms_of_young", ours.mean_cpu_of(&its));
        section.figure("resident_mib", resident);
        section.side("grown", ours);
        section.side("young", its);
        Ok(section)
    }

    /// At its end the gateway is at rest, so that the next round is the other's alone.
    async fn round(&mut self, gateway: &Gateway) -> Result<Round> {
        let run = Run::at(gateway, PRODUCERS);
        let round = self.stage.end_to_end(&Whose::Gateway(gateway), &run).await?;
        gateway.await_rest().await?;
        Ok(round)
    }
}
