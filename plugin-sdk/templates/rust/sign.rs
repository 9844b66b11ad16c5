//! Signs `timestamp.body` with HMAC-SHA256, in the header `x-signature`.

use hookgate_plugin::{Algorithm, Config, Keys, Plugin, Request};

struct Signer;

impl Plugin for Signer {
    fn configure(_: &Config) -> Result<Self, String> {
        Ok(Self)
    }

    fn sign(&self, request: &Request, keys: &Keys) -> Result<Vec<(String, String)>, String> {
        let mut message = format!("{}.", request.timestamp).into_bytes();
        message.extend_from_slice(&request.body);
        let mac = keys.hmac(Algorithm::Sha256, &message);
        let mac: String = mac.iter().map(|it| format!("{it:02x}")).collect();
        Ok(vec![("x-signature".to_owned(), format!("t={},v1={mac}", request.timestamp))])
    }
}

hookgate_plugin::export!(Signer: sign);

#[cfg(test)]
mod tests {
    use super::*;
    use hookgate_plugin::testing::{request, sign};

    #[test]
    fn it_signs_over_the_time_too() {
        let at = |time| sign::<Signer>(&[], &request("evt_1", time, "/", "{}"), &[b"secret"]);
        assert_ne!(at(1), at(2));
    }
}
