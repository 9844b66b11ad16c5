use std::{
    collections::BTreeSet, fs, os::unix::fs::PermissionsExt, path::Path, process::Command,
    time::Duration,
};

use hookgate_tests::{Ledger, OPERATOR_KEY, binary};

use crate::process::Start;

fn run(arguments: &[&str], server: &str) -> (Option<i32>, String) {
    let output = Command::new(binary())
        .args(arguments)
        .env("HOOKGATE_SERVER", server)
        .env("HOOKGATE_KEY", OPERATOR_KEY)
        .output()
        .unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8_lossy(&text).into_owned())
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_under_load_is_whole_and_starts_elsewhere() {
    let folder = tempfile::tempdir().unwrap();
    let (data, backups) = (folder.path().join("backup"), folder.path().join("backups"));
    let mut ledger = Ledger::open(7).await;
    let mut gateway = Start::on(&data).run().unwrap();
    ledger.at(&gateway.server);
    ledger.register("20ms").await;
    ledger.produce("p", 4, (Duration::from_millis(1), 1000));
    tokio::time::sleep(Duration::from_secs(1)).await;
    let before = ledger.acknowledged_ids();
    let (code, said) = run(&["store", "backup", text(&backups)], &gateway.server);
    assert_eq!(code, Some(0), "{said}");
    ledger.quiesce().await;
    assert_eq!(gateway.terminate(), Some(0));
    let backup = fs::read_dir(&backups).unwrap().next().unwrap().unwrap().path();
    assert_eq!(backup.extension().unwrap(), "backup");

    let elsewhere = folder.path().join("elsewhere");
    let restore =
        |from: &Path| run(&["store", "restore", text(from), "--data-dir", text(&elsewhere)], "");
    let mut bytes = fs::read(&backup).unwrap();
    let middle = bytes.len() / 2;
    let damaged = folder.path().join("damaged");
    fs::write(&damaged, [&bytes[..], b"x"].concat()).unwrap();
    assert_eq!(restore(&damaged).0, Some(65), "one with something behind it is refused");
    bytes[middle] ^= 1;
    fs::write(&damaged, &bytes).unwrap();
    assert_eq!(restore(&damaged).0, Some(65), "a damaged backup is refused");
    for (path, expected) in [(&data, 0o700), (&backup, 0o600)] {
        let mode = path.metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, expected, "{} is for nobody else", path.display());
    }
    assert!(!elsewhere.join("store").exists());
    let (code, said) = restore(&backup);
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(restore(&backup).0, Some(5), "there is a store now");
    // Without the key the secrets cannot be read: it is no part of the backup.
    for entry in fs::read_dir(&data).unwrap() {
        let path = entry.unwrap().path();
        if path.file_name().unwrap().to_string_lossy().starts_with("master") {
            fs::copy(&path, elsewhere.join(path.file_name().unwrap())).unwrap();
        }
    }
    let (code, said) = run(&["store", "verify", "--data-dir", text(&elsewhere)], "");
    assert_eq!(code, Some(0), "{said}");
    let mut restored = Start::on(&elsewhere).run().unwrap();
    ledger.at(&restored.server);
    ledger.quiesce().await;
    let there: BTreeSet<String> = ledger.export().await.into_iter().map(|it| it.0).collect();
    let missing: Vec<_> = before.difference(&there).collect();
    assert!(missing.is_empty(), "{} of {} are missing", missing.len(), before.len());
    println!("{} events before the backup, {} in it", before.len(), there.len());
    assert_eq!(restored.terminate(), Some(0));
    let (code, said) = run(&["store", "verify", "--data-dir", text(&data)], "");
    assert_eq!(code, Some(0), "what crashed, filled and was backed up is whole: {said}");
}
