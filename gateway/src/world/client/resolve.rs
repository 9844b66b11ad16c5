use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    time::Duration,
};

use hickory_resolver::{
    TokioResolver,
    config::{LookupIpStrategy, ResolveHosts, ResolverOpts},
};

use crate::world::FailureClass;
use crate::world::client::connect::Way;
use crate::world::egress::{Denial, EgressPolicy, Host, Target};

const PATIENCE: Duration = Duration::from_secs(3);
const CACHED_MAX: u64 = 8192;
const TTL_MAX: Duration = Duration::from_secs(60);
const ADDRESSES_MAX: usize = 16;

fn configure(options: &mut ResolverOpts) {
    options.timeout = PATIENCE;
    options.attempts = 1;
    options.ndots = 0;
    // An answer is kept for its time, but a changed one takes effect within a minute.
    options.cache_size = CACHED_MAX;
    options.positive_max_ttl = Some(TTL_MAX);
    options.negative_max_ttl = Some(TTL_MAX);
    options.use_hosts_file = ResolveHosts::Never;
    options.ip_strategy = LookupIpStrategy::Ipv4AndIpv6;
}

/// Turns names into addresses that may be reached.
pub(super) struct Resolver {
    resolver: Result<TokioResolver, String>,
}

impl Resolver {
    /// Asks the machine's name servers, but neither its hosts file nor its search domains.
    pub(super) fn new() -> Self {
        let resolver = TokioResolver::builder_tokio().and_then(|mut builder| {
            configure(builder.options_mut());
            builder.build()
        });
        Self { resolver: resolver.map_err(|it| it.to_string()) }
    }

    /// Asks this name server.
    #[cfg(test)]
    pub(super) fn asking(server: std::net::SocketAddr) -> Self {
        use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolverConfig};
        let mut connection = ConnectionConfig::udp();
        connection.port = server.port();
        let server = NameServerConfig::new(server.ip(), true, vec![connection]);
        let config = ResolverConfig::from_name_servers(vec![server]);
        let mut builder = TokioResolver::builder_with_config(config, Default::default());
        configure(builder.options_mut());
        Self { resolver: builder.build().map_err(|it| it.to_string()) }
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
            Ok(answer) => answer.map_err(|it| match it.is_no_records_found() {
                true => failed("the name servers know no address of it".to_owned()),
                false => failed(it.to_string()),
            })?,
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

/// A name server that says what it is told to.
#[cfg(test)]
pub(super) mod name_server {
    use std::net::{Ipv4Addr, SocketAddr};

    use tokio::{net::UdpSocket, task::JoinSet};

    /// What it says to a question for IPv4 addresses; there are no others.
    #[derive(Clone)]
    pub(in super::super) enum Says {
        Addresses(Vec<Ipv4Addr>),
        /// The name is another's.
        Alias(&'static str),
        /// A code of [RFC 1035](https://www.rfc-editor.org/rfc/rfc1035#section-4.1.1).
        Code(u8),
        Nothing,
    }

    /// Starts one that answers each name by `says`, which is also told how many questions for
    /// addresses came before.
    pub(in super::super) async fn start(
        tasks: &mut JoinSet<()>,
        says: impl Fn(&str, usize) -> Says + Send + 'static,
    ) -> SocketAddr {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        tasks.spawn(async move {
            let (mut buffer, mut before) = ([0; 1024], 0);
            loop {
                let (count, client) = socket.recv_from(&mut buffer).await.unwrap();
                let (name, question, kind) = read(&buffer[12..count]);
                let says = match kind {
                    1 => {
                        before += 1;
                        says(&name, before - 1)
                    }
                    _ => match says(&name, before) {
                        Says::Addresses(_) => Says::Addresses(vec![]),
                        other => other,
                    },
                };
                if let Some(answer) = write(&buffer[..2], question, says) {
                    socket.send_to(&answer, client).await.unwrap();
                }
            }
        });
        address
    }

    /// The name that is asked for, the question's bytes, and the type that is asked for.
    fn read(bytes: &[u8]) -> (String, &[u8], u8) {
        let (mut labels, mut at) = (Vec::new(), 0);
        while bytes[at] > 0 {
            let end = at + 1 + usize::from(bytes[at]);
            labels.push(String::from_utf8_lossy(&bytes[at + 1..end]).to_lowercase());
            at = end;
        }
        (labels.join("."), &bytes[..at + 5], bytes[at + 2])
    }

