//! Bytes that are not what was written. A store like that is refused, and the place named, or it
//! has everything that was acknowledged.

use std::{
    collections::BTreeMap,
    fs::{self, OpenOptions},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use hookgate::domain::{
    Attempt, DeliveryKey, DeliveryState, EndpointNo, EventType, Outcome, Quota, Seq, Slug, Spent,
    Verdict,
};
use hookgate::storage::{
    Allowance, Config, Error, MasterKey, MasterKeys, NewEvent, Store, conformance,
};
use hookgate::world::{Clock, Entropy, SeededEntropy, SystemClock};
use tokio::task::JoinSet;

use crate::process::{Start, times};

const EVENTS: u64 = 3000;
const FLIPS: u64 = 300;

/// What must be there: the data of each event, and which deliveries are done.
#[derive(Default)]
struct Expected {
    events: BTreeMap<u64, Bytes>,
    delivered: BTreeMap<u64, bool>,
}

/// Small tables, so that there are some of every kind of file.
fn config(accept_loss: bool) -> Config {
    let mut config = Config::default();
    config.fjall.memtable_bytes = 256 * 1024;
    config.fjall.accept_loss = accept_loss;
    config
}

fn world(seed: u64) -> (Arc<dyn Clock>, Arc<dyn Entropy>) {
    (Arc::new(SystemClock), Arc::new(SeededEntropy::new(seed)))
}

fn masters() -> MasterKeys {
    MasterKeys::new(MasterKey::simulated())
}

/// A store with events, half of them delivered, that was killed and not closed.
async fn make(data: &Path) -> Expected {
    let (store, writers) = Store::open(data, &config(false), masters(), world(1)).unwrap();
    let mut running = JoinSet::new();
    writers.into_futures().for_each(|it| drop(running.spawn(it)));
    let tenant = Slug::default_tenant();
    let shard = store.shard(&tenant);
    shard.put_tenant(&tenant, |_| Ok(("Default".to_owned(), Quota::default()))).await.unwrap();
    let endpoint = shard.create_endpoint(&tenant, conformance::endpoint_by_hand).await.unwrap();
    let endpoint = Arc::new(endpoint);
    let noise = SeededEntropy::new(2);
    let mut expected = Expected::default();
    for chunk in 0..EVENTS / 50 {
        let before = shard.last_seq();
        let new = (0..50).map(|n| {
            let noise: String = (0..50).map(|_| format!("{:016x}", noise.draw())).collect();
            let data = format!("{{\"n\":{},\"noise\":\"{noise}\"}}", chunk * 50 + n);
            NewEvent::new(EventType::parse("a.b").unwrap(), Bytes::from(data))
        });
        shard.append(&tenant, new.collect(), true).await.unwrap();
        let events = shard.read_after(before, 50).await.unwrap();
        for event in &events {
            expected.events.insert(event.seq.0, event.data.clone());
            expected.delivered.insert(event.seq.0, false);
        }
        let targets: Vec<_> = events.into_iter().map(|it| (it, vec![endpoint.clone()])).collect();
        shard.enqueue(&targets).await.unwrap();
        if chunk.is_multiple_of(2) {
            let allowed = Allowance::of(50);
            let lent = shard.lease(endpoint.no, allowed).await.unwrap();
            for lease in lent.leases {
                expected.delivered.insert(lease.key.seq.0, true);
                let attempt = attempt(lease.key);
                shard.settle(lease, attempt).await.unwrap();
            }
        }
    }
    // Everything noted is synced behind this.
    shard
        .put_tenant(&tenant, |_| Ok(("Default again".to_owned(), Quota::default())))
        .await
        .unwrap();
    running.shutdown().await;
    // From here on nobody merges tables, and removes those that were.
    drop(store);
    // What was allocated ahead, a start would cut off; it would only have to be copied.
    for (file, used) in files(data) {
        if file.extension().is_some_and(|it| it == "jnl") {
            OpenOptions::new().write(true).open(file).unwrap().set_len(used).unwrap();
        }
    }
    expected
}

fn attempt(delivery: DeliveryKey) -> Attempt {
    Attempt {
        id: "att_1".to_owned(),
        delivery,
        number: 1,
        trigger: hookgate::domain::Trigger::Schedule,
        started_at: SystemClock.now(),
        duration: Duration::from_millis(3),
        spent: Spent::default(),
        outcome: Outcome { name: "delivered".into(), status_code: Some(200), error: None },
        plugins: Vec::new(),
        parts: None,
        request_headers: Vec::new(),
        response_headers: Vec::new(),
        response_body: Bytes::new(),
        response_truncated: false,
        verdict: Verdict::Delivered,
    }
}

/// What is missing or different; an error where the store says itself that it is damaged.
fn missing(store: &Store, expected: &Expected) -> Result<Vec<String>, Error> {
    let shard = store.shard(&Slug::default_tenant());
    let mut missing = Vec::new();
    if shard.catalog().endpoint(EndpointNo(1)).is_none() {
        missing.push("the endpoint".to_owned());
    }
    if shard.catalog().tenants().next().is_none_or(|it| it.tenant.name != "Default again") {
        missing.push("the tenant's name".to_owned());
    }
    for (seq, data) in &expected.events {
        let key = DeliveryKey { seq: Seq(*seq), endpoint: EndpointNo(1) };
        if shard.event(Seq(*seq))?.is_none_or(|it| it.data != *data) {
            missing.push(format!("event {seq}"));
        }
        if shard.targets(Seq(*seq))? != [EndpointNo(1)] {
            missing.push(format!("delivery {seq}"));
        }
        if (shard.state(key)? == DeliveryState::Delivered) != expected.delivered[seq] {
            missing.push(format!("attempt {seq}"));
        }
    }
    let tenant = shard.catalog().tenants().next().map(|it| it.tenant.no);
    let listed = tenant.map_or(0, |it| shard.events_before(it, Seq(u64::MAX)).count());
    if listed != expected.events.len() {
        missing.push(format!("{listed} events are listed"));
    }
    Ok(missing)
}

fn copy(from: &Path, to: &Path) {
    let _ = fs::remove_dir_all(to);
    let copied = Command::new("cp").arg("-a").arg(from).arg(to).status().unwrap();
    assert!(copied.success());
}

/// Every file with bytes that mean something, and up to where they do.
fn files(folder: &Path) -> Vec<(PathBuf, u64)> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(self::files(&path));
        } else {
            let bytes = fs::read(&path).unwrap();
            let used = bytes.iter().rposition(|it| *it != 0).map_or(0, |it| it + 1);
            files.push((path, used as u64));
        }
    }
    files.retain(|it| it.1 > 0);
    files.sort();
    files
}

