use axum::{
    Router,
    body::Body,
    extract::{Path, State},
    response::{IntoResponse, Response},
    routing::get,
};
use http::{HeaderMap, StatusCode, Uri};

use crate::api::gateway::Gateway;
use crate::api::page::{Query, json_response, page};
use crate::api::problem::{Problem, Result};
use crate::api::{body, quota_body, wire};
use crate::domain::{Scope, Slug};

const NAME_CHARS_MAX: usize = 256;

pub(super) fn routes() -> Router<Gateway> {
    Router::new()
        .route("/v1/tenants", get(list))
        .route("/v1/tenants/{tenant}", get(read).put(put).delete(delete))
}

async fn list(State(gateway): State<Gateway>, headers: HeaderMap, uri: Uri) -> Result {
    gateway.operator(&headers)?;
    let query = Query::parse(&uri, &[])?;
    let (limit, [skip]) = (query.limit()?, query.cursor("t")?.unwrap_or([0]));
    let mut all = Vec::new();
    for shard in gateway.store.shards() {
        all.extend(shard.catalog().tenants().map(|it| it.tenant.clone()));
    }
    all.sort_by(|one, other| (other.created_at, &other.slug).cmp(&(one.created_at, &one.slug)));
    let skip = usize::try_from(skip).unwrap_or(usize::MAX);
    let data: Vec<_> = all.iter().skip(skip).take(limit).map(wire::tenant).collect();
    let next = (skip.saturating_add(limit) < all.len()).then(|| (skip + limit) as u64);
    Ok(page(&data, next.map(|it| crate::api::page::cursor("t", &[it]))))
}

async fn read(
    State(gateway): State<Gateway>,
    Path(slug): Path<String>,
    headers: HeaderMap,
) -> Result {
    let access = gateway.tenant(&headers, &slug, Scope::Read)?;
    let catalog = access.shard.catalog();
    let entry =
        catalog.tenant(&access.slug).ok_or_else(|| Problem::not_found("tenant_not_found"))?;
    Ok(json_response(StatusCode::OK, &wire::tenant(&entry.tenant)))
}

async fn put(
    State(gateway): State<Gateway>,
    Path(slug): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Result {
    gateway.operator(&headers)?;
    let slug = Slug::parse(&slug).ok_or_else(|| {
        Problem::unprocessable("invalid_tenant", "a tenant is [a-z0-9][a-z0-9_-]{0,63}")
    })?;
    let mut fields = body::object(&headers, body, gateway.limits.body_bytes_max).await?;
    let fits = |it: &str| (it.len() <= NAME_CHARS_MAX).then(|| it.to_owned());
    let name = fields.parsed("name", "a string of at most 256 bytes", fits);
    let quota = quota_body::read(&mut fields, gateway.plugins.config());
    fields.finish().map_err(Problem::invalid_fields)?;
    let name = name.unwrap_or_else(|| slug.to_string());
    let shard = gateway.store.shard(&slug);
    let (tenant, created) = shard.put_tenant_with(&slug, name, quota).await?;
    let status = if created { StatusCode::CREATED } else { StatusCode::OK };
    Ok(json_response(status, &wire::tenant(&tenant)))
}

async fn delete(
    State(gateway): State<Gateway>,
    Path(slug): Path<String>,
    headers: HeaderMap,
) -> Result<Response> {
    gateway.operator(&headers)?;
    let slug = Slug::parse(&slug).ok_or_else(|| Problem::not_found("tenant_not_found"))?;
    gateway.store.shard(&slug).delete_tenant(&slug).await?;
    gateway.plugins.forget_tenant(slug.as_str());
    Ok(StatusCode::NO_CONTENT.into_response())
}
