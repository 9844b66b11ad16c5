use crate::domain::{Scheme, Secret, Timestamp};

/// Old secrets of a kind that may sign beside the newest.
const OLD_MAX: usize = 4;

/// A signing secret and how long it signs. The newest of its kind has no end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SigningSecret {
    /// The secret.
    pub secret: Secret,
    /// Until when it signs beside a newer one.
    pub until: Option<Timestamp>,
}

impl SigningSecret {
    /// One without an end.
    pub fn new(secret: Secret) -> Self {
        Self { secret, until: None }
    }

    /// Whether it signs at `now`.
    pub fn is_live(&self, now: Timestamp) -> bool {
        self.until.is_none_or(|it| now < it)
    }

    /// Draws what a scheme needs and an endpoint does not have: a private key, a shared secret of
    /// the right form.
    pub fn provide(secrets: &mut Vec<Self>, scheme: Scheme, mut draw: impl FnMut() -> [u8; 32]) {
        let has_key = secrets.iter().any(|it| it.secret.is_key());
        if scheme == Scheme::StandardEd25519 && !has_key {
            secrets.insert(0, Self::new(Secret::drawn_key(draw())));
        }
        let newest = secrets.iter().map(|it| &it.secret).find(|it| !it.is_key());
        let fits = |it: &Secret| !scheme.is_standard() || it.standard_bytes().is_some();
        if !newest.is_some_and(fits) {
            secrets.retain(|it| it.secret.is_key());
            secrets.push(Self::new(Secret::drawn(draw())));
        }
    }

    /// Puts `new` before the secrets of its kind, which sign until `until` and no longer.
    ///
    /// # Errors
    /// A sentence when too many old ones would still sign.
    pub fn rotate(
        secrets: &mut Vec<Self>,
        new: Secret,
        (now, until): (Timestamp, Timestamp),
    ) -> Result<(), String> {
        // One that signs already does so once.
        secrets.retain(|it| it.secret != new);
        for it in secrets.iter_mut().filter(|it| it.secret.is_key() == new.is_key()) {
            it.until = Some(it.until.map_or(until, |it| it.min(until)));
        }
        secrets.retain(|it| it.is_live(now));
        let old = secrets.iter().filter(|it| it.secret.is_key() == new.is_key());
        if old.count() > OLD_MAX {
            return Err("too many old secrets still sign; wait until one has ended".to_owned());
        }
        secrets.insert(0, Self::new(new));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn at_most_four_old_secrets_sign_beside_the_newest() {
        let mut secrets = vec![SigningSecret::new(Secret::drawn([0; 32]))];
        let (now, until) = (Timestamp(1000), Timestamp(5000));
        for n in 1..=4 {
            SigningSecret::rotate(&mut secrets, Secret::drawn([n; 32]), (now, until)).unwrap();
        }
        let mut again = secrets.clone();
        SigningSecret::rotate(&mut again, secrets[0].secret.clone(), (now, until)).unwrap();
        assert_eq!(again, secrets, "who signs already does so once");
        let fifth = Secret::drawn([5; 32]);
        assert!(SigningSecret::rotate(&mut secrets.clone(), fifth.clone(), (now, until)).is_err());
        assert_eq!(secrets.iter().filter(|it| it.is_live(now)).count(), 5);
        assert_eq!(secrets[0].secret, Secret::drawn([4; 32]), "newest first");
        assert_eq!(secrets.iter().filter(|it| it.is_live(until)).count(), 1);
        SigningSecret::rotate(&mut secrets, fifth, (until, until)).unwrap();
        assert_eq!(secrets.len(), 1, "without grace the old one is gone at once");
    }

    #[test]
    fn a_scheme_gets_the_secrets_it_needs() {
        let mut secrets = Vec::new();
        SigningSecret::provide(&mut secrets, Scheme::StandardEd25519, || [1; 32]);
        let keys: Vec<_> = secrets.iter().map(|it| it.secret.is_key()).collect();
        assert_eq!(keys, [true, false]);
        let (now, until) = (Timestamp(1000), Timestamp(5000));
        SigningSecret::rotate(&mut secrets, Secret::drawn_key([2; 32]), (now, until)).unwrap();
        assert_eq!(secrets.len(), 3, "the shared secret stays");
        let mut secrets = vec![SigningSecret::new(Secret::kept("a text of Slack's"))];
        SigningSecret::provide(&mut secrets, Scheme::Slack, || unreachable!());
        SigningSecret::provide(&mut secrets, Scheme::Standard, || [3; 32]);
        assert_eq!(secrets, [SigningSecret::new(Secret::drawn([3; 32]))]);
    }
}
