//! Changing an endpoint by a merge patch.

use axum::{
    body::Body,
    extract::{Path, State},
};
use http::{HeaderMap, StatusCode};
use serde_json::{Value, json};

use crate::api::body;
use crate::api::caller::Access;
use crate::api::endpoint_body::{merge, render};
use crate::api::etag::{Belief, tagged};
use crate::api::fields::Fields;
use crate::api::gateway::Gateway;
use crate::api::problem::{FieldError, Problem, Result};
use crate::domain::{Endpoint, SigningSecret};
use crate::storage::Refused;

/// How often a patch is applied anew because somebody else was faster. Each time somebody was, so
/// that as many as this may patch one endpoint at once.
const TRIES_MAX: u32 = 1000;

pub(super) async fn update(
    State(gateway): State<Gateway>,
    access: Access,
    Path((_, id)): Path<(String, String)>,
    belief: Belief,
    headers: HeaderMap,
    body: Body,
) -> Result {
    let known = access.endpoint(&id)?;
    let patch = body::value(&headers, body, gateway.limits.body_bytes_max).await?;
    if !patch.is_object() {
        let detail = "a merge patch must be an object".to_owned();
        let errors = vec![FieldError { pointer: String::new(), detail }];
        return Err(Problem::invalid_fields(errors));
    }
    if patch.get("id").is_some_and(|it| it.as_str() != Some(known.id.as_str())) {
        let detail = "an endpoint keeps its id".to_owned();
        let errors = vec![FieldError { pointer: "/id".to_owned(), detail }];
        return Err(Problem::invalid_fields(errors));
    }
    if patch.get("secret").is_some() {
        let detail = "a secret is changed by POST …/secret/rotate".to_owned();
        let errors = vec![FieldError { pointer: "/secret".to_owned(), detail }];
        return Err(Problem::invalid_fields(errors));
    }
    let mut tries = 0;
    loop {
        match patched(&gateway, &access, &id, &belief, patch.clone()).await {
            // Somebody changed it between reading and writing: the patch is applied to what is
            // there now, unless the caller has said what it believes.
            Err(Refusal::Storage(Refused::Stale)) if !belief.is_said() && tries < TRIES_MAX => {
                tries += 1;
            }
            Err(Refusal::Storage(refused)) => {
                return Err(Problem::named(refused, "endpoint_not_found"));
            }
            Err(Refusal::Problem(problem)) => return Err(problem),
            Ok(changed) => return Ok(tagged(StatusCode::OK, &render(&changed))),
        }
    }
}

/// Why a patch was not applied.
enum Refusal {
    Problem(Problem),
    Storage(Refused),
}

/// Applies a patch to the endpoint as it is, and stores it if it is still so.
async fn patched(
    gateway: &Gateway,
    access: &Access,
    id: &str,
    belief: &Belief,
    patch: Value,
) -> Result<Endpoint, Refusal> {
    let known = access.endpoint(id).map_err(Refusal::Problem)?;
    let shown = render(&known);
    belief.holds(Some(&shown)).map_err(Refusal::Storage)?;
    let fields = merged(&known, &shown, patch).map_err(Problem::invalid_fields);
    let fields = fields.map_err(Refusal::Problem)?;
    let wish = gateway.read_wish(access, fields).await.map_err(Refusal::Problem)?;
    let random = || gateway.random_bytes();
    let change = move |there: Endpoint| {
        if render(&there) != shown {
            return Err(Refused::Stale);
        }
        let mut endpoint = wish.write(there);
        let scheme = endpoint.signature.scheme;
        SigningSecret::provide(&mut endpoint.secrets, scheme, random);
        Ok(endpoint)
    };
    let changed = access.shard.update_endpoint(&access.slug, &known.id, change).await;
    changed.map_err(Refusal::Storage)
}

/// An endpoint's fields as a patch leaves them.
fn merged(known: &Endpoint, shown: &Value, patch: Value) -> Result<Fields, Vec<FieldError>> {
    let mut target = shown.clone();
    // Not shown, but there: a patch of the certificate alone must not lose the key.
    if let Some(key) = known.tls.as_ref().and_then(|it| it.key.as_ref()) {
        target["tls"]["key"] = key.as_str().into();
    }
    let misspelt: Vec<_> = (patch.as_object().into_iter().flatten())
        .filter(|(name, value)| value.is_null() && shown.get(name).is_none())
        .map(|(name, _)| name.clone())
        .collect();
    merge_endpoint(&mut target, patch);
    // What is not known is told of, be it taken away.
    for name in misspelt {
        target[name] = Value::Null;
    }
    Ok(Fields::of(target, "")?.instead_of(Some(shown)))
}

/// The two forms of `retry` exclude each other: a patch that names one drops the other.
fn merge_endpoint(target: &mut Value, patch: Value) {
    let retry = patch.get("retry").and_then(Value::as_object);
    let to_schedule = retry.is_some_and(|it| it.contains_key("schedule"));
    let to_backoff = retry.is_some_and(|it| {
        ["base", "factor", "max_delay", "max_attempts"].iter().any(|name| it.contains_key(*name))
    });
    if let Some(known) = target.get_mut("retry").and_then(Value::as_object_mut) {
        known.retain(|name, _| match name.as_str() {
            "jitter" => true,
            "schedule" => !to_backoff,
            _ => to_backoff || !to_schedule,
        });
    }
    let scheme = patch.pointer("/signature/scheme").filter(|it| !it.is_null());
    if scheme.is_some_and(|it| target.pointer("/signature/scheme") != Some(it)) {
        // Another scheme has other options.
        target["signature"] = json!({});
    }
    merge(target, patch);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::endpoint_body::{Surroundings, Wish};
    use crate::api::fuzz::Nowhere;
    use crate::domain::{EndpointNo, Pattern, Scheme, Signature};
    use crate::storage::conformance;
    use crate::world::egress::EgressPolicy;

    #[test]
    fn a_limit_that_is_newer_than_an_endpoint_holds_for_what_is_changed() {
        let header = Some("traceparent".to_owned());
        let known = Endpoint {
            description: "x".repeat(5000),
            metadata: [("k".to_owned(), "v".repeat(20_000))].into(),
            event_types: vec![Pattern::parse("a.b").unwrap(); 1001],
            signature: Signature { scheme: Scheme::Stripe, header, ..Signature::default() },
            ..conformance::endpoint(EndpointNo(1))
        };
        let refused = |patch: Value| {
            let transport = Nowhere(EgressPolicy::default());
            let around = Surroundings { transport: &transport, plugin: &|_| None };
            let fields = merged(&known, &render(&known), patch).unwrap();
            let read = Wish::read(fields, &around).map(|it| it.write(known.clone()));
            let problem = match read {
                Ok(patched) => {
                    assert_eq!(patched.description, known.description);
                    assert_eq!(patched.event_types, known.event_types);
                    assert_eq!(patched.signature, known.signature);
                    return Vec::new();
                }
                Err(problem) => problem,
            };
            let errors = problem.into_errors("").unwrap();
            errors.into_iter().map(|it| it.pointer).collect::<Vec<_>>()
        };
        assert!(refused(json!({ "enabled": false, "metadata": {} })).is_empty());
        assert_eq!(refused(json!({ "description": "y".repeat(4097) })), ["/description"]);
        assert_eq!(refused(json!({ "metadata": { "l": "" } })), ["/metadata"]);
        assert_eq!(refused(json!({ "event_types": vec!["a.c"; 1001] })), ["/event_types"]);
        let other = json!({ "signature": { "header": "ce-id" } });
        assert_eq!(refused(other), ["/signature/header"]);
    }
}
