use std::{sync::Arc, time::Duration};

use axum::{
    body::Body,
    extract::{Path, State},
    response::IntoResponse,
};
use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use serde_json::{Value, json};

use crate::api::caller::{Access, Need};
use crate::api::endpoint_body::{Surroundings, Wish, render};
use crate::api::etag::{Belief, tagged};
use crate::api::fields::Fields;
use crate::api::gateway::Gateway;
use crate::api::page::{Query, cursor, json_response, made_at, page, secret_response};
use crate::api::problem::{FieldError, Problem, Result};
use crate::api::route::{Route, delete, get, patch, post};
use crate::api::trust_body::read_secret;
use crate::api::{body, endpoint_patch, plugin_follow, wire};
use crate::domain::{
    Endpoint, EndpointId, EndpointNo, EventType, Format, Ordering, Retry, Scheme, Scope, Signature,
    SigningSecret, TracePolicy,
};
use crate::plugins::Hooks;
use crate::storage::{Appended, NewEvent, Notice, Refused};

const GRACE_MAX: Duration = Duration::from_secs(7 * 24 * 3600);
const GRACE_USUAL: Duration = Duration::from_secs(24 * 3600);
/// What a test of an endpoint sends.
const TEST_TYPE: &str = "hookgate.test";

const ENDPOINTS: &str = "/v1/tenants/{tenant}/endpoints";
const ENDPOINT: &str = "/v1/tenants/{tenant}/endpoints/{id}";
const SECRET: &str = "/v1/tenants/{tenant}/endpoints/{id}/secret";
const ROTATE: &str = "/v1/tenants/{tenant}/endpoints/{id}/secret/rotate";
const TEST: &str = "/v1/tenants/{tenant}/endpoints/{id}/test";

pub(super) fn routes() -> Vec<Route> {
    let (read_, manage) = (Need::Scope(Scope::Read), Need::Scope(Scope::Manage));
    let key = Need::Key(Scope::Manage);
    vec![
        get(ENDPOINTS, read_, list, ("listEndpoints", "Endpoints, newest first."))
            .gives_page("Endpoint"),
        post(ENDPOINTS, manage, create, ("createEndpoint", "Registers an endpoint."))
            .takes("NewEndpoint")
            .gives(201, "Endpoint")
            .tagged()
            .located()
            .refuses(409, "id_conflict")
            .refuses(422, "limit_endpoints"),
        get(ENDPOINT, read_, read, ("getEndpoint", "One endpoint."))
            .gives(200, "Endpoint")
            .tagged()
            .refuses(404, "endpoint_not_found"),
        patch(
            ENDPOINT,
            manage,
            endpoint_patch::update,
            ("patchEndpoint", "Changes an endpoint by a merge patch."),
        )
        .takes("EndpointPatch")
        .takes_as("application/merge-patch+json", "EndpointPatch")
        .gives(200, "Endpoint")
        .tagged()
        .refuses(404, "endpoint_not_found")
        .refuses(409, "secret_unavailable"),
        delete(
            ENDPOINT,
            manage,
            remove,
            ("deleteEndpoint", "Deletes an endpoint; what it has not received is cancelled."),
        )
        .gives_nothing()
        .tagged()
        .refuses(404, "endpoint_not_found"),
        get(SECRET, key, secret, ("getSecret", "The endpoint's signing secret."))
            .gives(200, "Secret")
            .refuses(404, "endpoint_not_found"),
        post(
            ROTATE,
            key,
            rotate,
            ("rotateSecret", "A new signing secret; the old one signs beside it for a while."),
        )
        .may_take("SecretRotation")
        .gives(200, "Secret")
        .refuses(404, "endpoint_not_found")
        .refuses(409, "rotation_limit")
        .refuses(409, "secret_unavailable"),
        post(TEST, manage, test, ("testEndpoint", "Sends one signed test event now."))
            .gives(200, "Attempt")
            .refuses(404, "endpoint_not_found")
            .refuses(409, "secret_unavailable")
            .refuses(503, "test_pending"),
    ]
}

async fn create(
    State(gateway): State<Gateway>,
    access: Access,
    headers: HeaderMap,
    body: Body,
) -> Result {
    let fields = body::object(&headers, body, gateway.limits.body_bytes_max).await?;
    let wish = gateway.read_wish(&access, fields).await?;
    let endpoint = gateway.make_endpoint(&access, wish).await?;
    let place = format!("/v1/tenants/{}/endpoints/{}", access.slug, endpoint.id);
    Ok(made_at(&place, tagged(StatusCode::CREATED, &render(&endpoint))))
}

