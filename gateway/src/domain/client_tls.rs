use std::fmt;

use zeroize::Zeroizing;

/// What an endpoint's TLS has of its own. All of it is PEM.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct ClientTls {
    /// Certificates to trust, in place of the machine's.
    pub ca: Option<String>,
    /// The certificate, with its chain, that the gateway shows (mTLS).
    pub certificate: Option<String>,
    /// The private key of that certificate.
    pub key: Option<Zeroizing<String>>,
}

impl ClientTls {
    /// Whether nothing is set.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

impl fmt::Debug for ClientTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (ca, certificate) = (self.ca.is_some(), self.certificate.is_some());
        write!(f, "ClientTls(ca: {ca}, certificate: {certificate}, …)")
    }
}
