//! Endpoints that follow a plugin's active version: another version may not suit them.

use std::sync::Arc;

use crate::api::caller::Access;
use crate::api::gateway::Gateway;
use crate::api::invoke;
use crate::api::page::Query;
use crate::api::problem::{FieldError, Problem, Result};
use crate::domain::PluginName;
use crate::plugins::{Artifact, Configure, FaultKind};

/// Asks a version whether it takes the configuration of each endpoint that would follow it.
///
/// # Errors
/// 422 with each endpoint that it refuses; `force` passes over that.
pub(super) async fn check(
    gateway: &Gateway,
    access: &Access,
    plugin: &PluginName,
    (artifact, force): (&Arc<Artifact>, bool),
) -> Result<()> {
    if force {
        return Ok(());
    }
    let uses = access.shard.plugin_uses(&access.slug, plugin).into_iter();
    let at_endpoints = uses.filter(|(.., it)| it.version.is_none()).map(|(endpoint, place, it)| {
        (format!("/endpoints/{endpoint}/plugins/{place}/config"), it.config)
    });
    let chain = access.shard.ingest(&access.slug);
    let at_ingest = chain.iter().enumerate();
    let at_ingest = at_ingest.filter(|(_, it)| it.plugin == *plugin && it.version.is_none());
    let at_ingest =
        at_ingest.map(|(place, it)| (format!("/ingest/{place}/config"), it.config.clone()));
    let mut errors = Vec::new();
    for (pointer, config) in at_endpoints.chain(at_ingest).collect::<Vec<_>>() {
        let called = invoke::call(gateway, access, artifact.clone(), &config, Configure).await;
        match called.verdict {
            Ok(()) => {}
            Err(fault) if fault.kind == FaultKind::Overloaded => {
                return Err(Problem::unavailable("plugin_overloaded", fault.detail));
            }
            Err(fault) => errors.push(FieldError { pointer, detail: fault.detail }),
        }
    }
    match errors.is_empty() {
        true => Ok(()),
        false => Err(Problem::fields("plugin_config_refused", errors)),
    }
}

/// A query's `name`, which is true or false.
pub(super) fn flag(query: &Query, name: &str, otherwise: bool) -> Result<bool> {
    match query.get(name) {
        None => Ok(otherwise),
        Some("true") => Ok(true),
        Some("false") => Ok(false),
        Some(_) => {
            let detail = format!("`{name}` must be true or false");
            Err(Problem::bad_request("invalid_parameter", detail))
        }
    }
}
