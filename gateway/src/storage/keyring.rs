//! How secrets lie on disk. The master key wraps a data key for each tenant; the data key seals
//! what is secret about the tenant's endpoints. Both by XChaCha20-Poly1305, each ciphertext bound
//! to its place, so that one that is moved to another tenant or endpoint does not open.
//!
//! **Invariant:** nonces and keys are drawn before a record is made; folding copies ciphertexts.

use std::{collections::BTreeMap, fmt};

use chacha20poly1305::{
    KeyInit, XChaCha20Poly1305, XNonce,
    aead::{Aead, Payload},
};
use data_encoding::{BASE64, HEXLOWER_PERMISSIVE};
use hmac::{Hmac, Mac};
use sha2::Sha256;
use zeroize::Zeroizing;

use crate::storage::{Error, Result};
use crate::world::Entropy;

const NONCE_BYTES: usize = 24;
const KEY_BYTES: usize = 32;

/// The key that protects all secrets of a store. It never lies in the store.
#[derive(Clone, PartialEq, Eq)]
pub struct MasterKey(Zeroizing<[u8; KEY_BYTES]>);

impl MasterKey {
    /// A new one.
    pub fn drawn(entropy: &dyn Entropy) -> Self {
        Self(draw(entropy))
    }

    /// One for simulations, which have no secrets.
    pub fn simulated() -> Self {
        Self(Zeroizing::new([0; KEY_BYTES]))
    }

    /// Reads 32 bytes in hexadecimal or base64.
    ///
    /// # Errors
    /// A sentence that says how to make one.
    pub fn parse(text: &str) -> Result<Self, String> {
        let text = text.trim();
        let bytes = match text.len() {
            64 => HEXLOWER_PERMISSIVE.decode(text.as_bytes()).ok(),
            _ => BASE64.decode(text.as_bytes()).ok(),
        };
        let bytes = bytes.map(Zeroizing::new).and_then(|it| it.as_slice().try_into().ok());
        let bytes = bytes.ok_or("must be 32 bytes in hexadecimal or base64: openssl rand -hex 32");
        Ok(Self(Zeroizing::new(bytes?)))
    }

    /// The text that [`Self::parse`] reads.
    pub fn reveal(&self) -> Zeroizing<String> {
        Zeroizing::new(HEXLOWER_PERMISSIVE.encode(&*self.0))
    }

    /// Tells keys apart without telling anything about them.
    pub fn fingerprint(&self) -> [u8; 32] {
        let mut mac = Hmac::<Sha256>::new_from_slice(&*self.0).expect("any length is a key");
        mac.update(b"hookgate master key");
        mac.finalize().into_bytes().into()
    }
}

impl fmt::Debug for MasterKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MasterKey(…)")
    }
}

/// The master key, and while it is replaced, the one before.
#[derive(Debug, Clone)]
pub struct MasterKeys {
    /// What new data keys are wrapped with.
    pub current: MasterKey,
    /// What the store may still be wrapped with; the start wraps it anew.
    pub old: Option<MasterKey>,
}

impl MasterKeys {
    /// One key, none before.
    pub fn new(current: MasterKey) -> Self {
        Self { current, old: None }
    }

    /// Whether one of them is the key with this fingerprint.
    pub fn know(&self, fingerprint: &[u8; 32]) -> bool {
        let mut keys = [Some(&self.current), self.old.as_ref()].into_iter().flatten();
        keys.any(|it| it.fingerprint() == *fingerprint)
    }
}

/// The keys of a shard's tenants.
#[derive(Debug)]
pub(super) struct Keyring {
    masters: MasterKeys,
    data: BTreeMap<u32, DataKey>,
}

/// A tenant's key.
#[derive(Clone)]
pub(super) struct DataKey {
    tenant: String,
    bytes: Zeroizing<[u8; KEY_BYTES]>,
}

impl fmt::Debug for DataKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DataKey(of {}, …)", self.tenant)
    }
}

impl Keyring {
    pub(super) fn new(masters: MasterKeys) -> Self {
        Self { masters, data: BTreeMap::new() }
    }

    pub(super) fn masters(&self) -> &MasterKeys {
        &self.masters
    }

    pub(super) fn get(&self, tenant_no: u32) -> Option<&DataKey> {
        self.data.get(&tenant_no)
    }

    /// Takes up a wrapped data key. One that does not unwrap leaves its tenant without.
    pub(super) fn take_up(&mut self, tenant_no: u32, tenant: &str, wrapped: &[u8]) {
        let place = place_of_key(tenant_no, tenant);
        let masters = [Some(&self.masters.current), self.masters.old.as_ref()];
        let opened = masters.into_iter().flatten().find_map(|it| open(&it.0, &place, wrapped));
        match opened.and_then(|it| it.as_slice().try_into().ok()) {
            Some(bytes) => {
                let key = DataKey { tenant: tenant.to_owned(), bytes: Zeroizing::new(bytes) };
                self.data.insert(tenant_no, key);
            }
            None => {
                tracing::error!(tenant, "the tenant's data key cannot be opened");
                self.data.remove(&tenant_no);
            }
        }
    }

    pub(super) fn forget(&mut self, tenant_no: u32) {
        self.data.remove(&tenant_no);
    }

    /// A new data key, wrapped.
    pub(super) fn draw(&self, tenant_no: u32, tenant: &str, entropy: &dyn Entropy) -> Vec<u8> {
        self.wrap(tenant_no, tenant, &draw(entropy), entropy)
    }

    /// All data keys, wrapped with the current master key.
    pub(super) fn wrap_all(&self, entropy: &dyn Entropy) -> Vec<(u32, String, Vec<u8>)> {
        let wrap = |(no, key): (&u32, &DataKey)| {
            (*no, key.tenant.clone(), self.wrap(*no, &key.tenant, &key.bytes, entropy))
        };
        self.data.iter().map(wrap).collect()
    }

