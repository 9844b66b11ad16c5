use std::borrow::Cow;

use data_encoding::{BASE64, HEXLOWER};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use smallvec::{SmallVec, smallvec};

use crate::domain::Secret;

/// Whose way of signing an endpoint's deliveries follow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Scheme {
    /// Standard Webhooks with a shared secret: `v1`.
    #[default]
    Standard,
    /// Standard Webhooks with a private key: `v1a`, and `v1` beside it.
    StandardEd25519,
    /// Stripe's: `t=…,v1=…` with the time in what is signed.
    Stripe,
    /// GitHub's: `sha256=…` over the body.
    Github,
    /// Slack's: `v0=…`, and the time in a header of its own.
    Slack,
    /// Shopify's: base64 over the body.
    Shopify,
    /// Not at all.
    None,
    /// As the endpoint's plugins do, with the endpoint's secrets; unsigned, nothing is sent.
    Plugin,
}

impl Scheme {
    /// Each scheme with its name in the API.
    pub const NAMES: [(Self, &'static str); 8] = [
        (Self::Standard, "standard"),
        (Self::StandardEd25519, "standard-ed25519"),
        (Self::Stripe, "stripe"),
        (Self::Github, "github"),
        (Self::Slack, "slack"),
        (Self::Shopify, "shopify"),
        (Self::None, "none"),
        (Self::Plugin, "plugin"),
    ];

    /// The header that carries the signature, unless the endpoint names another.
    pub fn usual_header(self) -> Option<&'static str> {
        match self {
            Self::Standard | Self::StandardEd25519 | Self::None | Self::Plugin => None,
            Self::Stripe => Some("stripe-signature"),
            Self::Github => Some("x-hub-signature-256"),
            Self::Slack => Some("x-slack-signature"),
            Self::Shopify => Some("x-shopify-hmac-sha256"),
        }
    }

    /// Whether it follows the Standard Webhooks specification.
    pub fn is_standard(self) -> bool {
        matches!(self, Self::Standard | Self::StandardEd25519)
    }
}

/// How an endpoint's deliveries are signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signature {
    /// Whose way.
    pub scheme: Scheme,
    /// Whether a `v1` signature stands beside `v1a`: most verifiers know no other.
    pub with_v1: bool,
    /// Another name than the scheme's usual one for the header with the signature.
    pub header: Option<String>,
    /// Another name for the header with the time (Slack's scheme).
    pub timestamp_header: Option<String>,
    /// The first part of the three headers of Standard Webhooks: `webhook`, or another's.
    pub prefix: String,
}

impl Default for Signature {
    fn default() -> Self {
        Self {
            scheme: Scheme::default(),
            with_v1: true,
            header: None,
            timestamp_header: None,
            prefix: Self::USUAL_PREFIX.to_owned(),
        }
    }
}

impl Signature {
    /// The prefix of the headers of Standard Webhooks.
    pub const USUAL_PREFIX: &'static str = "webhook";

    /// Where Slack's scheme puts the time, unless the endpoint names another header.
    pub const USUAL_TIMESTAMP_HEADER: &'static str = "x-slack-request-timestamp";

