use std::{
    fmt,
    net::{IpAddr, SocketAddr},
};

use ipnet::IpNet;

use crate::world::egress::Host;
use crate::world::egress::deny_table::{
    self, canonical, embedded_v4, is_metadata, is_private, is_public,
};
use crate::world::egress::ports::{is_bad, is_usual, usual};

/// What the operator lets through: a network, on all ports or on one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Allowed {
    /// The addresses.
    pub net: IpNet,
    /// The port; `None`: all.
    pub port: Option<u16>,
}

impl std::str::FromStr for Allowed {
    type Err = String;

    /// `10.1.0.0/16`, `10.1.2.3`, `10.1.2.3:8080`, `[fd00::1]:8080`.
    fn from_str(text: &str) -> Result<Self, String> {
        if let Ok(net) = text.parse() {
            return Ok(Self { net, port: None });
        }
        if let Ok(address) = text.parse::<IpAddr>() {
            return Ok(Self { net: address.into(), port: None });
        }
        let socket =
            text.parse::<std::net::SocketAddr>().map(|it| (IpNet::from(it.ip()), it.port()));
        let split = || {
            let (net, port) = text.rsplit_once(':')?;
            Some((net.parse().ok()?, port.parse().ok()?))
        };
        let (net, port) = socket.ok().or_else(split).ok_or_else(|| {
            format!("`{text}` is no network; write 10.1.0.0/16, 10.1.2.3 or 10.1.0.0/16:8080")
        })?;
        Ok(Self { net, port: Some(port) })
    }
}

impl fmt::Display for Allowed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.port {
            None => write!(f, "{}", self.net),
            Some(port) => write!(f, "{}:{port}", self.net),
        }
    }
}

/// Why an address is not reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Denial {
    /// The address itself.
    Address,
    /// Not on this port.
    Port,
    /// Not without TLS.
    Scheme,
}

/// A proxy that all deliveries go through.
#[derive(Clone, PartialEq, Eq)]
pub struct Proxy {
    /// Its host.
    pub host: Host,
    /// Its port.
    pub port: u16,
    /// The value of `Proxy-Authorization`, if it wants one.
    pub authorization: Option<String>,
    /// It resolves and checks names itself, as Smokescreen does; else it is asked to connect to
    /// the address that was checked here.
    pub trusted: bool,
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Proxy({:?}:{}, trusted: {})", self.host, self.port, self.trusted)
    }
}

impl std::str::FromStr for Proxy {
    type Err = String;

    /// `http://proxy.internal:4750`, with `user:password@` if it wants that.
    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || "must be like http://proxy.internal:4750".to_owned();
        let url: url::Url = text.parse().map_err(|_| wrong())?;
        let host = match url.host().filter(|_| url.scheme() == "http").ok_or_else(wrong)? {
            url::Host::Ipv4(it) => Host::Address(it.into()),
            url::Host::Ipv6(it) => Host::Address(it.into()),
            url::Host::Domain(it) => Host::Name(it.to_owned()),
        };
        let secret = url.password().unwrap_or_default();
        let pair = format!("{}:{secret}", url.username());
        let authorization = (!url.username().is_empty())
            .then(|| format!("Basic {}", data_encoding::BASE64.encode(pair.as_bytes())));
        let port = url.port_or_known_default().ok_or_else(wrong)?;
        Ok(Self { host, port, authorization, trusted: false })
    }
}

/// Which addresses deliveries may reach. Without any leave: public ones, by https.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EgressPolicy {
    /// Loopback and private addresses may be reached, and by plain http.
    pub allow_private: bool,
    /// Plain http may be used anywhere.
    pub allow_http: bool,
    /// Further leave.
    pub allowed: Vec<Allowed>,
    /// Networks that nobody may reach, whatever else is said.
    pub denied: Vec<IpNet>,
    /// Ports of public hosts beside 443 and 8443.
    pub ports: Vec<u16>,
    /// The addresses of this machine.
    pub own: Vec<IpAddr>,
    /// Where the gateway itself listens.
    pub listener: Option<SocketAddr>,
    /// What all deliveries go through.
    pub proxy: Option<Proxy>,
}

