use std::sync::Arc;

use anyhow::{Context, Result, anyhow, bail};
use bytes::Bytes;
use reqwest::Method;
use serde_json::json;
use tokio::time::Instant;

use crate::cli::authoring::Lang;
use crate::cli::bench::args::Plugin;
use crate::cli::bench::event::Template;
use crate::cli::bench::figures::{Quantiles, median, share};
use crate::cli::bench::gateway::Gateway;
use crate::cli::bench::node::node;
use crate::cli::bench::plugin_host::{Plan, Subject, Work, natively};
use crate::cli::bench::progress::Progress;
use crate::cli::bench::report::Section;
use crate::cli::bench::stage::folder;
use crate::cli::bench::usage::Usage;
use crate::cli::output;

/// Calls of a round, unless fewer events are asked for.
const CALLS_MAX: u64 = 5_000;
/// Bytes of an event that takes so long that whoever asks for it costs little beside.
const LARGE: usize = 64 * 1024;
/// Events behind the first one after an upload.
const LATER: usize = 20;

pub(super) async fn run(flags: &Plugin, progress: &Progress) -> Result<Vec<Section>> {
    let data = Template::new(flags.common.size).data();
    let large = Template::new(flags.common.size.max(LARGE)).data();
    let scripts = folder(&flags.common)?;
    let mut sections = Vec::new();
    for &lang in &flags.lang {
        let mut components = Vec::new();
        for work in Work::ALL {
            progress.tell(format!("making a {} in {lang:?}", work.name()));
            let place = scripts.path().to_owned();
            let made = tokio::task::spawn_blocking(move || work.make(lang, &place)).await??;
            components.push(made.clone());
            let mut plan = Plan { lang, work, component: &made, data: &data, workers: 1, kept: 0 };
            let mut section = calls(flags, &mut plan, progress).await?;
            scaling(flags, plan, (&data, &large), progress, &mut section).await?;
            sections.push(section);
        }
        sections.push(memory(flags, (lang, &components[0]), &data, progress).await?);
    }
    Ok(sections)
}

/// How long calls take, fresh and kept, and how two threads compare with one.
async fn calls(flags: &Plugin, plan: &mut Plan<'_>, progress: &Progress) -> Result<Section> {
    let name = format!("{} in {:?}", plan.work.name(), plan.lang);
    let (calls, mut section) = (flags.common.events.min(CALLS_MAX), Section::new(&name));
    let mut native = Vec::new();
    for _ in 0..flags.common.rounds {
        native.push(natively(plan.work, plan.data, calls)?);
    }
    let native = Quantiles::of_rounds(&native);
    section.figure("native_p50_us", native.p50_us);
    for (how, kept) in [("fresh", 0), ("kept", 32)] {
        plan.kept = kept;
        let (mut alone, mut rates) = (Vec::new(), Vec::new());
        for round in 1..=flags.common.rounds {
            progress.tell(format!("{name}, {how}, round {round}"));
            let cache = folder(&flags.common)?;
            let subject = Arc::new(Subject::start(plan, cache.path()).await?);
            subject.one_by_one(calls.div_ceil(10)).await?;
            alone.push(subject.one_by_one(calls).await?);
            rates.push(subject.at_once(calls * 2).await?);
        }
        let alone = Quantiles::of_rounds(&alone);
        section.figure(format!("{how}_p50_us"), alone.p50_us);
        section.figure(format!("{how}_p99_us"), alone.p99_us);
        let terms = share(alone.p50_us, native.p50_us);
        section.figure(format!("{how}_p50_in_terms_of_native"), terms);
        section.figure(format!("{how}_calls_per_second"), median(rates));
    }
    section.figure("calls_per_round", calls as f64);
    if plan.lang == Lang::Javascript {
        beside_node(flags, plan, calls, &mut section).await?;
    }
    Ok(section)
}

/// What a second thread adds: to threads that do nothing but call, and to the plugins' own threads,
/// where whoever asks needs a processor, too. Asking is for large events, beside which it is little.
async fn scaling(
    flags: &Plugin,
    mut plan: Plan<'_>,
    (data, large): (&Bytes, &Bytes),
    progress: &Progress,
    section: &mut Section,
) -> Result<()> {
    let calls = flags.common.events.min(CALLS_MAX);
    let (mut alone, mut asked) = ([Vec::new(), Vec::new()], [Vec::new(), Vec::new()]);
    let mut costs = asked.clone();
    plan.kept = 0;
    for round in 1..=flags.common.rounds {
        for threads in [1, 2] {
            progress.tell(format!("{threads} threads, round {round}"));
            let cache = folder(&flags.common)?;
            let own = Plan { workers: 0, data, ..plan };
            let subject = Arc::new(Subject::start(&own, cache.path()).await?);
            subject.clone().by_threads(threads, calls.div_ceil(5)).await?;
            alone[threads - 1].push(subject.by_threads(threads, calls * 2).await?);
            let theirs = Plan { workers: threads, data: large, ..plan };
            let subject = Arc::new(Subject::start(&theirs, cache.path()).await?);
            // All threads have to have begun.
            subject.clone().at_once(calls.div_ceil(5)).await?;
            let before = Usage::own()?.cpu_seconds;
            asked[threads - 1].push(subject.at_once(calls).await?);
            costs[threads - 1].push(Usage::own()?.cpu_seconds - before);
        }
    }
    let [one, two] = alone.map(median);
    section.figure("two_threads_in_terms_of_one", share(two, one));
    let [one, two] = asked.map(median);
    section.figure("two_threads_and_askers_in_terms_of_one", share(two, one));
    // Where all has the machine for itself, the one follows from the other.
    let [one, two] = costs.map(median);
    section.figure("cpu_of_a_call_on_one_thread_us", share(one * 1e6, calls as f64));
    section.figure("cpu_of_a_call_on_two_threads_us", share(two * 1e6, calls as f64));
    section.figure("bytes_of_events_for_that", large.len() as f64);
    Ok(())
}

