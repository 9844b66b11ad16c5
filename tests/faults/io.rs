//! The machine runs short of something, stands still, or has its clock set.

use std::{
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use hookgate_tests::Ledger;
use reqwest::Method;
use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::process::{Process, Start, times};

const LOAD: (Duration, usize) = (Duration::from_millis(2), 2000);

/// A small disk of its own. Dropped, it is unmounted.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount(at: PathBuf, mib: u64) -> Self {
        fs::create_dir_all(&at).unwrap();
        let size = format!("size={mib}m");
        let mounted =
            Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(&at).status();
        assert!(mounted.unwrap().success(), "a tmpfs can be mounted");
        Self(at)
    }

    /// Fills it until so many bytes are free.
    fn fill(&self, free: u64) {
        let space = rustix::fs::statvfs(&self.0).unwrap();
        let take = (space.f_bavail * space.f_frsize).saturating_sub(free);
        // Writing to the end of the disk fails, as it should.
        let _ = fs::write(self.0.join("filler"), vec![1; take as usize]);
    }

    fn empty(&self) {
        fs::remove_file(self.0.join("filler")).unwrap();
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

async fn patch_endpoints(ledger: &Ledger, change: &Value) {
    for id in ["none", "strict", "key"] {
        let path = format!("endpoints/{id}");
        let (status, answer) = ledger.call(Method::PATCH, &path, Some(change.clone())).await;
        assert_eq!(status, 200, "{answer}");
    }
}

async fn until<T>(within: Duration, what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = tokio::time::Instant::now() + within;
    loop {
        if let Some(it) = look().await {
            return it;
        }
        assert!(tokio::time::Instant::now() < deadline, "{what} within {within:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_the_disk_is_full_events_are_refused_and_deliveries_go_on() {
    let folder = tempfile::tempdir().unwrap();
    let disk = SmallDisk::mount(folder.path().join("disk"), 256);
    let data = disk.0.join("data");
    let mut ledger = Ledger::open(0).await;
    let gateway = Start::on(&data).run().unwrap();
    ledger.at(&gateway.server);
    ledger.register("500ms").await;
    // Slower than events come, so that there is something to deliver when the disk is full.
    let slow = json!({ "rate_limit": { "per_second": 10, "burst": 1 } });
    patch_endpoints(&ledger, &slow).await;
    ledger.produce("p", 4, LOAD);
    until(Duration::from_secs(10), "load", async || (ledger.acknowledged() > 400).then_some(()))
        .await;
    disk.fill(20 * 1024 * 1024);
    let problem = until(Duration::from_secs(5), "unready", async || {
        let (status, problem) = ledger.call(Method::GET, "/readyz", None).await;
        (status == 503).then_some(problem)
    });
    let problem = problem.await;
    assert!(problem["detail"].as_str().unwrap().contains("full"), "{problem}");
    let url = format!("{}/v1/tenants/default/events", gateway.server);
    let refused = reqwest::Client::new()
        .post(url)
        .bearer_auth(hookgate_tests::OPERATOR_KEY)
        .json(&json!({ "type": "a.b", "data": 1 }))
        .send()
        .await
        .unwrap();
    assert_eq!(refused.status(), 503);
    assert!(refused.headers().contains_key("retry-after"));
    let (acknowledged, before) = (ledger.acknowledged(), ledger.deliveries());
    let wanted = before + 50;
    until(Duration::from_secs(20), "deliveries", async || {
        (ledger.deliveries() >= wanted).then_some(())
    })
    .await;
    assert!(ledger.acknowledged() <= acknowledged + 4, "nothing is accepted meanwhile");
    disk.empty();
    let freed = Instant::now();
    until(Duration::from_secs(10), "acceptance", async || {
        (ledger.acknowledged() > acknowledged + 10).then_some(())
    })
    .await;
    println!("events are accepted {:?} after space was freed", freed.elapsed());
    patch_endpoints(&ledger, &json!({ "rate_limit": null })).await;
    ledger.quiesce().await;
    println!("{:?}, refused {:?}", ledger.check(0).await, ledger.refused());
    drop(gateway);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_without_a_byte_left_loses_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let disk = SmallDisk::mount(folder.path().join("disk"), 128);
    let data = disk.0.join("data");
    let log = folder.path().join("log");
    let mut ledger = Ledger::open(7).await;
    let mut gateway = Start::on(&data).log_to(log.clone()).run().unwrap();
    ledger.at(&gateway.server);
    ledger.register("20ms").await;
    ledger.produce("p", 4, (Duration::ZERO, 4000));
    tokio::time::sleep(Duration::from_millis(500)).await;
    let before = ledger.acknowledged();
    // At once, so that no look at the free space comes between.
    disk.fill(0);
    tokio::time::sleep(Duration::from_secs(2)).await;
    let died = gateway.child.try_wait().unwrap().map(|it| it.code());
    println!("{before} acknowledged, then full: exit {died:?}, {:?}", ledger.refused());
    assert!(matches!(died, None | Some(Some(74))), "{died:?}: {}", gateway.said());
    disk.empty();
    if died.is_some() {
        gateway = Start::on(&data).log_to(log).run().unwrap();
        ledger.at(&gateway.server);
    }
    until(Duration::from_secs(10), "acceptance", async || {
        (ledger.acknowledged() > before + 50).then_some(())
    })
    .await;
    ledger.quiesce().await;
    println!("{:?}", ledger.check(usize::from(died.is_some())).await);
    drop(gateway);
}

/// Seconds of processor time it has used.
fn cpu_seconds(gateway: &Process) -> f64 {
    let stat = fs::read_to_string(format!("/proc/{}/stat", gateway.child.id())).unwrap();
    let fields: Vec<_> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    (fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap()) / 100.0
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn out_of_files_it_refuses_and_does_not_spin() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("files");
    let mut ledger = Ledger::open(7).await;
    let limited = ["sh", "-c", "ulimit -n 256; exec \"$@\"", "sh"].map(OsStr::new);
    let gateway = Start::behind(&limited, &data).run().unwrap();
    ledger.at(&gateway.server);
    ledger.register("20ms").await;
    let address = gateway.server.trim_start_matches("http://").to_owned();
    let mut idle = Vec::new();
    for _ in 0..300 {
        idle.push(tokio::net::TcpStream::connect(&address).await.unwrap());
    }
    let url = format!("{}/readyz", gateway.server);
    let get = async || {
        let client = reqwest::Client::new();
        let answer = client.get(&url).timeout(Duration::from_secs(3)).send().await;
        answer.map(|it| (it.status().as_u16(), it.headers().contains_key("retry-after")))
    };
    assert_eq!(get().await.unwrap(), (503, true));
    let (before, started) = (cpu_seconds(&gateway), Instant::now());
    tokio::time::sleep(Duration::from_secs(3)).await;
    let share = (cpu_seconds(&gateway) - before) / started.elapsed().as_secs_f64();
    assert!(share < 0.2, "{share} of a core while it has nothing to do");
    drop(idle);
    until(Duration::from_secs(15), "recovery", async || get().await.ok().filter(|it| it.0 == 200))
        .await;
    ledger.produce("p", 8, LOAD);
    tokio::time::sleep(Duration::from_secs(1)).await;
    ledger.quiesce().await;
    println!("{share:.3} of a core; {:?}", ledger.check(0).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_that_stood_still_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("paused");
    let mut ledger = Ledger::open(7).await;
    let gateway = Start::on(&data).run().unwrap();
    ledger.at(&gateway.server);
    ledger.register("20ms").await;
    ledger.produce("p", 4, LOAD);
    tokio::time::sleep(Duration::from_millis(500)).await;
    gateway.signal(Signal::STOP);
    // Longer than the 15 s that an attempt may take.
    tokio::time::sleep(Duration::from_secs(20) * times() as u32).await;
    gateway.signal(Signal::CONT);
    tokio::time::sleep(Duration::from_millis(500)).await;
    ledger.quiesce().await;
    let balance = ledger.check(1).await;
    println!("after standing still: {balance:?}");
    assert!(balance.duplicates <= 64, "{balance:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clock_that_jumps_starts_no_storm_and_ends_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("clock");
    let clock = folder.path().join("offset");
    let set = |offset: &str| fs::write(&clock, offset).unwrap();
    set("+0");
    let ledger = Ledger::open(1).await;
    let gateway = Start::on(&data)
        .env("LD_PRELOAD", "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1")
        .env("FAKETIME_TIMESTAMP_FILE", &clock)
        .env("FAKETIME_NO_CACHE", "1")
        .env("FAKETIME_DONT_FAKE_MONOTONIC", "1")
        .run()
        .unwrap();
    ledger.at(&gateway.server);
    ledger.register("20ms").await;
    patch_endpoints(&ledger, &json!({ "retry": { "schedule": ["1h", "1h"] } })).await;
    let event = |id: String| json!({ "id": id, "type": "a.b", "data": 1 });
    for n in 0..10 {
        let (status, _) = ledger.call(Method::POST, "events", Some(event(format!("e-{n}")))).await;
        assert_eq!(status, 202);
    }
    let states = async || {
        let (_, page) = ledger.call(Method::GET, "deliveries?limit=250", None).await;
        let mut states = std::collections::BTreeMap::new();
        for delivery in page["data"].as_array().unwrap() {
            let state = delivery["status"].as_str().unwrap().to_owned();
            let attempts = delivery["attempts"].as_u64().unwrap_or_default();
            *states.entry((state, attempts)).or_insert(0) += 1;
        }
        states
    };
    tokio::time::sleep(Duration::from_secs(2)).await;
    let before = states().await;
    for offset in ["+400d", "-1h", "+1h", "+0"] {
        set(offset);
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert_eq!(states().await, before, "{offset}: nothing is tried early, nothing expires");
        let (status, answer) = ledger.call(Method::POST, "events", Some(event("e-1".into()))).await;
        assert_eq!((status, &answer["status"]), (200, &Value::from("duplicate")), "{offset}");
    }
    set("+400d");
    let (_, wall) = ledger.call(Method::GET, "/metrics", None).await;
    assert!(wall.as_str().unwrap().contains("hookgate_clock_skewed 1"), "{wall}");
    set("-1h");
    ledger.refuse(0);
    let quick = json!({ "retry": { "schedule": ["100ms"] } });
    ledger.call(Method::PATCH, "endpoints/none", Some(quick)).await;
    let got = ledger.deliveries();
    let (status, _) = ledger.call(Method::POST, "events", Some(event("late".into()))).await;
    assert_eq!(status, 202);
    until(Duration::from_secs(5), "a delivery an hour back", async || {
        (ledger.deliveries() > got).then_some(())
    })
    .await;
    println!("{before:?} through all jumps");
}

#[tokio::test]
async fn a_second_process_and_an_older_one_are_turned_away() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("second");
    let mut gateway = Start::on(&data).run().unwrap();
    let (code, text) = Start::on(&data).run().err().unwrap();
    assert!(code == Some(73) && text.contains("another process"), "{code:?} {text}");
    let client = reqwest::Client::new();
    let healthy = client.get(format!("{}/readyz", gateway.server)).send().await.unwrap();
    assert_eq!(healthy.status(), 200, "the first is not disturbed");
    assert_eq!(gateway.terminate(), Some(0));
    make_newer(&data.join("high-water"));
    let (code, text) = Start::on(&data).run().err().unwrap();
    let named = text.contains("format 9") && text.contains("reads 1");
    assert!(code == Some(78) && named, "{code:?} {text}");
}

/// As a later version would have written it.
fn make_newer(marks: &Path) {
    let mut bytes = fs::read(marks).unwrap();
    for slot in [0, 512] {
        let record = &mut bytes[slot..slot + 32];
        record[4..8].copy_from_slice(&9_u32.to_le_bytes());
        let checksum = crc32fast::hash(&record[..28]);
        record[28..].copy_from_slice(&checksum.to_le_bytes());
    }
    fs::write(marks, bytes).unwrap();
}