fn flip(path: &Path, at: u64, bit: u8) {
    let file = OpenOptions::new().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 1 << bit], at).unwrap();
}

/// How a damaged store behaved.
#[derive(Debug, Default)]
struct Tally {
    refused: u64,
    whole: u64,
    told_later: u64,
}

impl Tally {
    /// Opens a store in which `file` was damaged; panics at silent loss.
    fn open(&mut self, data: &Path, file: &Path, how: &str, expected: &Expected) {
        let relative = file.strip_prefix(data).unwrap().to_string_lossy().into_owned();
        match Store::open(data, &config(false), masters(), world(1)) {
            Err(Error::Corrupt(what)) => {
                let name = file.file_name().unwrap().to_str().unwrap();
                assert!(what.contains(name) || what.contains("store"), "{how} {relative}: {what}");
                self.refused += 1;
            }
            Err(other) => panic!("{how} {relative}: {other}"),
            Ok((store, writers)) => {
                match missing(&store, expected) {
                    Ok(missing) => {
                        assert!(missing.is_empty(), "{how} {relative}: silently lost {missing:?}");
                        self.whole += 1;
                    }
                    Err(Error::Corrupt(_)) => self.told_later += 1,
                    Err(other) => panic!("{how} {relative}: {other}"),
                }
                drop(writers);
            }
        }
    }
}

