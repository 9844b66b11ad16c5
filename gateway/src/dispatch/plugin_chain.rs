use bytes::Bytes;

use crate::dispatch::Dispatcher;
use crate::domain::{Endpoint, Event, OnError, PluginUse, TenantNo};
use crate::plugins::{Call, Digest, EventIn, Fault, FaultKind, Verdict};

/// What an endpoint's plugins made of an event.
pub(super) enum Chained {
    /// Send this.
    Send(Rewritten),
    /// Not for this endpoint, and why.
    Dropped(String),
    /// A plugin failed, and this is what the endpoint wants then.
    Failed(Fault, OnError),
}

/// An event's data on its way through the chain.
pub(super) struct Rewritten {
    pub(super) data: Bytes,
    /// What the data is, if a plugin made something else than JSON of it.
    pub(super) content_type: Option<String>,
    pub(super) headers: Vec<(String, String)>,
    pub(super) path_suffix: String,
}

/// Runs the plugins in order, each on what the one before left.
pub(super) async fn run(work: &Dispatcher, endpoint: &Endpoint, event: &Event) -> Chained {
    let mut rewritten = Rewritten {
        data: event.data.clone(),
        content_type: None,
        headers: Vec::new(),
        path_suffix: String::new(),
    };
    for plugin in &endpoint.plugins {
        match call(work, endpoint, plugin, event, rewritten.data.clone()).await {
            Ok(Verdict::Deliver) => {}
            Ok(Verdict::Drop(reason)) => {
                return Chained::Dropped(format!("plugin {}: {reason}", plugin.plugin));
            }
            Ok(Verdict::Replace(out)) => {
                let json = out.content_type.starts_with("application/json");
                rewritten.content_type = (!json).then_some(out.content_type);
                rewritten.data = out.payload;
                rewritten.headers.extend(out.headers);
                rewritten.path_suffix.push_str(out.path_suffix.as_deref().unwrap_or_default());
            }
            Ok(Verdict::Split(_)) => {
                let detail = format!("plugin {}: split is not sent yet", plugin.plugin);
                let fault = Fault { kind: FaultKind::OutputInvalid, detail };
                return Chained::Failed(fault, OnError::DeadLetter);
            }
            Err(fault) => match plugin.on_error {
                OnError::Pass => {}
                OnError::Drop => {
                    let name = &plugin.plugin;
                    return Chained::Dropped(format!("plugin {name} failed: {}", fault.detail));
                }
                on_error @ (OnError::Retry | OnError::DeadLetter) => {
                    let detail = format!("plugin {}: {}", plugin.plugin, fault.detail);
                    return Chained::Failed(Fault { detail, ..fault }, on_error);
                }
            },
        }
    }
    Chained::Send(rewritten)
}

async fn call(
    work: &Dispatcher,
    endpoint: &Endpoint,
    plugin: &PluginUse,
    event: &Event,
    data: Bytes,
) -> Result<Verdict, Fault> {
    let failed = |detail: String| Fault { kind: FaultKind::Failed, detail };
    let host =
        work.plugins.as_ref().ok_or_else(|| failed("plugins are switched off".to_owned()))?;
    let known = work.shard.plugin(&endpoint.tenant, &plugin.plugin);
    let version = known.as_ref().and_then(|it| it.version(plugin.version));
    let version = version.ok_or_else(|| failed("there is no such version".to_owned()))?;
    let component = || component(work, event.tenant_no, plugin, version.version);
    let artifact = host.artifact(Digest(version.digest), component).await;
    let artifact = artifact.map_err(|it| failed(it.detail))?;
    let config = plugin.config.iter().map(|(key, value)| (key.clone(), value.clone())).collect();
    let (tenant, event_in) = (endpoint.tenant.shared(), EventIn::new(event, data));
    let call = Call { tenant, artifact, config, question: event_in, limits: None };
    let called = host.call(call).await;
    let (tenant, at) = (endpoint.tenant.shared(), work.clock.now());
    host.diary().note((&tenant, &plugin.plugin), (at, event.id.as_str()), &called);
    called.verdict
}

fn component(
    work: &Dispatcher,
    tenant: TenantNo,
    plugin: &PluginUse,
    version: u32,
) -> Option<Bytes> {
    let read = work.shard.component(tenant, &plugin.plugin, version);
    read.inspect_err(|error| tracing::error!(%error, "a plugin's component cannot be read")).ok()?
}
