use axum::{
    Router,
    body::Body,
    extract::{Path, State},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode, Uri, header};

use crate::api::caller::Access;
use crate::api::gateway::Gateway;
use crate::api::page::{Query, json_response, page};
use crate::api::problem::{Problem, Result};
use crate::api::{backtest, body, invoke, plugin_follow, plugin_log, plugin_wire};
use crate::domain::{Plugin, PluginName, Scope};
use crate::plugins::Refusal;

pub(super) fn routes() -> Router<Gateway> {
    let base = "/v1/tenants/{tenant}/plugins";
    Router::new()
        .route(base, get(list))
        .route(&format!("{base}/{{name}}"), get(read).put(upload).delete(delete))
        .route(&format!("{base}/{{name}}/versions/{{version}}/wasm"), get(component))
        .route(&format!("{base}/{{name}}/activate"), post(activate))
        .route(&format!("{base}/{{name}}/backtest"), post(backtest::run))
        .route(&format!("{base}/{{name}}/invoke"), post(invoke::invoke))
        .route(&format!("{base}/{{name}}/logs"), get(plugin_log::read))
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
    Path((slug, name)): Path<(String, String)>,
    headers: HeaderMap,
    uri: Uri,
    body: Body,
) -> Result {
    let access = gateway.tenant(&headers, &slug, Scope::Manage)?;
    let name = PluginName::parse(&name).ok_or_else(|| {
        Problem::unprocessable("invalid_plugin_name", "a name is [a-z0-9][a-z0-9_-]{0,63}")
    })?;
    let query = Query::parse(&uri, &["activate", "force"])?;
    let activate = plugin_follow::flag(&query, "activate", true)?;
    let force = plugin_follow::flag(&query, "force", false)? || !activate;
    if !body::is_type(&headers, "application/wasm") {
        return Err(body::unsupported("application/wasm"));
    }
    let bytes = body::read(&headers, body, gateway.limits.component_bytes_max).await?;
    let artifact = gateway.plugins.check(bytes.clone()).await.map_err(refused)?;
    plugin_follow::check(&gateway, &access, &name, (&artifact, force)).await?;
    // A part of a body must not keep the whole connection's buffer.
    let upload = (Bytes::copy_from_slice(&bytes), artifact.digest().0);
    let kind = artifact.hooks().kind();
    let uploaded = access.shard.put_plugin(&access.slug, (&name, &kind), upload, activate).await?;
    let status = if uploaded.created { StatusCode::CREATED } else { StatusCode::OK };
    let mut rendered = plugin_wire::plugin(&gateway, &access, &uploaded.plugin);
    rendered["version"] = uploaded.version.into();
    rendered["sha256"] = artifact.digest().to_string().into();
    Ok(json_response(status, &rendered))
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

async fn list(
    State(gateway): State<Gateway>,
    Path(slug): Path<String>,
    headers: HeaderMap,
) -> Result {
    let access = gateway.tenant(&headers, &slug, Scope::Read)?;
    let plugins: Vec<_> = {
        let catalog = access.shard.catalog();
        let entry = catalog.tenant(&access.slug);
        entry.into_iter().flat_map(|it| it.plugins.values().cloned()).collect()
    };
    let data: Vec<_> =
        plugins.iter().map(|it| plugin_wire::plugin(&gateway, &access, it)).collect();
    Ok(page(&data, None))
}

async fn read(
    State(gateway): State<Gateway>,
    Path((slug, name)): Path<(String, String)>,
    headers: HeaderMap,
) -> Result {
    let access = gateway.tenant(&headers, &slug, Scope::Read)?;
    let plugin = access.plugin(&name)?;
    Ok(json_response(StatusCode::OK, &plugin_wire::plugin(&gateway, &access, &plugin)))
}

async fn component(
    State(gateway): State<Gateway>,
    Path((slug, name, version)): Path<(String, String, u32)>,
    headers: HeaderMap,
) -> Result {
    let access = gateway.tenant(&headers, &slug, Scope::Read)?;
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
    Path((slug, name)): Path<(String, String)>,
    headers: HeaderMap,
    uri: Uri,
    body: Body,
) -> Result {
    let access = gateway.tenant(&headers, &slug, Scope::Manage)?;
    let force = plugin_follow::flag(&Query::parse(&uri, &["force"])?, "force", false)?;
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
    // What was deferred because of the version before may go on.
    gateway.plugins.breakers().forget(access.slug.as_str(), Some(&plugin.name));
    Ok(json_response(StatusCode::OK, &plugin_wire::plugin(&gateway, &access, &plugin)))
}

async fn delete(
    State(gateway): State<Gateway>,
    Path((slug, name)): Path<(String, String)>,
    headers: HeaderMap,
) -> Result {
    let access = gateway.tenant(&headers, &slug, Scope::Manage)?;
    let name = access.plugin(&name)?.name;
    let deleted = access.shard.delete_plugin(&access.slug, &name).await;
    deleted.map_err(|it| Problem::named(it, "plugin_not_found"))?;
    gateway.plugins.forget(access.slug.as_str(), &name);
    Ok(StatusCode::NO_CONTENT.into_response())
}
