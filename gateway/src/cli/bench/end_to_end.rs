use anyhow::Result;
use serde_json::{Value, json};

use crate::cli::args::ClientArgs;
use crate::cli::authoring;
use crate::cli::bench::args::EndToEnd;
use crate::cli::bench::figures::Quantiles;
use crate::cli::bench::gateway::Gateway;
use crate::cli::bench::part::{Part, Role};
use crate::cli::bench::progress::Progress;
use crate::cli::bench::report::{Round, Section, Summary};
use crate::cli::bench::stage::{Run, Stage, Whose};
use crate::cli::bench::usage::sync_times;

/// Deliveries at once at an endpoint: it is not the endpoint that is measured.
const IN_FLIGHT: u32 = 256;
/// Producers where their number is not what is measured.
const PRODUCERS: usize = 64;
/// Producers that keep a pace: there are always some that do not wait.
const PACED: usize = 256;

struct Bench<'a> {
    flags: &'a EndToEnd,
    args: &'a ClientArgs,
    stage: Stage,
}

/// How the gateway is set up.
struct Setup<'a> {
    producers: usize,
    pace: Option<f64>,
    endpoints: usize,
    filter: Option<&'a [u8]>,
}

impl Setup<'_> {
    const PLAIN: Self = Self { producers: PRODUCERS, pace: None, endpoints: 1, filter: None };
}

pub(super) async fn run(
    flags: &EndToEnd,
    args: &ClientArgs,
    progress: &Progress,
) -> Result<Vec<Section>> {
    let stage = Stage::set(&flags.common, progress).await?;
    let mut bench = Bench { flags, args, stage };
    let mut sections = Vec::new();
    let mut fastest = 0.0_f64;
    for &producers in &flags.producers {
        let (section, rate) = bench.throughput(producers).await?;
        sections.push(section);
        fastest = fastest.max(rate);
    }
    sections.push(bench.half_load(fastest / 2.0).await?);
    if flags.endpoints > 0 {
        sections.push(bench.fan_out().await?);
    }
    if flags.plugin {
        sections.push(bench.filtered().await?);
    }
    Ok(sections)
}