    /// The headers that sign `body` as attempt of event `id` at `timestamp` (seconds). `secrets`
    /// are those that sign now, newest first; a scheme with room for one signature takes the
    /// newest.
    pub fn headers<'a, 'b>(
        &self,
        secrets: impl IntoIterator<Item = &'a Secret>,
        (id, timestamp): (&'b str, u64),
        body: &[u8],
    ) -> SmallVec<[(Cow<'static, str>, Cow<'b, str>); 3]> {
        let mut secrets = secrets.into_iter();
        let header = || match &self.header {
            Some(named) => Cow::from(named.clone()),
            None => Cow::from(self.scheme.usual_header().unwrap_or_default()),
        };
        match self.scheme {
            Scheme::Standard | Scheme::StandardEd25519 => {
                let timestamp = timestamp.to_string();
                let signatures = self.standard(secrets, [id, &timestamp], body);
                let [named_id, time, signature] = self.standard_names();
                SmallVec::from_buf([
                    (named_id, id.into()),
                    (time, timestamp.into()),
                    (signature, signatures.into()),
                ])
            }
            Scheme::Stripe => {
                let mut value = format!("t={timestamp}");
                for key in secrets.filter_map(Secret::text_bytes) {
                    let mac = hmac(key, &[format!("{timestamp}.").as_bytes(), body]);
                    value.push_str(",v1=");
                    HEXLOWER.encode_append(&mac, &mut value);
                }
                smallvec![(header(), value.into())]
            }
            Scheme::Github => {
                let mac = secrets.find_map(Secret::text_bytes).map(|it| hmac(it, &[body]));
                let value = |it: [u8; 32]| format!("sha256={}", HEXLOWER.encode(&it)).into();
                mac.map(|it| (header(), value(it))).into_iter().collect()
            }
            Scheme::Slack => {
                let head = format!("v0:{timestamp}:");
                let key = secrets.find_map(Secret::text_bytes);
                let mac = key.map(|it| hmac(it, &[head.as_bytes(), body]));
                let value = |it: [u8; 32]| format!("v0={}", HEXLOWER.encode(&it)).into();
                let named = match &self.timestamp_header {
                    Some(named) => Cow::from(named.clone()),
                    None => Cow::from(Self::USUAL_TIMESTAMP_HEADER),
                };
                let time = (named, timestamp.to_string().into());
                mac.map(|it| (header(), value(it))).into_iter().chain([time]).collect()
            }
            Scheme::Shopify => {
                let mac = secrets.find_map(Secret::text_bytes).map(|it| hmac(it, &[body]));
                mac.map(|it| (header(), BASE64.encode(&it).into())).into_iter().collect()
            }
            Scheme::None | Scheme::Plugin => SmallVec::new(),
        }
    }

    /// Whether its headers are those of Standard Webhooks under their own names, the event's id and
    /// the time among them.
    pub fn tells_usual_id(&self) -> bool {
        self.scheme.is_standard() && self.prefix == Self::USUAL_PREFIX
    }

    /// The three headers of Standard Webhooks: id, time, signatures.
    fn standard_names(&self) -> [Cow<'static, str>; 3] {
        match self.prefix.as_str() {
            Self::USUAL_PREFIX => {
                ["webhook-id", "webhook-timestamp", "webhook-signature"].map(Cow::from)
            }
            other => ["id", "timestamp", "signature"].map(|it| format!("{other}-{it}").into()),
        }
    }

    /// The signatures of
    /// [Standard Webhooks 1.0.0](https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md)
    /// over `{id}.{timestamp}.{body}`: `v1a,` and ed25519, `v1,` and HMAC-SHA256, in base64, with
    /// exactly one space between (some verifiers fail on two).
    fn standard<'a>(
        &self,
        secrets: impl Iterator<Item = &'a Secret>,
        [id, timestamp]: [&str; 2],
        body: &[u8],
    ) -> String {
        let (mut with_keys, mut with_secrets) = (String::new(), String::new());
        let signed = [id.as_bytes(), b".", timestamp.as_bytes(), b".", body];
        let with_key = self.scheme == Scheme::StandardEd25519;
        let whole = if with_key { signed.concat() } else { Vec::new() };
        for secret in secrets {
            if let Some(signature) = secret.sign_ed25519(&whole).filter(|_| with_key) {
                push(&mut with_keys, "v1a,", &signature);
            }
            let wanted = self.with_v1 || !with_key;
            if let Some(key) = secret.standard_bytes().filter(|_| wanted) {
                push(&mut with_secrets, "v1,", &hmac(key, &signed));
            }
        }
        if !with_keys.is_empty() && !with_secrets.is_empty() {
            with_keys.push(' ');
        }
        if with_keys.is_empty() { with_secrets } else { with_keys + &with_secrets }
    }
}

fn push(signatures: &mut String, version: &str, signature: &[u8]) {
    if !signatures.is_empty() {
        signatures.push(' ');
    }
    signatures.reserve(version.len() + BASE64.encode_len(signature.len()));
    signatures.push_str(version);
    BASE64.encode_append(signature, signatures);
}

