use std::sync::Arc;

use http::{HeaderMap, StatusCode, header};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use tokio::time::Instant;

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

/// What a caller needs for an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Need {
    /// Nothing: anybody may ask.
    Nothing,
    /// The operator's key.
    Operator,
    /// A key of the path's tenant with this scope, or the operator's.
    Scope(Scope),
    /// The same, but no portal session: what could lead to more rights.
    Key(Scope),
    /// A key with this scope, which also tells the tenant.
    Own(Scope),
}

/// A tenant that the caller may reach.
#[derive(Clone)]
pub(super) struct Access {
    pub(super) slug: Slug,
    pub(super) no: TenantNo,
    pub(super) shard: Arc<Shard>,
    shown: Shown,
}

/// What of a key is looked up: its id, if it has the form of a tenant's, and its hash.
#[derive(Clone)]
struct Shown {
    id: Option<String>,
    hash: [u8; 32],
}

/// Somebody who was let in, and the tenant that the request is about, if there is one.
pub(super) struct Admitted {
    pub(super) caller: Caller,
    pub(super) access: Option<Access>,
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
        self.caller_and_key(headers).map(|(caller, _)| caller)
    }

    fn caller_and_key(&self, headers: &HeaderMap) -> Result<(Caller, Shown)> {
        let text = headers.get(header::AUTHORIZATION).and_then(|it| it.to_str().ok());
        // The scheme is written in any case (RFC 9110, 11.1).
        let key = text.and_then(|it| it.split_once(' '));
        let key = key.filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
        let key = key.map(|(_, key)| key.trim());
        let shown = Shown::of(key.unwrap_or_default());
        let caller = self.known(&shown).ok_or_else(unauthenticated)?;
        Ok((caller, shown))
    }

    fn known(&self, shown: &Shown) -> Option<Caller> {
        let hash = shown.hash;
        let operator = self.store.shards()[0].catalog().operator_key().copied();
        if operator.is_some_and(|it| bool::from(it.ct_eq(&hash))) {
            return Some(Caller::Operator);
        }
        let id = shown.id.as_deref()?;
        let key = self.key(id)?;
        let now = self.clock.now();
        let has_ended = |id: &String| self.key(id).is_none_or(|it| it.has_expired(now));
        if key.maker.as_ref().is_some_and(has_ended) {
            return None;
        }
        let old =
            key.previous.is_some_and(|(old, until)| bool::from(old.ct_eq(&hash)) && now < until);
        let same = bool::from(key.hash.ct_eq(&hash));
        ((same || old) && !key.has_expired(now)).then_some(Caller::Key(key))
    }

    fn key(&self, id: &str) -> Option<Arc<ApiKey>> {
        self.store.shards().iter().find_map(|it| it.catalog().key(id).cloned())
    }

    /// Lets a caller through who has what the operation needs, into the tenant that the path
    /// names or that is the caller's own. Another tenant is the same as one that does not exist.
    pub(super) fn admit(
        &self,
        need: Need,
        headers: &HeaderMap,
        slug: Option<&str>,
    ) -> Result<Option<Admitted>> {
        if need == Need::Nothing {
            return Ok(None);
        }
        let (caller, shown) = self.caller_and_key(headers)?;
        let named = slug.is_some();
        let slug = match need {
            Need::Own(_) => Some(caller.own_tenant()),
            _ => slug.and_then(Slug::parse),
        };
        if let Caller::Key(key) = &caller
            && named
            && slug.as_ref() != Some(&key.tenant)
        {
            return Err(Problem::not_found("tenant_not_found"));
        }
        need.check(&caller)?;
        self.keep_pace(&caller)?;
        let access = slug.and_then(|it| self.access(&it, shown));
        Ok(Some(Admitted { caller, access }))
    }

    fn keep_pace(&self, caller: &Caller) -> Result<()> {
        let Caller::Key(key) = caller else { return Ok(()) };
        let Some(limit) = key.rate_limit else { return Ok(()) };
        let owner = key.maker.as_ref().unwrap_or(&key.id);
        let taken = self.pace.take(&format!("key {owner}"), limit, 1, Instant::now());
        taken.map_err(|it| Problem::too_fast("requests of this key", &it))
    }

    fn access(&self, slug: &Slug, shown: Shown) -> Option<Access> {
        let shard = self.store.shard(slug).clone();
        let no = shard.catalog().tenant(slug)?.tenant.no;
        Some(Access { slug: slug.clone(), no, shard, shown })
    }

    /// Whether a stream that was let in may go on: its key may have been revoked or replaced since,
    /// or have expired, and the tenant may be gone.
    pub(super) fn still_admits(&self, access: &Access) -> Result<()> {
        self.known(&access.shown).ok_or_else(unauthenticated)?;
        let now = access.shard.catalog().tenant(&access.slug).map(|it| it.tenant.no);
        let same = now == Some(access.no);
        if same { Ok(()) } else { Err(Problem::not_found("tenant_not_found")) }
    }
}

impl Shown {
    fn of(text: &str) -> Self {
        let id = text.strip_prefix("hk_").and_then(|it| it.split('_').next());
        Self { id: id.map(|it| format!("key_{it}")), hash: hash_key(text) }
    }
}

impl Need {
    fn check(self, caller: &Caller) -> Result<()> {
        let Caller::Key(key) = caller else { return Ok(()) };
        match self {
            Self::Nothing => Ok(()),
            Self::Operator => Err(insufficient("this is for the operator's key")),
            Self::Key(_) if key.portal => {
                Err(insufficient("a portal session may not do this; use a key"))
            }
            Self::Scope(scope) | Self::Key(scope) | Self::Own(scope) if key.may(scope) => Ok(()),
            Self::Scope(scope) | Self::Key(scope) | Self::Own(scope) => {
                Err(insufficient(&format!("the key lacks the scope `{}`", scope.name())))
            }
        }
    }

    /// The name of the scope that the document tells.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Nothing => "nothing",
            Self::Operator => "operator",
            Self::Scope(scope) | Self::Key(scope) | Self::Own(scope) => scope.name(),
        }
    }
}

impl Caller {
    /// Its name in the audit log.
    pub(super) fn name(&self) -> &str {
        match self {
            Self::Operator => "operator",
            Self::Key(key) => &key.id,
        }
    }

    /// The tenant of the caller's key; for the operator, the default one.
    fn own_tenant(&self) -> Slug {
        match self {
            Self::Operator => Slug::default_tenant(),
            Self::Key(key) => key.tenant.clone(),
        }
    }
}

fn unauthenticated() -> Problem {
    let detail = "send a valid key as `Authorization: Bearer <key>`";
    Problem::new(StatusCode::UNAUTHORIZED, "unauthenticated", detail)
}

fn insufficient(detail: &str) -> Problem {
    Problem::new(StatusCode::FORBIDDEN, "insufficient_scope", detail)
}

impl Access {
    /// The name of one of the tenant's lists, which its cursors are bound to.
    pub(super) fn list(&self, name: &str) -> String {
        format!("{name} of {}/{}", self.shard.number(), self.no.0)
    }
}
