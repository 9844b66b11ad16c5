use axum::{
    body::Body,
    extract::{Path, State},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode, header};

use crate::api::caller::{Access, Need};
use crate::api::gateway::Gateway;
use crate::api::page::{Query, json_response};
use crate::api::problem::{Problem, Result};
use crate::api::route::{Route, delete, get, post, put};
use crate::api::{backtest, body, invoke, plugin_follow, plugin_log, plugin_wire};
use crate::domain::{Plugin, PluginName, Scope};
use crate::plugins::Refusal;

const PLUGIN: &str = "/v1/tenants/{tenant}/plugins/{name}";

pub(super) fn routes() -> Vec<Route> {
    let (read_, manage) = (Need::Scope(Scope::Read), Need::Scope(Scope::Manage));
    vec![
        get(
            "/v1/tenants/{tenant}/plugins",
            read_,
            list,
            ("listPlugins", "The tenant's plugins, newest first."),
        )
        .gives_page("Plugin"),
        get(PLUGIN, read_, read, ("getPlugin", "One plugin with its versions."))
            .gives(200, "Plugin")
            .refuses(404, "plugin_not_found"),
        put(PLUGIN, manage, upload, ("putPlugin", "Uploads a component as a new version."))
            .query(&["activate", "force"])
            .takes_as("application/wasm", "Component")
            .gives(201, "Plugin")
            .gives(200, "Plugin")
            .refuses(422, "invalid_plugin_name")
            .refuses(422, "plugin_invalid")
            .refuses(422, "plugin_no_hook")
            .refuses(422, "plugin_config_refused")
            .refuses(503, "plugin_compile_failed"),
        delete(PLUGIN, manage, remove, ("deletePlugin", "Deletes a plugin that no endpoint uses."))
            .gives_nothing()
            .refuses(404, "plugin_not_found")
            .refuses(409, "plugin_in_use"),
        get(
            "/v1/tenants/{tenant}/plugins/{name}/versions/{version}/wasm",
            read_,
            component,
            ("getComponent", "The bytes of a version."),
        )
        .gives_as(200, "application/wasm", "Component")
        .refuses(404, "plugin_version_not_found"),
    ]
    .into_iter()
    .chain(life())
    .collect()
}

/// What is done with versions.
fn life() -> Vec<Route> {
    let (read_, manage) = (Need::Scope(Scope::Read), Need::Scope(Scope::Manage));
    vec![
        post(
            "/v1/tenants/{tenant}/plugins/{name}/activate",
            manage,
            activate,
            ("activatePlugin", "Rolls forward or back, for the next event on."),
        )
        .query(&["force"])
        .takes("Activation")
        .gives(200, "Plugin")
        .refuses(404, "plugin_version_not_found")
        .refuses(422, "plugin_no_hook")
        .refuses(422, "plugin_config_refused"),
        post(
            "/v1/tenants/{tenant}/plugins/{name}/backtest",
            manage,
            backtest::run,
            ("backtestPlugin", "What a version would do differently with stored events."),
        )
        .takes("NewBacktest")
        .gives(200, "Backtest")
        .gives_as(200, "application/x-ndjson", "BacktestLines")
        .refuses(404, "endpoint_not_found")
        .refuses(422, "plugin_no_hook")
        .refuses(404, "plugin_version_not_found"),
        post(
            "/v1/tenants/{tenant}/plugins/{name}/invoke",
            manage,
            invoke::invoke,
            ("invokePlugin", "Tries a plugin: nothing is sent, nothing is stored."),
        )
        .takes("Invocation")
        .gives(200, "Invoked")
        .refuses(422, "events_required")
        .refuses(422, "plugin_no_hook")
        .refuses(404, "plugin_version_not_found"),
        get(
            "/v1/tenants/{tenant}/plugins/{name}/logs",
            read_,
            plugin_log::read,
            ("listPluginLogs", "What the plugin logged, newest first."),
        )
        .query(&["version", "level", "since", "follow"])
        .header("Last-Event-ID")
        .gives_page("PluginLog")
        .gives_as(200, "text/event-stream", "LogStream")
        .refuses(404, "plugin_not_found"),
    ]
}

impl Access {
    /// A plugin of the tenant.
    pub(super) fn plugin(&self, name: &str) -> Result<Plugin> {
        let name = PluginName::parse(name);
        let found = name.and_then(|it| self.shard.plugin(&self.slug, &it));
        found.ok_or_else(|| Problem::not_found("plugin_not_found"))
    }
}