fn hmac(key: &[u8], parts: &[&[u8]]) -> [u8; 32] {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("any length is a key");
    for part in parts {
        mac.update(part);
    }
    mac.finalize().into_bytes().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    const BODY: &[u8] = br#"{"test": 2432232314}"#;
    const ID: &str = "msg_p5jXN8AQM9LWM0D4loKWxJek";
    const AT: u64 = 1_614_265_330;

    fn signature(scheme: Scheme) -> Signature {
        Signature { scheme, ..Signature::default() }
    }

    fn value(headers: &[(Cow<'_, str>, Cow<'_, str>)], name: &str) -> String {
        let found = headers.iter().find(|(it, _)| it == name);
        found.map(|(_, it)| it.clone().into_owned()).unwrap_or_default()
    }

    #[test]
    fn it_signs_as_the_specification_does() {
        // The example of the published libraries' own tests.
        let secret = Secret::kept("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw");
        let expected = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=";
        let headers = signature(Scheme::Standard).headers([&secret], (ID, AT), BODY);
        assert_eq!(value(&headers, "webhook-signature"), expected);
        assert_eq!(value(&headers, "webhook-id"), ID);
        assert_eq!(value(&headers, "webhook-timestamp"), "1614265330");
        let old = Secret::drawn([1; 32]);
        let both = signature(Scheme::Standard).headers([&secret, &old], (ID, AT), BODY);
        let both = value(&both, "webhook-signature");
        assert!(both.starts_with(&format!("{expected} v1,")) && both.split(' ').count() == 2);
    }

    #[test]
    fn a_private_key_signs_beside_a_secret() {
        use aws_lc_rs::signature::{ED25519, UnparsedPublicKey};
        let (key, secret) = (Secret::drawn_key([7; 32]), Secret::drawn([1; 32]));
        let ed25519 = signature(Scheme::StandardEd25519);
        let headers = ed25519.headers([&key, &secret], (ID, AT), BODY);
        let both = value(&headers, "webhook-signature");
        let (first, second) = both.split_once(' ').unwrap();
        assert!(second.starts_with("v1,"));
        let signature = BASE64.decode(first.strip_prefix("v1a,").unwrap().as_bytes()).unwrap();
        let public = key.public_key().unwrap();
        let public = BASE64.decode(public.strip_prefix("whpk_").unwrap().as_bytes()).unwrap();
        let content = [format!("{ID}.{AT}.").as_bytes(), BODY].concat();
        UnparsedPublicKey::new(&ED25519, public).verify(&content, &signature).unwrap();
        let alone = Signature { with_v1: false, ..ed25519 };
        let alone = alone.headers([&key, &secret], (ID, AT), BODY);
        assert_eq!(value(&alone, "webhook-signature"), first);
    }

    #[test]
    fn other_schemes_have_their_own_headers() {
        let (new, old) =
            (Secret::kept("It's a Secret to Everybody"), Secret::kept("another secret"));
        let sign = |scheme, body: &[u8]| signature(scheme).headers([&new, &old], (ID, AT), body);
        // The example of GitHub's documentation.
        assert_eq!(
            sign(Scheme::Github, b"Hello, World!")[..],
            [(
                "x-hub-signature-256".into(),
                "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17".into()
            )]
        );
        let stripe = value(&sign(Scheme::Stripe, BODY), "stripe-signature");
        assert!(stripe.starts_with("t=1614265330,v1=") && stripe.matches(",v1=").count() == 2);
        let slack = sign(Scheme::Slack, BODY);
        assert_eq!(value(&slack, "x-slack-request-timestamp"), "1614265330");
        assert!(value(&slack, "x-slack-signature").starts_with("v0="));
        let shopify = value(&sign(Scheme::Shopify, BODY), "x-shopify-hmac-sha256");
        assert_eq!(BASE64.decode(shopify.as_bytes()).unwrap().len(), 32);
        assert!(sign(Scheme::None, BODY).is_empty());
        let named =
            Signature { header: Some("acme-signature".into()), ..signature(Scheme::Stripe) };
        assert_eq!(named.headers([&new], (ID, AT), BODY)[0].0, "acme-signature");
        let other = Signature { prefix: "acme".into(), ..Signature::default() };
        let names = other.headers([&old], (ID, AT), BODY).into_iter().map(|(name, _)| name);
        assert!(names.eq(["acme-id", "acme-timestamp", "acme-signature"]));
    }
}
