use std::net::IpAddr;

use url::Url;

use crate::world::egress::{Denial, EgressPolicy};

const URL_CHARS_MAX: usize = 2048;
const HOST_CHARS_MAX: usize = 253;
/// Names of networks that are nobody's in public (RFC 6761, RFC 8375, and by custom). Those of
/// documentation, as `.example`, lead nowhere and are left to the look-up.
const PRIVATE_SUFFIXES: [&str; 12] = [
    "localhost",
    "local",
    "internal",
    "intranet",
    "lan",
    "home.arpa",
    "svc",
    "cluster.local",
    "onion",
    "corp",
    "test",
    "invalid",
];
/// Why a URL cannot be an endpoint's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UrlRefusal {
    /// The machine code.
    pub code: &'static str,
    /// A sentence.
    pub detail: String,
}

impl UrlRefusal {
    /// Says the same whatever the address is, so that it is no port scanner.
    pub fn blocked() -> Self {
        let detail = "the URL leads to an address that deliveries must not reach".to_owned();
        Self { code: "url_blocked_address", detail }
    }
}

/// Whom to connect to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Host {
    /// A literal address.
    Address(IpAddr),
    /// A name that has to be resolved.
    Name(String),
}

/// A URL that passed, taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// The normalised URL.
    pub url: Url,
    /// Whom to connect to.
    pub host: Host,
    /// On which port.
    pub port: u16,
    /// Whether by TLS.
    pub tls: bool,
}

impl Target {
    /// Takes a URL apart and checks what can be told without a look-up.
    ///
    /// # Errors
    /// `url_invalid`, `url_scheme`, `url_port`, `url_blocked_address`.
    pub fn parse(text: &str, policy: &EgressPolicy) -> Result<Self, UrlRefusal> {
        if text.len() > URL_CHARS_MAX || text.contains(['\\', '\t', '\n', '\r']) {
            return Err(invalid("is too long or has a character that URLs do not have"));
        }
        let url = Url::parse(text).map_err(|it| match it {
            url::ParseError::InvalidPort => port_refused("the port is no port"),
            it => invalid(&format!("is no URL: {it}")),
        })?;
        let tls = match url.scheme() {
            "https" => true,
            "http" => false,
            other => return Err(scheme(&format!("`{other}` is not https"))),
        };
        if !url.username().is_empty() || url.password().is_some() || url.fragment().is_some() {
            return Err(invalid("must have neither user nor password nor fragment"));
        }
        let port = url.port_or_known_default().unwrap_or_default();
        if !agrees(&url, port) || is_escaped(text) || url.as_str().len() > URL_CHARS_MAX {
            return Err(invalid("is ambiguous"));
        }
        let host = host_of(&url, policy)?;
        let target = Self { url, host, port, tls };
        target.check(policy)?;
        Ok(target)
    }

    fn check(&self, policy: &EgressPolicy) -> Result<(), UrlRefusal> {
        let judged = match &self.host {
            Host::Address(address) => policy.judge(*address, self.port, self.tls),
            Host::Name(name) if is_private_name(name) && !policy.opens_private_names() => {
                Err(Denial::Address)
            }
            Host::Name(_) => policy.judge_name(self.port, self.tls),
        };
        judged.map_err(|it| match it {
            Denial::Address => UrlRefusal::blocked(),
            Denial::Scheme => scheme("plain http is not allowed; use https"),
            Denial::Port => port_refused(&policy.why_not(self.port, self.tls)),
        })
    }
}

/// Whether a second parser reads the same: what one takes and another does not, or takes
/// differently, is an attack or an accident.
fn agrees(url: &Url, port: u16) -> bool {
    let Ok(uri) = url.as_str().parse::<http::Uri>() else { return false };
    let usual = if uri.scheme_str() == Some("https") { 443 } else { 80 };
    uri.host() == url.host_str() && uri.port_u16().unwrap_or(usual) == port
}

/// Whether the host as it was written has an escape, which parsers undo or do not.
fn is_escaped(text: &str) -> bool {
    let rest = text.split_once("//").map_or(text, |(_, rest)| rest);
    rest.split(['/', '?', '#']).next().unwrap_or_default().contains('%')
}

fn host_of(url: &Url, policy: &EgressPolicy) -> Result<Host, UrlRefusal> {
    let name = match url.host() {
        Some(url::Host::Ipv4(it)) => return Ok(Host::Address(it.into())),
        Some(url::Host::Ipv6(it)) => return Ok(Host::Address(it.into())),
        Some(url::Host::Domain(name)) => name.strip_suffix('.').unwrap_or(name),
        None => return Err(invalid("has no host")),
    };
    if let Ok(address) = name.parse::<IpAddr>() {
        return Ok(Host::Address(address));
    }
    let label = |it: &str| {
        let plain = it.bytes().all(|it| it.is_ascii_alphanumeric() || it == b'-');
        let fits = (1..=63).contains(&it.len());
        plain && fits && !it.starts_with('-') && !it.ends_with('-')
    };
    let fits = name.len() <= HOST_CHARS_MAX && name.split('.').all(label);
    // A name without a dot is a host of the operator's own network.
    let dotted = name.contains('.') || name == "localhost" || policy.opens_private_names();
    if !fits || !dotted {
        return Err(invalid(&format!("`{name}` is not a host name")));
    }
    Ok(Host::Name(name.to_owned()))
}

