//! Takes only events that Stripe signed.
//!
//! Whoever receives the webhook passes its body on as the event's data, byte by byte, and the
//! header `Stripe-Signature` in the metadata. Config: `secret` (`whsec_…`, needed; several
//! separated by commas while it is being rolled), `fact` (the metadata's name, default
//! `stripe-signature`), `tolerance` (how old the signature may be, in seconds, default 300).
//!
//! The scheme: <https://docs.stripe.com/webhooks#verify-manually>.

use hmac::{Hmac, KeyInit, Mac};
use hookgate_plugin::{Config, Incoming, Ingested, Plugin};
use sha2::Sha256;

struct StripeSignature {
    secrets: Vec<String>,
    fact: String,
    tolerance: u64,
}

impl Plugin for StripeSignature {
    fn configure(config: &Config) -> Result<Self, String> {
        config.require("secret")?;
        let secrets = config.list("secret");
        if secrets.is_empty() {
            return Err("`secret` is empty".to_owned());
        }
        Ok(Self {
            secrets,
            fact: config.get("fact").unwrap_or("stripe-signature").to_owned(),
            tolerance: config.parse("tolerance")?.unwrap_or(300),
        })
    }

    fn ingest(&self, event: &Incoming) -> Result<Ingested, String> {
        let Some(header) = event.metadata(&self.fact) else {
            return Ok(Ingested::reject(format!("there is no `{}` in the metadata", self.fact)));
        };
        match self.verify(header, &event.payload, event.timestamp_ms / 1000) {
            Ok(()) => Ok(Ingested::Accept),
            Err(why) => Ok(Ingested::reject(why)),
        }
    }
}

impl StripeSignature {
    fn verify(&self, header: &str, body: &[u8], now: u64) -> Result<(), &'static str> {
        let parts = || header.split(',').filter_map(|it| it.trim().split_once('='));
        let time = parts().find(|(name, _)| *name == "t").map(|(_, it)| it);
        let time = time.ok_or("the signature has no time")?;
        let seconds: u64 = time.parse().map_err(|_| "the signature's time is no number")?;
        if now.abs_diff(seconds) > self.tolerance {
            return Err("the signature is too old, or from the future");
        }
        let signatures = || parts().filter(|(name, _)| *name == "v1").filter_map(|(_, it)| hex(it));
        let signed = self.secrets.iter().any(|secret| {
            let mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes());
            let mac = mac.expect("any length is a key");
            let mac = mac.chain_update(time).chain_update(".").chain_update(body);
            signatures().any(|it| mac.clone().verify_slice(&it).is_ok())
        });
        if signed { Ok(()) } else { Err("the signature is not Stripe's") }
    }
}

fn hex(text: &str) -> Option<Vec<u8>> {
    let digits = text.is_ascii() && text.len().is_multiple_of(2);
    let byte = |at: usize| u8::from_str_radix(&text[at..at + 2], 16).ok();
    digits.then(|| (0..text.len()).step_by(2).map(byte).collect()).flatten()
}

hookgate_plugin::export!(StripeSignature: ingest);

#[cfg(test)]
mod tests {
    use super::*;
    use hookgate_plugin::testing::{configure, incoming, ingest};

    #[test]
    fn one_byte_decides() {
        let plugin = configure::<StripeSignature>(&[("secret", "whsec_a, whsec_b")]).unwrap();
        let mac = Hmac::<Sha256>::new_from_slice(b"whsec_b").unwrap();
        let mac = mac.chain_update("100.{\"id\": 1}").finalize().into_bytes();
        let mac: String = mac.iter().map(|it| format!("{it:02x}")).collect();
        let header = format!("t=100,v0=00,v1=beef,v1={mac}");
        assert_eq!(plugin.verify(&header, b"{\"id\": 1}", 399), Ok(()));
        assert!(plugin.verify(&header, b"{\"id\": 2}", 399).is_err());
        assert!(plugin.verify(&header, b"{\"id\": 1}", 401).is_err());
        assert!(plugin.verify("v1=beef", b"", 0).is_err());
    }

    #[test]
    fn what_is_not_signed_is_rejected() {
        let verdict = ingest::<StripeSignature>(&[("secret", "whsec_a")], &incoming("a", "{}"));
        assert!(matches!(verdict, Ok(Ingested::Reject(_))), "{verdict:?}");
        assert!(configure::<StripeSignature>(&[]).is_err());
    }
}
