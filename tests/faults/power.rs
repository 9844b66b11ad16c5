//! The power fails: what was not synced is gone, or there in part. What was acknowledged is there.

use std::time::Duration;

use hookgate::world::{Entropy, SeededEntropy};
use hookgate_tests::Ledger;

use crate::lossy::{Failing, LossyDisk};
use crate::process::{Start, times};

const TRIALS: u64 = 10;
const LOAD: (Duration, usize) = (Duration::from_millis(1), 300);

/// A lossy disk, mounted; its data directory and log.
fn start(mount: &std::path::Path) -> Start {
    let log = mount.with_extension("log");
    let none: [&std::ffi::OsStr; 0] = [];
    Start::behind(&none, &mount.join("data")).log_to(log)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_was_acknowledged_survives_ten_power_failures() {
    let folder = tempfile::tempdir().unwrap();
    let mount = folder.path().join("mount");
    let mut disk = LossyDisk::new(5);
    let chance = SeededEntropy::new(5);
    let mut ledger = Ledger::open(7).await;
    let mut lost = 0;
    let trials = TRIALS * times();
    for trial in 0..trials {
        disk.mount(&mount);
        let mut gateway = start(&mount).run().unwrap();
        ledger.at(&gateway.server);
        if trial == 0 {
            ledger.register("20ms").await;
            ledger.produce("p", 4, LOAD);
        }
        tokio::time::sleep(Duration::from_millis(300 + chance.draw() % 900)).await;
        gateway.kill();
        disk.unmount();
        // Everything that was not synced; or a part of it, torn at any sector.
        let surviving = [0.0, 0.5, 0.9][trial as usize % 3];
        lost += disk.lose_power(surviving);
    }
    disk.mount(&mount);
    let gateway = start(&mount).run().unwrap();
    ledger.at(&gateway.server);
    ledger.quiesce().await;
    let balance = ledger.check(trials as usize).await;
    println!("{trials} power failures, {lost} sectors lost: {balance:?}, {} syncs", disk.syncs());
    assert!(balance.acknowledged > 200 && lost > 0, "{balance:?}, {lost}");
    drop(gateway);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_disk_that_fails_ends_the_process_and_loses_nothing() {
    for failing in [Failing::Sync, Failing::Write] {
        let folder = tempfile::tempdir().unwrap();
        let mount = folder.path().join("mount");
        let mut disk = LossyDisk::new(6);
        disk.mount(&mount);
        let mut ledger = Ledger::open(0).await;
        let mut gateway = start(&mount).run().unwrap();
        ledger.at(&gateway.server);
        ledger.register("20ms").await;
        ledger.produce("p", 4, LOAD);
        tokio::time::sleep(Duration::from_millis(500)).await;
        disk.fail(failing);
        let failed_at = ledger.acknowledged();
        let code = gateway.ended(Duration::from_secs(5)).await;
        assert_eq!(code, Some(74), "{failing:?}: {}", gateway.said());
        let later = ledger.acknowledged();
        assert!(later <= failed_at + 4, "{failing:?}: {later} acknowledged, {failed_at} before");
        disk.unmount();
        disk.lose_power(0.5);
        disk.mount(&mount);
        let gateway = start(&mount).run().unwrap();
        ledger.at(&gateway.server);
        ledger.quiesce().await;
        println!("{failing:?}: {:?}", ledger.check(1).await);
        drop(gateway);
    }
}

/// libfiu in front of the C library: the sync fails there, on a real file system.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_sync_is_told_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("fiu");
    let fifo = folder.path().join("ctrl");
    let preload = "/usr/lib/fiu/fiu_run_preload.so /usr/lib/fiu/fiu_posix_preload.so";
    let mut ledger = Ledger::open(0).await;
    let start = Start::on(&data).env("LD_PRELOAD", preload).env("FIU_CTRL_FIFO", &fifo);
    let mut gateway = start.run().unwrap();
    ledger.at(&gateway.server);
    ledger.register("20ms").await;
    ledger.produce("p", 4, LOAD);
    tokio::time::sleep(Duration::from_millis(500)).await;
    let pid = gateway.child.id().to_string();
    let failed = std::process::Command::new("fiu-ctrl")
        .arg("-f")
        .arg(&fifo)
        .args(["-c", "enable name=posix/io/sync/fdatasync,failinfo=5", &pid])
        .output()
        .unwrap();
    assert!(failed.status.success(), "{failed:?}");
    let (status, problem) = ledger.call(reqwest::Method::GET, "/readyz", None).await;
    let code = gateway.ended(Duration::from_secs(5)).await;
    assert_eq!(code, Some(74), "{}", gateway.said());
    println!("readyz said {status} {problem}; producers got {:?}", ledger.refused());
    let gateway = Start::on(&data).run().unwrap();
    ledger.at(&gateway.server);
    ledger.quiesce().await;
    println!("{:?}", ledger.check(1).await);
    drop(gateway);
}