/// The same script in Node, where the machine has it.
async fn beside_node(
    flags: &Plugin,
    plan: &Plan<'_>,
    calls: u64,
    section: &mut Section,
) -> Result<()> {
    let (mut fresh, mut kept) = (Vec::new(), Vec::new());
    for _ in 0..flags.common.rounds {
        let script = (plan.work.script(), plan.work.name());
        let Some(it) = node(script, plan.data, calls).await? else {
            output::note("there is no `node` to compare with: its figures are left out");
            return Ok(());
        };
        if !plan.work.is_done(&it.answer) {
            bail!("in node the script answered {}", it.answer);
        }
        fresh.push(it.fresh);
        kept.push(it.kept);
    }
    section.figure("node_fresh_context_p50_us", median(fresh));
    section.figure("node_kept_context_p50_us", median(kept));
    Ok(())
}

/// What uploaded plugins and kept instances take, and how soon an upload is of use.
async fn memory(
    flags: &Plugin,
    (lang, component): (Lang, &Bytes),
    data: &Bytes,
    progress: &Progress,
) -> Result<Section> {
    let mut section = Section::new(format!("uploads and memory, {lang:?}"));
    let folder = folder(&flags.common)?;
    let gateway = Gateway::start(&folder.path().join("data")).await?;
    let usage = || gateway.usage()?.context("the gateway has ended");
    let (mut uploads, mut firsts, mut laters) = (Vec::new(), Vec::new(), Vec::new());
    let mut before = usage()?;
    for number in 0..=flags.plugins {
        progress.tell(format!("{lang:?}: upload {number} of {}", flags.plugins));
        let (name, started) = (format!("plugin-{number}"), Instant::now());
        gateway.upload(&name, variant(component, number)).await?;
        uploads.push(started.elapsed().as_secs_f64());
        let mut took = Vec::new();
        for _ in 0..=LATER {
            took.push(invoke(&gateway, &name, lang, data).await?);
        }
        firsts.push(took[0]);
        laters.push(median(took.split_off(1)));
        if number == 0 {
            // The first has brought what all of them need.
            before = usage()?;
        }
    }
    let (first, later) = (median(firsts), median(laters));
    let grown = usage()?.resident_kib - before.resident_kib;
    section.figure("component_kib", component.len() as f64 / 1024.0);
    section.figure("upload_to_active_seconds", median(uploads));
    section.figure("first_event_ms", first);
    section.figure("later_event_ms", later);
    section.figure("uploaded", f64::from(flags.plugins) + 1.0);
    section.figure("resident_per_plugin_kib", share(grown, flags.plugins.into()));
    gateway.leave().await?;

    progress.tell(format!("{lang:?}: {} instances", flags.plugins));
    let kept = flags.plugins + 1;
    let plan = Plan { lang, work: Work::Filter, component, data, workers: 1, kept };
    let cache = self::folder(&flags.common)?;
    let subject = Subject::start(&plan, cache.path()).await?;
    subject.ask("tenant-0".into()).await?;
    let own = || anyhow::Ok((Usage::own_proportional_kib()?, Usage::own()?.resident_kib));
    let before = own()?;
    for tenant in 1..=flags.plugins {
        subject.ask(format!("tenant-{tenant}").into()).await?;
    }
    let now = own()?;
    // Instances share the pages of their memory that they only read; the second counts them for
    // each.
    section.figure("memory_per_kept_instance_kib", share(now.0 - before.0, flags.plugins.into()));
    section.figure("resident_per_kept_instance_kib", share(now.1 - before.1, flags.plugins.into()));
    Ok(section)
}

/// Asks a plugin of the gateway about one event; milliseconds until the answer.
async fn invoke(gateway: &Gateway, name: &str, lang: Lang, data: &Bytes) -> Result<f64> {
    let config = Work::Filter.config(lang).into_iter();
    let config: serde_json::Map<_, _> = config.map(|(name, it)| (name, it.into())).collect();
    let data: serde_json::Value = serde_json::from_slice(data)?;
    let body = json!({ "config": config, "events": [{ "type": "bench.event", "data": data }] });
    let path = gateway.client.path(&["plugins", name, "invoke"]).map_err(|it| anyhow!("{it}"))?;
    let started = Instant::now();
    gateway.call(Method::POST, &path, &body).await?;
    Ok(started.elapsed().as_secs_f64() * 1000.0)
}

/// The same component with other bytes: a custom section, which nobody reads, is put behind it.
fn variant(component: &Bytes, number: u32) -> Vec<u8> {
    let content = [&[5][..], b"bench", &number.to_le_bytes()].concat();
    let length = u8::try_from(content.len()).expect("it is short");
    [component, &[0, length][..], &content].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variants_are_components_that_differ() {
        // The preamble of a component, and nothing in it.
        let empty = Bytes::from_static(b"\0asm\x0d\0\x01\0");
        let variants = [variant(&empty, 1), variant(&empty, 2)];
        assert_ne!(variants[0], variants[1]);
        for it in variants {
            wasmparser::validate(&it).unwrap();
        }
    }
}
