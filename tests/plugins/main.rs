//! Plugins as components in the sandbox: the examples on their cases, and guests that behave badly.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on should say where")]
#![expect(clippy::print_stdout, reason = "measurements are printed")]

mod authoring;
mod pace;
mod zoo;

use std::{path::Path, sync::Arc, time::Duration};

use bytes::Bytes;
use hookgate::{
    cli::authoring::{Kind, Lang, new},
    plugins::{Artifact, Call, Called, Compiler, Config, EventIn, FaultKind, Host, Verdict},
    world::SystemEntropy,
};
use hookgate_tests::{binary, plugin};

fn host(cache: &Path, compiler: Compiler) -> Host {
    Host::start(Config::new(cache.to_owned(), compiler), &SystemEntropy).unwrap()
}

fn event(data: &str) -> EventIn {
    EventIn {
        id: "evt_1".into(),
        event_type: "a.b".into(),
        timestamp_ms: 0,
        content_type: "application/json".into(),
        metadata: vec![],
        ordering_key: None,
        payload: Bytes::copy_from_slice(data.as_bytes()),
    }
}

async fn call(
    host: &Host,
    artifact: &Arc<Artifact>,
    config: &[(&str, &str)],
    data: &str,
) -> Called {
    call_as("one", host, artifact, config, data).await
}

async fn call_as(
    tenant: &str,
    host: &Host,
    artifact: &Arc<Artifact>,
    config: &[(&str, &str)],
    data: &str,
) -> Called {
    let config = config.iter().map(|(key, it)| ((*key).into(), (*it).into())).collect();
    let (tenant, artifact) = (tenant.into(), artifact.clone());
    host.call(Call { tenant, artifact, config, question: event(data), limits: None, dry: false })
        .await
}

#[tokio::test]
async fn a_child_compiles_and_the_cache_is_not_trusted_blindly() {
    let cache = tempfile::tempdir().unwrap();
    let component = Bytes::from(plugin::example("amount-filter"));
    let compiler = || Compiler::Child(binary().to_owned());
    let digest = host(cache.path(), compiler()).check(component.clone()).await.unwrap().digest();
    let compiled = std::fs::read_dir(cache.path()).unwrap().map(|it| it.unwrap().path());
    let compiled = compiled.into_iter().find(|it| it.extension().is_some_and(|it| it == "cwasm"));
    let path = compiled.expect("it is kept");
    let mut bytes = std::fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&path, &bytes).unwrap();
    let host = host(cache.path(), compiler());
    let artifact = host.artifact(digest, || Some(component)).await.unwrap();
    let called = call(&host, &artifact, &[("minimum", "1")], r#"{"amount": 2}"#).await;
    assert_eq!(called.verdict, Ok(Verdict::Deliver));
    assert_ne!(std::fs::read(&path).unwrap(), bytes, "it was compiled again");
}