impl Gateway {
    /// Reads and checks what a tenant says of an endpoint, its plugins' configuration included.
    pub(super) async fn read_wish(&self, access: &Access, fields: Fields) -> Result<Wish> {
        let wish = {
            let plugin = |name: &_| access.shard.plugin(&access.slug, name);
            Wish::read(fields, &Surroundings { transport: &*self.transport, plugin: &plugin })?
        };
        self.check_host(&wish.url).await?;
        let chain = wish.plugins.iter().map(|it| (&it.plugin, it.version, &it.config));
        let suits = (
            Hooks::serves_endpoints as fn(Hooks) -> bool,
            "`filter`, `transform`, `classify` or `sign`",
        );
        plugin_follow::check_chain(self, access, chain, suits).await?;
        Ok(wish)
    }

    /// A host that leads where deliveries must not go is told at once; the connector would only
    /// tell at the first attempt.
    async fn check_host(&self, url: &str) -> Result<()> {
        let Ok(url) = url.parse() else { return Ok(()) };
        self.transport.check_host(&url).await.map_err(|(code, detail)| {
            Problem::fields(code, vec![FieldError { pointer: "/url".to_owned(), detail }])
        })
    }

    pub(super) async fn make_endpoint(&self, access: &Access, mut wish: Wish) -> Result<Endpoint> {
        let (now, random) = access.shard.draw();
        let mut secrets: Vec<_> = wish.secret.take().map(SigningSecret::new).into_iter().collect();
        SigningSecret::provide(&mut secrets, wish.signature.scheme, || self.random_bytes());
        let make = |no: EndpointNo| {
            let id = wish.id.clone().unwrap_or_else(|| EndpointId::drawn(now, random));
            wish.write(Endpoint {
                no,
                id,
                tenant: access.slug.clone(),
                url: String::new(),
                description: String::new(),
                metadata: Default::default(),
                event_types: Vec::new(),
                filter: None,
                plugins: Vec::new(),
                format: Format::default(),
                headers: Default::default(),
                signature: Signature::default(),
                secrets,
                secret_unavailable: false,
                trace: TracePolicy::New,
                tls: None,
                retry: Retry::default(),
                timeout: Duration::ZERO,
                ordering: Ordering::default(),
                max_in_flight: 1,
                rate_limit: None,
                enabled: true,
                disabled_reason: None,
                created_at: now,
                updated_at: now,
            })
        };
        match access.shard.create_endpoint(&access.slug, make).await {
            Err(Refused::Exists) => Err(Problem::conflict("id_conflict", "the id is taken")),
            Err(Refused::Limit(max)) => {
                let detail = format!("the tenant has {max} endpoints, which is its limit");
                Err(Problem::unprocessable("limit_endpoints", detail))
            }
            other => other.map_err(|it| Problem::named(it, "tenant_not_found")),
        }
    }
}

impl Access {
    /// An endpoint of the tenant.
    pub(super) fn endpoint(&self, id: &str) -> Result<Endpoint> {
        let id = EndpointId::parse(id);
        let catalog = self.shard.catalog();
        let tenant = catalog.tenant(&self.slug);
        let found = id.and_then(|it| tenant?.endpoints.get(&it).map(|it| Endpoint::clone(it)));
        found.ok_or_else(|| Problem::not_found("endpoint_not_found"))
    }

    /// A page of the tenant's endpoints, newest first, with the cursor of the next one.
    pub(super) fn endpoints(&self, query: &Query) -> Result<(Vec<Arc<Endpoint>>, Option<String>)> {
        let list = self.list("endpoints");
        let (limit, before) = (query.limit()?, query.cursor(&list)?.map_or(u64::MAX, |[it]| it));
        let catalog = self.shard.catalog();
        let all = catalog.tenant(&self.slug).into_iter().flat_map(|it| it.endpoints.values());
        let mut all: Vec<_> = all.filter(|it| u64::from(it.no.0) < before).cloned().collect();
        all.sort_by_key(|it| std::cmp::Reverse(it.no));
        let more = all.len() > limit;
        all.truncate(limit);
        let next = all.last().filter(|_| more).map(|it| cursor(&list, &[it.no.0.into()]));
        Ok((all, next))
    }
}

async fn list(access: Access, query: Query) -> Result {
    let (endpoints, next) = access.endpoints(&query)?;
    let data: Vec<_> = endpoints.iter().map(|it| render(it)).collect();
    Ok(page(&data, next))
}

async fn read(access: Access, Path((_, id)): Path<(String, String)>) -> Result {
    Ok(tagged(StatusCode::OK, &render(&access.endpoint(&id)?)))
}

