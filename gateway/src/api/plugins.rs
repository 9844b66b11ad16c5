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
use crate::api::page::{Query, cursor, json_response, page};
use crate::api::problem::{Problem, Result};
use crate::api::{body, invoke, plugin_wire};
use crate::domain::{Plugin, PluginName, Scope};
use crate::plugins::{LEVELS, Refusal, Wanted};

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
    Ok(json_response(StatusCode::OK, &plugin_wire::plugin(&gateway, &access, &plugin)))
}

async fn logs(
    State(gateway): State<Gateway>,
    Path((slug, name)): Path<(String, String)>,
    headers: HeaderMap,
    uri: Uri,
) -> Result {
    let access = gateway.tenant(&headers, &slug, Scope::Read)?;
    let plugin = access.plugin(&name)?;
    let query = Query::parse(&uri, &["version", "level", "since"])?;
    let (limit, before) = (query.limit()?, query.cursor("pl")?.map(|[it]| it));
    let wanted = Wanted { before, ..read_wanted(&query)? };
    let diary = gateway.plugins.diary();
    let lines = diary.lines(&access.slug.shared(), &plugin.name, &wanted, limit);
    let next = lines.last().filter(|_| lines.len() == limit);
    let next = next.map(|it| cursor("pl", &[it.number]));
    Ok(page(&lines.iter().map(plugin_wire::logged).collect::<Vec<_>>(), next))
}

/// Which lines of a log a query asks for.
fn read_wanted(query: &Query) -> Result<Wanted<'_>> {
    let invalid = |detail: &str| Problem::bad_request("invalid_parameter", detail);
    let version = query.get("version").map(|it| it.parse().ok());
    let version = version.map(|it| it.ok_or_else(|| invalid("`version` must be a number")));
    let level = query.get("level");
    if level.is_some_and(|it| !LEVELS.contains(&it)) {
        return Err(invalid(&format!("`level` must be one of {}", LEVELS.join(", "))));
    }
    let (version, since) = (version.transpose()?, query.time("since")?);
    Ok(Wanted { version, level, since, ..Wanted::default() })
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