#[tokio::test]
async fn what_is_no_plugin_is_refused_with_the_reason() {
    let cache = tempfile::tempdir().unwrap();
    let host = host(cache.path(), Compiler::InProcess);
    let whole = plugin::example("redact");
    let wat = |text: &str| wat::parse_str(text).unwrap();
    for (name, bytes, code, word) in [
        ("nothing", vec![], "plugin_invalid", "component"),
        ("text", b"hello".to_vec(), "plugin_invalid", "component"),
        ("an executable", b"\x7fELF\x02\x01\x01".to_vec(), "plugin_invalid", "component"),
        ("half a component", whole[..whole.len() / 2].to_vec(), "plugin_invalid", "component"),
        ("a core module", wat("(module)"), "plugin_invalid", "core module"),
        ("an empty component", wat("(component)"), "plugin_no_hook", "filter"),
        (
            "an import",
            wat(r#"(component (import "example:net/sockets@1.0.0" (instance)))"#),
            "plugin_import_denied",
            "example:net/sockets",
        ),
        ("too much", vec![0; 33 * 1024 * 1024], "plugin_too_large", "bytes"),
    ] {
        let refusal = host.check(bytes.into()).await.err().unwrap_or_else(|| panic!("{name}"));
        assert!(refusal.code == code && refusal.detail.contains(word), "{name}: {refusal:?}");
    }
}

const GUEST: &str = r#"
use hookgate_plugin::{Config, Event, Filtered, Plugin};

static mut SEEN: u32 = 0;

struct Guest(String);

fn deep(n: u64) -> u64 {
    if n == 0 { 0 } else { 1 + std::hint::black_box(deep(std::hint::black_box(n) - 1)) }
}

impl Plugin for Guest {
    fn configure(config: &Config) -> Result<Self, String> {
        Ok(Self(config.require("do")?.to_owned()))
    }

    fn filter(&self, _: &Event) -> Result<Filtered, String> {
        match self.0.as_str() {
            "loop" => loop { std::hint::black_box(0); },
            "grow" => { let mut all = Vec::new(); loop { all.push(vec![1_u8; 1 << 20]); std::hint::black_box(&all); } }
            "recurse" => Ok(Filtered::drop(deep(1 << 40).to_string())),
            "panic" => panic!("on purpose"),
            "flood" => { for _ in 0..10_000 { hookgate_plugin::info("again"); } Ok(Filtered::Deliver) }
            "huge" => Ok(Filtered::drop("x".repeat(8 << 20))),
            "file" => Err(format!("{:?}", std::fs::read("/etc/passwd").is_ok())),
            "net" => Err(format!("{:?}", std::net::TcpStream::connect("127.0.0.1:80").is_ok())),
            "exit" => std::process::exit(0),
            "world" => {
                println!("hello from {:?}", std::env::vars().count());
                let map: std::collections::HashMap<u32, u32> = (0..9).map(|it| (it, it)).collect();
                let order: Vec<u32> = map.into_keys().collect();
                let now = std::time::SystemTime::now();
                let now = now.duration_since(std::time::UNIX_EPOCH).unwrap().as_millis();
                Ok(Filtered::drop(format!("{now} {order:?}")))
            }
            "remember" => unsafe { SEEN += 1; Ok(Filtered::drop(SEEN.to_string())) },
            _ => Ok(Filtered::Deliver),
        }
    }
}

hookgate_plugin::export!(Guest: filter);
"#;

#[tokio::test]
async fn hostile_guests_harm_nobody() {
    let folder = tempfile::tempdir().unwrap();
    let source = folder.path().join("guest");
    new("guest", Lang::Rust, Kind::Filter, &source).unwrap();
    std::fs::write(source.join("src/lib.rs"), format!("#![allow(static_mut_refs)]{GUEST}"))
        .unwrap();
    let host = host(&folder.path().join("cache"), Compiler::InProcess);
    let artifact = host.check(plugin::build(&source).into()).await.unwrap();
    for (what, kind) in [
        ("loop", FaultKind::Timeout),
        ("grow", FaultKind::Limit),
        ("recurse", FaultKind::Limit),
        ("panic", FaultKind::Trap),
        ("huge", FaultKind::Limit),
        ("file", FaultKind::Failed),
        ("net", FaultKind::Trap),
        ("exit", FaultKind::Trap),
    ] {
        let called = call(&host, &artifact, &[("do", what)], "1").await;
        let fault = called.verdict.expect_err(what);
        assert_eq!(fault.kind, kind, "{what}: {fault:?}");
        match what {
            "panic" => assert!(called.logs.iter().any(|it| it.message.contains("on purpose"))),
            "net" => assert!(fault.detail.contains("the plugin used wasi:sockets/"), "{fault}"),
            "exit" => assert!(fault.detail.contains("the plugin used wasi:cli/exit@"), "{fault}"),
            _ => {}
        }
        assert!(called.duration < Duration::from_millis(500), "{what}: {:?}", called.duration);
        let fine = call(&host, &artifact, &[("do", "nothing")], "1").await;
        assert_eq!(fine.verdict, Ok(Verdict::Deliver), "after {what}");
    }
    let flooded = call(&host, &artifact, &[("do", "flood")], "1").await;
    assert_eq!((flooded.verdict, flooded.logs.len()), (Ok(Verdict::Deliver), 100));
    let world = call(&host, &artifact, &[("do", "world")], "1").await;
    let again = call(&host, &artifact, &[("do", "world")], "1").await;
    assert_eq!(world.verdict, again.verdict, "time and chance are the event's own");
    let Ok(Verdict::Drop(reason)) = &world.verdict else { panic!("{world:?}") };
    assert!(reason.starts_with("0 ["), "{reason}");
    assert_eq!(world.logs[0].message, "hello from 0");
    for _ in 0..20 {
        let called = call(&host, &artifact, &[("do", "remember")], "1").await;
        assert_eq!(called.verdict, Ok(Verdict::Drop("1".into())), "each event meets a fresh one");
    }
}