impl EgressPolicy {
    /// Whether a connection to this address may be made; if not, why.
    ///
    /// # Errors
    /// Why not.
    pub fn judge(&self, address: IpAddr, port: u16, tls: bool) -> Result<(), Denial> {
        let address = canonical(address);
        // An IPv4 address that a translator would make of it must be allowed as well.
        let embedded = embedded_v4(address).map(IpAddr::V4);
        [Some(address), embedded]
            .into_iter()
            .flatten()
            .try_for_each(|it| self.judge_one(it, port, tls))
    }

    fn judge_one(&self, address: IpAddr, port: u16, tls: bool) -> Result<(), Denial> {
        let covers =
            |it: &&Allowed| it.port.is_none_or(|it| it == port) && it.net.contains(&address);
        let alone = |it: &Allowed| it.net.prefix_len() == it.net.max_prefix_len();
        let mut named = self.allowed.iter().filter(covers).peekable();
        let opened = named.peek().is_some();
        let private = self.allow_private && is_private(address);
        let public = is_public(address) && !self.own.contains(&address);
        let permitted = if self.denied.iter().any(|it| it.contains(&address)) {
            false
        } else if is_metadata(address) {
            // What hands out the machine's credentials has to be named by itself.
            named.any(alone)
        } else if self.is_listener(address, port) {
            // And so has the gateway itself, port included: an event must not run in circles.
            named.any(|it| alone(it) && it.port.is_some())
        } else {
            public || private || opened
        };
        if !permitted {
            return Err(Denial::Address);
        }
        let usual = is_usual(port, tls) || self.ports.contains(&port);
        if is_bad(port) || !(usual || private || opened) {
            return Err(Denial::Port);
        }
        if !tls && !self.allow_http && is_public(address) {
            return Err(Denial::Scheme);
        }
        Ok(())
    }

    /// What can be said of a name before it is looked up.
    ///
    /// # Errors
    /// Why it cannot be reached, whatever its addresses are.
    pub(super) fn judge_name(&self, port: u16, tls: bool) -> Result<(), Denial> {
        let fits = |it: &Allowed| it.port.is_none_or(|it| it == port);
        let opened = self.allow_private || self.allowed.iter().any(fits);
        let usual = is_usual(port, tls) || self.ports.contains(&port);
        if is_bad(port) || !(usual || opened) {
            return Err(Denial::Port);
        }
        if !tls && !self.allow_http && !opened {
            return Err(Denial::Scheme);
        }
        Ok(())
    }

    /// Why a port is refused, and which are not.
    pub(super) fn why_not(&self, port: u16, tls: bool) -> String {
        if is_bad(port) {
            return format!("port {port} is that of another service, and never delivered to");
        }
        let open = usual(tls).iter().chain(&self.ports).map(u16::to_string);
        let open = open.collect::<Vec<_>>().join(", ");
        format!(
            "port {port} is not open: use one of {open}, or have the operator set `allow_ports`"
        )
    }

    /// Whether any address that is not public may be reached, so that names of such hosts make
    /// sense.
    pub(super) fn opens_private_names(&self) -> bool {
        self.allow_private || !self.allowed.is_empty()
    }

    /// The networks that are denied without leave.
    pub fn denied_networks() -> impl Iterator<Item = IpNet> {
        deny_table::rows()
    }

    /// The addresses that have to be named one by one.
    pub fn named_alone() -> impl Iterator<Item = IpAddr> {
        deny_table::METADATA.into_iter()
    }

    fn is_listener(&self, address: IpAddr, port: u16) -> bool {
        self.listener.is_some_and(|it| {
            let mine = match it.ip().is_unspecified() {
                true => address.is_loopback() || self.own.contains(&address),
                false => it.ip() == address,
            };
            mine && it.port() == port
        })
    }
}

