use std::sync::Arc;

use http::{HeaderMap, StatusCode, header};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::api::gateway::Gateway;
use crate::api::problem::{Problem, Result};
use crate::domain::{ApiKey, Scope, Slug, TenantNo};
use crate::storage::Shard;

/// Who asks.
#[derive(Debug, Clone)]
pub(super) enum Caller {
    /// The one who runs the gateway.
    Operator,
    /// Somebody with a tenant's key.
    Key(Arc<ApiKey>),
}

/// A tenant that the caller may reach.
#[derive(Clone)]
pub(super) struct Access {
    pub(super) slug: Slug,
    pub(super) no: TenantNo,
    pub(super) shard: Arc<Shard>,
}

/// The text of a new key: `hk_`, its id's digits, and 256 random bits.
pub fn new_key(id: &str, random: [u8; 32]) -> String {
    let id = id.strip_prefix("key_").unwrap_or(id);
    format!("hk_{id}_{}", data_encoding::BASE64URL_NOPAD.encode(&random))
}

/// What is kept of a key.
pub fn hash_key(key: &str) -> [u8; 32] {
    Sha256::digest(key.as_bytes()).into()
}

impl Gateway {
    /// Who sent this request.
    pub(super) fn caller(&self, headers: &HeaderMap) -> Result<Caller> {
        let text = headers.get(header::AUTHORIZATION).and_then(|it| it.to_str().ok());
        let key = text.and_then(|it| it.strip_prefix("Bearer ")).map(str::trim);
        self.known(key.unwrap_or_default()).ok_or_else(|| {
            let detail = "send a valid key as `Authorization: Bearer <key>`";
            Problem::new(StatusCode::UNAUTHORIZED, "unauthenticated", detail)
        })
    }

    fn known(&self, text: &str) -> Option<Caller> {
        let hash = hash_key(text);
        let operator = self.store.shards()[0].catalog().operator_key().copied();
        if operator.is_some_and(|it| bool::from(it.ct_eq(&hash))) {
            return Some(Caller::Operator);
        }
        let id = text.strip_prefix("hk_")?.split('_').next()?;
        let id = format!("key_{id}");
        let key = self.store.shards().iter().find_map(|it| it.catalog().key(&id).cloned())?;
        let same = bool::from(key.hash.ct_eq(&hash));
        (same && !key.has_expired(self.clock.now())).then_some(Caller::Key(key))
    }

    /// Lets only the operator through.
    pub(super) fn operator(&self, headers: &HeaderMap) -> Result<()> {
        match self.caller(headers)? {
            Caller::Operator => Ok(()),
            Caller::Key(_) => Err(insufficient("this is for the operator's key")),
        }
    }

    /// The tenant, if the caller may do there what `scope` allows. Another tenant is the same as
    /// one that does not exist.
    pub(super) fn tenant(&self, headers: &HeaderMap, slug: &str, scope: Scope) -> Result<Access> {
        let caller = self.caller(headers)?;
        let missing = || Problem::not_found("tenant_not_found");
        let slug = Slug::parse(slug).ok_or_else(missing)?;
        if let Caller::Key(key) = &caller
            && key.tenant != slug
        {
            return Err(missing());
        }
        let access = self.access(&slug).ok_or_else(missing)?;
        allow(&caller, scope)?;
        Ok(access)
    }

    /// The tenant of the caller's key; for the operator, the default one.
    pub(super) fn own_tenant(&self, headers: &HeaderMap, scope: Scope) -> Result<Access> {
        let caller = self.caller(headers)?;
        let slug = match &caller {
            Caller::Operator => Slug::default_tenant(),
            Caller::Key(key) => key.tenant.clone(),
        };
        allow(&caller, scope)?;
        self.access(&slug).ok_or_else(|| Problem::not_found("tenant_not_found"))
    }

    fn access(&self, slug: &Slug) -> Option<Access> {
        let shard = self.store.shard(slug).clone();
        let no = shard.catalog().tenant(slug)?.tenant.no;
        Some(Access { slug: slug.clone(), no, shard })
    }
}

fn allow(caller: &Caller, scope: Scope) -> Result<()> {
    match caller {
        Caller::Key(key) if !key.may(scope) => {
            let detail = format!("the key lacks the scope `{}`", scope.name());
            Err(insufficient(&detail))
        }
        _ => Ok(()),
    }
}

fn insufficient(detail: &str) -> Problem {
    Problem::new(StatusCode::FORBIDDEN, "insufficient_scope", detail)
}
