use axum::{
    Router,
    body::Body,
    extract::{Path, State},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use serde_json::{Value, json};

use crate::api::caller::Access;
use crate::api::gateway::Gateway;
use crate::api::page::{Query, json_response, page};
use crate::api::problem::{Problem, Result};
use crate::api::{body, invoke};
use crate::domain::{Plugin, PluginName, PluginVersion, Scope};
use crate::plugins::{Digest, Refusal};

pub(super) fn routes() -> Router<Gateway> {
    let base = "/v1/tenants/{tenant}/plugins";
    Router::new()
        .route(base, get(list))
        .route(&format!("{base}/{{name}}"), get(read).put(upload).delete(delete))
        .route(&format!("{base}/{{name}}/versions/{{version}}/wasm"), get(component))
        .route(&format!("{base}/{{name}}/activate"), post(activate))
        .route(&format!("{base}/{{name}}/invoke"), post(invoke::invoke))
        .route(&format!("{base}/{{name}}/logs"), get(logs))
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
    let query = Query::parse(&uri, &["activate"])?;
    let activate = match query.get("activate") {
        None | Some("true") => true,
        Some("false") => false,
        Some(_) => {
            let detail = "`activate` must be true or false";
            return Err(Problem::bad_request("invalid_parameter", detail));
        }
    };
    if !body::is_type(&headers, "application/wasm") {
        return Err(body::unsupported("application/wasm"));
    }
    let bytes = body::read(&headers, body, gateway.limits.component_bytes_max).await?;
    let artifact = gateway.plugins.check(bytes.clone()).await.map_err(refused)?;
    // A part of a body must not keep the whole connection's buffer.
    let upload = (Bytes::copy_from_slice(&bytes), artifact.digest().0);
    let kind = artifact.hooks().kind();
    let uploaded = access.shard.put_plugin(&access.slug, (&name, &kind), upload, activate).await?;
    let status = if uploaded.created { StatusCode::CREATED } else { StatusCode::OK };
    let mut rendered = render(&gateway, &access, &uploaded.plugin);
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

fn render(gateway: &Gateway, access: &Access, plugin: &Plugin) -> Value {
    let versions: Vec<_> = plugin.versions.iter().rev().map(render_version).collect();
    let users = access.shard.plugin_users(&access.slug, &plugin.name);
    let stats = gateway.plugins.diary().stats(&access.slug.shared(), &plugin.name);
    json!({
        "name": plugin.name.as_str(),
        "kind": plugin.kind,
        "active_version": plugin.active_version,
        "versions": versions,
        "used_by": users.iter().map(|it| it.as_str()).collect::<Vec<_>>(),
        "stats": { "calls": stats.calls, "drops": stats.drops, "errors": stats.errors },
    })
}

fn render_version(it: &PluginVersion) -> Value {
    json!({
        "version": it.version,
        "sha256": Digest(it.digest).to_string(),
        "size": it.size,
        "created_at": it.created_at.to_string(),
    })
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
    let data: Vec<_> = plugins.iter().map(|it| render(&gateway, &access, it)).collect();
    Ok(page(&data, None))
}

async fn read(
    State(gateway): State<Gateway>,
    Path((slug, name)): Path<(String, String)>,
    headers: HeaderMap,
) -> Result {
    let access = gateway.tenant(&headers, &slug, Scope::Read)?;
    let plugin = access.plugin(&name)?;
    Ok(json_response(StatusCode::OK, &render(&gateway, &access, &plugin)))
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
    body: Body,
) -> Result {
    let access = gateway.tenant(&headers, &slug, Scope::Manage)?;
    let name = access.plugin(&name)?.name;
    let mut fields = body::object(&headers, body, gateway.limits.body_bytes_max).await?;
    let version = fields.whole("version", 1, u32::MAX);
    let version = fields.need("version", version);
    fields.finish().map_err(Problem::invalid_fields)?;
    let activated = access.shard.activate_plugin(&access.slug, &name, version.unwrap_or(0)).await;
    let plugin = activated.map_err(|it| Problem::named(it, "plugin_version_not_found"))?;
    Ok(json_response(StatusCode::OK, &render(&gateway, &access, &plugin)))
}

async fn logs(
    State(gateway): State<Gateway>,
    Path((slug, name)): Path<(String, String)>,
    headers: HeaderMap,
    uri: Uri,
) -> Result {
    let access = gateway.tenant(&headers, &slug, Scope::Read)?;
    let plugin = access.plugin(&name)?;
    let limit = Query::parse(&uri, &[])?.limit()?;
    let lines = gateway.plugins.diary().lines(&access.slug.shared(), &plugin.name, limit);
    let line = |it: &crate::plugins::Logged| {
        json!({
            "at": it.at.to_string(),
            "event_id": it.event_id,
            "level": it.line.level,
            "message": it.line.message,
        })
    };
    Ok(page(&lines.iter().map(line).collect::<Vec<_>>(), None))
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
    Ok(StatusCode::NO_CONTENT.into_response())
}