/// The addresses of this machine's interfaces.
pub fn own_addresses() -> Vec<IpAddr> {
    let found = if_addrs::get_if_addrs();
    let found = found.inspect_err(|error| tracing::warn!(%error, "own addresses are not known"));
    let mut addresses: Vec<_> = found.unwrap_or_default().iter().map(|it| it.ip()).collect();
    addresses.sort_unstable();
    addresses.dedup();
    addresses
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(allow_private: bool, allowed: &[&str]) -> EgressPolicy {
        let allowed = allowed.iter().map(|it| it.parse().unwrap()).collect();
        EgressPolicy { allow_private, allowed, ..EgressPolicy::default() }
    }

    #[test]
    fn leave_is_exact() {
        for (policy, address, port, expected) in [
            (policy(false, &[]), "127.0.0.1", 443, false),
            (policy(true, &[]), "127.0.0.1", 9000, true),
            (policy(true, &[]), "::ffff:10.0.0.1", 443, true),
            (policy(true, &[]), "169.254.169.254", 443, false),
            (policy(true, &[]), "100.100.100.200", 443, false),
            (policy(true, &[]), "fd00:ec2::254", 443, false),
            (policy(true, &[]), "169.254.0.1", 443, false),
            (policy(true, &[]), "127.0.0.1", 6379, false),
            (policy(true, &[]), "8.8.8.8", 9000, false),
            (policy(false, &["10.1.0.0/16"]), "10.1.2.3", 9000, true),
            (policy(false, &["10.1.0.0/16"]), "10.2.2.3", 443, false),
            (policy(false, &["10.1.0.0/16"]), "8.8.8.8", 9000, false),
            (policy(false, &["10.1.0.0/16:8080"]), "10.1.2.3", 443, false),
            (policy(false, &["10.1.2.3:8080"]), "10.1.2.3", 8080, true),
            (policy(false, &["10.1.2.3:6379"]), "10.1.2.3", 6379, false),
            (policy(false, &["169.254.0.0/16"]), "169.254.169.254", 443, false),
            (policy(false, &["169.254.169.254"]), "169.254.169.254", 443, true),
            (policy(false, &["[fd00::1]:81"]), "fd00::1", 81, true),
            (policy(false, &["64:ff9b::/96"]), "64:ff9b::8.8.8.8", 443, true),
            (policy(false, &["64:ff9b::/96"]), "64:ff9b::10.0.0.1", 443, false),
            (policy(false, &["64:ff9b::/96"]), "64:ff9b::169.254.169.254", 443, false),
        ] {
            let address: IpAddr = address.parse().unwrap();
            let judged = policy.judge(address, port, true);
            assert_eq!(judged.is_ok(), expected, "{address}:{port} by {policy:?}: {judged:?}");
        }
        assert!("nonsense".parse::<Allowed>().is_err());
        assert_eq!("10.1.0.0/16:8443".parse::<Allowed>().unwrap().to_string(), "10.1.0.0/16:8443");
    }

    #[test]
    fn the_machine_itself_and_what_is_forbidden_are_not_reached() {
        let own: IpAddr = "8.8.4.4".parse().unwrap();
        let listener = |text: &str| Some(text.parse().unwrap());
        let denied = vec!["9.9.0.0/16".parse().unwrap()];
        let public = EgressPolicy {
            own: vec![own],
            denied: denied.clone(),
            ports: vec![9443],
            ..EgressPolicy::default()
        };
        assert_eq!(public.judge(own, 443, true), Err(Denial::Address));
        assert_eq!(public.judge("9.9.9.9".parse().unwrap(), 443, true), Err(Denial::Address));
        assert_eq!(public.judge("8.8.8.8".parse().unwrap(), 9443, true), Ok(()));
        assert_eq!(public.judge("8.8.8.8".parse().unwrap(), 9444, true), Err(Denial::Port));
        assert_eq!(public.judge("8.8.8.8".parse().unwrap(), 80, false), Err(Denial::Scheme));
        let local = "127.0.0.1".parse().unwrap();
        for (listening, address) in [("127.0.0.1:8080", local), ("0.0.0.0:8080", own)] {
            let wide = ["127.0.0.0/8", "8.8.4.4"].map(|it| it.parse().unwrap());
            let private = EgressPolicy {
                allow_private: true,
                allow_http: true,
                allowed: wide.to_vec(),
                own: vec![own],
                listener: listener(listening),
                ..EgressPolicy::default()
            };
            assert_eq!(private.judge(address, 8080, false), Err(Denial::Address), "{address}");
            assert_eq!(private.judge(address, 8081, false), Ok(()));
        }
        let named = EgressPolicy {
            allowed: vec!["127.0.0.1:8080".parse().unwrap()],
            listener: listener("127.0.0.1:8080"),
            ..EgressPolicy::default()
        };
        assert_eq!(named.judge(local, 8080, false), Ok(()));
    }
}
