//! Components that mean harm, as core modules in text: each is made a component of the world, run
//! in the sandbox with the limits of production, and must come to exactly one end.

use std::{fmt::Write as _, time::Duration};

use bytes::Bytes;
use hookgate::plugins::{Called, Compiler, Config, FaultKind, Host, Keep, LogLine, Verdict};
use hookgate::world::SystemEntropy;
use hookgate_tests::{binary, guest::filter};
use tokio::time::Instant;

use crate::{call_as, host};

/// Says `drop`, with the reason at `at`, `length` bytes long.
fn dropping(at: u32, length: u32) -> String {
    format!(
        "(i32.store8 (i32.const 20) (i32.const 1))
         (i32.store (i32.const 24) (i32.const {at}))
         (i32.store (i32.const 28) (i32.const {length}))"
    )
}

async fn run(host: &Host, tenant: &str, component: &[u8]) -> Called {
    let artifact = host.check(Bytes::copy_from_slice(component)).await.unwrap();
    call_as(tenant, host, &artifact, &[], "1").await
}

/// Each with the end that it must come to.
fn zoo() -> Vec<(&'static str, Vec<u8>, FaultKind)> {
    let timeout = FaultKind::Timeout;
    let forever = "(loop $again (br $again))";
    let recursion = "(func $deep (param i64) (result i64)
        (i64.add (i64.const 1) (call $deep (i64.add (local.get 0) (i64.const 1)))))";
    let huge = dropping(65536, 10 << 20);
    vec![
        ("a loop", filter("", 1, forever), timeout),
        (
            "a loop in `start`",
            filter("(func $s (loop $again (br $again))) (start $s)", 1, ""),
            timeout,
        ),
        (
            "filling all memory again and again",
            filter(
                "",
                255,
                "(loop $again
                    (memory.fill (i32.const 65536) (i32.const 7) (i32.const 16646144))
                    (br $again))",
            ),
            timeout,
        ),
        (
            "growing memory for ever",
            filter("", 1, "(loop $again (drop (memory.grow (i32.const 1))) (br $again))"),
            FaultKind::Limit,
        ),
        (
            "growing a table for ever",
            filter(
                "(table $t 1 funcref)",
                1,
                "(loop $again
                    (drop (table.grow $t (ref.null func) (i32.const 100))) (br $again))",
            ),
            FaultKind::Limit,
        ),
        ("recursion", filter(recursion, 1, "(drop (call $deep (i64.const 0)))"), FaultKind::Limit),
        ("unreachable", filter("", 1, "unreachable"), FaultKind::Trap),
        ("an output of 10 MiB", filter("", 200, &huge), FaultKind::Limit),
        ("an output outside of memory", filter("", 1, &dropping(u32::MAX - 9, 9)), FaultKind::Trap),
        (
            "a million calls of the host",
            filter(
                "",
                1,
                "(local.set $n (i32.const 1000000))
                 (loop $again
                    (call $log (i32.const 1) (i32.const 64) (i32.const 0))
                    (br_if $again (local.tee $n (i32.sub (local.get $n) (i32.const 1)))))",
            ),
            FaultKind::Limit,
        ),
        (
            "a log line of 10 MiB",
            filter("", 200, "(call $log (i32.const 1) (i32.const 64) (i32.const 10485760))"),
            FaultKind::Limit,
        ),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn each_comes_to_its_end_and_the_next_call_is_fine() {
    let cache = tempfile::tempdir().unwrap();
    let host = host(cache.path(), Compiler::InProcess);
    let fine = filter("", 1, "");
    for (name, component, kind) in &zoo() {
        let called = run(&host, "hostile", component).await;
        let fault = called.verdict.expect_err(name);
        assert_eq!(fault.kind, *kind, "{name}: {fault:?}");
        println!("{name}: {} after {:?}", kind.name(), called.duration);
        assert!(called.duration < Duration::from_secs(2), "{name}: {:?}", called.duration);
        let next = run(&host, "hostile", &fine).await;
        assert_eq!(next.verdict, Ok(Verdict::Deliver), "after {name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn another_tenant_keeps_its_pace() {
    let cache = tempfile::tempdir().unwrap();
    let host = host(cache.path(), Compiler::InProcess);
    let fine = host.check(filter("", 1, "").into()).await.unwrap();
    let pace = async || {
        let mut waits = Vec::new();
        for _ in 0..200 {
            let started = Instant::now();
            let called = call_as("good", &host, &fine, &[], "1").await;
            assert_eq!(called.verdict, Ok(Verdict::Deliver));
            waits.push(started.elapsed());
        }
        waits.sort();
        (waits[100], waits[198])
    };
    let alone = pace().await;
    let looping = filter("", 1, "(loop $again (br $again))");
    let looping = host.check(looping.into()).await.unwrap();
    let hostile = {
        let (host, looping) = (host.clone(), looping.clone());
        async move {
            loop {
                let called = call_as("hostile", &host, &looping, &[], "1").await;
                assert!(called.verdict.is_err());
            }
        }
    };
    tokio::select! {
        beside = pace() => println!("median and p99 alone {alone:?}, beside a loop {beside:?}"),
        () = hostile => unreachable!("it does not end"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_of_a_tenant_is_found_in_anothers_memory() {
    let cache = tempfile::tempdir().unwrap();
    let host = host(cache.path(), Compiler::InProcess);
    // Both have 2 MiB; the first page is the guest's own.
    let secret =
        filter("", 32, "(memory.fill (i32.const 65536) (i32.const 0xa5) (i32.const 2031616))");
    let found = dropping(64, 5);
    let search = filter(
        r#"(data (i32.const 64) "found")"#,
        32,
        &format!(
            "(local.set $n (i32.const 65536))
             (block $done
                (loop $again
                    (if (i64.ne (i64.load (local.get $n)) (i64.const 0))
                        (then {found} (br $done)))
                    (br_if $again (i32.lt_u
                        (local.tee $n (i32.add (local.get $n) (i32.const 8)))
                        (i32.const 2097152)))))"
        ),
    );
    let secret = host.check(secret.into()).await.unwrap();
    let search = host.check(search.into()).await.unwrap();
    for round in 0..10_000 {
        let hidden = call_as("one", &host, &secret, &[], "1").await;
        assert_eq!(hidden.verdict, Ok(Verdict::Deliver));
        let looked = call_as("other", &host, &search, &[], "1").await;
        assert_eq!(looked.verdict, Ok(Verdict::Deliver), "round {round}");
    }
}

#[tokio::test]
async fn what_the_sandbox_does_not_give_is_refused_by_name() {
    let cache = tempfile::tempdir().unwrap();
    let host = host(cache.path(), Compiler::InProcess);
    let wat = |text: &str| wat::parse_str(text).unwrap();
    let exports = |inside: &str| {
        wat(&format!(
            r#"(component {inside} (instance $i) (export "hookgate:plugin/filter@1.0.0" (instance $i)))"#
        ))
    };
    let import = |name: &str| exports(&format!(r#"(import "{name}" (instance))"#));
    for (name, component, word) in [
        ("two memories", exports("(core module (memory 1) (memory 1))"), "memor"),
        ("shared memory", exports("(core module (memory 1 1 shared))"), "shared"),
        ("64-bit memory", exports("(core module (memory i64 1))"), "64"),
        ("preview 1 by hand", import("wasi:snapshot/preview1@0.1.0"), "wasi:snapshot"),
        ("a later WASI", import("wasi:cli/environment@0.3.0"), "wasi:cli/environment@0.3.0"),
        ("an unknown package", import("example:net/sockets@1.0.0"), "example:net"),
        ("a later world", import("hookgate:plugin/host@2.0.0"), "host@2.0.0"),
        ("keys without `sign`", import("hookgate:plugin/keys@1.0.0"), "keys"),
    ] {
        let refusal = host.check(component.into()).await.err().unwrap_or_else(|| panic!("{name}"));
        assert_eq!(refusal.code, "plugin_import_denied", "{name}: {refusal:?}");
        assert!(refusal.detail.contains(word), "{name}: {refusal:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_would_take_too_long_to_compile_is_refused() {
    let cache = tempfile::tempdir().unwrap();
    let mut config = Config::new(cache.path().to_owned(), Compiler::Child(binary().to_owned()));
    config.compile_time_max = Duration::from_secs(2);
    let host = Host::start(config, &SystemEntropy).unwrap();
    let loops = |count: usize| "(loop)".repeat(count);
    let mut functions = String::new();
    for _ in 0..40 {
        let _ = write!(functions, "(func (param i32) {})", loops(4_900));
    }
    let nested = "(block ".repeat(20_000) + &")".repeat(20_000);
    for (name, extra) in [
        ("a function of 115,000 loops", format!("(func {})", loops(115_000))),
        ("many functions of loops", functions),
        ("50,000 functions", "(func)".repeat(50_000)),
        ("20,000 blocks within each other", format!("(func {nested})")),
    ] {
        let started = Instant::now();
        let bomb = filter(&extra, 1, "");
        let refusal = host.check(bomb.into()).await.err().unwrap_or_else(|| panic!("{name}"));
        assert_eq!(refusal.code, "plugin_compile_limit", "{name}: {refusal:?}");
        println!("{name}: refused after {:?}", started.elapsed());
        assert!(started.elapsed() < Duration::from_secs(20), "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_failures_leave_nothing_behind() {
    const ROUNDS: usize = 5;
    let cache = tempfile::tempdir().unwrap();
    let host = host(cache.path(), Compiler::InProcess);
    let greedy = filter(
        "",
        1,
        "(loop $again
            (br_if $again (i32.ne (memory.grow (i32.const 16)) (i32.const -1)))) unreachable",
    );
    let greedy = host.check(greedy.into()).await.unwrap();
    let mut rounds = Vec::new();
    for _ in 0..=ROUNDS {
        for _ in 0..2_000 {
            let called = call_as("hostile", &host, &greedy, &[], "1").await;
            assert_eq!(called.verdict.expect_err("it is greedy").kind, FaultKind::Limit);
        }
        rounds.push(resident_kib());
    }
    println!("resident after each 2,000 failures: {rounds:?} KiB");
    // Other tests of this process take and leave memory, too: what stays behind grows in each round.
    let mut grown: Vec<_> = rounds.windows(2).map(|it| it[1] as i64 - it[0] as i64).collect();
    grown.sort_unstable();
    assert!(grown[ROUNDS / 2] < 3 * 1024, "{rounds:?} KiB");
}

fn resident_kib() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|it| it.strip_prefix("VmRSS:"));
    line.and_then(|it| it.trim().trim_end_matches(" kB").parse().ok()).unwrap_or_default()
}

#[tokio::test]
async fn the_same_event_costs_the_same_fuel() {
    let cache = tempfile::tempdir().unwrap();
    let mut config = Config::new(cache.path().to_owned(), Compiler::InProcess);
    config.fuel = true;
    config.limits.fuel_max = Some(1_000_000);
    let host = Host::start(config, &SystemEntropy).unwrap();
    let log = r#"(call $log (i32.const 1) (i32.const 64) (i32.const 2))"#;
    let fine = host.check(filter(r#"(data (i32.const 64) "hi")"#, 1, log).into()).await.unwrap();
    let once = call_as("one", &host, &fine, &[], "1").await;
    let again = call_as("one", &host, &fine, &[], "1").await;
    assert!(once.fuel.is_some_and(|it| it > 0) && once.fuel == again.fuel, "{once:?}");
    assert_eq!(once.logs, [LogLine { level: "info", message: "hi".into() }]);
    let looping = host.check(filter("", 1, "(loop $again (br $again))").into()).await.unwrap();
    let called = call_as("one", &host, &looping, &[], "1").await;
    assert_eq!(called.verdict.expect_err("it has no end").kind, FaultKind::Timeout);
    assert!(called.fuel.is_some_and(|it| it >= 1_000_000), "{:?}", called.fuel);
}

/// Says how often its instance was asked; traps where the data's letters are four.
fn counting() -> Vec<u8> {
    let count = "(i32.store (i32.const 512) (i32.add (i32.const 1) (i32.load (i32.const 512))))
        (i32.store8 (i32.const 600) (i32.add (i32.const 48) (i32.load (i32.const 512))))
        (if (i32.eq (local.get 13) (i32.const 4)) (then unreachable))";
    filter("", 1, &format!("{count} {}", dropping(600, 1)))
}

#[tokio::test]
async fn a_component_may_ask_to_be_kept_and_to_be_fresh() {
    let cache = tempfile::tempdir().unwrap();
    for (heavy_from, keep, second) in [
        (u64::MAX, None, "1"),
        (u64::MAX, Some(Keep::Kept), "2"),
        (0, None, "2"),
        (0, Some(Keep::Fresh), "1"),
    ] {
        let mut config = Config::new(cache.path().to_owned(), Compiler::InProcess);
        config.kept.compiled_bytes_min = heavy_from;
        let component = keep.map_or_else(counting, |it| it.mark(&counting()));
        // The second host finds what the first compiled.
        for _ in 0..2 {
            let host = Host::start(config.clone(), &SystemEntropy).unwrap();
            let counting = host.check(component.clone().into()).await.unwrap();
            for count in ["1", second] {
                let called = call_as("one", &host, &counting, &[], "1").await;
                assert_eq!(called.verdict, Ok(Verdict::Drop(count.into())), "{keep:?}");
            }
        }
    }
}

#[tokio::test]
async fn a_heavy_plugin_is_kept_for_one_tenant_and_configuration() {
    let cache = tempfile::tempdir().unwrap();
    let mut config = Config::new(cache.path().to_owned(), Compiler::InProcess);
    // Whatever it is made of, it counts as heavy.
    (config.kept.compiled_bytes_min, config.kept.calls_max) = (0, 3);
    let host = Host::start(config, &SystemEntropy).unwrap();
    let counting = host.check(counting().into()).await.unwrap();
    let ask = async |tenant: &str, config: &[(&str, &str)], data: &str| {
        let called = call_as(tenant, &host, &counting, config, data).await;
        called.verdict.map_err(|it| it.kind)
    };
    let said = |count: &str| Ok(Verdict::Drop(count.to_owned()));
    assert_eq!(ask("one", &[], "1").await, said("1"));
    assert_eq!(ask("one", &[], "1").await, said("2"));
    assert_eq!(ask("other", &[], "1").await, said("1"), "another tenant has its own");
    assert_eq!(ask("one", &[("a", "b")], "1").await, said("1"), "another configuration too");
    assert_eq!(ask("one", &[], "1").await, said("3"));
    assert_eq!(ask("one", &[], "1").await, said("1"), "it was asked often enough");
    assert_eq!(ask("one", &[], "true").await, Err(FaultKind::Trap));
    assert_eq!(ask("one", &[], "1").await, said("1"), "after a trap it is not used again");
}
