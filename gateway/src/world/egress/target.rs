use std::net::IpAddr;

use url::Url;

use crate::world::egress::EgressPolicy;

const URL_CHARS_MAX: usize = 2048;
const HOST_CHARS_MAX: usize = 253;
/// Names of networks that are nobody's in public. (Those of documentation, as `.example`, lead
/// nowhere and need no rule.)
const PRIVATE_SUFFIXES: [&str; 10] = [
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
];
/// Ports of services that must not be spoken to in HTTP, whoever has leave (WHATWG's bad ports
/// and the usual databases).
const BAD_PORTS: [u16; 33] = [
    0, 7, 9, 13, 19, 20, 21, 22, 23, 25, 37, 42, 43, 53, 69, 79, 110, 111, 119, 123, 135, 139, 143,
    389, 445, 465, 512, 513, 514, 587, 993, 995, 2049,
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
        let url = Url::parse(text).map_err(|it| invalid(&format!("is no URL: {it}")))?;
        let tls = match url.scheme() {
            "https" => true,
            "http" => false,
            other => return Err(scheme(&format!("`{other}` is not https"))),
        };
        // What one parser takes and another does not is an attack or an accident.
        if url.as_str().parse::<http::Uri>().is_err() {
            return Err(invalid("is ambiguous"));
        }
        if !url.username().is_empty() || url.password().is_some() || url.fragment().is_some() {
            return Err(invalid("must have neither user nor password nor fragment"));
        }
        let port = url.port_or_known_default().unwrap_or_default();
        let host = host_of(&url, text)?;
        let target = Self { url, host, port, tls };
        target.check(policy)?;
        Ok(target)
    }

    fn check(&self, policy: &EgressPolicy) -> Result<(), UrlRefusal> {
        match &self.host {
            Host::Address(address) => {
                if !policy.permits(*address, self.port) {
                    return Err(UrlRefusal::blocked());
                }
                if !self.tls && !policy.permits_http(*address, self.port) {
                    return Err(scheme("plain http is not allowed; use https"));
                }
            }
            Host::Name(name) => {
                if is_private_name(name) && !policy.opens_private_names() {
                    return Err(UrlRefusal::blocked());
                }
                if !self.tls && !policy.allow_http && !policy.opens_private_names() {
                    return Err(scheme("plain http is not allowed; use https"));
                }
            }
        }
        let usual =
            matches!(self.port, 443 | 8443) || (!self.tls && matches!(self.port, 80 | 8080));
        let bad = BAD_PORTS.contains(&self.port);
        if bad || !(usual || policy.opens_private_names()) {
            let detail = format!("port {} is not allowed; use 443 or 8443", self.port);
            return Err(UrlRefusal { code: "url_port", detail });
        }
        Ok(())
    }
}

fn host_of(url: &Url, text: &str) -> Result<Host, UrlRefusal> {
    match url.host() {
        Some(url::Host::Ipv4(it)) => Ok(Host::Address(it.into())),
        Some(url::Host::Ipv6(it)) => Ok(Host::Address(it.into())),
        Some(url::Host::Domain(name)) => {
            let name = name.strip_suffix('.').unwrap_or(name);
            if let Ok(address) = name.parse::<IpAddr>() {
                return Ok(Host::Address(address));
            }
            let label = |it: &str| {
                let plain = it.bytes().all(|it| it.is_ascii_alphanumeric() || it == b'-');
                plain
                    && !it.is_empty()
                    && it.len() <= 63
                    && !it.starts_with('-')
                    && !it.ends_with('-')
            };
            let fits = name.len() <= HOST_CHARS_MAX && name.split('.').all(label);
            // A name without a dot is a host of the operator's own network.
            let dotted = name.contains('.') || name == "localhost";
            if !fits || !dotted || text.contains('%') && url.path() == "/" {
                return Err(invalid(&format!("`{name}` is not a host name")));
            }
            Ok(Host::Name(name.to_owned()))
        }
        None => Err(invalid("has no host")),
    }
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

fn scheme(detail: &str) -> UrlRefusal {
    UrlRefusal { code: "url_scheme", detail: detail.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

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
            ("https://shop.example.com:65536/", Some("url_invalid")),
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
    }
}