    fn wrap(
        &self,
        tenant_no: u32,
        tenant: &str,
        key: &[u8; KEY_BYTES],
        entropy: &dyn Entropy,
    ) -> Vec<u8> {
        seal(&self.masters.current.0, &place_of_key(tenant_no, tenant), key, entropy)
    }
}

impl DataKey {
    /// Seals what is secret about an endpoint.
    pub(super) fn seal(
        &self,
        (no, id): (u32, &str),
        plain: &[u8],
        entropy: &dyn Entropy,
    ) -> Vec<u8> {
        seal(&self.bytes, &self.place(no, id), plain, entropy)
    }

    /// Opens what was sealed for this endpoint.
    pub(super) fn open(&self, (no, id): (u32, &str), sealed: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
        open(&self.bytes, &self.place(no, id), sealed)
    }

    fn place(&self, no: u32, id: &str) -> String {
        format!("hookgate/1/endpoint/{}/{no}/{id}", self.tenant)
    }
}

fn place_of_key(tenant_no: u32, tenant: &str) -> String {
    format!("hookgate/1/data-key/{tenant}/{tenant_no}")
}

fn draw(entropy: &dyn Entropy) -> Zeroizing<[u8; KEY_BYTES]> {
    let mut bytes = Zeroizing::new([0; KEY_BYTES]);
    entropy.fill(&mut *bytes);
    bytes
}

/// The nonce, then the ciphertext with its tag.
fn seal(key: &[u8; KEY_BYTES], place: &str, plain: &[u8], entropy: &dyn Entropy) -> Vec<u8> {
    let mut nonce = [0; NONCE_BYTES];
    entropy.fill(&mut nonce);
    let payload = Payload { msg: plain, aad: place.as_bytes() };
    let sealed = cipher(key).encrypt(&XNonce::from(nonce), payload);
    [&nonce[..], &sealed.expect("memory takes any length")].concat()
}

fn open(key: &[u8; KEY_BYTES], place: &str, sealed: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    let (nonce, sealed) = sealed.split_first_chunk::<NONCE_BYTES>()?;
    let payload = Payload { msg: sealed, aad: place.as_bytes() };
    cipher(key).decrypt(&XNonce::from(*nonce), payload).ok().map(Zeroizing::new)
}

fn cipher(key: &[u8; KEY_BYTES]) -> XChaCha20Poly1305 {
    XChaCha20Poly1305::new(key.into())
}

/// What a store says to keys that are not its own.
pub(super) fn check(masters: &MasterKeys, fingerprint: Option<&[u8; 32]>) -> Result<()> {
    match fingerprint {
        Some(it) if !masters.know(it) => Err(Error::WrongKey),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::world::SeededEntropy;

    fn keyring(masters: MasterKeys) -> Keyring {
        Keyring::new(masters)
    }

    #[test]
    fn what_is_moved_does_not_open() {
        let entropy = SeededEntropy::new(1);
        let mut ring = keyring(MasterKeys::new(MasterKey::drawn(&entropy)));
        let (mine, theirs) = (ring.draw(1, "mine", &entropy), ring.draw(2, "theirs", &entropy));
        ring.take_up(1, "mine", &mine);
        ring.take_up(2, "theirs", &theirs);
        let sealed = ring.get(1).unwrap().seal((7, "ep_7"), b"secret", &entropy);
        let open = |tenant, place| ring.get(tenant).unwrap().open(place, &sealed);
        assert_eq!(open(1, (7, "ep_7")).unwrap().as_slice(), b"secret");
        assert!(open(1, (8, "ep_8")).is_none() && open(2, (7, "ep_7")).is_none());
        assert!(!sealed.windows(6).any(|it| it == b"secret"));
        ring.take_up(2, "theirs", &mine);
        assert!(ring.get(2).is_none(), "another tenant's data key does not unwrap");
        let mut flipped = sealed.clone();
        flipped[30] ^= 1;
        assert!(ring.get(1).unwrap().open((7, "ep_7"), &flipped).is_none());
    }

    #[test]
    fn a_replaced_master_key_wraps_anew() {
        let entropy = SeededEntropy::new(2);
        let (old, new) = (MasterKey::drawn(&entropy), MasterKey::drawn(&entropy));
        let first = keyring(MasterKeys::new(old.clone())).draw(1, "mine", &entropy);
        let both = MasterKeys { current: new.clone(), old: Some(old.clone()) };
        assert!(both.know(&old.fingerprint()) && both.know(&new.fingerprint()));
        let mut ring = keyring(both);
        ring.take_up(1, "mine", &first);
        let (_, _, anew) = ring.wrap_all(&entropy).remove(0);
        for (key, wrapped, opens) in
            [(&new, &anew, true), (&old, &anew, false), (&new, &first, false)]
        {
            let mut ring = keyring(MasterKeys::new(key.clone()));
            ring.take_up(1, "mine", wrapped);
            assert_eq!(ring.get(1).is_some(), opens);
        }
    }

    #[test]
    fn master_keys_are_read_and_refused() {
        let key = MasterKey::drawn(&SeededEntropy::new(3));
        assert_eq!(MasterKey::parse(&key.reveal()), Ok(key.clone()));
        assert_eq!(MasterKey::parse(&format!("{}\n", BASE64.encode(&*key.0))), Ok(key));
        for bad in ["", "short", &"zz".repeat(32), &BASE64.encode(&[1; 31])] {
            assert!(MasterKey::parse(bad).is_err(), "{bad}");
        }
    }
}
