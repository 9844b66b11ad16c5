use std::{fmt, sync::Arc};

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use data_encoding::BASE64;
use zeroize::Zeroizing;

use crate::domain::Scheme;

const HMAC_PREFIX: &str = "whsec_";
const PRIVATE_PREFIX: &str = "whsk_";
const PUBLIC_PREFIX: &str = "whpk_";
/// Bytes of a secret of Standard Webhooks 1.0.0.
const BYTES_MIN: usize = 24;
const BYTES_MAX: usize = 64;
/// Characters of a secret of the schemes whose key is a text.
const CHARS_MIN: usize = 16;
const CHARS_MAX: usize = 256;

/// What an endpoint's deliveries are signed with. Its text is wiped from memory when dropped.
#[derive(Clone)]
pub struct Secret(Kind);

#[derive(Clone)]
enum Kind {
    /// A shared secret: its text, and the bytes if it is one of Standard Webhooks.
    Hmac { text: Zeroizing<String>, bytes: Option<Zeroizing<Vec<u8>>> },
    /// A private key.
    Ed25519(Arc<Pair>),
}

struct Pair {
    seed: Zeroizing<[u8; 32]>,
    keys: Ed25519KeyPair,
}

impl Secret {
    /// A new shared secret of 32 random bytes, `whsec_…`.
    pub fn drawn(random: [u8; 32]) -> Self {
        let random = Zeroizing::new(random);
        let text = Zeroizing::new(format!("{HMAC_PREFIX}{}", BASE64.encode(&*random)));
        Self(Kind::Hmac { text, bytes: Some(Zeroizing::new(random.to_vec())) })
    }

    /// A new private key made of 32 random bytes, `whsk_…`.
    pub fn drawn_key(random: [u8; 32]) -> Self {
        Self::key(&random).expect("any 32 bytes are a seed")
    }

    /// Reads what a tenant gives for a scheme: `whsec_…` (prefix and padding may be missing) or
    /// `whsk_…` for those of Standard Webhooks, any text of 16 to 256 visible characters for the
    /// others, which use it as it is.
    ///
    /// # Errors
    /// A sentence that tells what is wrong.
    pub fn parse(text: &str, scheme: Scheme) -> Result<Self, String> {
        if let Some(digits) = text.strip_prefix(PRIVATE_PREFIX) {
            return match scheme {
                Scheme::StandardEd25519 => parse_key(digits),
                _ => Err("is a private key; this scheme takes a shared secret".to_owned()),
            };
        }
        if matches!(scheme, Scheme::Standard | Scheme::StandardEd25519 | Scheme::None) {
            return standard(text);
        }
        let visible = text.bytes().all(|it| it.is_ascii_graphic());
        if !visible || !(CHARS_MIN..=CHARS_MAX).contains(&text.len()) {
            return Err(format!("must have {CHARS_MIN} to {CHARS_MAX} visible characters"));
        }
        Ok(Self::kept(text))
    }

    /// What was kept of a secret: the text that [`Self::reveal`] gave.
    pub fn kept(text: &str) -> Self {
        let key = text.strip_prefix(PRIVATE_PREFIX).and_then(|it| parse_key(it).ok());
        key.or_else(|| standard(text).ok().filter(|it| *it.reveal() == text)).unwrap_or_else(|| {
            Self(Kind::Hmac { text: Zeroizing::new(text.to_owned()), bytes: None })
        })
    }

    /// The text: for the tenant's eyes if it is a shared secret, for nobody's if it is a key.
    pub fn reveal(&self) -> Zeroizing<String> {
        match &self.0 {
            Kind::Hmac { text, .. } => text.clone(),
            Kind::Ed25519(pair) => {
                let both = Zeroizing::new([&*pair.seed, pair.keys.public_key().as_ref()].concat());
                Zeroizing::new(format!("{PRIVATE_PREFIX}{}", BASE64.encode(&both)))
            }
        }
    }

    /// The public half of a private key, `whpk_…`.
    pub fn public_key(&self) -> Option<String> {
        let Kind::Ed25519(pair) = &self.0 else { return None };
        Some(format!("{PUBLIC_PREFIX}{}", BASE64.encode(pair.keys.public_key().as_ref())))
    }

    /// The key of `v1` signatures, if it is a shared secret of Standard Webhooks.
    pub fn standard_bytes(&self) -> Option<&[u8]> {
        match &self.0 {
            Kind::Hmac { bytes, .. } => bytes.as_deref().map(Vec::as_slice),
            Kind::Ed25519(_) => None,
        }
    }

    /// The key of the schemes that use the text as it is.
    pub fn text_bytes(&self) -> Option<&[u8]> {
        match &self.0 {
            Kind::Hmac { text, .. } => Some(text.as_bytes()),
            Kind::Ed25519(_) => None,
        }
    }

    /// The signature by a private key ([RFC 8032](https://www.rfc-editor.org/rfc/rfc8032)).
    pub fn sign_ed25519(&self, content: &[u8]) -> Option<[u8; 64]> {
        let Kind::Ed25519(pair) = &self.0 else { return None };
        pair.keys.sign(content).as_ref().try_into().ok()
    }

