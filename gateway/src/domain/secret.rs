use std::fmt;

use data_encoding::BASE64;

const PREFIX: &str = "whsec_";
const BYTES_MIN: usize = 24;
const BYTES_MAX: usize = 64;

/// A signing secret as Standard Webhooks writes it: `whsec_` and 24 to 64 bytes in base64.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Vec<u8>);

impl Secret {
    /// A new secret of 32 random bytes.
    pub fn drawn(random: [u8; 32]) -> Self {
        Self(random.to_vec())
    }

    /// Reads a `whsec_…` text; the prefix and the padding may be missing.
    ///
    /// # Errors
    /// A sentence that tells what is wrong.
    pub fn parse(text: &str) -> Result<Self, String> {
        let digits = text.strip_prefix(PREFIX).unwrap_or(text);
        let padding = "=".repeat((4 - digits.len() % 4) % 4);
        let bytes = BASE64.decode(format!("{digits}{padding}").as_bytes());
        let bytes = bytes.map_err(|_| "is not `whsec_` and standard base64".to_owned())?;
        if !(BYTES_MIN..=BYTES_MAX).contains(&bytes.len()) {
            return Err(format!("has {} bytes, must have 24 to 64", bytes.len()));
        }
        Ok(Self(bytes))
    }

    /// The `whsec_…` text, for the tenant's eyes.
    pub fn reveal(&self) -> String {
        format!("{PREFIX}{}", BASE64.encode(&self.0))
    }

    /// The key's bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }
}

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
        assert_eq!(Secret::parse(&secret.reveal()), Ok(secret.clone()));
        assert_eq!(format!("{secret:?}"), "Secret(…)");
        assert!(Secret::parse("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").is_ok());
        let (short, long) = (BASE64.encode(&[1; 23]), BASE64.encode(&[1; 65]));
        for bad in ["", "whsec_", "whsec_!!!!", "whsec_-_-_", short.as_str(), long.as_str()] {
            assert!(Secret::parse(bad).is_err(), "{bad}");
        }
    }
}