impl Bench<'_> {
    async fn throughput(&mut self, producers: usize) -> Result<(Section, f64)> {
        let (mut ours, mut bare) = (Vec::new(), Vec::new());
        for round in 1..=self.flags.common.rounds {
            self.stage.tell(&format!("end to end, {producers} producers"), round);
            bare.push(self.bound(producers, None).await?);
            ours.push(self.gateway(&Setup { producers, ..Setup::PLAIN }).await?);
        }
        let rate = Summary::of(&ours).per_second.map_or(0.0, |it| it.median);
        Ok((Section::beside(format!("{producers} producers"), &ours, &bare), rate))
    }

    /// How long a first attempt takes when there is room: beside the bound at the same pace, and
    /// beside one sync and one POST that each had the machine for themselves.
    async fn half_load(&mut self, pace: f64) -> Result<Section> {
        let (mut ours, mut bare) = (Vec::new(), Vec::new());
        let (mut syncs, mut posts) = (Vec::new(), Vec::new());
        for round in 1..=self.flags.common.rounds {
            self.stage.tell("half load", round);
            syncs.push(sync_times(self.stage.folder()?.path(), self.flags.common.size)?);
            let post = Run::new(&self.stage.receiver.url, 1);
            posts.push(self.stage.produce(&post, self.flags.common.seconds / 4.0).await?.ack);
            bare.push(self.bound(PACED, Some(pace)).await?);
            let setup = Setup { producers: PACED, pace: Some(pace), ..Setup::PLAIN };
            ours.push(self.gateway(&setup).await?);
        }
        let mut section = Section::beside("half load", &ours, &bare);
        let (sync, post) = (Quantiles::of_rounds(&syncs), Quantiles::of_rounds(&posts));
        section.syncs(&syncs);
        section.figure("one_post_p50_us", post.p50_us);
        section.figure("one_post_p99_us", post.p99_us);
        let arrival = |rounds: &[Round]| Summary::of(rounds).arrival.unwrap_or_default();
        let (ours, bare) = (arrival(&ours), arrival(&bare));
        section.figure("arrival_p50_in_terms_of_bound", ours.p50_us / bare.p50_us.max(1.0));
        section.figure("arrival_p99_in_terms_of_bound", ours.p99_us / bare.p99_us.max(1.0));
        let once = (sync.p50_us + post.p50_us, sync.p99_us + post.p99_us);
        section.figure("arrival_p50_in_terms_of_sync_and_post", ours.p50_us / once.0.max(1.0));
        section.figure("arrival_p99_in_terms_of_sync_and_post", ours.p99_us / once.1.max(1.0));
        Ok(section)
    }

    /// Deliveries of events that go to several endpoints, beside as many events for one.
    async fn fan_out(&mut self) -> Result<Section> {
        let (mut many, mut one) = (Vec::new(), Vec::new());
        let endpoints = self.flags.endpoints;
        for round in 1..=self.flags.common.rounds {
            self.stage.tell("fan-out", round);
            one.push(self.gateway(&Setup::PLAIN).await?);
            many.push(self.gateway(&Setup { endpoints, ..Setup::PLAIN }).await?);
        }
        let (many, one) = (Summary::of(&many), Summary::of(&one));
        let mut section = Section::new(format!("fan-out to {endpoints} endpoints"));
        section.figure("share_of_one_endpoint", many.share_of(&one));
        section.side("fan_out", many);
        section.side("one_endpoint", one);
        Ok(section)
    }

    async fn filtered(&mut self) -> Result<Section> {
        self.stage.progress.tell("making the filter");
        let make = || authoring::example("amount-filter");
        let component = tokio::task::spawn_blocking(make).await??;
        let (mut filtered, mut plain) = (Vec::new(), Vec::new());
        for round in 1..=self.flags.common.rounds {
            self.stage.tell("a filter on every delivery", round);
            plain.push(self.gateway(&Setup::PLAIN).await?);
            let setup = Setup { filter: Some(&component), ..Setup::PLAIN };
            filtered.push(self.gateway(&setup).await?);
        }
        let (filtered, plain) = (Summary::of(&filtered), Summary::of(&plain));
        let mut section = Section::new("a filter in Rust on every delivery");
        section.figure("share_of_plain", filtered.share_of(&plain));
        section.figure("cpu_in_terms_of_plain", filtered.cpu_of(&plain));
        section.side("filtered", filtered);
        section.side("plain", plain);
        Ok(section)
    }

    async fn bound(&mut self, producers: usize, pace: Option<f64>) -> Result<Round> {
        let folder = self.stage.folder()?;
        let sink = self.stage.receiver.url.clone();
        let role = Role::BoundEndToEnd(folder.path().to_owned(), sink);
        let bound = Part::start(&role).await?;
        let run = Run { pace, ..Run::new(&bound.url, producers) };
        self.stage.end_to_end(&Whose::Bound(&bound), &run).await
    }

    async fn gateway(&mut self, setup: &Setup<'_>) -> Result<Round> {
        let folder = self.stage.folder()?;
        let gateway = match self.flags.target.there {
            true => Gateway::there(self.args.clone()).await?,
            false => Gateway::start(&folder.path().join("data")).await?,
        };
        let mut endpoint = endpoint(&self.stage.receiver.url);
        if let Some(component) = setup.filter {
            gateway.upload("filter", component.to_vec()).await?;
            let config = json!({ "minimum": "1" });
            endpoint["plugins"] = json!([{ "plugin": "filter", "config": config }]);
        }
        for _ in 0..setup.endpoints {
            gateway.make_endpoint(&gateway.client.tenant, &endpoint).await?;
        }
        let deliveries = setup.endpoints as u64;
        let run = Run { pace: setup.pace, deliveries, ..Run::at(&gateway, setup.producers) };
        let round = self.stage.end_to_end(&Whose::Gateway(&gateway), &run).await?;
        gateway.leave().await?;
        Ok(round)
    }
}

/// What an endpoint is like that takes as much as comes.
pub(super) fn endpoint(url: &str) -> Value {
    json!({ "url": url, "max_in_flight": IN_FLIGHT })
}
