//! What uses of a plugin ask of a version: the hooks that they live by, and that it takes their
//! configuration. Endpoints and the ingest chain that follow the active version get another one
//! only if it suits them.

use std::{collections::BTreeMap, sync::Arc};

use crate::api::caller::Access;
use crate::api::gateway::Gateway;
use crate::api::invoke;
use crate::api::page::Query;
use crate::api::problem::{FieldError, Problem, Result};
use crate::domain::{Endpoint, IngestUse, PluginName, PluginUse, Scheme};
use crate::plugins::{Artifact, Configure, FaultKind, Hooks};

/// The code of a version without a hook that it needs.
pub(super) const NO_HOOK: &str = "plugin_no_hook";
const CONFIG_REFUSED: &str = "plugin_config_refused";

/// Whether a version suits whoever would follow it: it has the hooks they need, and takes the
/// configuration of each.
///
/// # Errors
/// 422 with each that it does not suit; `force` passes over that.
pub(super) async fn check(
    gateway: &Gateway,
    access: &Access,
    plugin: &PluginName,
    (artifact, force): (&Arc<Artifact>, bool),
) -> Result<()> {
    if force {
        return Ok(());
    }
    let missed = missed(access, plugin, artifact.hooks());
    if !missed.is_empty() {
        return Err(Problem::fields(NO_HOOK, missed));
    }
    let uses = access.shard.plugin_uses(&access.slug, plugin).into_iter();
    let at_endpoints = uses.filter(|(.., it)| it.version.is_none()).map(|(endpoint, place, it)| {
        (format!("/endpoints/{endpoint}/plugins/{place}/config"), it.config)
    });
    let chain = access.shard.ingest(&access.slug);
    let at_ingest = following(&chain, plugin);
    let at_ingest =
        at_ingest.map(|(place, it)| (format!("/ingest/{place}/config"), it.config.clone()));
    let mut errors = Vec::new();
    for (pointer, config) in at_endpoints.chain(at_ingest).collect::<Vec<_>>() {
        if let Some(detail) = refused(gateway, access, artifact, &config).await? {
            errors.push(FieldError { pointer, detail });
        }
    }
    match errors.is_empty() {
        true => Ok(()),
        false => Err(Problem::fields(CONFIG_REFUSED, errors)),
    }
}

fn following<'a>(
    chain: &'a [IngestUse],
    plugin: &'a PluginName,
) -> impl Iterator<Item = (usize, &'a IngestUse)> {
    let chain = chain.iter().enumerate();
    chain.filter(move |(_, it)| it.plugin == *plugin && it.version.is_none())
}

/// Where a version with these hooks would leave something undone that is done now.
fn missed(access: &Access, plugin: &PluginName, hooks: Hooks) -> Vec<FieldError> {
    let has = format!("the version has no more than `{}`", hooks.kind());
    let force = "if that is meant, `?force=true`";
    let mut errors = Vec::new();
    if !hooks.ingest {
        let chain = access.shard.ingest(&access.slug);
        errors.extend(following(&chain, plugin).map(|(place, _)| FieldError {
            pointer: format!("/ingest/{place}/plugin"),
            detail: format!("needs an `ingest` hook; {has}; {force}"),
        }));
    }
    let catalog = access.shard.catalog();
    let Some(tenant) = catalog.tenant(&access.slug) else { return errors };
    let kind_of = |it: &PluginUse| {
        let known = tenant.plugins.get(&it.plugin);
        let version = known.and_then(|known| known.version(it.version));
        version.map_or(Hooks::default(), |it| Hooks::of_kind(&it.kind))
    };
    let follows = |it: &PluginUse| it.plugin == *plugin && it.version.is_none();
    let signs_then = |it: &PluginUse| if follows(it) { hooks.sign } else { kind_of(it).sign };
    let lost = |endpoint: &Endpoint| {
        let needs = endpoint.signature.scheme == Scheme::Plugin;
        let signed = |signs: &dyn Fn(&PluginUse) -> bool| endpoint.plugins.iter().any(signs);
        needs && signed(&|it| kind_of(it).sign) && !signed(&signs_then)
    };
    for endpoint in tenant.endpoints.values() {
        for (place, it) in endpoint.plugins.iter().enumerate().filter(|(_, it)| follows(it)) {
            let now = kind_of(it);
            if !hooks.can_replace(now) {
                let pointer = format!("/endpoints/{}/plugins/{place}/plugin", endpoint.id);
                let detail = format!("runs `{}` now; {has}; {force}", now.kind());
                errors.push(FieldError { pointer, detail });
            }
        }
        if lost(endpoint) {
            let pointer = format!("/endpoints/{}/signature", endpoint.id);
            let detail = format!("needs a `sign` hook; {has}; {force}");
            errors.push(FieldError { pointer, detail });
        }
    }
    errors
}

/// A use of a plugin, wherever it is: which, a fixed version, and the configuration.
pub(super) type Used<'a> = (&'a PluginName, Option<u32>, &'a BTreeMap<String, String>);

/// Asks each plugin of a chain that is to be saved whether it has a hook for it and takes its
/// configuration.
///
/// # Errors
/// 422 with each that does not.
pub(super) async fn check_chain(
    gateway: &Gateway,
    access: &Access,
    chain: impl Iterator<Item = Used<'_>>,
    (suits, wanted): (fn(Hooks) -> bool, &str),
) -> Result<()> {
    let (mut errors, mut code) = (Vec::new(), CONFIG_REFUSED);
    for (place, (name, version, config)) in chain.enumerate() {
        let Some(plugin) = access.shard.plugin(&access.slug, name) else { continue };
        let artifact = invoke::artifact(gateway, access, &plugin, version).await?;
        if !suits(artifact.hooks()) {
            code = NO_HOOK;
            let pointer = format!("/plugins/{place}/plugin");
            errors.push(FieldError { pointer, detail: format!("has no {wanted} hook") });
        } else if let Some(detail) = refused(gateway, access, &artifact, config).await? {
            errors.push(FieldError { pointer: format!("/plugins/{place}/config"), detail });
        }
    }
    if errors.is_empty() { Ok(()) } else { Err(Problem::fields(code, errors)) }
}

/// Why a version does not take a configuration, if it does not.
async fn refused(
    gateway: &Gateway,
    access: &Access,
    artifact: &Arc<Artifact>,
    config: &BTreeMap<String, String>,
) -> Result<Option<String>> {
    let called = invoke::call(gateway, access, artifact.clone(), (config, false), Configure).await;
    match called.verdict {
        Ok(()) => Ok(None),
        Err(fault) if fault.kind == FaultKind::Overloaded => {
            Err(Problem::unavailable(fault.kind.name(), fault.detail))
        }
        Err(fault) => Ok(Some(fault.detail)),
    }
}

/// Whether a version can be tried with events as endpoints get them.
///
/// # Errors
/// 422 when its hooks are asked something else.
pub(super) fn need_delivering(artifact: &Artifact) -> Result<()> {
    let hooks = artifact.hooks();
    let detail = || {
        let kind = hooks.kind();
        format!("only a `filter` or `transform` can be tried like this; the version has `{kind}`")
    };
    if hooks.delivers() { Ok(()) } else { Err(Problem::unprocessable(NO_HOOK, detail())) }
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
