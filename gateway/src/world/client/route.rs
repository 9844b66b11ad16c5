use std::{net::IpAddr, sync::Arc};

use http::{HeaderValue, Uri};
use url::Position;

use crate::domain::ClientTls;
use crate::world::FailureClass;
use crate::world::client::connect::{Connection, Failure};
use crate::world::egress::{EgressPolicy, Target};

/// What a URL comes to under a policy: worked out once, not for each request.
pub(super) struct Prepared {
    pub(super) target: Target,
    /// The URL, as it was given.
    url: Box<str>,
    /// Host and port, as the request names them.
    pub(super) host: HeaderValue,
    /// Path and query.
    pub(super) path: Uri,
    policy: Arc<EgressPolicy>,
}

impl Prepared {
    pub(super) fn new(url: &str, policy: &Arc<EgressPolicy>) -> Result<Self, Failure> {
        let target =
            Target::parse(url, policy).map_err(|it| (FailureClass::BlockedAddress, it.detail))?;
        let invalid = |it: http::Error| (FailureClass::ProtocolError, it.to_string());
        let path = &target.url[Position::BeforePath..Position::AfterQuery];
        let path = path.parse().map_err(|it: http::uri::InvalidUri| invalid(it.into()))?;
        let host = &target.url[Position::BeforeHost..Position::AfterPort];
        let host = HeaderValue::from_str(host).map_err(|it| invalid(it.into()))?;
        Ok(Self { target, url: url.into(), host, path, policy: policy.clone() })
    }

    /// Whether it is what this URL comes to under this policy.
    pub(super) fn is_of(&self, url: &str, policy: &Arc<EgressPolicy>) -> bool {
        *self.url == *url && Arc::ptr_eq(&self.policy, policy)
    }

    /// Scheme, host and port.
    pub(super) fn origin(&self) -> &str {
        &self.target.url[..Position::BeforePath]
    }
}

/// Where a connection leads, and as whom.
#[derive(Clone)]
pub(super) struct Route {
    pub(super) prepared: Arc<Prepared>,
    /// What the endpoint's TLS has of its own.
    pub(super) tls: Option<Arc<ClientTls>>,
}

impl Route {
    /// Whether a connection of one is good for the other: an endpoint that moves or changes its
    /// certificates does not go on talking as before.
    pub(super) fn shares_with(&self, other: &Self) -> bool {
        let same = Arc::ptr_eq(&self.prepared, &other.prepared);
        (same || self.prepared.origin() == other.prepared.origin()) && self.tls == other.tls
    }

    /// Whether the policy lets a connection of this route go on.
    pub(super) fn is_permitted(&self, policy: &EgressPolicy, connection: &Connection) -> bool {
        let target = &self.prepared.target;
        let permits = |it: &IpAddr| policy.judge(*it, target.port, target.tls).is_ok();
        connection.addresses.iter().all(permits)
    }

    /// Whether that is known without asking: it was opened under this policy.
    pub(super) fn is_under(&self, policy: &Arc<EgressPolicy>) -> bool {
        Arc::ptr_eq(&self.prepared.policy, policy)
    }
}