fn is_private_name(name: &str) -> bool {
    let ends = |suffix: &&str| {
        name.strip_suffix(*suffix).is_some_and(|it| it.is_empty() || it.ends_with('.'))
    };
    PRIVATE_SUFFIXES.iter().any(ends)
}

fn invalid(detail: &str) -> UrlRefusal {
    UrlRefusal { code: "url_invalid", detail: format!("the URL {detail}") }
}

fn port_refused(detail: &str) -> UrlRefusal {
    UrlRefusal { code: "url_port", detail: detail.to_owned() }
}

fn scheme(detail: &str) -> UrlRefusal {
    UrlRefusal { code: "url_scheme", detail: detail.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_port_is_told_with_those_that_are_open() {
        let policy =
            EgressPolicy { allow_http: true, ports: vec![9443], ..EgressPolicy::default() };
        let open = "is not open: use one of 443, 8443";
        for (url, told) in [
            ("https://shop.example.com:9000/", format!("port 9000 {open}, 9443, or have")),
            ("http://shop.example.com:9000/", format!("port 9000 {open}, 80, 8080, 9443, or have")),
            ("https://shop.example.com:22/", "port 22 is that of another service".to_owned()),
        ] {
            let refused = Target::parse(url, &policy).unwrap_err();
            assert!(refused.detail.starts_with(&told), "{}", refused.detail);
        }
    }

    #[test]
    fn by_default_only_public_https_passes() {
        let policy = EgressPolicy::default();
        for (url, code) in [
            ("https://shop.example.com/hooks", None),
            ("https://shop.example.com:8443/h?x=1", None),
            ("https://8.8.8.8/", None),
            ("https://169.254.169.254/", Some("url_blocked_address")),
            ("https://10.0.0.1/", Some("url_blocked_address")),
            ("https://0/", Some("url_blocked_address")),
            ("https://2130706433/", Some("url_blocked_address")),
            ("https://0x7f.1/", Some("url_blocked_address")),
            ("https://0177.0.0.1/", Some("url_blocked_address")),
            ("https://127.1/", Some("url_blocked_address")),
            ("https://127.0.0.1./", Some("url_blocked_address")),
            ("https://①②⑦.⓪.⓪.①/", Some("url_blocked_address")),
            ("https://127。0。0。1/", Some("url_blocked_address")),
            ("https://[::1]/", Some("url_blocked_address")),
            ("https://[::ffff:127.0.0.1]/", Some("url_blocked_address")),
            ("https://[64:ff9b::7f00:1]/", Some("url_blocked_address")),
            ("https://[2002:7f00:1::]/", Some("url_blocked_address")),
            ("https://[2001::]/", Some("url_blocked_address")),
            ("https://[::127.0.0.1]/", Some("url_blocked_address")),
            ("https://[fd00:ec2::254]/", Some("url_blocked_address")),
            ("https://168.63.129.16/", Some("url_blocked_address")),
            ("https://localhost/", Some("url_blocked_address")),
            ("https://a.internal/", Some("url_blocked_address")),
            ("https://[fe80::1%25eth0]/", Some("url_invalid")),
            ("http://shop.example.com/", Some("url_scheme")),
            ("ftp://shop.example.com/", Some("url_scheme")),
            ("file:///etc/passwd", Some("url_scheme")),
            ("gopher://x.example.com/", Some("url_scheme")),
            ("data:text/plain,x", Some("url_scheme")),
            ("https://shop.example.com:22/", Some("url_port")),
            ("https://shop.example.com:6379/", Some("url_port")),
            ("https://shop.example.com:0/", Some("url_port")),
            ("https://shop.example.com:65536/", Some("url_port")),
            ("https://sh%6fp.example.com/", Some("url_invalid")),
            ("https://h%0d%0a.example.com/x", Some("url_invalid")),
            ("https://a.test/", Some("url_blocked_address")),
            ("https://shop.example.com/a%20b", None),
            ("https://shop.example.com:9443/", Some("url_port")),
            ("https://u:p@shop.example.com/", Some("url_invalid")),
            ("https://shop.example.com/#f", Some("url_invalid")),
            ("https://h\\@evil.example.com/", Some("url_invalid")),
            ("https://a..b/", Some("url_invalid")),
            ("https://-h.example.com/", Some("url_invalid")),
            ("https://h_t.example.com/", Some("url_invalid")),
            ("https://shop/", Some("url_invalid")),
            ("nonsense", Some("url_invalid")),
        ] {
            let refused = Target::parse(url, &policy).err().map(|it| it.code);
            assert_eq!(refused, code, "{url}");
        }
        let long = format!("https://shop.example.com/{}", "x".repeat(2048));
        assert_eq!(Target::parse(&long, &policy).unwrap_err().code, "url_invalid");
    }

    #[test]
    fn with_leave_loopback_passes_and_metadata_does_not() {
        let policy = EgressPolicy { allow_private: true, ..EgressPolicy::default() };
        for url in ["http://127.0.0.1:41234/h", "http://localhost:8081/", "https://[::1]:9000/"] {
            assert!(Target::parse(url, &policy).is_ok(), "{url}");
        }
        assert!(Target::parse("http://169.254.169.254/", &policy).is_err());
        assert!(Target::parse("http://8.8.8.8/", &policy).is_err(), "plain http stays private");
        assert!(Target::parse("http://receiver:9000/", &policy).is_ok(), "a host of one's own");
        assert!(Target::parse("https://8.8.8.8:9000/", &policy).is_err(), "usual ports in public");
    }
}
