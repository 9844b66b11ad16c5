//! Endpoints' plugins in simulated time: fuel bounds them, so a run repeats exactly.

use std::time::Duration;

use bytes::Bytes;
use hookgate::domain::{DeliveryState, EndpointNo, OnError, PluginName, PluginUse};
use hookgate::storage::Entry;
use hookgate_tests::{Received, Sim, guest, plugin};
use tokio::time::sleep;

use crate::{TWO_DAYS, deliveries};

const EVENTS: u64 = 15;
/// A plugin's configuration.
type Config = &'static [(&'static str, &'static str)];
/// Name, configuration, and what becomes of a delivery where it fails.
const PLUGINS: [(&str, Config, OnError); 4] = [
    ("filter", &[("field", "n"), ("minimum", "5")], OnError::Retry),
    ("transform", &[("fields", "n")], OnError::Retry),
    ("loops", &[], OnError::Retry),
    ("traps", &[], OnError::Drop),
];

/// What the receivers got, and what is written down of each delivery.
type History = (Vec<Received>, Vec<(String, EndpointNo, Vec<Entry>)>);

/// One endpoint with each plugin, some events, a crash in between, and two days.
async fn live(seed: u64, components: &[Bytes; 4]) -> (Sim, History) {
    let mut sim = Sim::with_plugins(seed, 0.3);
    sim.start().await;
    for ((name, config, on_error), component) in PLUGINS.into_iter().zip(components) {
        sim.plugin(name, component).await;
        let config = config.iter().map(|(key, value)| ((*key).into(), (*value).into())).collect();
        let plugin = PluginName::parse(name).expect("a name");
        let plugin = PluginUse { plugin, version: None, config, on_error };
        sim.endpoint(|it| it.plugins = vec![plugin]).await;
    }
    for round in 0..2 {
        for n in 0..EVENTS {
            sim.publish(round * EVENTS + n).await;
            sleep(Duration::from_millis(sim.draw(300))).await;
        }
        if round == 0 {
            sim.crash();
            sim.start().await;
        }
    }
    sleep(TWO_DAYS).await;
    let written = deliveries(&sim).into_iter().map(|(id, key, _)| {
        let entries = sim.shard().history(key).expect("a store");
        (id, key.endpoint, entries)
    });
    let history = (sim.receiver.got(), written.collect());
    (sim, history)
}

pub(crate) async fn the_same_seed_gives_the_same_history() {
    let components = [
        plugin::example("amount-filter").into(),
        plugin::example("redact").into(),
        guest::filter("", 1, "(loop $again (br $again))").into(),
        guest::filter("", 1, "unreachable").into(),
    ];
    for seed in [3, 4] {
        let (sim, first) = live(seed, &components).await;
        let (_, second) = live(seed, &components).await;
        assert_eq!(first, second, "seed {seed}");
        let (_, other) = live(seed + 100, &components).await;
        assert_ne!(first, other, "seed {seed}: a history that knows nothing of its seed");
        all_had_their_say(&sim);
    }
}

/// Each plugin did what it is there for.
fn all_had_their_say(sim: &Sim) {
    let endpoints: Vec<_> = sim.shard().catalog().endpoints().map(|it| it.no).collect();
    let [filter, transform, loops, traps] = endpoints[..] else { panic!("{endpoints:?}") };
    let bodies = |of| sim.receiver.got_by(of).into_iter().map(|it| it.body);
    let n = |body: Bytes| {
        let body: serde_json::Value = serde_json::from_slice(&body).expect("JSON");
        body["data"]["n"].clone()
    };
    assert!(bodies(filter).all(|it| n(it).as_u64().is_some_and(|it| it >= 5)));
    assert!(bodies(transform).all(|it| n(it) == "***") && bodies(transform).count() > 0);
    assert_eq!((bodies(loops).count(), bodies(traps).count()), (0, 0));
    let mut outcomes = std::collections::BTreeSet::new();
    for (_, key, state) in deliveries(sim) {
        if key.endpoint == traps {
            let dropped = matches!(state, DeliveryState::Filtered { .. });
            assert!(dropped, "{state:?}");
        }
        for entry in sim.shard().history(key).expect("a store") {
            if let Entry::Attempt(attempt) = entry {
                outcomes.insert((key.endpoint, attempt.outcome.name));
            }
        }
    }
    assert!(outcomes.contains(&(loops, "plugin_timeout".into())), "{outcomes:?}");
}