    fn write(id: &[u8], question: &[u8], says: Says) -> Option<Vec<u8>> {
        let (code, records): (u8, Vec<(u8, Vec<u8>)>) = match says {
            Says::Nothing => return None,
            Says::Code(code) => (code, vec![]),
            Says::Addresses(all) => (0, all.iter().map(|it| (1, it.octets().to_vec())).collect()),
            Says::Alias(name) => {
                let label = |it: &str| [&[it.len() as u8], it.as_bytes()].concat();
                let name: Vec<_> = name.split('.').flat_map(label).chain([0]).collect();
                (0, vec![(5, name)])
            }
        };
        let mut answer =
            [id, &[0x81, 0x80 | code, 0, 1, 0, records.len() as u8, 0, 0, 0, 0]].concat();
        answer.extend_from_slice(question);
        for (kind, data) in records {
            // The name of the question, class IN, for no time at all.
            answer.extend_from_slice(&[0xc0, 12, 0, kind, 0, 1, 0, 0, 0, 0, 0, data.len() as u8]);
            answer.extend_from_slice(&data);
        }
        Some(answer)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use tokio::task::JoinSet;

    use super::name_server::{Says, start};
    use super::*;

    const PUBLIC: Ipv4Addr = Ipv4Addr::new(93, 184, 215, 14);

    async fn way(resolver: &Resolver, host: &str) -> Result<Vec<IpAddr>, FailureClass> {
        let policy = EgressPolicy::default();
        let target = Target::parse(&format!("https://{host}/"), &policy).unwrap();
        let way = resolver.way(&target, &policy).await;
        way.map(|it| it.addresses).map_err(|(class, _)| class)
    }

    #[tokio::test]
    async fn one_address_that_is_denied_refuses_the_whole_answer() {
        let mut tasks = JoinSet::new();
        let server = start(&mut tasks, |name, _| match name {
            "fine.hooks.net" => Says::Addresses(vec![PUBLIC]),
            "alias.hooks.net" => Says::Alias("inside.hooks.net"),
            "inside.hooks.net" => Says::Addresses(vec![Ipv4Addr::new(10, 0, 0, 1)]),
            "meta.hooks.net" => Says::Addresses(vec![Ipv4Addr::new(169, 254, 169, 254)]),
            "last.hooks.net" => Says::Addresses(vec![PUBLIC, Ipv4Addr::LOCALHOST]),
            _ => Says::Addresses(vec![Ipv4Addr::LOCALHOST, PUBLIC]),
        });
        let resolver = Resolver::asking(server.await);
        assert_eq!(way(&resolver, "fine.hooks.net").await, Ok(vec![PUBLIC.into()]));
        for name in ["alias", "inside", "meta", "last", "first"] {
            let found = way(&resolver, &format!("{name}.hooks.net")).await;
            assert_eq!(found, Err(FailureClass::BlockedAddress), "{name}");
        }
    }

    #[tokio::test]
    async fn a_name_that_has_no_address_is_told_from_a_server_that_fails() {
        let mut tasks = JoinSet::new();
        let server = start(&mut tasks, |name, _| match name {
            "nobody.hooks.net" => Says::Code(3),
            "empty.hooks.net" => Says::Addresses(vec![]),
            _ => Says::Code(2),
        });
        let resolver = Resolver::asking(server.await);
        for (name, none) in [("nobody", true), ("empty", true), ("broken", false)] {
            let (_, why) = resolver.look_up(&format!("{name}.hooks.net")).await.unwrap_err();
            assert_eq!(why.ends_with("the name servers know no address of it"), none, "{why}");
        }
    }

    #[tokio::test]
    #[expect(clippy::disallowed_methods, reason = "the name server's silence is real")]
    async fn a_name_without_an_answer_fails_within_its_time() {
        let mut tasks = JoinSet::new();
        let server = start(&mut tasks, |name, _| match name {
            "nobody.hooks.net" => Says::Code(3),
            "broken.hooks.net" => Says::Code(2),
            "empty.hooks.net" => Says::Addresses(vec![]),
            "many.hooks.net" => Says::Addresses(vec![PUBLIC; 17]),
            "circle.hooks.net" => Says::Alias("elcric.hooks.net"),
            "elcric.hooks.net" => Says::Alias("circle.hooks.net"),
            _ => Says::Nothing,
        });
        let resolver = Resolver::asking(server.await);
        for name in ["nobody", "broken", "empty", "many", "circle", "silent"] {
            let started = Instant::now();
            let found = way(&resolver, &format!("{name}.hooks.net")).await;
            assert_eq!(found, Err(FailureClass::DnsFailed), "{name}");
            let took = started.elapsed();
            assert!(took < PATIENCE + Duration::from_millis(500), "{name}: {took:?}");
        }
    }
}
