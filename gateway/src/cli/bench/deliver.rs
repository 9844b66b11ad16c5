use anyhow::Result;

use crate::cli::bench::args::Deliver;
use crate::cli::bench::figures::{Spread, each, share};
use crate::cli::bench::part::{Part, Role};
use crate::cli::bench::progress::Progress;
use crate::cli::bench::receiver;
use crate::cli::bench::report::Section;
use crate::cli::bench::sender::{Order, Sent};
use crate::cli::bench::stage::Stage;

pub(super) async fn run(flags: &Deliver, progress: &Progress) -> Result<Vec<Section>> {
    let mut stage = Stage::set(&flags.common, progress).await?;
    let url = stage.receiver.url.clone();
    let role = |bare| Role::Sender { url: url.clone(), bare };
    let mut ours = Part::start(&role(false)).await?;
    let mut bare = Part::start(&role(true)).await?;
    let order = |posts| Order { posts, in_flight: flags.in_flight, size: flags.common.size };
    // A tenth to warm up.
    for sender in [&mut ours, &mut bare] {
        let _: Sent = sender.ask(&order(flags.common.events.div_ceil(10))).await?;
    }
    stage.tell_receiver(receiver::Order::Forget).await?;
    let (mut by_us, mut by_bare) = (Vec::new(), Vec::new());
    for round in 1..=flags.common.rounds {
        stage.tell("sign and send", round);
        by_bare.push(bare.ask::<Sent>(&order(flags.common.events)).await?);
        by_us.push(ours.ask::<Sent>(&order(flags.common.events)).await?);
    }
    let received = stage.tell_receiver(receiver::Order::Tell).await?;

    let mut section = Section::new("sign and send");
    let cpu = |it: &Sent| each(it.cpu_seconds * 10_000.0, it.posts);
    let rate = |it: &Sent| share(it.posts as f64, it.seconds);
    let mut medians = Vec::new();
    for (name, sent) in [("gateway", &by_us), ("bound", &by_bare)] {
        let of = |figure: &dyn Fn(&Sent) -> Option<f64>| Spread::of(sent.iter().map(figure));
        for (figure, spread) in [("cpu_seconds_per_10000", of(&cpu)), ("per_second", of(&rate))] {
            section.figure(format!("{name}_{figure}"), spread.map(|it| it.median));
            section.figure(format!("{name}_{figure}_low"), spread.map(|it| it.low));
            section.figure(format!("{name}_{figure}_high"), spread.map(|it| it.high));
        }
        medians.push(of(&cpu).map_or(0.0, |it| it.median));
    }
    section.figure("cpu_in_terms_of_bound", share(medians[0], medians[1]));
    let sent: u64 = by_us.iter().chain(&by_bare).map(|it| it.posts).sum();
    section.figure("sent", sent as f64);
    section.figure("received", received.count as f64);
    Ok(vec![section])
}
