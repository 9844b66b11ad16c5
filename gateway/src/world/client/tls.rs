use std::{
    collections::BTreeMap,
    io,
    sync::{Arc, Mutex, PoisonError},
};

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use rustls::{CertificateError, ClientConfig, RootCertStore};
use rustls_platform_verifier::Verifier;

use crate::domain::ClientTls;
use crate::world::FailureClass;
use crate::world::client::connect::Failure;

/// Endpoints with certificates of their own whose settings are kept ready.
const KEPT_MAX: usize = 4096;
const PEM_BYTES_MAX: usize = 64 * 1024;

/// How TLS is spoken: to most endpoints by the machine's certificates, to some by their own.
pub(super) struct Tls {
    provider: Arc<CryptoProvider>,
    usual_verifier: Arc<Verifier>,
    usual: Arc<ClientConfig>,
    own: Mutex<BTreeMap<u64, Own>>,
}

/// An endpoint's own certificates, and the settings made of them.
type Own = (Arc<ClientTls>, Arc<ClientConfig>);

impl Tls {
    /// `extra_roots` are trusted beside the machine's certificates.
    pub(super) fn new(extra_roots: Vec<Vec<u8>>) -> Result<Self, rustls::Error> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let roots = extra_roots.into_iter().map(Into::into).collect::<Vec<_>>();
        let usual_verifier = Arc::new(Verifier::new_with_extra_roots(roots, provider.clone())?);
        let usual = builder(&provider, usual_verifier.clone())?.with_no_client_auth();
        let usual = Arc::new(with_http1(usual));
        Ok(Self { provider, usual_verifier, usual, own: Mutex::default() })
    }

    /// The settings of a pool's endpoint, made once.
    pub(super) fn config(
        &self,
        pool: u64,
        tls: Option<&Arc<ClientTls>>,
    ) -> Result<Arc<ClientConfig>, Failure> {
        let Some(tls) = tls else { return Ok(self.usual.clone()) };
        let mut own = self.own.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((known, config)) = own.get(&pool)
            && (Arc::ptr_eq(known, tls) || known == tls)
        {
            return Ok(config.clone());
        }
        let config = self.build(tls).map_err(|(_, detail)| (FailureClass::TlsHandshake, detail))?;
        let config = Arc::new(config);
        if own.len() >= KEPT_MAX {
            own.clear();
        }
        own.insert(pool, (tls.clone(), config.clone()));
        Ok(config)
    }

    /// Makes settings of certificates and key.
    ///
    /// # Errors
    /// Which field is wrong, and a sentence.
    pub(super) fn build(&self, tls: &ClientTls) -> Result<ClientConfig, (&'static str, String)> {
        let verifier: Arc<dyn ServerCertVerifier> = match &tls.ca {
            Some(pem) => self.pinned(pem).map_err(|it| ("ca", it))?,
            None => self.usual_verifier.clone(),
        };
        let refused = |it: rustls::Error| ("key", format!("does not fit: {it}"));
        let builder = builder(&self.provider, verifier).map_err(refused)?;
        let config = match (&tls.certificate, &tls.key) {
            (Some(certificate), Some(key)) => {
                let chain = certificates(certificate).map_err(|it| ("certificate", it))?;
                let key = PrivateKeyDer::from_pem_slice(key.as_bytes())
                    .map_err(|_| ("key", "must be a private key in PEM".to_owned()))?;
                builder.with_client_auth_cert(chain, key).map_err(refused)?
            }
            (None, None) => builder.with_no_client_auth(),
            (Some(_), None) => return Err(("key", "is required with a certificate".to_owned())),
            (None, Some(_)) => {
                return Err(("certificate", "is required with a key".to_owned()));
            }
        };
        Ok(with_http1(config))
    }

    /// Trusts what leads to these certificates, and nothing else.
    fn pinned(&self, pem: &str) -> Result<Arc<WebPkiServerVerifier>, String> {
        let mut roots = RootCertStore::empty();
        for certificate in certificates(pem)? {
            roots.add(certificate).map_err(|it| format!("cannot be trusted: {it}"))?;
        }
        let builder =
            WebPkiServerVerifier::builder_with_provider(roots.into(), self.provider.clone());
        builder.build().map_err(|it| it.to_string())
    }
}

fn builder(
    provider: &Arc<CryptoProvider>,
    verifier: Arc<dyn ServerCertVerifier>,
) -> Result<rustls::ConfigBuilder<ClientConfig, rustls::client::WantsClientCert>, rustls::Error> {
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])?;
    Ok(builder.dangerous().with_custom_certificate_verifier(verifier))
}

fn with_http1(mut config: ClientConfig) -> ClientConfig {
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    config
}

fn certificates(pem: &str) -> Result<Vec<CertificateDer<'static>>, String> {
    let wrong = || "must be one or more certificates in PEM".to_owned();
    if pem.len() > PEM_BYTES_MAX {
        return Err(format!("is over {PEM_BYTES_MAX} bytes"));
    }
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
    found.ok().filter(|it| !it.is_empty()).ok_or_else(wrong)
}

/// What kind of failure a handshake ended with.
pub(super) fn classify(error: &io::Error) -> Failure {
    let inner = error.get_ref().and_then(|it| it.downcast_ref::<rustls::Error>());
    let class = match inner {
        Some(rustls::Error::InvalidCertificate(why)) => match why {
            CertificateError::Expired
            | CertificateError::ExpiredContext { .. }
            | CertificateError::NotValidYet
            | CertificateError::NotValidYetContext { .. } => FailureClass::TlsExpired,
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                FailureClass::TlsWrongName
            }
            _ => FailureClass::TlsUntrusted,
        },
        _ => FailureClass::TlsHandshake,
    };
    (class, error.to_string())
}
