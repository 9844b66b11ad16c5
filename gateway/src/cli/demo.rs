use std::{process::ExitCode, time::Duration};

use anyhow::{Result, anyhow, bail};
use clap::Args;
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::app::{App, Config, FileConfig};
use crate::cli::authoring;
use crate::cli::client::{Client, Failure};
use crate::cli::receiver::{Mood, Receiver};
use crate::cli::{output, plugin, send, serve};
use crate::domain::{Scheme, Secret};
use crate::world::{Entropy, SeededEntropy, SystemEntropy};

const LOOK_EVERY: Duration = Duration::from_millis(100);
/// The demo gives up on what is not finished by then.
const PATIENCE: Duration = Duration::from_secs(120);
const FAILS_FOR: Duration = Duration::from_millis(1500);
const LINES_PER_CHUNK: usize = 25;

/// Watch the gateway do its work on real parts: store, plugins, receivers
#[derive(Debug, Args)]
pub(super) struct Flags {
    /// How many events
    #[arg(long, default_value_t = 3000)]
    events: u64,
    /// Keep serving afterwards
    #[arg(long)]
    keep: bool,
    /// Other seeds make other events
    #[arg(long, default_value_t = 7)]
    seed: u64,
}

pub(super) async fn run(flags: Flags) -> ExitCode {
    match try_run(&flags).await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            output::complain(&Failure::other(format!("{error:#}")));
            ExitCode::FAILURE
        }
    }
}

async fn try_run(flags: &Flags) -> Result<bool> {
    output::note("building the example plugins (the first time takes a while) …");
    let filter = example("amount-filter").await?;
    let redact = example("redact").await?;
    let folder = tempfile::Builder::new().prefix("hookgate-demo-").tempdir()?;
    let key = demo_key();
    let file = FileConfig {
        data_dir: Some(folder.path().to_owned()),
        listen: Some(([127, 0, 0, 1], 0).into()),
        operator_key: Some(key.clone()),
        allow_private_endpoints: Some(true),
        ..FileConfig::default()
    };
    let app = App::start(Config::new(file, serve::compiler())?).await?;
    let client = Client::of(format!("http://{}", app.address()), key.clone());
    output::note(&format!(
        "the gateway listens on {}, its store is {}",
        client.server,
        folder.path().display()
    ));

    let mut tasks = JoinSet::new();
    let healthy = Receiver::start(Mood::Healthy, &mut tasks).await?;
    let flaky = Receiver::start(Mood::FailsAtFirst(FAILS_FOR), &mut tasks).await?;
    for (name, bytes) in [("amount-filter", filter), ("redact", redact)] {
        let size = bytes.len();
        let uploaded = plugin::upload(&client, name, bytes, true).await.map_err(told)?;
        output::note(&format!(
            "uploaded plugin {name}: {size} bytes, sha256 {}",
            uploaded["sha256"]
        ));
    }
    register(&client, &healthy, &flaky).await?;

    let accepted = publish(&client, flags, &healthy, &flaky).await?;
    let outcome = account(&client, accepted).await?;
    let agrees = summarise(&outcome, &healthy, &flaky, accepted);
    if flags.keep {
        keep(&client, &key).await?;
    }
    app.stop().await;
    Ok(agrees)
}

fn demo_key() -> String {
    let mut random = [0; 16];
    SystemEntropy.fill(&mut random);
    format!("demo-{}", data_encoding::HEXLOWER.encode(&random))
}

/// Builds an example plugin from the sources in this binary, in the user's cache.
async fn example(name: &'static str) -> Result<Vec<u8>> {
    tokio::task::spawn_blocking(move || authoring::example(name)).await?
}