#[tokio::test]
async fn one_flipped_bit_is_noticed_or_harmless() {
    let folder = tempfile::tempdir().unwrap();
    let (pristine, data) = (folder.path().join("pristine"), folder.path().join("data"));
    let expected = make(&pristine).await;
    let files = files(&pristine);
    let total: u64 = files.iter().map(|it| it.1).sum();
    let seed = SystemClock.now().0;
    println!("seed {seed}; {} files, {total} bytes", files.len());
    let chance = SeededEntropy::new(seed);
    let mut tally = Tally::default();
    let flips = FLIPS * times();
    for round in 0..flips {
        // Half the flips by weight, half in any file: the small ones matter too.
        let (file, at) = match round.is_multiple_of(2) {
            true => {
                let mut at = chance.draw() % total;
                let found = files.iter().find(|it| {
                    let here = at < it.1;
                    at -= if here { 0 } else { it.1 };
                    here
                });
                (&found.unwrap().0, at)
            }
            false => {
                let (file, len) = &files[chance.draw() as usize % files.len()];
                (file, chance.draw() % len)
            }
        };
        copy(&pristine, &data);
        let file = data.join(file.strip_prefix(&pristine).unwrap());
        let bit = (chance.draw() % 8) as u8;
        flip(&file, at, bit);
        tally.open(&data, &file, &format!("seed {seed}: bit {bit} of byte {at} in"), &expected);
    }
    println!("{flips} flips: {tally:?}");
    assert!(tally.refused > flips / 2 && tally.told_later == 0, "{tally:?}");
}

#[tokio::test]
async fn a_missing_or_shortened_file_is_noticed() {
    let folder = tempfile::tempdir().unwrap();
    let (pristine, data) = (folder.path().join("pristine"), folder.path().join("data"));
    let expected = make(&pristine).await;
    let mut tally = Tally::default();
    // Each file is missed, and cut and blanked in one place of three; in all of them where there
    // is time.
    let places = if times() > 1 { 3 } else { 1 };
    for (turn, (file, len)) in files(&pristine).into_iter().enumerate() {
        let file = data.join(file.strip_prefix(&pristine).unwrap());
        copy(&pristine, &data);
        fs::remove_file(&file).unwrap();
        tally.open(&data, &file, "missing", &expected);
        for kept in [0, len / 2, len - 1].into_iter().cycle().skip(turn % 3).take(places) {
            copy(&pristine, &data);
            OpenOptions::new().write(true).open(&file).unwrap().set_len(kept).unwrap();
            tally.open(&data, &file, &format!("{kept} of {len} bytes of"), &expected);
            copy(&pristine, &data);
            let writable = OpenOptions::new().write(true).open(&file).unwrap();
            writable.write_all_at(&vec![0; (len - kept) as usize], kept).unwrap();
            tally.open(&data, &file, &format!("zeros from {kept} in"), &expected);
        }
    }
    for gone in ["store", "store/keyspaces", "store/keyspaces/0", "store/keyspaces/1"] {
        copy(&pristine, &data);
        fs::remove_dir_all(data.join(gone)).unwrap();
        tally.open(&data, &data.join(gone), "missing", &expected);
    }
    println!("{tally:?}");
    assert!(tally.told_later == 0 && tally.refused > tally.whole, "{tally:?}");
}

/// A store with large events, until fjall has deleted a journal that it was done with; how many.
async fn outgrow_a_journal(data: &Path, config: &Config) -> u64 {
    let (store, writers) = Store::open(data, config, masters(), world(1)).unwrap();
    let mut running = JoinSet::new();
    writers.into_futures().for_each(|it| drop(running.spawn(it)));
    let tenant = Slug::default_tenant();
    let shard = store.shard(&tenant);
    let put = shard.put_tenant(&tenant, |_| Ok(("Default again".to_owned(), Quota::default())));
    put.await.unwrap();
    shard.create_endpoint(&tenant, conformance::endpoint).await.unwrap();
    let noise = SeededEntropy::new(3);
    let mut appended = 0;
    while journals(data).len() < 2 || journals(data)[0].ends_with("0.jnl") {
        let data: String = (0..40_000).map(|_| format!("{:016x}", noise.draw())).collect();
        let event_type = EventType::parse("a.b").unwrap();
        let event = NewEvent::new(event_type, Bytes::from(format!("\"{data}\"")));
        shard.append(&tenant, vec![event], true).await.unwrap();
        appended += 1;
        assert!(appended < 1000, "the journal is never done with");
    }
    running.shutdown().await;
    appended
}

