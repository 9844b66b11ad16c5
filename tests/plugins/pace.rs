//! What a call costs, printed and never asserted: `cargo test --test plugins pace -- --nocapture`.

use std::{path::Path, time::Duration};

use bytes::Bytes;
use hookgate::plugins::{Compiler, Config, Host};
use hookgate::world::SystemEntropy;
use hookgate_tests::{binary, plugin};
use tokio::{task::JoinSet, time::Instant};

use crate::{call_as, host};

const CALLS: usize = 4_000;

fn data() -> String {
    format!(
        r#"{{"amount": 500, "card": {{"number": "4242424242424242"}}, "text": "{}"}}"#,
        "x".repeat(930)
    )
}

fn with_workers(cache: &Path, workers: usize) -> Host {
    let mut config = Config::new(cache.to_owned(), Compiler::InProcess);
    config.workers = workers;
    config.queue_max = CALLS;
    config.queue_total_max = CALLS;
    config.cpu_per_second = Duration::from_secs(64);
    Host::start(config, &SystemEntropy).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fresh_call() {
    let cache = tempfile::tempdir().unwrap();
    let host = host(cache.path(), Compiler::InProcess);
    for (name, config) in
        [("amount-filter", [("minimum", "1")]), ("redact", [("fields", "card.number")])]
    {
        let component = Bytes::from(plugin::example(name));
        let bytes = component.len();
        let artifact = host.check(component).await.unwrap();
        let mut durations = Vec::with_capacity(CALLS);
        for _ in 0..CALLS {
            let called = call_as("one", &host, &artifact, &config, &data()).await;
            called.verdict.unwrap();
            durations.push(called.duration);
        }
        let first = durations[0];
        durations.sort();
        println!(
            "{name} ({bytes} bytes), 1 KiB, fresh: median {:?}, p99 {:?}, the first {first:?}",
            durations[CALLS / 2],
            durations[CALLS * 99 / 100],
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_threads_beside_one() {
    let component = Bytes::from(plugin::example("amount-filter"));
    let mut rates = Vec::new();
    for _ in 0..3 {
        let mut rate = [0.0; 2];
        for (place, workers) in [1, 2].into_iter().enumerate() {
            let cache = tempfile::tempdir().unwrap();
            let host = with_workers(cache.path(), workers);
            let artifact = host.check(component.clone()).await.unwrap();
            let started = Instant::now();
            let mut calls = JoinSet::new();
            for lane in 0..8 {
                let (host, artifact) = (host.clone(), artifact.clone());
                calls.spawn(async move {
                    for _ in 0..CALLS / 8 {
                        let tenant = if lane % 2 == 0 { "one" } else { "two" };
                        let config = [("minimum", "1")];
                        let called = call_as(tenant, &host, &artifact, &config, &data()).await;
                        called.verdict.unwrap();
                    }
                });
            }
            calls.join_all().await;
            rate[place] = CALLS as f64 / started.elapsed().as_secs_f64();
        }
        rates.push((rate[1] / rate[0], rate));
    }
    rates.sort_by(|one, other| one.0.total_cmp(&other.0));
    let (ratio, [one, two]) = rates[1];
    println!("one thread {one:.0} calls/s, two {two:.0}: ratio {ratio:.2} (median of three)");
}

#[tokio::test(flavor = "multi_thread")]
async fn from_upload_to_ready_and_again() {
    let cache = tempfile::tempdir().unwrap();
    let component = Bytes::from(plugin::example("amount-filter"));
    let child = || Compiler::Child(binary().to_owned());
    let started = Instant::now();
    let digest = host(cache.path(), child()).check(component.clone()).await.unwrap().digest();
    let uploaded = started.elapsed();
    let host = host(cache.path(), child());
    let started = Instant::now();
    let artifact = host.artifact(digest, || None).await.unwrap();
    let loaded = started.elapsed();
    let config = [("minimum", "1")];
    let first = call_as("one", &host, &artifact, &config, &data()).await.duration;
    let later = call_as("one", &host, &artifact, &config, &data()).await.duration;
    let bytes = component.len();
    println!(
        "upload of {bytes} bytes, compiled in a child: {uploaded:?}; loaded from the cache: \
         {loaded:?}; the first call {first:?}, a later one {later:?}"
    );
}
