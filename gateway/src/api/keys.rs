use axum::{
    Router,
    body::Body,
    extract::{Path, State},
    response::IntoResponse,
    routing::{delete, get},
};
use http::{HeaderMap, StatusCode, Uri};

use crate::api::caller::{hash_key, new_key};
use crate::api::gateway::Gateway;
use crate::api::page::{Query, cursor, json_response, page};
use crate::api::problem::{Problem, Result};
use crate::api::{body, wire};
use crate::domain::{ApiKey, Scope, TypeId};

pub(super) fn routes() -> Router<Gateway> {
    Router::new()
        .route("/v1/tenants/{tenant}/keys", get(list).post(create))
        .route("/v1/tenants/{tenant}/keys/{id}", delete(revoke))
}

async fn create(
    State(gateway): State<Gateway>,
    Path(slug): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Result {
    gateway.operator(&headers)?;
    let access = gateway.tenant(&headers, &slug, Scope::Manage)?;
    let mut fields = body::object(&headers, body, gateway.limits.body_bytes_max).await?;
    let name = fields.string("name");
    let scopes = fields.read("scopes", |it| {
        let names = it.as_array().filter(|it| !it.is_empty());
        let scopes = names.and_then(|it| {
            it.iter().map(|it| Scope::parse(it.as_str()?)).collect::<Option<Vec<_>>>()
        });
        scopes.ok_or("must be a list of manage, produce, read".to_owned())
    });
    let expires_at = fields.parsed("expires_at", "a time of RFC 3339", wire::parse_time);
    let name = fields.need("name", name);
    let scopes = fields.need("scopes", scopes);
    fields.finish().map_err(Problem::invalid_fields)?;
    let (now, random) = access.shard.draw();
    let id = TypeId::new("key", now, random).to_string();
    let text = new_key(&id, gateway.random_bytes());
    let key = ApiKey {
        id,
        tenant: access.slug.clone(),
        name: name.unwrap_or_default(),
        scopes: scopes.unwrap_or_default(),
        hash: hash_key(&text),
        created_at: now,
        expires_at,
    };
    access.shard.put_key(&key).await?;
    let mut rendered = wire::key(&key);
    rendered["key"] = text.into();
    Ok(json_response(StatusCode::CREATED, &rendered))
}

async fn list(
    State(gateway): State<Gateway>,
    Path(slug): Path<String>,
    headers: HeaderMap,
    uri: Uri,
) -> Result {
    gateway.operator(&headers)?;
    let access = gateway.tenant(&headers, &slug, Scope::Manage)?;
    let query = Query::parse(&uri, &[])?;
    let (limit, [skip]) = (query.limit()?, query.cursor("k")?.unwrap_or([0]));
    let catalog = access.shard.catalog();
    let keys = catalog.tenant(&access.slug).into_iter().flat_map(|it| it.keys.values().rev());
    let skip = usize::try_from(skip).unwrap_or(usize::MAX);
    let mut keys = keys.skip(skip);
    let data: Vec<_> = keys.by_ref().take(limit).map(|it| wire::key(it)).collect();
    let next = keys.next().map(|_| cursor("k", &[(skip + limit) as u64]));
    Ok(page(&data, next))
}

async fn revoke(
    State(gateway): State<Gateway>,
    Path((slug, id)): Path<(String, String)>,
    headers: HeaderMap,
) -> Result {
    gateway.operator(&headers)?;
    let access = gateway.tenant(&headers, &slug, Scope::Manage)?;
    let revoked = access.shard.revoke_key(&access.slug, &id).await;
    revoked.map_err(|it| Problem::named(it, "key_not_found"))?;
    Ok(StatusCode::NO_CONTENT.into_response())
}
