//! Noisy neighbours: what a tenant at a steady pace notices of others. Each kind of noise meets a
//! gateway of its own; the tenant is looked at alone first, and then beside it.

use std::{convert::Infallible, time::Duration};

use anyhow::Result;
use clap::ValueEnum;
use serde_json::{Value, json};

use crate::cli::bench::args::{Neighbours, Noise};
use crate::cli::bench::end_to_end::endpoint;
use crate::cli::bench::event::Template;
use crate::cli::bench::gateway::Gateway;
use crate::cli::bench::part::{Part, Role};
use crate::cli::bench::progress::Progress;
use crate::cli::bench::receiver::{Mood, Order, Received};
use crate::cli::bench::report::{Round, Section, Summary};
use crate::cli::bench::stage::{Run, Stage, Whose};
use crate::world::SystemClock;

const VICTIM: &str = "victim";
const OTHER: &str = "other";
/// Producers of the victim: some are always there to keep its pace.
const PRODUCERS: usize = 32;
/// Of one who goes as fast as answers come.
const FAST: usize = 64;
const SMALL: usize = 300;
/// As large as an event may be, less its envelope.
const LARGE: usize = 254 * 1024;
/// Until many endpoints have failed and rest.
const FAILING: Duration = Duration::from_secs(10);
/// The victim's 99th percentile may double, and this be added.
const LATER_US: f64 = 250_000.0;

struct Scene<'a> {
    flags: &'a Neighbours,
    noise: Noise,
    gateway: Gateway,
    other: Part,
}

/// What the victim and the other saw.
struct Seen {
    alone: Round,
    beside: Round,
    /// At full speed, where that is looked at.
    fast: Option<(Round, Round)>,
    other: Received,
}

pub(super) async fn run(flags: &Neighbours, progress: &Progress) -> Result<Vec<Section>> {
    let mut stage = Stage::set(&flags.common, progress).await?;
    let mut sections = Vec::new();
    for noise in Noise::value_variants() {
        if !flags.only.is_empty() && !flags.only.contains(noise) {
            continue;
        }
        let name = noise.to_possible_value().map(|it| it.get_name().to_owned());
        let name = name.unwrap_or_default();
        let mut seen = Vec::new();
        for round in 1..=flags.common.rounds {
            stage.tell(&name, round);
            let folder = stage.folder()?;
            let gateway = Gateway::start(&folder.path().join("data")).await?;
            let other = Part::start(&Role::Receiver(mood(*noise))).await?;
            let mut scene = Scene { flags, noise: *noise, gateway, other };
            seen.push(scene.play(&mut stage).await?);
            scene.gateway.leave().await?;
        }
        sections.push(section(&name, &seen));
    }
    Ok(sections)
}

fn mood(noise: Noise) -> Mood {
    match noise {
        Noise::Hot | Noise::Large => Mood::Answer(200),
        Noise::Hanging => Mood::Hang,
        Noise::Recovery => Mood::Answer(503),
        Noise::Retries => Mood::InTurns,
        Noise::Interim => Mood::Interim,
    }
}

fn section(name: &str, seen: &[Seen]) -> Section {
    let rounds = |of: fn(&Seen) -> &Round| -> Summary {
        let rounds: Vec<_> = seen.iter().map(of).cloned().collect();
        Summary::of(&rounds)
    };
    let (alone, beside) = (rounds(|it| &it.alone), rounds(|it| &it.beside));
    let p99 = |it: &Summary| it.arrival.unwrap_or_default().p99_us;
    let limit = 2.0 * p99(&alone) + LATER_US;
    let mut section = Section::new(name);
    section.figure("victim_p99_alone_us", p99(&alone));
    section.figure("victim_p99_beside_us", p99(&beside));
    section.figure("victim_p99_in_terms_of_limit", p99(&beside) / limit);
    section.side("alone", alone);
    section.side("beside", beside);
    let fast: Vec<_> = seen.iter().filter_map(|it| it.fast.clone()).collect();
    let (alone, beside): (Vec<_>, Vec<_>) = fast.into_iter().unzip();
    if !alone.is_empty() {
        let share = Summary::of(&beside).share_of(&Summary::of(&alone));
        section.figure("victim_throughput_in_terms_of_alone", share);
    }
    let other: u64 = seen.iter().map(|it| it.other.taken.max(it.other.count)).sum();
    section.figure("others_requests", other as f64);
    section
}

