use std::collections::{BTreeMap, BTreeSet};

use hookgate::domain::{EventId, Ordering};
use hookgate::storage::Appended;
use tokio::time::sleep;

use crate::{EVENTS, Sim, TWO_DAYS, seeds};

/// Repeats an event over crashes until it is acknowledged, as a producer with a key does; its id,
/// and whether it had been there.
async fn insist(sim: &mut Sim, n: u64) -> (EventId, bool) {
    loop {
        match sim.append_named(n, &format!("key-{n}")).await {
            Ok(Appended::New { id, .. }) => return (id, false),
            Ok(Appended::Duplicate { id, .. }) => return (id, true),
            Ok(other) => panic!("{n}: {other:?}"),
            Err(_) => {
                sim.crash();
                sim.start().await;
            }
        }
    }
}

pub(crate) async fn what_is_repeated_over_a_crash_is_one_event() {
    let (mut there, mut crashes) = (0, 0);
    for seed in seeds().take(60) {
        let mut sim = Sim::new(seed, 0.2);
        sim.start().await;
        sim.endpoint(|it| it.ordering = Ordering::None).await;
        let mut known = BTreeMap::new();
        for n in 0..EVENTS {
            if sim.draw(4) == 0 {
                sim.fail_disk_within(3);
                crashes += 1;
            }
            let (id, was_there) = insist(&mut sim, n).await;
            there += u32::from(was_there);
            known.insert(n, id);
        }
        // Its answer may have been lost as well: it asks once more.
        for (n, id) in &known {
            assert_eq!(insist(&mut sim, *n).await, (id.clone(), true), "seed {seed}");
        }
        assert_eq!(sim.shard().last_seq().0, EVENTS, "seed {seed}: one event for each key");
        sleep(TWO_DAYS).await;
        let got = sim.receiver.got();
        let ids: BTreeSet<_> = got.iter().map(|it| it.id.clone()).collect();
        let known: BTreeSet<_> = known.values().map(|it| it.to_string()).collect();
        assert_eq!(ids, known, "seed {seed}");
    }
    assert!(there > 0 && crashes > 0, "an event was stored and its acknowledgement lost: {there}");
}
