//! Certificates and servers that speak TLS, well or badly.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, date_time_ymd};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    task::JoinSet,
};
use tokio_rustls::TlsAcceptor;

/// An authority that signs certificates for tests.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    /// Its certificate, in PEM.
    pub pem: String,
}

/// A certificate with its chain, and its key, in PEM.
#[derive(Debug, Clone)]
pub struct Identity {
    /// The certificate, then those that lead to the authority's.
    pub certificate: String,
    /// The private key.
    pub key: String,
}

impl Authority {
    /// One that stands by itself.
    pub fn new(name: &str) -> Self {
        let (params, key) = (authority(name), KeyPair::generate().expect("a key"));
        let pem = params.self_signed(&key).expect("a certificate").pem();
        Self { issuer: Issuer::new(params, key), pem }
    }

    /// One below this one.
    pub fn below(&self, name: &str) -> Self {
        let (params, key) = (authority(name), KeyPair::generate().expect("a key"));
        let pem = params.signed_by(&key, &self.issuer).expect("a certificate").pem();
        Self { issuer: Issuer::new(params, key), pem }
    }

    /// A certificate for this name, valid until this year.
    pub fn sign(&self, name: &str, until: i32) -> Identity {
        let mut params = CertificateParams::new(vec![name.to_owned()]).expect("a name");
        params.distinguished_name.push(DnType::CommonName, name);
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(until, 1, 1);
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate").pem();
        Identity { certificate, key: key.serialize_pem() }
    }
}

fn authority(name: &str) -> CertificateParams {
    let mut params = CertificateParams::new(vec![]).expect("no names");
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params
}

/// A server on loopback that answers 200 to everything it can decrypt.
pub struct TlsEndpoint {
    /// Where it listens, by the name `localhost`.
    pub url: String,
    bytes: Arc<AtomicU64>,
    _server: JoinSet<()>,
}

impl TlsEndpoint {
    /// Shows this certificate; with `clients`, wants one of theirs.
    pub async fn start(identity: &Identity, clients: Option<&Authority>) -> Self {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ServerConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .expect("versions");
        let builder = match clients {
            None => builder.with_no_client_auth(),
            Some(authority) => {
                let mut roots = RootCertStore::empty();
                roots.add(certificates(&authority.pem).remove(0)).expect("a root");
                let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), provider);
                builder.with_client_cert_verifier(verifier.build().expect("a verifier"))
            }
        };
        let key = PrivateKeyDer::from_pem_slice(identity.key.as_bytes()).expect("a key");
        let config = builder.with_single_cert(certificates(&identity.certificate), key);
        let acceptor = TlsAcceptor::from(Arc::new(config.expect("they fit")));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let bytes = Arc::new(AtomicU64::new(0));
        let (mut server, counted) = (JoinSet::new(), bytes.clone());
        server.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, counted) = (acceptor.clone(), counted.clone());
                connections.spawn(async move {
                    let Ok(mut stream) = acceptor.accept(stream).await else { return };
                    let mut buffer = vec![0; 16 * 1024];
                    while let Ok(read @ 1..) = stream.read(&mut buffer).await {
                        counted.fetch_add(read as u64, Ordering::Relaxed);
                        let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
                        let _ = stream.write_all(answer).await;
                        let _ = stream.flush().await;
                    }
                });
            }
        });
        let url = format!("https://localhost:{port}/hooks");
        Self { url, bytes, _server: server }
    }

    /// How many bytes of requests it has seen.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }
}

fn certificates(pem: &str) -> Vec<CertificateDer<'static>> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
    found.expect("certificates")
}