    /// Whether it is a private key.
    pub fn is_key(&self) -> bool {
        matches!(self.0, Kind::Ed25519(_))
    }

    fn key(seed: &[u8]) -> Result<Self, String> {
        let seed: [u8; 32] = seed.try_into().map_err(|_| "must have 32 or 64 bytes".to_owned())?;
        let keys = Ed25519KeyPair::from_seed_unchecked(&seed);
        let keys = keys.map_err(|_| "is no ed25519 key".to_owned())?;
        Ok(Self(Kind::Ed25519(Arc::new(Pair { seed: Zeroizing::new(seed), keys }))))
    }
}

/// A seed of 32 bytes, or seed and public key.
fn parse_key(digits: &str) -> Result<Secret, String> {
    let bytes = decode(digits).ok_or("is not `whsk_` and standard base64")?;
    let secret = Secret::key(&bytes[..bytes.len().min(32)])?;
    let Kind::Ed25519(pair) = &secret.0 else { return Ok(secret) };
    match bytes.len() {
        32 => Ok(secret),
        64 if bytes[32..] == *pair.keys.public_key().as_ref() => Ok(secret),
        64 => Err("has a public half that is another key's".to_owned()),
        _ => Err("must have 32 or 64 bytes".to_owned()),
    }
}

fn standard(text: &str) -> Result<Secret, String> {
    let digits = text.strip_prefix(HMAC_PREFIX).unwrap_or(text);
    let bytes = decode(digits).ok_or("is not `whsec_` and standard base64")?;
    if !(BYTES_MIN..=BYTES_MAX).contains(&bytes.len()) {
        return Err(format!("has {} bytes, must have 24 to 64", bytes.len()));
    }
    let text = Zeroizing::new(format!("{HMAC_PREFIX}{}", BASE64.encode(&bytes)));
    Ok(Secret(Kind::Hmac { text, bytes: Some(bytes) }))
}

fn decode(digits: &str) -> Option<Zeroizing<Vec<u8>>> {
    let padding = "=".repeat((4 - digits.len() % 4) % 4);
    let padded = Zeroizing::new(format!("{digits}{padding}"));
    BASE64.decode(padded.as_bytes()).ok().map(Zeroizing::new)
}

impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        self.reveal() == other.reveal()
    }
}

impl Eq for Secret {}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_read_and_refused() {
        let secret = Secret::drawn([7; 32]);
        assert_eq!(Secret::parse(&secret.reveal(), Scheme::Standard), Ok(secret.clone()));
        assert_eq!(Secret::kept(&secret.reveal()), secret);
        assert_eq!(format!("{secret:?}"), "Secret(…)");
        assert!(Secret::parse("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", Scheme::Standard).is_ok());
        let unprefixed = Secret::parse("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", Scheme::Standard);
        assert_eq!(*unprefixed.unwrap().reveal(), "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw");
        let (short, long) = (BASE64.encode(&[1; 23]), BASE64.encode(&[1; 65]));
        let url_safe = "whsec_-_-_-_-_-_-_-_-_-_-_-_-_-_-_-_-_";
        for bad in
            ["", "whsec_", "whsec_!!!!", url_safe, short.as_str(), long.as_str(), "whsk_AAAA"]
        {
            assert!(Secret::parse(bad, Scheme::Standard).is_err(), "{bad}");
        }
    }

    #[test]
    fn keys_are_read_and_refused() {
        let key = Secret::drawn_key([7; 32]);
        assert_eq!(Secret::kept(&key.reveal()), key);
        assert_eq!(key.public_key(), Secret::kept(&key.reveal()).public_key());
        let seed = format!("whsk_{}", BASE64.encode(&[7; 32]));
        assert_eq!(Secret::parse(&seed, Scheme::StandardEd25519), Ok(key.clone()));
        let foreign = format!("whsk_{}", BASE64.encode(&[7; 64]));
        for bad in ["whsk_", "whsk_AAAA", foreign.as_str()] {
            assert!(Secret::parse(bad, Scheme::StandardEd25519).is_err(), "{bad}");
        }
        assert!(Secret::parse(&seed, Scheme::Standard).is_err());
        assert!(key.standard_bytes().is_none() && key.text_bytes().is_none());
    }

    #[test]
    fn other_schemes_take_texts() {
        for (text, fits) in
            [("8f742231b10e8888abcd99yyyzzz85a5", true), ("short", false), ("", false)]
        {
            let read = Secret::parse(text, Scheme::Slack);
            assert_eq!(read.is_ok(), fits, "{text}");
            if let Ok(secret) = read {
                assert_eq!(
                    (secret.text_bytes(), secret.standard_bytes()),
                    (Some(text.as_bytes()), None)
                );
            }
        }
        assert!(Secret::parse("with a space in between", Scheme::Github).is_err());
    }
}