#[tokio::test]
async fn a_journal_that_is_done_with_is_missed_too() {
    let folder = tempfile::tempdir().unwrap();
    let (pristine, data) = (folder.path().join("pristine"), folder.path().join("data"));
    let mut small = config(false);
    small.fjall.journal_bytes_max = 64 * 1024 * 1024;
    let appended = outgrow_a_journal(&pristine, &small).await;
    let several = journals(&pristine);
    println!("{appended} events, {several:?}");
    let name = |it: &Path| it.strip_prefix(&pristine).unwrap().to_owned();
    for journal in &several {
        copy(&pristine, &data);
        let file = data.join(name(journal));
        fs::remove_file(&file).unwrap();
        refuses_or_has(&data, appended, "missing");
        copy(&pristine, &data);
        let len = fs::metadata(&file).unwrap().len();
        OpenOptions::new().write(true).open(&file).unwrap().set_len(len / 2).unwrap();
        refuses_or_has(&data, appended, "half");
        copy(&pristine, &data);
        fs::remove_file(&file).unwrap();
        gives_up_once(&data, &file);
        copy(&pristine, &data);
        fs::write(&file, &fs::read(&file).unwrap()[10_000..]).unwrap();
        gives_up_once(&data, &file);
    }
    // Tables are all there is of what came before the only journal.
    while journals(&pristine).len() > 1 {
        drop(Store::open(&pristine, &small, masters(), world(1)).unwrap());
    }
    let mut tables = BTreeMap::<PathBuf, Vec<PathBuf>>::new();
    for (file, _) in files(&pristine) {
        let folder = file.parent().unwrap().to_owned();
        if folder.ends_with("tables") && !folder.ends_with("0/tables") {
            tables.entry(folder).or_default().push(file);
        }
    }
    for (folder, tables) in tables {
        copy(&pristine, &data);
        tables.iter().for_each(|it| flip(&data.join(name(it)), 100, 3));
        gives_up_once(&data, &folder);
    }
}

/// The journals, oldest first.
fn journals(data: &Path) -> Vec<PathBuf> {
    let all = fs::read_dir(data.join("store")).unwrap();
    let mut all: Vec<_> = all.map(|it| it.unwrap().path()).collect();
    all.retain(|it| it.extension().is_some_and(|it| it == "jnl"));
    all.sort();
    all
}

/// What was given up is not missed by the next start.
fn gives_up_once(data: &Path, file: &Path) {
    for accept_loss in [true, false] {
        let opened = Store::open(data, &config(accept_loss), masters(), world(1));
        assert!(opened.is_ok(), "{accept_loss} {}: {:?}", file.display(), opened.err());
    }
}

fn refuses_or_has(data: &Path, events: u64, how: &str) {
    match Store::open(data, &config(false), masters(), world(1)) {
        Err(Error::Corrupt(what)) => println!("{how}: {what}"),
        Err(other) => panic!("{how}: {other}"),
        Ok((store, _writers)) => {
            let shard = store.shard(&Slug::default_tenant());
            assert!(
                shard.catalog().endpoint(EndpointNo(1)).is_some(),
                "{how}: the endpoint is lost"
            );
            for seq in 1..=events {
                assert!(shard.event(Seq(seq)).unwrap().is_some(), "{how}: event {seq} is lost");
            }
        }
    }
}

/// The binary, with the key of the stores that are made here.
fn start(data: &Path) -> Start {
    Start::on(data).env("HOOKGATE_MASTER_KEY", MasterKey::simulated().reveal().as_str())
}