async fn remove(access: Access, Path((_, id)): Path<(String, String)>, belief: Belief) -> Result {
    let id = access.endpoint(&id)?.id;
    let agrees = move |there: &Endpoint| belief.holds(Some(&render(there)));
    let deleted = access.shard.delete_endpoint(&access.slug, &id, agrees).await;
    deleted.map_err(|it| Problem::named(it, "endpoint_not_found"))?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

async fn secret(access: Access, Path((_, id)): Path<(String, String)>) -> Result {
    let endpoint = access.endpoint(&id)?;
    can_be_sent_to(&endpoint)?;
    Ok(secret_response(StatusCode::OK, &render_secret(&endpoint)))
}

fn can_be_sent_to(endpoint: &Endpoint) -> Result<()> {
    match endpoint.secret_unavailable {
        true => Err(Refused::SecretUnavailable.into()),
        false => Ok(()),
    }
}

/// What a receiver verifies with: the shared secret, and the public half of the private key,
/// which itself is never shown.
fn render_secret(endpoint: &Endpoint) -> Value {
    let newest = |key: bool| endpoint.secrets.iter().find(|it| it.secret.is_key() == key);
    let Signature { scheme, with_v1, .. } = endpoint.signature;
    let shared = newest(false).filter(|_| scheme != Scheme::None && with_v1);
    let mut value = json!({ "key": shared.map(|it| it.secret.reveal().to_string()) });
    if scheme == Scheme::StandardEd25519 {
        value["public_key"] = newest(true).and_then(|it| it.secret.public_key()).into();
    }
    value
}

async fn rotate(
    State(gateway): State<Gateway>,
    access: Access,
    Path((_, id)): Path<(String, String)>,
    headers: HeaderMap,
    body: Body,
) -> Result {
    let endpoint = access.endpoint(&id)?;
    let bytes = body::read(&headers, body, gateway.limits.body_bytes_max).await?;
    let given = if bytes.is_empty() { json!({}) } else { body::parse(&bytes)? };
    let mut fields = Fields::of(given, "").map_err(Problem::invalid_fields)?;
    let (scheme, mut code) = (endpoint.signature.scheme, "invalid_field");
    let key = read_secret(&mut fields, "key", scheme, &mut code);
    let form = "a duration from \"0s\" to \"168h\"";
    let grace =
        fields.parsed("grace", form, |it| wire::parse_duration(it).filter(|it| *it <= GRACE_MAX));
    fields.finish().map_err(|it| Problem::fields(code, it))?;
    // Without a key of the tenant's own, each kind that the scheme uses is drawn anew.
    let new = key.map_or_else(
        || {
            let mut drawn = Vec::new();
            SigningSecret::provide(&mut drawn, scheme, || gateway.random_bytes());
            drawn.into_iter().map(|it| it.secret).collect()
        },
        |it| vec![it],
    );
    let now = gateway.clock.now();
    let until = now + grace.unwrap_or(GRACE_USUAL);
    let change = move |mut endpoint: Endpoint| {
        for secret in new {
            SigningSecret::rotate(&mut endpoint.secrets, secret, (now, until))
                .map_err(Refused::Invalid)?;
        }
        Ok(endpoint)
    };
    let rotated = access.shard.update_endpoint(&access.slug, &endpoint.id, change).await;
    let rotated = rotated.map_err(|it| match it {
        Refused::Invalid(detail) => Problem::conflict("rotation_limit", detail),
        other => Problem::named(other, "endpoint_not_found"),
    })?;
    Ok(secret_response(StatusCode::OK, &render_secret(&rotated)))
}

async fn test(
    State(gateway): State<Gateway>,
    access: Access,
    Path((_, id)): Path<(String, String)>,
) -> Result {
    let endpoint = access.endpoint(&id)?;
    can_be_sent_to(&endpoint)?;
    let data = json!({ "message": "a test of this endpoint", "endpoint_id": endpoint.id.as_str() });
    let event_type = EventType::parse(TEST_TYPE).expect("it is well formed");
    let mut new = NewEvent::new(event_type, Bytes::from(data.to_string()));
    new.only = Some(endpoint.no);
    let mut notices = access.shard.watch();
    let appended = access.shard.append(&access.slug, vec![new], true).await?;
    let Some(Appended::New { seq, .. }) = appended.into_iter().next() else {
        return Err(Problem::unavailable("storage_unavailable", "the test was not stored"));
    };
    let attempted = tokio::time::timeout(gateway.limits.test_wait_max, async {
        loop {
            match notices.recv().await {
                Ok(Notice::Attempted { attempt, .. }) if attempt.delivery.seq == seq => {
                    return Some(attempt);
                }
                Err(tokio::sync::broadcast::error::RecvError::Closed) => return None,
                _ => {}
            }
        }
    });
    let slow = || Problem::unavailable("test_pending", "no attempt has finished yet; look it up");
    let attempt = attempted.await.ok().flatten().ok_or_else(slow)?;
    let event = access.shard.event(seq)?.ok_or_else(|| Problem::not_found("event_not_found"))?;
    Ok(json_response(StatusCode::OK, &wire::attempt(&access.shard, &attempt, &event)))
}