async fn register(client: &Client, healthy: &Receiver, flaky: &Receiver) -> Result<()> {
    let redact = json!({ "plugin": "redact", "config": { "fields": "card.number" } });
    let filter = json!({ "plugin": "amount-filter", "config": { "minimum": "50" } });
    let retry = json!({ "base": "200ms", "factor": 2, "max_delay": "2s", "max_attempts": 6 });
    for (receiver, id, types, plugins) in [
        (healthy, "warehouse", json!(["payment.*", "order.*"]), json!([redact])),
        (flaky, "accounting", json!(["payment.*"]), json!([filter, redact])),
    ] {
        let body = json!({
            "id": id, "url": receiver.url, "event_types": types, "plugins": plugins, "retry": retry,
        });
        let path = client.path(&["endpoints"]).map_err(told)?;
        client.post(&path, &body).await.map_err(told)?;
        let secret = client.path(&["endpoints", id, "secret"]).map_err(told)?;
        let secret = client.get(&secret).await;
        let secret = secret.map_err(told)?["key"].as_str().unwrap_or_default().to_owned();
        receiver.trust(Secret::parse(&secret, Scheme::Standard).map_err(|it| anyhow!(it))?);
        output::note(&format!("registered endpoint {id} at {}", receiver.url));
    }
    Ok(())
}

/// Streams the events in and shows how they come and go.
async fn publish(
    client: &Client,
    flags: &Flags,
    healthy: &Receiver,
    flaky: &Receiver,
) -> Result<u64> {
    let bars = MultiProgress::new();
    let style = ProgressStyle::with_template("{prefix:>10} {bar:40} {pos:>6} {msg}")?;
    let bar = |name: &'static str, total| {
        let bar = bars.add(ProgressBar::new(total)).with_style(style.clone()).with_prefix(name);
        bar.tick();
        bar
    };
    let incoming = bar("accepted", flags.events);
    let (to_healthy, to_flaky) = (bar("warehouse", flags.events), bar("accounting", flags.events));
    let (random, total) = (SeededEntropy::new(flags.seed), flags.events);
    let body = futures_util::stream::unfold(0, move |from: u64| {
        let lines: Vec<_> =
            (from..total).take(LINES_PER_CHUNK).map(|n| event(n, &random)).collect();
        async move {
            if lines.is_empty() {
                return None;
            }
            // Slow enough to watch.
            tokio::time::sleep(Duration::from_millis(10)).await;
            let next = from + lines.len() as u64;
            Some((Ok::<_, std::io::Error>(lines.concat()), next))
        }
    });
    let show = || {
        for (bar, receiver) in [(&to_healthy, healthy), (&to_flaky, flaky)] {
            let tally = receiver.tally();
            bar.set_position(tally.accepted.len() as u64);
            bar.set_message(format!("delivered, {} refused", tally.refused));
        }
    };
    let tally = send::stream(client, reqwest::Body::wrap_stream(body), |tally| {
        incoming.set_position(tally.accepted);
        show();
    });
    let tally = tally.await.map_err(told)?;
    if let Some(first) = tally.rejected.first() {
        bail!("{} events were rejected; the first: {first}", tally.rejected.len());
    }
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while pending(client).await? > 0 {
        if tokio::time::Instant::now() > deadline {
            bail!("deliveries are still unfinished after {PATIENCE:?}");
        }
        show();
        tokio::time::sleep(LOOK_EVERY).await;
    }
    show();
    for bar in [incoming, to_healthy, to_flaky] {
        bar.finish();
    }
    Ok(tally.accepted)
}

/// An event as a shop would send it. One in a thousand has no card, which accounting refuses.
fn event(n: u64, random: &SeededEntropy) -> String {
    let draw = |end: u64| random.draw() % end;
    let event_type = ["payment.success", "payment.refunded", "order.created"][draw(3) as usize];
    let card = match n % 1000 {
        500 => Value::Null,
        _ => json!({ "number": format!("4242{:012}", draw(1_000_000_000_000)), "brand": "visa" }),
    };
    let customer =
        json!({ "id": draw(5000), "email": format!("customer{}@shop.example", draw(5000)) });
    let currency = ["EUR", "USD", "GBP"][draw(3) as usize];
    let items: Vec<_> = (0..=draw(4))
        .map(|it| json!({ "sku": format!("sku-{it}"), "quantity": draw(5) }))
        .collect();
    let data = json!({
        "order_id": n,
        "amount": draw(20_000) as f64 / 100.0,
        "currency": currency,
        "card": card,
        "customer": customer,
        "items": items,
    });
    format!("{}\n", json!({ "type": event_type, "data": data, "metadata": { "shop": "demo" } }))
}

