use std::{fs, path::Path, sync::Arc, time::Duration};

use anyhow::{Context, Result, anyhow, bail};
use bytes::Bytes;
use serde_json::Value;
use tokio::{runtime::Handle, task::JoinSet, time::Instant};

use crate::cli::authoring::{self, Lang};
use crate::cli::bench::figures::{Latencies, Quantiles};
use crate::cli::serve;
use crate::plugins::{Artifact, Call, Config, EventIn, Host, KeptConfig, Verdict};
use crate::world::SystemEntropy;

/// Tenants that call, and calls at once of each.
const TENANTS: usize = 4;
const CALLS_EACH: usize = 4;

const FILTER_JS: &str = "export default {
  filter(event) {
    return event.data.amount >= 100 || { drop: `${event.data.amount} is under 100` };
  },
};
";
const TRANSFORM_JS: &str = "export default {
  transform(event) {
    const { number } = event.data.card;
    event.data.card.number = '*'.repeat(number.length - 4) + number.slice(-4);
    return { data: event.data };
  },
};
";

/// What a plugin is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Work {
    /// Delivers events with an amount of 100 or more.
    Filter,
    /// Masks a card's number.
    Transform,
}

impl Work {
    pub(super) const ALL: [Self; 2] = [Self::Filter, Self::Transform];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Filter => "filter",
            Self::Transform => "transform",
        }
    }

    /// The script that does it.
    pub(super) fn script(self) -> &'static str {
        match self {
            Self::Filter => FILTER_JS,
            Self::Transform => TRANSFORM_JS,
        }
    }

    /// Makes a component that does it, in `folder` if it needs one.
    pub(super) fn make(self, lang: Lang, folder: &Path) -> Result<Bytes> {
        let component = match (lang, self) {
            (Lang::Rust, Self::Filter) => authoring::example("amount-filter")?,
            (Lang::Rust, Self::Transform) => authoring::example("redact")?,
            (Lang::Javascript, _) => self.make_script(folder)?,
            _ => bail!("rust and javascript are measured"),
        };
        Ok(component.into())
    }

    fn make_script(self, folder: &Path) -> Result<Vec<u8>> {
        let name = self.name();
        let folder = folder.join(name);
        fs::create_dir_all(&folder)?;
        let manifest = format!("name = \"{name}\"\nkind = \"{name}\"\nlang = \"javascript\"\n");
        fs::write(folder.join("hookgate-plugin.toml"), manifest)?;
        fs::write(folder.join("plugin.js"), self.script())?;
        Ok(fs::read(authoring::build(&folder)?.path)?)
    }

    /// What the plugin is configured with.
    pub(super) fn config(self, lang: Lang) -> Vec<(String, String)> {
        let (name, value) = match (lang, self) {
            (Lang::Rust, Self::Filter) => ("minimum", "100"),
            (Lang::Rust, Self::Transform) => ("fields", "card.number"),
            _ => return Vec::new(),
        };
        vec![(name.to_owned(), value.to_owned())]
    }

    /// The same without a sandbox.
    pub(super) fn natively(self, data: &[u8]) -> Option<Vec<u8>> {
        let mut data: Value = serde_json::from_slice(data).ok()?;
        match self {
            Self::Filter => (data["amount"].as_f64()? >= 100.0).then(Vec::new),
            Self::Transform => {
                let number = data.pointer_mut("/card/number")?;
                let text = number.as_str()?;
                let kept = text.len().saturating_sub(4);
                *number = format!("{}{}", "*".repeat(kept), text.get(kept..)?).into();
                serde_json::to_vec(&data).ok()
            }
        }
    }

    /// Whether a script's answer, as JSON, is the right one.
    pub(super) fn is_done(self, answer: &str) -> bool {
        match self {
            Self::Filter => answer == "true",
            Self::Transform => answer.contains("\"************4242\""),
        }
    }

    fn was_done(self, verdict: &Verdict) -> bool {
        match self {
            Self::Filter => matches!(verdict, Verdict::Deliver),
            Self::Transform => matches!(verdict, Verdict::Replace(_)),
        }
    }
}

/// A plugin on a host of its own.
pub(super) struct Subject {
    host: Host,
    artifact: Arc<Artifact>,
    work: Work,
    config: Vec<(String, String)>,
    data: Bytes,
}

/// Which host, and which plugin on it.
#[derive(Clone, Copy)]
pub(super) struct Plan<'a> {
    pub(super) lang: Lang,
    pub(super) work: Work,
    pub(super) component: &'a Bytes,
    pub(super) data: &'a Bytes,
    /// The plugins' own threads; 0: calls run on the threads that ask.
    pub(super) workers: usize,
    /// How many instances are kept; 0: each call meets a fresh one.
    pub(super) kept: u32,
}

