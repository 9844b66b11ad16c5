use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    time::Duration,
};

use hickory_resolver::{
    TokioResolver,
    config::{LookupIpStrategy, ResolveHosts},
};

use crate::world::FailureClass;
use crate::world::egress::{EgressPolicy, Host, Target};

const PATIENCE: Duration = Duration::from_secs(3);
const ADDRESSES_MAX: usize = 16;

/// Turns names into addresses that may be reached.
pub(super) struct Resolver {
    resolver: Result<TokioResolver, String>,
}

impl Resolver {
    /// Asks the machine's name servers, but neither its hosts file nor its search domains.
    pub(super) fn new() -> Self {
        let resolver = TokioResolver::builder_tokio().and_then(|mut builder| {
            let options = builder.options_mut();
            options.timeout = PATIENCE;
            options.attempts = 1;
            options.ndots = 0;
            options.use_hosts_file = ResolveHosts::Never;
            options.ip_strategy = LookupIpStrategy::Ipv4AndIpv6;
            builder.build()
        });
        Self { resolver: resolver.map_err(|it| it.to_string()) }
    }

    /// The addresses of a target. One denied address refuses the whole answer, since mixed
    /// answers are how rebinding is staged.
    pub(super) async fn resolve(
        &self,
        target: &Target,
        policy: &EgressPolicy,
    ) -> Result<Vec<IpAddr>, (FailureClass, String)> {
        let addresses = match &target.host {
            Host::Address(address) => vec![*address],
            // RFC 6761: this name is loopback, whatever a server says.
            Host::Name(name) if name == "localhost" => {
                vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()]
            }
            Host::Name(name) => self.look_up(name).await?,
        };
        if addresses.iter().any(|it| !policy.permits(*it, target.port)) {
            let why = "the name leads to an address that deliveries must not reach";
            return Err((FailureClass::BlockedAddress, why.to_owned()));
        }
        if !target.tls && addresses.iter().any(|it| !policy.permits_http(*it, target.port)) {
            let why = "plain http is not allowed to this address";
            return Err((FailureClass::BlockedAddress, why.to_owned()));
        }
        Ok(addresses)
    }

    async fn look_up(&self, name: &str) -> Result<Vec<IpAddr>, (FailureClass, String)> {
        let failed = |why: String| (FailureClass::DnsFailed, format!("{name}: {why}"));
        let resolver = self.resolver.as_ref().map_err(|it| failed(it.clone()))?;
        // The trailing dot makes it absolute: no search domain is tried.
        let looked = tokio::time::timeout(PATIENCE, resolver.lookup_ip(format!("{name}."))).await;
        let answer = match looked {
            Ok(answer) => answer.map_err(|it| failed(it.to_string()))?,
            Err(_) => return Err(failed("no answer within 3 s".to_owned())),
        };
        let addresses: Vec<_> = answer.iter().collect();
        match addresses.len() {
            0 => Err(failed("no address".to_owned())),
            1..=ADDRESSES_MAX => Ok(addresses),
            more => Err(failed(format!("{more} addresses; at most {ADDRESSES_MAX} are taken"))),
        }
    }
}