async fn upload(
    State(gateway): State<Gateway>,
    access: Access,
    Path((_, name)): Path<(String, String)>,
    headers: HeaderMap,
    query: Query,
    body: Body,
) -> Result {
    let name = PluginName::parse(&name).ok_or_else(|| {
        Problem::unprocessable("invalid_plugin_name", "a name is [a-z0-9][a-z0-9_-]{0,63}")
    })?;
    let activate = plugin_follow::flag(&query, "activate", true)?;
    let force = plugin_follow::flag(&query, "force", false)? || !activate;
    if !body::is_type(&headers, "application/wasm") {
        return Err(body::unsupported("application/wasm"));
    }
    let max = gateway.limits.component_bytes_max;
    let bytes = body::read_large(&headers, body, max, &gateway.limits.bodies).await?;
    let artifact = gateway.plugins.check(bytes.clone()).await.map_err(refused)?;
    plugin_follow::check(&gateway, &access, &name, (&artifact, force)).await?;
    // A part of a body must not keep the whole connection's buffer.
    let upload = (Bytes::copy_from_slice(&bytes), artifact.digest().0);
    let kind = artifact.hooks().kind();
    let active = |it: &Plugin| it.active_version;
    let before = access.shard.plugin(&access.slug, &name).as_ref().map(active);
    let uploaded = access.shard.put_plugin(&access.slug, (&name, &kind), upload, activate).await?;
    if before.is_some_and(|it| it != active(&uploaded.plugin)) {
        resume(&gateway, &access, &uploaded.plugin);
    }
    let status = if uploaded.created { StatusCode::CREATED } else { StatusCode::OK };
    let mut rendered = plugin_wire::plugin(&gateway, &access, &uploaded.plugin);
    rendered["version"] = uploaded.version.into();
    rendered["sha256"] = artifact.digest().to_string().into();
    Ok(json_response(status, &rendered))
}

/// What was deferred because of the version before may go on.
fn resume(gateway: &Gateway, access: &Access, plugin: &Plugin) {
    gateway.plugins.breakers().forget(access.slug.as_str(), Some(&plugin.name));
}

fn refused(refusal: Refusal) -> Problem {
    match refusal.code {
        "plugin_too_large" => Problem::too_large(refusal.detail),
        "plugin_compile_failed" => {
            tracing::error!(error = %refusal, "plugins cannot be compiled");
            Problem::unavailable("plugin_compile_failed", "the compiler cannot run now; try again")
        }
        code => Problem::unprocessable(code, refusal.detail),
    }
}

async fn list(State(gateway): State<Gateway>, access: Access, query: Query) -> Result {
    let mut plugins: Vec<_> = {
        let catalog = access.shard.catalog();
        let entry = catalog.tenant(&access.slug);
        entry.into_iter().flat_map(|it| it.plugins.values().cloned()).collect()
    };
    let age = |it: &Plugin| it.versions.first().map(|it| it.created_at);
    plugins.sort_by_key(|it| std::cmp::Reverse(age(it)));
    let shown = plugins.iter().map(|it| plugin_wire::plugin(&gateway, &access, it));
    query.page_of(&access.list("plugins"), shown)
}

async fn read(
    State(gateway): State<Gateway>,
    access: Access,
    Path((_, name)): Path<(String, String)>,
) -> Result {
    let plugin = access.plugin(&name)?;
    Ok(json_response(StatusCode::OK, &plugin_wire::plugin(&gateway, &access, &plugin)))
}

async fn component(
    access: Access,
    Path((_, name, version)): Path<(String, String, u32)>,
) -> Result {
    let plugin = access.plugin(&name)?;
    let bytes = access.shard.component(access.no, &plugin.name, version)?;
    let bytes = bytes.ok_or_else(|| Problem::not_found("plugin_version_not_found"))?;
    let mut response = Response::new(Body::from(bytes));
    let wasm = HeaderValue::from_static("application/wasm");
    response.headers_mut().insert(header::CONTENT_TYPE, wasm);
    Ok(response)
}

async fn activate(
    State(gateway): State<Gateway>,
    access: Access,
    Path((_, name)): Path<(String, String)>,
    headers: HeaderMap,
    query: Query,
    body: Body,
) -> Result {
    let force = plugin_follow::flag(&query, "force", false)?;
    let plugin = access.plugin(&name)?;
    let mut fields = body::object(&headers, body, gateway.limits.body_bytes_max).await?;
    let version = fields.whole("version", 1, u32::MAX);
    let version = fields.need("version", version);
    fields.finish().map_err(Problem::invalid_fields)?;
    let artifact = invoke::artifact(&gateway, &access, &plugin, version).await?;
    plugin_follow::check(&gateway, &access, &plugin.name, (&artifact, force)).await?;
    let (name, version) = (&plugin.name, version.unwrap_or(0));
    let activated = access.shard.activate_plugin(&access.slug, name, version).await;
    let plugin = activated.map_err(|it| Problem::named(it, "plugin_version_not_found"))?;
    resume(&gateway, &access, &plugin);
    Ok(json_response(StatusCode::OK, &plugin_wire::plugin(&gateway, &access, &plugin)))
}

async fn remove(
    State(gateway): State<Gateway>,
    access: Access,
    Path((_, name)): Path<(String, String)>,
) -> Result {
    let name = access.plugin(&name)?.name;
    let deleted = access.shard.delete_plugin(&access.slug, &name).await;
    deleted.map_err(|it| Problem::named(it, "plugin_not_found"))?;
    gateway.plugins.forget(access.slug.as_str(), &name);
    Ok(StatusCode::NO_CONTENT.into_response())
}
