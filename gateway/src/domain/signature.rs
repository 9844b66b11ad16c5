use data_encoding::BASE64;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use crate::domain::Secret;

/// The `webhook-signature` of a body by
/// [Standard Webhooks 1.0.0](https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md):
/// `v1,` and the base64 of HMAC-SHA256 over `{id}.{timestamp}.{body}`, one for each secret,
/// newest first, with exactly one space between (some verifiers fail on two). `timestamp` is in
/// seconds, and that of the attempt.
pub fn sign<'a>(
    secrets: impl IntoIterator<Item = &'a Secret>,
    id: &str,
    timestamp: u64,
    body: &[u8],
) -> String {
    let mut signatures = String::new();
    let head = format!("{id}.{timestamp}.");
    for secret in secrets {
        let mut mac = Hmac::<Sha256>::new_from_slice(secret.bytes()).expect("any length is a key");
        mac.update(head.as_bytes());
        mac.update(body);
        if !signatures.is_empty() {
            signatures.push(' ');
        }
        signatures.push_str("v1,");
        BASE64.encode_append(&mac.finalize().into_bytes(), &mut signatures);
    }
    signatures
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_signs_as_the_specification_does() {
        // The example of the published libraries' own tests.
        let secret = Secret::parse("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
        let (id, body) = ("msg_p5jXN8AQM9LWM0D4loKWxJek", br#"{"test": 2432232314}"#);
        let expected = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=";
        assert_eq!(sign([&secret], id, 1_614_265_330, body), expected);
        let both = sign([&secret, &Secret::drawn([1; 32])], id, 1_614_265_330, body);
        assert!(both.starts_with(&format!("{expected} v1,")) && both.split(' ').count() == 2);
    }
}
