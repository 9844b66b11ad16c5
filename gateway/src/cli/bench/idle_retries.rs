use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::json;

use crate::cli::bench::args::Backlog;
use crate::cli::bench::event::Template;
use crate::cli::bench::gateway::Gateway;
use crate::cli::bench::part::{Part, Role};
use crate::cli::bench::progress::Progress;
use crate::cli::bench::receiver::Mood;
use crate::cli::bench::report::Section;
use crate::cli::bench::stage::folder;
use crate::world::SystemClock;

/// As many as a tenant may have, divided so that several tenants are there.
const PER_TENANT: usize = 5_000;
/// Until idle connections of the first attempts are closed, and what was worked out of URLs that
/// are not asked any more is forgotten.
const SETTLE: Duration = Duration::from_secs(75);
/// Where there are few they weigh little.
const SETTLE_PER_ENDPOINT: Duration = Duration::from_millis(20);

/// Somebody else's events, so that threads look at what others have freed of their memory.
const TRAFFIC: u64 = 5_000;
const OTHERS: &str = "others";

/// Many endpoints that each have failed once and wait for their retry.
pub(super) async fn run(flags: &Backlog, progress: &Progress) -> Result<Section> {
    let folder = folder(&flags.common)?;
    let gateway = Gateway::start(&folder.path().join("data")).await?;
    let receiver = Part::start(&Role::Receiver(Mood::Answer(500))).await?;
    let tenants: Vec<_> = (0..flags.endpoints.div_ceil(PER_TENANT)).collect();
    let others = Part::start(&Role::Receiver(Mood::Answer(200))).await?;
    gateway.make_tenant(OTHERS).await?;
    gateway.make_endpoint(OTHERS, &json!({ "url": others.url })).await?;
    let body = json!({ "url": receiver.url, "retry": { "schedule": ["1h"] } });
    let resident = || anyhow::Ok(gateway.usage()?.context("the gateway has ended")?.resident_kib);
    for tenant in &tenants {
        let made = tenant * PER_TENANT;
        progress.tell(format!("{made} of {} endpoints are made", flags.endpoints));
        gateway.make_tenant(&format!("tenant-{tenant}")).await?;
        let count = (flags.endpoints - made).min(PER_TENANT);
        gateway.make_endpoints(&format!("tenant-{tenant}"), count, |_| body.clone()).await?;
    }
    let settle = SETTLE.min(SETTLE_PER_ENDPOINT * flags.endpoints as u32);
    let event = Template::new(0).at(SystemClock::microseconds());
    gateway.flood(OTHERS, &event, TRAFFIC).await?;
    gateway.await_pending(|it| it == 0).await?;
    tokio::time::sleep(settle).await;
    let before = resident()?;
    progress.tell("each endpoint fails once");
    for tenant in &tenants {
        gateway.flood(&format!("tenant-{tenant}"), &event, 1).await?;
    }
    let endpoints = flags.endpoints as f64;
    let mut scheduled = 0.0;
    while scheduled < endpoints {
        tokio::time::sleep(Duration::from_millis(100)).await;
        let gauge = gateway.client.gauge("hookgate_deliveries_pending{state=\"scheduled\"").await;
        scheduled = gauge.map_err(|it| anyhow::anyhow!("{it}"))?;
    }
    tokio::time::sleep(settle).await;
    let after = resident()?;
    gateway.flood(OTHERS, &event, TRAFFIC).await?;
    gateway.await_pending(|it| it <= flags.endpoints as u64).await?;
    tokio::time::sleep(settle).await;
    let later = resident()?;
    let each = |resident: f64| (resident - before) * 1024.0 / endpoints;
    let mut section = Section::new(format!("{endpoints} endpoints with a pending retry each"));
    section.figure("scheduled", scheduled);
    section.figure("resident_before_mib", before / 1024.0);
    section.figure("resident_after_mib", after / 1024.0);
    section.figure("bytes_per_endpoint_with_retry", each(after));
    section.figure("resident_after_traffic_mib", later / 1024.0);
    section.figure("bytes_per_endpoint_after_traffic", each(later));
    Ok(section)
}