impl Subject {
    pub(super) async fn start(plan: &Plan<'_>, cache: &Path) -> Result<Self> {
        let mut config = Config::new(cache.to_owned(), serve::compiler());
        config.workers = plan.workers;
        // What is measured is not the budget.
        config.cpu_per_second = Duration::from_secs(1000);
        config.kept = match plan.kept {
            0 => KeptConfig { compiled_bytes_min: u64::MAX, ..config.kept },
            instances_max => {
                let calls_max = u32::MAX;
                KeptConfig { compiled_bytes_min: 0, instances_max, calls_max, ..config.kept }
            }
        };
        let host = Host::start(config, &SystemEntropy)?;
        let artifact = host.check(plan.component.clone()).await;
        let artifact = artifact.map_err(|it| anyhow!("{} ({})", it.detail, it.code))?;
        let (work, config) = (plan.work, plan.work.config(plan.lang));
        Ok(Self { host, artifact, work, config, data: plan.data.clone() })
    }

    /// Asks once, for this tenant; how long it ran.
    pub(super) async fn ask(&self, tenant: Arc<str>) -> Result<Duration> {
        let question = EventIn {
            id: "evt_01jd0000000000000000000000".to_owned(),
            event_type: "bench.event".to_owned(),
            timestamp_ms: 1_800_000_000_000,
            content_type: "application/json".to_owned(),
            metadata: Vec::new(),
            ordering_key: None,
            payload: self.data.clone(),
        };
        let (artifact, config) = (self.artifact.clone(), self.config.clone());
        let call = Call { tenant, artifact, config, question, limits: None, dry: false };
        let called = self.host.call(call).await;
        match called.verdict {
            Ok(verdict) if self.work.was_done(&verdict) => Ok(called.duration),
            other => bail!("the plugin answered {other:?}"),
        }
    }

    /// One call after the other: how long they ran.
    pub(super) async fn one_by_one(&self, calls: u64) -> Result<Quantiles> {
        let (tenant, mut latencies): (Arc<str>, _) = ("bench".into(), Latencies::default());
        for _ in 0..calls {
            latencies.record(self.ask(tenant.clone()).await?);
        }
        Ok(latencies.quantiles())
    }

    /// As many as the threads do, for several tenants: calls a second.
    pub(super) async fn at_once(self: Arc<Self>, calls: u64) -> Result<f64> {
        let mut asking: JoinSet<Result<()>> = JoinSet::new();
        let (askers, started) = (TENANTS * CALLS_EACH, Instant::now());
        let each = calls.div_ceil(askers as u64);
        for asker in 0..askers {
            let (subject, tenant) = (self.clone(), format!("tenant-{}", asker % TENANTS));
            asking.spawn(async move {
                let tenant: Arc<str> = tenant.into();
                for _ in 0..each {
                    subject.ask(tenant.clone()).await?;
                }
                Ok(())
            });
        }
        while let Some(asked) = asking.join_next().await {
            asked??;
        }
        Ok((each * askers as u64) as f64 / started.elapsed().as_secs_f64())
    }

    /// As many as so many threads do that do nothing else, each for a tenant of its own: calls a
    /// second. For a host without threads of its own.
    pub(super) async fn by_threads(self: Arc<Self>, threads: usize, calls: u64) -> Result<f64> {
        let (mut calling, started) = (JoinSet::new(), Instant::now());
        for thread in 0..threads {
            let (subject, tenant) = (self.clone(), Arc::from(format!("tenant-{thread}")));
            let all = async move {
                for _ in 0..calls {
                    subject.ask(Arc::clone(&tenant)).await?;
                }
                anyhow::Ok(())
            };
            calling.spawn_blocking(|| Handle::current().block_on(all));
        }
        while let Some(called) = calling.join_next().await {
            called??;
        }
        Ok((calls * threads as u64) as f64 / started.elapsed().as_secs_f64())
    }
}

/// How long native code takes.
pub(super) fn natively(work: Work, data: &[u8], calls: u64) -> Result<Quantiles> {
    let mut latencies = Latencies::default();
    for _ in 0..calls {
        let started = Instant::now();
        let done = std::hint::black_box(work.natively(std::hint::black_box(data)));
        latencies.record(started.elapsed());
        done.context("native code does what the plugin does")?;
    }
    Ok(latencies.quantiles())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::bench::event::Template;

    #[test]
    fn native_code_does_the_same() {
        let data = Template::new(1024).data();
        assert_eq!(Work::Filter.natively(&data), Some(Vec::new()));
        let masked: Value =
            serde_json::from_slice(&Work::Transform.natively(&data).unwrap()).unwrap();
        assert_eq!(masked["card"]["number"], "************4242");
        assert_eq!(Work::Filter.natively(br#"{"amount": 1}"#), None);
    }
}
