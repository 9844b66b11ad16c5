use std::{collections::BTreeMap, sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::domain::{
    ApiKey, ClientTls, Endpoint, EndpointId, EndpointNo, Filter, Format, OnError, Ordering,
    Pattern, PluginName, PluginUse, RateLimit, Retry, RetryPolicy, Scheme, Scope, Secret,
    Signature, SigningSecret, Slug, Tenant, TenantNo, Timestamp, TracePolicy,
};
use crate::storage::codec::{decode, encode_secret};
use crate::storage::keyring::DataKey;
use crate::storage::quota_row::QuotaRow;
use crate::storage::{Error, Result};
use crate::world::Entropy;

/// Bits of half a byte.
const HALF: u32 = 4;

/// A tenant on disk.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct TenantRow {
    pub(super) slug: String,
    pub(super) no: u32,
    name: String,
    quota: QuotaRow,
    created_at: u64,
    updated_at: u64,
}

impl From<&Tenant> for TenantRow {
    fn from(it: &Tenant) -> Self {
        Self {
            slug: it.slug.to_string(),
            no: it.no.0,
            name: it.name.clone(),
            quota: QuotaRow::from(&it.quota),
            created_at: it.created_at.0,
            updated_at: it.updated_at.0,
        }
    }
}

impl TenantRow {
    pub(super) fn into_noun(self) -> Result<Tenant> {
        Ok(Tenant {
            slug: slug(&self.slug)?,
            no: TenantNo(self.no),
            name: self.name,
            quota: self.quota.into_noun(),
            created_at: Timestamp(self.created_at),
            updated_at: Timestamp(self.updated_at),
        })
    }
}

/// A key on disk: never its secret.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct KeyRow {
    pub(super) id: String,
    tenant: String,
    name: String,
    scopes: Vec<String>,
    hash: [u8; 32],
    created_at: u64,
    expires_at: Option<u64>,
    previous: Option<([u8; 32], u64)>,
    rate_limit: Option<(f64, u32)>,
    portal: bool,
}

/// What a session's maker begins with among its scopes. It came later, and binaries of before pass
/// over scopes that they do not know.
const MAKER: &str = "made-by:";

impl From<&ApiKey> for KeyRow {
    fn from(it: &ApiKey) -> Self {
        let scopes = it.scopes.iter().map(|it| it.name().to_owned());
        let maker = it.maker.iter().map(|it| format!("{MAKER}{it}"));
        Self {
            id: it.id.clone(),
            tenant: it.tenant.to_string(),
            name: it.name.clone(),
            scopes: scopes.chain(maker).collect(),
            hash: it.hash,
            created_at: it.created_at.0,
            expires_at: it.expires_at.map(|it| it.0),
            previous: it.previous.map(|(hash, until)| (hash, until.0)),
            rate_limit: it.rate_limit.map(|it| (it.per_second, it.burst)),
            portal: it.portal,
        }
    }
}

impl KeyRow {
    pub(super) fn into_noun(self) -> Result<ApiKey> {
        let maker = self.scopes.iter().find_map(|it| it.strip_prefix(MAKER)).map(str::to_owned);
        Ok(ApiKey {
            id: self.id,
            tenant: slug(&self.tenant)?,
            name: self.name,
            scopes: self.scopes.iter().filter_map(|it| Scope::parse(it)).collect(),
            hash: self.hash,
            created_at: Timestamp(self.created_at),
            expires_at: self.expires_at.map(Timestamp),
            previous: self.previous.map(|(hash, until)| (hash, Timestamp(until))),
            rate_limit: self.rate_limit.map(|(per_second, burst)| RateLimit { per_second, burst }),
            portal: self.portal,
            maker,
        })
    }
}

/// An endpoint on disk.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct EndpointRow {
    pub(super) no: u32,
    pub(super) id: String,
    tenant: String,
    url: String,
    description: String,
    metadata: BTreeMap<String, String>,
    event_types: Vec<String>,
    filter: Option<String>,
    plugins: Vec<PluginUseRow>,
    format: u8,
    signature: SignatureRow,
    /// Headers, secrets, TLS and plugins' configurations, by the tenant's data key.
    sealed: Vec<u8>,
    retry: RetryRow,
    timeout_ms: u64,
    /// The low half; the high half is the trace policy, which came later and begins at 0.
    ordering: u8,
    max_in_flight: u32,
    rate_limit: Option<(f64, u32)>,
    enabled: bool,
    disabled_reason: Option<String>,
    created_at: u64,
    updated_at: u64,
}

