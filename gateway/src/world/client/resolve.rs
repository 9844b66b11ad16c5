use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    time::Duration,
};

use hickory_resolver::{
    TokioResolver,
    config::{LookupIpStrategy, ResolveHosts},
};

use crate::world::FailureClass;
use crate::world::client::connect::Way;
use crate::world::egress::{Denial, EgressPolicy, Host, Target};

const PATIENCE: Duration = Duration::from_secs(3);
const CACHED_MAX: u64 = 8192;
const TTL_MAX: Duration = Duration::from_secs(60);
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
            // An answer is kept for its time, but a changed one takes effect within a minute.
            options.cache_size = CACHED_MAX;
            options.positive_max_ttl = Some(TTL_MAX);
            options.negative_max_ttl = Some(TTL_MAX);
            options.use_hosts_file = ResolveHosts::Never;
            options.ip_strategy = LookupIpStrategy::Ipv4AndIpv6;
            builder.build()
        });
        Self { resolver: resolver.map_err(|it| it.to_string()) }
    }

    /// How a target is reached. One denied address refuses the whole answer, since mixed answers
    /// are how rebinding is staged.
    pub(super) async fn way(
        &self,
        target: &Target,
        policy: &EgressPolicy,
    ) -> Result<Way, (FailureClass, String)> {
        let proxy = match &policy.proxy {
            Some(proxy) => Some((proxy.clone(), self.addresses(&proxy.host).await?)),
            None => None,
        };
        let by_name = matches!(target.host, Host::Name(_));
        if by_name && proxy.as_ref().is_some_and(|(it, _)| it.trusted) {
            return Ok(Way { addresses: Vec::new(), proxy });
        }
        let addresses = self.addresses(&target.host).await?;
        for address in &addresses {
            policy.judge(*address, target.port, target.tls).map_err(|it| {
                let why = match it {
                    Denial::Address => "it leads to an address that deliveries must not reach",
                    Denial::Port => "this port is not allowed there",
                    Denial::Scheme => "plain http is not allowed there",
                };
                (FailureClass::BlockedAddress, why.to_owned())
            })?;
        }
        Ok(Way { addresses, proxy })
    }

    async fn addresses(&self, host: &Host) -> Result<Vec<IpAddr>, (FailureClass, String)> {
        match host {
            Host::Address(address) => Ok(vec![*address]),
            // RFC 6761: this name is loopback, whatever a server says.
            Host::Name(name) if name == "localhost" => {
                Ok(vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()])
            }
            Host::Name(name) => self.look_up(name).await,
        }
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
