pub use crate::bindings::imports::hookgate::plugin::keys::Algorithm;

/// The endpoint's secrets, to sign with and not to see.
#[derive(Debug)]
pub struct Keys {
    #[cfg(not(target_family = "wasm"))]
    pub(crate) secrets: Vec<Vec<u8>>,
    #[cfg(target_family = "wasm")]
    pub(crate) _host: (),
}

#[cfg(target_family = "wasm")]
impl Keys {
    #[doc(hidden)]
    pub fn of_the_gateway() -> Self {
        Self { _host: () }
    }

    /// The HMAC of `message` under the newest secret.
    pub fn hmac(&self, algorithm: Algorithm, message: &[u8]) -> Vec<u8> {
        crate::bindings::imports::hookgate::plugin::keys::hmac(algorithm, message)
    }

    /// The same under each secret that signs now, newest first: while a secret is being rotated
    /// there are several.
    pub fn hmac_each(&self, algorithm: Algorithm, message: &[u8]) -> Vec<Vec<u8>> {
        crate::bindings::imports::hookgate::plugin::keys::hmac_each(algorithm, message)
    }
}

/// Natively the test brings the secrets along.
#[cfg(not(target_family = "wasm"))]
impl Keys {
    #[doc(hidden)]
    pub fn of_the_gateway() -> Self {
        Self { secrets: Vec::new() }
    }

    /// The HMAC of `message` under the newest secret.
    pub fn hmac(&self, algorithm: Algorithm, message: &[u8]) -> Vec<u8> {
        let newest = self.secrets.first().expect("an endpoint has a secret");
        mac(algorithm, newest, message)
    }

    /// The same under each secret that signs now, newest first: while a secret is being rotated
    /// there are several.
    pub fn hmac_each(&self, algorithm: Algorithm, message: &[u8]) -> Vec<Vec<u8>> {
        self.secrets.iter().map(|it| mac(algorithm, it, message)).collect()
    }
}

#[cfg(not(target_family = "wasm"))]
fn mac(algorithm: Algorithm, secret: &[u8], message: &[u8]) -> Vec<u8> {
    use hmac::{Hmac, KeyInit, Mac};
    let finish = "any length is a key";
    match algorithm {
        Algorithm::Sha1 => {
            let mac = Hmac::<sha1::Sha1>::new_from_slice(secret).expect(finish);
            mac.chain_update(message).finalize().into_bytes().to_vec()
        }
        Algorithm::Sha256 => {
            let mac = Hmac::<sha2::Sha256>::new_from_slice(secret).expect(finish);
            mac.chain_update(message).finalize().into_bytes().to_vec()
        }
        Algorithm::Sha512 => {
            let mac = Hmac::<sha2::Sha512>::new_from_slice(secret).expect(finish);
            mac.chain_update(message).finalize().into_bytes().to_vec()
        }
    }
}