async fn pending(client: &Client) -> Result<u64> {
    Ok(client.gauge("hookgate_deliveries_pending").await.map_err(told)? as u64)
}

/// How the deliveries ended, as the API tells it.
#[derive(Debug, Default)]
struct Outcome {
    events: u64,
    delivered: u64,
    filtered: u64,
    dead: u64,
    open: u64,
    retried: u64,
}

/// Asks the API what became of every event, page by page.
async fn account(client: &Client, accepted: u64) -> Result<Outcome> {
    let mut outcome =
        Outcome { events: count(client, "events", |_| {}).await?, ..Outcome::default() };
    if outcome.events != accepted {
        output::note(&format!(
            "{accepted} events were acknowledged, {} are stored",
            outcome.events
        ));
    }
    count(client, "deliveries", |delivery| {
        match delivery["status"].as_str() {
            Some("delivered") => outcome.delivered += 1,
            Some("filtered") => outcome.filtered += 1,
            Some("dead") => outcome.dead += 1,
            _ => outcome.open += 1,
        }
        outcome.retried += u64::from(delivery["attempts"].as_u64() > Some(1));
    })
    .await?;
    Ok(outcome)
}

async fn count(client: &Client, what: &str, mut each: impl FnMut(&Value)) -> Result<u64> {
    let (mut total, mut cursor) = (0, String::new());
    loop {
        let path = client.path(&[what]).map_err(told)?;
        let path = format!("{path}?limit=250&cursor={cursor}");
        let page = client.get(&path).await.map_err(told)?;
        for item in page["data"].as_array().into_iter().flatten() {
            total += 1;
            each(item);
        }
        match page["next_cursor"].as_str() {
            Some(next) => next.clone_into(&mut cursor),
            None => return Ok(total),
        }
    }
}

/// Prints what happened; whether the books agree.
fn summarise(outcome: &Outcome, healthy: &Receiver, flaky: &Receiver, accepted: u64) -> bool {
    let (warehouse, accounting) = (healthy.tally(), flaky.tally());
    let received = (warehouse.accepted.len() + accounting.accepted.len()) as u64;
    let mut latency = warehouse.latency.clone();
    // Both have the same bounds.
    let _ = latency.add(&accounting.latency);
    let percentile = |it: f64| format!("{} ms", latency.value_at_quantile(it));
    for (what, value) in [
        ("accepted", accepted.to_string()),
        ("filtered by the plugin", outcome.filtered.to_string()),
        ("rewritten", (warehouse.rewritten + accounting.rewritten).to_string()),
        ("delivered", outcome.delivered.to_string()),
        ("retried", outcome.retried.to_string()),
        ("dead", outcome.dead.to_string()),
        ("signatures refused", (warehouse.unsigned + accounting.unsigned).to_string()),
        ("first attempt p50", percentile(0.5)),
        ("first attempt p99", percentile(0.99)),
    ] {
        output::line(&format!("{what:>24}  {value}"));
    }
    let agrees = outcome.events == accepted
        && outcome.open == 0
        && outcome.delivered == received
        && warehouse.unsigned + accounting.unsigned == 0;
    if agrees {
        output::line("every accepted event was delivered, filtered or is kept as a dead letter");
    } else {
        output::note(&format!("the books do not agree: {outcome:?}, {received} received"));
    }
    agrees
}

async fn keep(client: &Client, key: &str) -> Result<()> {
    output::line("look further, in another terminal:");
    output::line(&format!("  export HOOKGATE_SERVER={} HOOKGATE_KEY={key}", client.server));
    for command in [
        "hookgate dead-letters list",
        "hookgate deliveries list --status filtered",
        "hookgate deliveries list --endpoint accounting",
        "hookgate dead-letters redrive --endpoint accounting",
        "hookgate send order.created -d '{\"card\": {\"number\": \"4242424242424242\"}}'",
        "hookgate tail",
    ] {
        output::line(&format!("  {command}"));
    }
    output::note("serving until you press ctrl-c");
    tokio::signal::ctrl_c().await?;
    Ok(())
}

fn told(failure: Failure) -> anyhow::Error {
    let details = failure.details.join("; ");
    anyhow!("{failure}{}{details}", if details.is_empty() { "" } else { ": " })
}
