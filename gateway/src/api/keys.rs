use std::time::Duration;

use axum::{
    body::Body,
    extract::{Path, State},
    response::IntoResponse,
};
use http::{HeaderMap, StatusCode};
use serde_json::json;

use crate::api::caller::{Access, Need};
use crate::api::caller::{hash_key, new_key};
use crate::api::endpoint_body::read_rate;
use crate::api::fields::Fields;
use crate::api::gateway::Gateway;
use crate::api::page::{Query, cursor, page, secret_response};
use crate::api::problem::{Problem, Result};
use crate::api::route::{Route, delete, get, post};
use crate::api::{body, wire};
use crate::domain::{ApiKey, Scope, TypeId};

/// How long what people call a key or a tenant may be.
pub(super) const NAME_CHARS_MAX: usize = 256;
const GRACE_DEFAULT: Duration = Duration::from_secs(24 * 3600);
const GRACE_MAX: Duration = Duration::from_secs(7 * 24 * 3600);

const KEYS: &str = "/v1/tenants/{tenant}/keys";
const KEY: &str = "/v1/tenants/{tenant}/keys/{id}";

pub(super) fn routes() -> Vec<Route> {
    vec![
        get(KEYS, Need::Operator, list, ("listKeys", "A tenant's keys, without their secrets."))
            .gives_page("Key"),
        post(
            KEYS,
            Need::Operator,
            create,
            ("createKey", "Makes a key; its text is shown this once."),
        )
        .takes("NewKey")
        .gives(201, "MadeKey"),
        post(
            "/v1/tenants/{tenant}/keys/{id}/rotate",
            Need::Operator,
            rotate,
            ("rotateKey", "A new text for the key; the old one opens too for a while."),
        )
        .may_take("KeyRotation")
        .gives(200, "MadeKey")
        .refuses(404, "key_not_found"),
        delete(
            KEY,
            Need::Operator,
            revoke,
            ("revokeKey", "Revokes a key: refused from the next request on; its streams end."),
        )
        .gives_nothing()
        .refuses(404, "key_not_found"),
    ]
}

async fn create(
    State(gateway): State<Gateway>,
    access: Access,
    headers: HeaderMap,
    body: Body,
) -> Result {
    let mut fields = body::object(&headers, body, gateway.limits.body_bytes_max).await?;
    let name = fields.text("name", NAME_CHARS_MAX);
    let scopes = read_scopes(&mut fields);
    let rate_limit = read_rate(&mut fields);
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
        previous: None,
        rate_limit,
        portal: false,
        maker: None,
    };
    access.shard.put_key(&key).await.map_err(|it| Problem::named(it, "tenant_not_found"))?;
    let mut rendered = wire::key(&key);
    rendered["key"] = text.into();
    Ok(secret_response(StatusCode::CREATED, &rendered))
}

pub(super) fn read_scopes(fields: &mut Fields) -> Option<Vec<Scope>> {
    fields.read("scopes", |it| {
        let names = it.as_array().filter(|it| !it.is_empty());
        let scopes = names.and_then(|it| {
            it.iter().map(|it| Scope::parse(it.as_str()?)).collect::<Option<Vec<_>>>()
        });
        // One that is named twice is one.
        let seen = |scopes: &[Scope], place: usize| scopes[..place].contains(&scopes[place]);
        let scopes = scopes.map(|it| {
            let once = (0..it.len()).filter(|place| !seen(&it, *place));
            once.map(|place| it[place]).collect()
        });
        scopes.ok_or("must be a list of manage, produce, read".to_owned())
    })
}

/// A new text for the key, which keeps its id and its rights; the old text opens too until the
/// grace is over.
async fn rotate(
    State(gateway): State<Gateway>,
    access: Access,
    Path((_, id)): Path<(String, String)>,
    headers: HeaderMap,
    body: Body,
) -> Result {
    // A portal session ends; who opened it opens another.
    if access.shard.catalog().key(&id).is_some_and(|it| it.portal) {
        return Err(Problem::not_found("key_not_found"));
    }
    let bytes = body::read(&headers, body, gateway.limits.body_bytes_max).await?;
    let given = if bytes.is_empty() { json!({}) } else { body::parse(&bytes)? };
    let mut fields = Fields::of(given, "").map_err(Problem::invalid_fields)?;
    let form = "a duration from \"0s\" to \"168h\"";
    let fits = |it: &Duration| *it <= GRACE_MAX;
    let grace = fields.parsed("grace", form, |it| wire::parse_duration(it).filter(fits));
    fields.finish().map_err(Problem::invalid_fields)?;
    let (text, now) = (new_key(&id, gateway.random_bytes()), gateway.clock.now());
    let (hash, until) = (hash_key(&text), now + grace.unwrap_or(GRACE_DEFAULT));
    let change = move |key: ApiKey| ApiKey { previous: Some((key.hash, until)), hash, ..key };
    let changed = access.shard.update_key(&access.slug, &id, change).await;
    let key = changed.map_err(|it| Problem::named(it, "key_not_found"))?;
    let mut rendered = wire::key(&key);
    rendered["key"] = text.into();
    Ok(secret_response(StatusCode::OK, &rendered))
}

async fn list(access: Access, query: Query) -> Result {
    let (limit, list) = (query.limit()?, access.list("keys"));
    let before = query.cursor(&list)?.map_or((u64::MAX, 0), |[at, tail]| (at, tail));
    let place = |it: &ApiKey| {
        let tail = TypeId::parse("key", &it.id).map_or(0, |it| it.tail() as u64);
        (it.created_at.0, tail)
    };
    let catalog = access.shard.catalog();
    let keys = catalog.tenant(&access.slug).into_iter().flat_map(|it| it.keys.values());
    let mut keys: Vec<_> = keys.filter(|it| !it.portal && place(it) < before).collect();
    keys.sort_by_key(|it| std::cmp::Reverse(place(it)));
    let more = keys.len() > limit;
    keys.truncate(limit);
    let next = keys.last().filter(|_| more).map(|it| place(it));
    let data: Vec<_> = keys.iter().map(|it| wire::key(it)).collect();
    Ok(page(&data, next.map(|(at, tail)| cursor(&list, &[at, tail]))))
}

async fn revoke(access: Access, Path((_, id)): Path<(String, String)>) -> Result {
    let revoked = access.shard.revoke_key(&access.slug, &id).await;
    revoked.map_err(|it| Problem::named(it, "key_not_found"))?;
    Ok(StatusCode::NO_CONTENT.into_response())
}