/// What is secret about an endpoint.
#[derive(Default, Serialize, Deserialize)]
struct SecretsRow {
    headers: BTreeMap<String, String>,
    secrets: Vec<(String, Option<u64>)>,
    tls: Option<(Option<String>, Option<String>, Option<String>)>,
    /// Of each plugin in the chain.
    configs: Vec<BTreeMap<String, String>>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct SignatureRow {
    scheme: u8,
    with_v1: bool,
    header: Option<String>,
    timestamp_header: Option<String>,
    prefix: String,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct PluginUseRow {
    plugin: String,
    version: Option<u32>,
    on_error: u8,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
enum RetryRow {
    Schedule { waits_ms: Vec<u64>, jitter: f64 },
    Backoff { base_ms: u64, factor: f64, max_delay_ms: u64, max_attempts: u32, jitter: f64 },
}

impl SecretsRow {
    fn of(it: &Endpoint) -> Self {
        let secret = |it: &SigningSecret| (it.secret.reveal().to_string(), it.until.map(|it| it.0));
        let tls = it.tls.as_ref().map(|it| {
            let key = it.key.as_ref().map(|it| it.to_string());
            (it.ca.clone(), it.certificate.clone(), key)
        });
        Self {
            headers: it.headers.clone(),
            secrets: it.secrets.iter().map(secret).collect(),
            tls,
            configs: it.plugins.iter().map(|it| it.config.clone()).collect(),
        }
    }

    fn open(key: Option<&DataKey>, place: (u32, &str), sealed: &[u8]) -> Option<Self> {
        decode(&key?.open(place, sealed)?).ok()
    }
}

impl EndpointRow {
    /// The row, with what is secret sealed by the tenant's data key.
    pub(super) fn sealed(it: &Endpoint, key: &DataKey, entropy: &dyn Entropy) -> Self {
        let plain = encode_secret(&SecretsRow::of(it));
        Self {
            no: it.no.0,
            id: it.id.to_string(),
            tenant: it.tenant.to_string(),
            url: it.url.clone(),
            description: it.description.clone(),
            metadata: it.metadata.clone(),
            event_types: it.event_types.iter().map(|it| it.as_str().to_owned()).collect(),
            filter: it.filter.as_ref().map(|it| it.source().to_owned()),
            plugins: it.plugins.iter().map(PluginUseRow::from).collect(),
            format: code(&Format::NAMES, it.format),
            signature: SignatureRow::from(&it.signature),
            sealed: key.seal((it.no.0, it.id.as_str()), &plain, entropy),
            retry: RetryRow::from(&it.retry),
            timeout_ms: millis(it.timeout),
            ordering: code(&Ordering::NAMES, it.ordering)
                | code(&TracePolicy::NAMES, it.trace) << HALF,
            max_in_flight: it.max_in_flight,
            rate_limit: it.rate_limit.map(|it| (it.per_second, it.burst)),
            enabled: it.enabled,
            disabled_reason: it.disabled_reason.clone(),
            created_at: it.created_at.0,
            updated_at: it.updated_at.0,
        }
    }

    /// The endpoint. One whose secrets do not open is there, but nothing can be sent to it.
    pub(super) fn into_noun(self, key: Option<&DataKey>) -> Result<Endpoint> {
        let opened = SecretsRow::open(key, (self.no, &self.id), &self.sealed);
        let secret_unavailable = opened.is_none();
        if secret_unavailable {
            let (tenant, endpoint) = (&self.tenant, &self.id);
            tracing::error!(tenant, endpoint, "the endpoint's secrets cannot be opened; it waits");
        }
        let SecretsRow { headers, secrets, tls, configs } = opened.unwrap_or_default();
        let mut configs = configs.into_iter();
        let pattern = |it: &String| Pattern::parse(it).ok_or_else(|| Error::corrupt("pattern"));
        let filter = self.filter.map(|it| Filter::stored(&it).map_err(Error::corrupt));
        let secret = |(text, until): (String, Option<u64>)| SigningSecret {
            secret: Secret::kept(&text),
            until: until.map(Timestamp),
        };
        Ok(Endpoint {
            no: EndpointNo(self.no),
            id: EndpointId::parse(&self.id).ok_or_else(|| Error::corrupt("endpoint id"))?,
            tenant: slug(&self.tenant)?,
            url: self.url,
            description: self.description,
            metadata: self.metadata,
            event_types: self.event_types.iter().map(pattern).collect::<Result<_>>()?,
            filter: filter.transpose()?,
            plugins: self
                .plugins
                .into_iter()
                .map(|it| it.into_noun(configs.next().unwrap_or_default()))
                .collect::<Result<_>>()?,
            format: of_code(&Format::NAMES, self.format)?,
            headers,
            signature: self.signature.into_noun()?,
            secrets: secrets.into_iter().map(secret).collect(),
            secret_unavailable,
            tls: tls.map(|(ca, certificate, key)| {
                Arc::new(ClientTls { ca, certificate, key: key.map(Zeroizing::new) })
            }),
            retry: self.retry.into_noun(),
            timeout: Duration::from_millis(self.timeout_ms),
            ordering: of_code(&Ordering::NAMES, self.ordering & ((1 << HALF) - 1))?,
            trace: of_code(&TracePolicy::NAMES, self.ordering >> HALF)?,
            max_in_flight: self.max_in_flight,
            rate_limit: self.rate_limit.map(|(per_second, burst)| RateLimit { per_second, burst }),
            enabled: self.enabled,
            disabled_reason: self.disabled_reason,
            created_at: Timestamp(self.created_at),
            updated_at: Timestamp(self.updated_at),
        })
    }
}

impl From<&Signature> for SignatureRow {
    fn from(it: &Signature) -> Self {
        Self {
            scheme: code(&Scheme::NAMES, it.scheme),
            with_v1: it.with_v1,
            header: it.header.clone(),
            timestamp_header: it.timestamp_header.clone(),
            prefix: it.prefix.clone(),
        }
    }
}

impl SignatureRow {
    fn into_noun(self) -> Result<Signature> {
        Ok(Signature {
            scheme: of_code(&Scheme::NAMES, self.scheme)?,
            with_v1: self.with_v1,
            header: self.header,
            timestamp_header: self.timestamp_header,
            prefix: self.prefix,
        })
    }
}

impl From<&PluginUse> for PluginUseRow {
    fn from(it: &PluginUse) -> Self {
        Self {
            plugin: it.plugin.to_string(),
            version: it.version,
            on_error: code(&OnError::NAMES, it.on_error),
        }
    }
}

impl PluginUseRow {
    fn into_noun(self, config: BTreeMap<String, String>) -> Result<PluginUse> {
        Ok(PluginUse {
            plugin: plugin_name(&self.plugin)?,
            version: self.version,
            config,
            on_error: of_code(&OnError::NAMES, self.on_error)?,
        })
    }
}

impl From<&Retry> for RetryRow {
    fn from(it: &Retry) -> Self {
        match &it.policy {
            RetryPolicy::Schedule(waits) => {
                let waits_ms = waits.iter().map(|it| millis(*it)).collect();
                Self::Schedule { waits_ms, jitter: it.jitter }
            }
            RetryPolicy::Backoff { base, factor, max_delay, max_attempts } => Self::Backoff {
                base_ms: millis(*base),
                factor: *factor,
                max_delay_ms: millis(*max_delay),
                max_attempts: *max_attempts,
                jitter: it.jitter,
            },
        }
    }
}

impl RetryRow {
    fn into_noun(self) -> Retry {
        match self {
            Self::Schedule { waits_ms, jitter } => {
                let waits = waits_ms.into_iter().map(Duration::from_millis).collect();
                Retry { policy: RetryPolicy::Schedule(waits), jitter }
            }
            Self::Backoff { base_ms, factor, max_delay_ms, max_attempts, jitter } => Retry {
                policy: RetryPolicy::Backoff {
                    base: Duration::from_millis(base_ms),
                    factor,
                    max_delay: Duration::from_millis(max_delay_ms),
                    max_attempts,
                },
                jitter,
            },
        }
    }
}

/// The place in the table of names is the code on disk: new names go to the end.
fn code<T: PartialEq>(names: &[(T, &str)], value: T) -> u8 {
    names.iter().position(|(it, _)| *it == value).expect("each has a name") as u8
}

fn of_code<T: Copy>(names: &[(T, &str)], code: u8) -> Result<T> {
    let named = names.get(usize::from(code)).map(|(it, _)| *it);
    named.ok_or_else(|| Error::corrupt(format!("code {code} of {}", names[0].1)))
}

fn slug(text: &str) -> Result<Slug> {
    Slug::parse(text).ok_or_else(|| Error::corrupt("tenant"))
}

fn plugin_name(text: &str) -> Result<PluginName> {
    PluginName::parse(text).ok_or_else(|| Error::corrupt("plugin name"))
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::codec::encode;
    use crate::storage::conformance::endpoint;
    use crate::storage::keyring::{Keyring, MasterKey, MasterKeys};
    use crate::world::SeededEntropy;

    #[test]
    fn a_row_that_was_moved_waits_without_its_secrets() {
        let entropy = SeededEntropy::new(1);
        let mut ring = Keyring::new(MasterKeys::new(MasterKey::simulated()));
        for (no, tenant) in [(1, "default"), (2, "another")] {
            let wrapped = ring.draw(no, tenant, &entropy);
            ring.take_up(no, tenant, &wrapped);
        }
        let mut it = endpoint(EndpointNo(7));
        it.headers.insert("authorization".to_owned(), "Bearer secret".to_owned());
        let row = EndpointRow::sealed(&it, ring.get(1).unwrap(), &entropy);
        assert_eq!(row.clone().into_noun(ring.get(1)).unwrap(), it);
        assert!(!encode(&row).windows(6).any(|it| it == b"secret"));
        let to_endpoint = EndpointRow { no: 8, id: "e8".to_owned(), ..row.clone() };
        for (row, key) in [(to_endpoint, ring.get(1)), (row.clone(), ring.get(2)), (row, None)] {
            let moved = row.into_noun(key).unwrap();
            assert!(moved.secret_unavailable && moved.secrets.is_empty());
            assert!(moved.headers.is_empty() && moved.tls.is_none());
        }
    }
}
