use std::time::Duration;

use axum::{body::Body, extract::State};
use http::{HeaderMap, StatusCode};

use crate::api::caller::{Access, Caller, Need, hash_key, new_key};
use crate::api::gateway::Gateway;
use crate::api::page::secret_response;
use crate::api::problem::{Problem, Result};
use crate::api::route::{Route, post};
use crate::api::{body, keys, wire};
use crate::domain::{ApiKey, Scope, TypeId};

const TTL_DEFAULT: Duration = Duration::from_secs(3600);
const TTL_MAX: Duration = Duration::from_secs(24 * 3600);

pub(super) fn routes() -> Vec<Route> {
    vec![
        post(
            "/v1/tenants/{tenant}/portal-sessions",
            Need::Key(Scope::Manage),
            open,
            ("createPortalSession", "A short-lived token for a tenant's own people."),
        )
        .takes("NewPortalSession")
        .gives(201, "PortalSession"),
    ]
}

/// A session is a key that ends soon and never leads to more rights: it makes no keys, no
/// sessions, no replays, and sees or changes no signing secret. It ends with the key that opened
/// it, and shares that key's rate.
async fn open(
    State(gateway): State<Gateway>,
    access: Access,
    headers: HeaderMap,
    body: Body,
) -> Result {
    let mut fields = body::object(&headers, body, gateway.limits.body_bytes_max).await?;
    let scopes = keys::read_scopes(&mut fields);
    let form = "a duration from \"1s\" to \"24h\"";
    let fits = |it: &Duration| (Duration::from_secs(1)..=TTL_MAX).contains(it);
    let ttl = fields.parsed("ttl", form, |it| wire::parse_duration(it).filter(fits));
    let scopes = fields.need("scopes", scopes);
    fields.finish().map_err(Problem::invalid_fields)?;
    let (now, random) = access.shard.draw();
    let id = TypeId::new("key", now, random).to_string();
    let token = new_key(&id, gateway.random_bytes());
    let maker = match gateway.caller(&headers)? {
        Caller::Operator => None,
        Caller::Key(key) => Some(key),
    };
    let ends = now + ttl.unwrap_or(TTL_DEFAULT);
    let expires_at = maker.as_ref().and_then(|it| it.expires_at).map_or(ends, |it| it.min(ends));
    let key = ApiKey {
        id,
        tenant: access.slug.clone(),
        name: "portal session".to_owned(),
        scopes: scopes.unwrap_or_default(),
        hash: hash_key(&token),
        created_at: now,
        expires_at: Some(expires_at),
        previous: None,
        rate_limit: maker.as_ref().and_then(|it| it.rate_limit),
        portal: true,
        maker: maker.map(|it| it.id.clone()),
    };
    access.shard.put_key(&key).await.map_err(|it| Problem::named(it, "tenant_not_found"))?;
    let mut shown = wire::key(&key);
    shown["token"] = token.into();
    Ok(secret_response(StatusCode::CREATED, &shown))
}
