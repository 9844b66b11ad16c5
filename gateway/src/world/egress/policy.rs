use std::net::IpAddr;

use ipnet::IpNet;

use crate::world::egress::deny_table::{canonical, is_metadata, is_private, is_public};

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

/// Which addresses deliveries may reach. Without any leave: public ones, by https.
#[derive(Debug, Clone, Default)]
pub struct EgressPolicy {
    /// Loopback and private addresses may be reached, and by plain http.
    pub allow_private: bool,
    /// Plain http may be used anywhere.
    pub allow_http: bool,
    /// Further leave.
    pub allowed: Vec<Allowed>,
}

impl EgressPolicy {
    /// Whether a connection to this address may be made. An address that hands out the machine's
    /// credentials has to be named by itself; no wider leave covers it.
    pub fn permits(&self, address: IpAddr, port: u16) -> bool {
        let address = canonical(address);
        let named = self.allowed.iter().filter(|it| it.port.is_none_or(|it| it == port));
        let mut named = named.filter(|it| it.net.contains(&address));
        if is_metadata(address) {
            return named.any(|it| it.net.prefix_len() == it.net.max_prefix_len());
        }
        is_public(address) || (self.allow_private && is_private(address)) || named.next().is_some()
    }

    /// Whether this address may be sent to without TLS.
    pub fn permits_http(&self, address: IpAddr, port: u16) -> bool {
        let address = canonical(address);
        self.allow_http || (!is_public(address) && self.permits(address, port))
    }

    /// Whether any address that is not public may be reached, so that names of such hosts make
    /// sense.
    pub(super) fn opens_private_names(&self) -> bool {
        self.allow_private || !self.allowed.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(allow_private: bool, allowed: &[&str]) -> EgressPolicy {
        let allowed = allowed.iter().map(|it| it.parse().unwrap()).collect();
        EgressPolicy { allow_private, allow_http: false, allowed }
    }

    #[test]
    fn leave_is_exact() {
        for (policy, address, port, expected) in [
            (policy(false, &[]), "127.0.0.1", 80, false),
            (policy(true, &[]), "127.0.0.1", 80, true),
            (policy(true, &[]), "::ffff:10.0.0.1", 80, true),
            (policy(true, &[]), "169.254.169.254", 80, false),
            (policy(true, &[]), "100.100.100.200", 80, false),
            (policy(true, &[]), "fd00:ec2::254", 80, false),
            (policy(true, &[]), "169.254.0.1", 80, false),
            (policy(false, &["10.1.0.0/16"]), "10.1.2.3", 80, true),
            (policy(false, &["10.1.0.0/16"]), "10.2.2.3", 80, false),
            (policy(false, &["10.1.0.0/16:8080"]), "10.1.2.3", 80, false),
            (policy(false, &["10.1.2.3:8080"]), "10.1.2.3", 8080, true),
            (policy(false, &["169.254.0.0/16"]), "169.254.169.254", 80, false),
            (policy(false, &["169.254.169.254"]), "169.254.169.254", 80, true),
            (policy(false, &["[fd00::1]:81"]), "fd00::1", 81, true),
        ] {
            let address: IpAddr = address.parse().unwrap();
            assert_eq!(policy.permits(address, port), expected, "{address} by {policy:?}");
        }
        assert!("nonsense".parse::<Allowed>().is_err());
    }
}