#[tokio::test]
async fn the_binary_says_where_and_goes_on_when_loss_is_accepted() {
    let folder = tempfile::tempdir().unwrap();
    let (pristine, data) = (folder.path().join("pristine"), folder.path().join("data"));
    let expected = make(&pristine).await;
    let of_kind = |kind: &str| {
        let all = files(&pristine).into_iter();
        // Not what nothing can be kept without.
        let fits = |it: &str| it.contains(kind) && !it.contains("/keyspaces/0/");
        let mut all = all.filter(|it| fits(&it.0.to_string_lossy()) && it.1 > 1000);
        all.next().map(|it| (it.0, it.1 / 2))
    };
    let cases = [".jnl", "/tables/", "/blobs/"].map(|kind| (kind, of_kind(kind).unwrap()));
    for (kind, (file, at)) in cases {
        copy(&pristine, &data);
        let file = data.join(file.strip_prefix(&pristine).unwrap());
        flip(&file, at, 3);
        let (code, text) = start(&data).run().err().unwrap();
        let name = file.strip_prefix(&data).unwrap().to_str().unwrap();
        assert!(code == Some(65) && text.contains(name), "{kind} {code:?}: {text}");
        let verified = Command::new(hookgate_tests::binary())
            .args(["store", "verify", "--data-dir"])
            .arg(&data)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&verified.stdout).into_owned()
            + &String::from_utf8_lossy(&verified.stderr);
        assert!(verified.status.code() == Some(65) && said.contains(name), "{kind}: {said}");
        let mut gateway = start(&data).flag("--accept-loss").run().unwrap();
        assert_eq!(gateway.terminate(), Some(0));
        let report = fs::read_to_string(data.join("loss-report-1.json")).unwrap();
        let report: serde_json::Value = serde_json::from_str(&report).unwrap();
        assert!(report["damage"][0].as_str().unwrap().contains(name), "{kind}: {report}");
        let (store, _writers) =
            Store::open(&data, &Config::default(), masters(), world(1)).unwrap();
        let shard = store.shard(&Slug::default_tenant());
        let told = |seq: &u64| {
            let gone = report["events"].as_array().unwrap();
            gone.iter().any(|it| {
                (it["first"].as_u64().unwrap()..=it["last"].as_u64().unwrap()).contains(seq)
            })
        };
        let mut lost = 0;
        for (seq, data) in &expected.events {
            let event = shard.event(Seq(*seq)).unwrap();
            let there = event.is_some_and(|it| it.data == *data);
            assert!(there != told(seq), "{kind}: event {seq}: {report}");
            lost += u64::from(!there);
        }
        println!("{kind}: {lost} of {EVENTS} events given up");
        drop((store, _writers));
        let mut gateway = start(&data).run().unwrap();
        assert_eq!(gateway.terminate(), Some(0), "{kind}: the second start needs no leave");
    }
}

#[tokio::test]
async fn without_the_names_of_its_tables_a_store_stays_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    // Its name is that of the binary's log, too.
    let (pristine, data) = (folder.path().join("pristine"), folder.path().join("nameless"));
    let expected = make(&pristine).await;
    let mut refused = 0;
    for (file, len) in files(&pristine.join("store/keyspaces/0/tables")) {
        copy(&pristine, &data);
        let name = file.strip_prefix(&pristine).unwrap().to_str().unwrap().to_owned();
        flip(&data.join(&name), len / 2, 3);
        // However little is read before a start.
        let mut config = config(true);
        config.fjall.verify_bytes_max = 0;
        match Store::open(&data, &config, masters(), world(1)) {
            Err(Error::Corrupt(what)) => assert!(what.contains(&name), "{what}"),
            Err(other) => panic!("{name}: {other}"),
            // It was merged into another, and not removed yet.
            Ok((store, _writers)) => {
                assert_eq!(missing(&store, &expected).unwrap(), [""; 0], "{name}");
                continue;
            }
        }
        refused += 1;
        for flags in [&[][..], &["--accept-loss"]] {
            let start = flags.iter().fold(start(&data), |it, flag| it.flag(flag));
            let (code, text) = start.run().err().unwrap();
            let told = text.contains(&name) && text.contains("restore a backup");
            assert!(code == Some(65) && told && !text.contains("--accept-loss"), "{text}");
        }
        flip(&data.join(&name), len / 2, 3);
        let (store, _writers) = Store::open(&data, &config, masters(), world(1)).unwrap();
        assert_eq!(missing(&store, &expected).unwrap(), [""; 0], "{name}");
    }
    assert!(refused > 0);
}