impl Scene<'_> {
    async fn play(&mut self, stage: &mut Stage) -> Result<Seen> {
        for tenant in [VICTIM, OTHER] {
            self.gateway.make_tenant(tenant).await?;
        }
        self.gateway.make_endpoint(VICTIM, &endpoint(&stage.receiver.url)).await?;
        let (count, tenant, body) = self.neighbours();
        for _ in 0..count {
            self.gateway.make_endpoint(tenant, &body).await?;
        }
        let alone = self.look(stage, self.steady()).await?;
        let fast_alone = match self.noise {
            Noise::Hanging => Some(self.look(stage, self.fast()).await?),
            _ => None,
        };
        self.begin().await?;
        let beside = self.look_beside(stage, self.steady()).await?;
        let fast = match fast_alone {
            Some(alone) => Some((alone, self.look_beside(stage, self.fast()).await?)),
            None => None,
        };
        let other = self.other.ask(&Order::Tell).await?;
        Ok(Seen { alone, beside, fast, other })
    }

    /// How many endpoints the noise has, whose they are, and what they are like.
    fn neighbours(&self) -> (usize, &'static str, Value) {
        let url = &self.other.url;
        let often = |base| json!({ "base": base, "factor": 1, "max_attempts": 50, "jitter": 0 });
        let plain = json!({ "url": url });
        match self.noise {
            Noise::Hot => (20, OTHER, plain),
            Noise::Hanging => (40, OTHER, plain),
            Noise::Large => (1, OTHER, plain),
            Noise::Recovery => {
                (self.flags.endpoints, OTHER, json!({ "url": url, "retry": often("1s") }))
            }
            Noise::Retries => {
                let types = ["bench.event"];
                let body = json!({ "url": url, "retry": often("1s"), "event_types": types });
                (10, VICTIM, body)
            }
            Noise::Interim => (8, OTHER, json!({ "url": url, "retry": often("1ms") })),
        }
    }

    fn run(&self, producers: usize, pace: Option<f64>) -> Run {
        let url = self.gateway.events_url(VICTIM);
        let key = self.gateway.client.key.clone().unwrap_or_default();
        Run { key, pace, ..Run::new(url, producers) }
    }

    fn steady(&self) -> Run {
        self.run(PRODUCERS, Some(self.flags.pace))
    }

    fn fast(&self) -> Run {
        self.run(FAST, None)
    }

    /// What happens before the victim is looked at again.
    async fn begin(&mut self) -> Result<()> {
        let small = Template::new(SMALL).at(SystemClock::microseconds());
        match self.noise {
            Noise::Hot | Noise::Large => {}
            Noise::Hanging => drop(self.gateway.flood(OTHER, &small, 2000).await?),
            Noise::Interim => drop(self.gateway.flood(OTHER, &small, 100).await?),
            Noise::Recovery => {
                self.gateway.flood(OTHER, &small, 100).await?;
                tokio::time::sleep(FAILING).await;
                let _: Received = self.other.ask(&Order::Be(Mood::Answer(200))).await?;
            }
            Noise::Retries => {
                let untimed = br#"{"type":"bench.event","data":{}}"#;
                self.gateway.flood(VICTIM, untimed, 1000).await?;
            }
        }
        Ok(())
    }

    /// What goes on while the victim is looked at.
    async fn go_on(&self) -> Result<Infallible> {
        let (size, times) = match self.noise {
            Noise::Hot => (SMALL, 500),
            Noise::Large => (LARGE, 8),
            _ => std::future::pending().await,
        };
        let event = Template::new(size).at(SystemClock::microseconds());
        loop {
            self.gateway.flood(OTHER, &event, times).await?;
        }
    }

    async fn look_beside(&self, stage: &mut Stage, run: Run) -> Result<Round> {
        tokio::select! {
            round = self.look(stage, run) => round,
            noise = self.go_on() => match noise? {},
        }
    }

    async fn look(&self, stage: &mut Stage, run: Run) -> Result<Round> {
        stage.await_quiet().await?;
        let before = Whose::Gateway(&self.gateway).usage()?;
        let produced = stage.produce(&run, stage.common.seconds).await?;
        let received = stage.await_taken(produced.accepted).await?;
        let after = Whose::Gateway(&self.gateway).usage()?;
        Ok(Round::new(&produced, Some((1, received)), (before, after)))
    }
}
