use axum::{
    body::Body,
    extract::{Path, State},
    response::{IntoResponse, Response},
};
use http::{HeaderMap, StatusCode};

use crate::api::caller::{Access, Need};
use crate::api::etag::{Belief, tagged};
use crate::api::gateway::Gateway;
use crate::api::keys::NAME_CHARS_MAX;
use crate::api::page::{Query, cursor, page};
use crate::api::problem::{Problem, Result};
use crate::api::route::{Route, delete, get, put};
use crate::api::{body, quota_body, wire};
use crate::domain::{Scope, Slug, Tenant};

const TENANT: &str = "/v1/tenants/{tenant}";

pub(super) fn routes() -> Vec<Route> {
    vec![
        get("/v1/tenants", Need::Operator, list, ("listTenants", "Tenants, newest first."))
            .gives_page("Tenant"),
        get(TENANT, Need::Scope(Scope::Read), read, ("getTenant", "One tenant."))
            .gives(200, "Tenant")
            .tagged(),
        put(TENANT, Need::Operator, put_tenant, ("putTenant", "Makes or changes a tenant."))
            .takes("TenantPut")
            .gives(201, "Tenant")
            .gives(200, "Tenant")
            .tagged()
            .refuses(422, "invalid_tenant"),
        delete(
            TENANT,
            Need::Operator,
            remove,
            ("deleteTenant", "Deletes a tenant with all its data."),
        )
        .gives_nothing()
        .tagged(),
    ]
}

async fn list(State(gateway): State<Gateway>, query: Query) -> Result {
    let limit = query.limit()?;
    let before =
        query.cursor("tenants")?.map_or((u64::MAX, 0, 0), |[at, shard, no]| (at, shard, no));
    let mut all = Vec::new();
    for shard in gateway.store.shards() {
        let place = |it: &Tenant| (it.created_at.0, shard.number().into(), it.no.0.into());
        let catalog = shard.catalog();
        let tenants = catalog.tenants().map(|it| (place(&it.tenant), it.tenant.clone()));
        all.extend(tenants.filter(|(place, _)| *place < before));
    }
    all.sort_by_key(|(place, _)| std::cmp::Reverse(*place));
    let more = all.len() > limit;
    all.truncate(limit);
    let next = all.last().filter(|_| more);
    let next = next.map(|((at, shard, no), _)| cursor("tenants", &[*at, *shard, *no]));
    let data: Vec<_> = all.iter().map(|(_, it)| wire::tenant(it)).collect();
    Ok(page(&data, next))
}

async fn read(access: Access) -> Result {
    let catalog = access.shard.catalog();
    let entry =
        catalog.tenant(&access.slug).ok_or_else(|| Problem::not_found("tenant_not_found"))?;
    Ok(tagged(StatusCode::OK, &wire::tenant(&entry.tenant)))
}

async fn put_tenant(
    State(gateway): State<Gateway>,
    Path(slug): Path<String>,
    belief: Belief,
    headers: HeaderMap,
    body: Body,
) -> Result {
    let slug = Slug::parse(&slug).ok_or_else(|| {
        Problem::unprocessable("invalid_tenant", "a tenant is [a-z0-9][a-z0-9_-]{0,63}")
    })?;
    let mut fields = body::object(&headers, body, gateway.limits.body_bytes_max).await?;
    let name = fields.text("name", NAME_CHARS_MAX);
    let said = fields.has("quota");
    let quota = quota_body::read(&mut fields, gateway.plugins.config()).unwrap_or_default();
    // What only the gateway writes may come back as it was read.
    if fields.take("id").is_some_and(|it| it.as_str() != Some(slug.as_str())) {
        fields.refuse("id", "a tenant keeps its id, which is the path's");
    }
    for shown in ["created_at", "updated_at"] {
        fields.take(shown);
    }
    fields.finish().map_err(Problem::invalid_fields)?;
    let default_name = slug.to_string();
    let change = move |there: Option<&Tenant>| {
        belief.holds(there.map(wire::tenant).as_ref())?;
        let name = name.or_else(|| there.map(|it| it.name.clone())).unwrap_or(default_name);
        let kept = there.map(|it| it.quota).unwrap_or_default();
        Ok((name, if said { quota } else { kept }))
    };
    let (tenant, created) = gateway.store.shard(&slug).put_tenant(&slug, change).await?;
    let status = if created { StatusCode::CREATED } else { StatusCode::OK };
    Ok(tagged(status, &wire::tenant(&tenant)))
}

async fn remove(
    State(gateway): State<Gateway>,
    Path(slug): Path<String>,
    belief: Belief,
) -> Result<Response> {
    let slug = Slug::parse(&slug).ok_or_else(|| Problem::not_found("tenant_not_found"))?;
    let agrees = move |there: &Tenant| belief.holds(Some(&wire::tenant(there)));
    let deleted = gateway.store.shard(&slug).delete_tenant(&slug, agrees).await;
    deleted.map_err(|it| Problem::named(it, "tenant_not_found"))?;
    gateway.plugins.forget_tenant(slug.as_str());
    Ok(StatusCode::NO_CONTENT.into_response())
}
