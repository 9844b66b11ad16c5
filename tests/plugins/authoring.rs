//! What authors do: examples and templates are built from source and run on their cases.

use std::path::Path;

use bytes::Bytes;
use hookgate::cli::authoring::{self, Kind, Lang, Report};
use hookgate::plugins::{Compiler, FaultKind, Verdict};
use hookgate_tests::plugin;

const KINDS: [(Kind, &str); 5] = [
    (Kind::Filter, "filter"),
    (Kind::Transform, "transform"),
    (Kind::Ingest, "ingest"),
    (Kind::Classify, "classify"),
    (Kind::Sign, "sign"),
];

async fn pass(folder: &Path, component: &Path) -> Report {
    let report = authoring::test(folder, component, false).await;
    let report = report.unwrap_or_else(|it| panic!("{}: {it:#}", folder.display()));
    assert!(report.passed() && !report.cases.is_empty(), "{}: {report:#?}", folder.display());
    report
}

fn file(bytes: &[u8]) -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), bytes).unwrap();
    file
}

/// Examples in other languages are run by `.ci/plugins`, which installs what they need.
#[tokio::test]
async fn the_examples_pass_their_cases() {
    for name in ["amount-filter", "redact", "stripe-signature"] {
        let folder = plugin::repository().join("plugins").join(name);
        pass(&folder, file(&plugin::build(&folder)).path()).await;
    }
    for name in ["slack", "ok-false", "timestamped-signature"] {
        let folder = plugin::repository().join("plugins").join(name);
        pass(&folder, &authoring::build(&folder).unwrap().path).await;
    }
}

#[tokio::test]
async fn a_new_script_passes_its_case() {
    let folder = tempfile::tempdir().unwrap();
    for (kind, word) in KINDS {
        let folder = folder.path().join(word);
        authoring::new("a", Lang::Javascript, kind, &folder).unwrap();
        let built = authoring::build(&folder).unwrap();
        assert_eq!(pass(&folder, &built.path).await.kind, word);
    }
}

#[tokio::test]
async fn a_new_crate_passes_its_case_outside_the_repository() {
    let folder = tempfile::tempdir().unwrap();
    // One place for all, so that the SDK is built once.
    let crate_ = folder.path().join("a");
    authoring::new("a", Lang::Rust, Kind::Filter, &crate_).unwrap();
    for (kind, word) in KINDS {
        let made = folder.path().join(word);
        authoring::new("a", Lang::Rust, kind, &made).unwrap();
        for name in ["src/lib.rs", "cases/example.json"] {
            std::fs::copy(made.join(name), crate_.join(name)).unwrap();
        }
        let built = authoring::build(&crate_).unwrap();
        assert_eq!(pass(&crate_, &built.path).await.kind, word);
    }
}

#[tokio::test]
async fn cases_are_updated_and_their_differences_told() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path().join("a");
    authoring::new("a", Lang::Javascript, Kind::Transform, &folder).unwrap();
    let case = folder.join("cases/example.json");
    std::fs::write(&case, r#"{"event": {"type": "a.b", "data": {}}}"#).unwrap();
    let built = authoring::build(&folder).unwrap().path;
    let report = authoring::test(&folder, &built, false).await.unwrap();
    let (expected, came) = report.cases[0].difference.clone().expect("it expects nothing");
    assert!(expected.is_null());
    assert_eq!(authoring::differences(&expected, &came).len(), 1);
    assert!(authoring::test(&folder, &built, true).await.unwrap().cases[0].updated);
    pass(&folder, &built).await;
    std::fs::write(&case, r#"{"evnt": {}}"#).unwrap();
    let error = authoring::test(&folder, &built, false).await.unwrap_err();
    assert!(format!("{error:#}").contains("`evnt` is no part of a case"), "{error:#}");
}

const SCRIPT: &str = r#"
let calls = 0;
export default {
  filter(event) {
    switch (event.data) {
      case "count": return { drop: String(++calls) };
      case "chance": return { drop: `${Date.now()} ${Math.random()} ${new Date().getTime()}` };
      case "loop": for (;;) {}
      case "recurse": return (function deep() { return deep() + 1; })();
      case "grow": for (const all = [];;) all.push(new Uint8Array(65536));
      case "flood": for (;;) console.log("again");
      case "throw": event.nothing.there;
      case "promise": return Promise.resolve(true);
      case "never": return new Promise(() => {});
      case "wrong": return "yes";
      case "log": console.log("hello", { a: 1 }, [2], null); return true;
    }
  },
};
"#;

#[tokio::test]
async fn a_script_is_as_tame_as_any_plugin() {
    let folder = tempfile::tempdir().unwrap();
    let source = folder.path().join("a");
    authoring::new("a", Lang::Javascript, Kind::Filter, &source).unwrap();
    std::fs::write(source.join("plugin.js"), SCRIPT).unwrap();
    let component = std::fs::read(authoring::build(&source).unwrap().path).unwrap();
    let host = super::host(&folder.path().join("cache"), Compiler::InProcess);
    let artifact = host.check(Bytes::from(component)).await.unwrap();
    let ask = async |what: &str| super::call(&host, &artifact, &[], &format!("{what:?}")).await;
    for (what, kind, told) in [
        ("loop", FaultKind::Timeout, "deadline, 50ms of processor time"),
        ("flood", FaultKind::Limit, "at most 10000 times, log lines included"),
        ("recurse", FaultKind::Limit, ""),
        ("throw", FaultKind::Failed, "plugin.js:12:"),
        ("never", FaultKind::Failed, "promise"),
        ("wrong", FaultKind::Failed, "filter must return true, false or"),
        ("other", FaultKind::Failed, "it returned undefined"),
    ] {
        let fault = ask(what).await.verdict.expect_err(what);
        assert!(fault.kind == kind && fault.detail.contains(told), "{what}: {fault:?}");
    }
    let mut grown = ask("grow").await.verdict.expect_err("it has 16 MiB");
    for _ in 0..5 {
        // Where others crowd the processor's caches, its 50 ms may be over first.
        if grown.kind == FaultKind::Timeout {
            grown = ask("grow").await.verdict.expect_err("it has 16 MiB");
        }
    }
    assert_ne!(grown.kind, FaultKind::OutputInvalid, "{grown:?}");
    assert!(grown.detail.contains("more memory than it may have, 16 MiB"), "{grown:?}");
    let chance = ask("chance").await.verdict;
    assert_eq!(ask("chance").await.verdict, chance, "chance is the event's own");
    for _ in 0..3 {
        let counted = ask("count").await.verdict;
        assert_eq!(counted, Ok(Verdict::Drop("1".into())), "each event meets a fresh script");
    }
    assert_eq!(ask("promise").await.verdict, Ok(Verdict::Deliver));
    let logged = ask("log").await;
    assert_eq!(logged.logs[0].message, "hello {\"a\":1} [2] null");
}
