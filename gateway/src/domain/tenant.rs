use std::{fmt, sync::Arc};

use crate::domain::{Quota, Timestamp};

const SLUG_CHARS_MAX: usize = 64;

/// A tenant's name in paths, chosen by the operator: `[a-z0-9][a-z0-9_-]{0,63}`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Slug(Arc<str>);

impl Slug {
    /// The tenant that exists from the start.
    pub fn default_tenant() -> Self {
        Self("default".into())
    }

    /// Checks the form.
    pub fn parse(text: &str) -> Option<Self> {
        let plain = |it: u8| it.is_ascii_lowercase() || it.is_ascii_digit();
        let (first, rest) = text.as_bytes().split_first()?;
        let fits = plain(*first) && text.len() <= SLUG_CHARS_MAX;
        let rest = rest.iter().all(|it| plain(*it) || matches!(it, b'_' | b'-'));
        (fits && rest).then(|| Self(text.into()))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The text, shared.
    pub fn shared(&self) -> Arc<str> {
        self.0.clone()
    }
}

impl fmt::Display for Slug {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Slug {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A tenant's number within its shard: short enough for every key, never used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TenantNo(pub u32);

/// A customer of the gateway. Nothing crosses from one to another.
#[derive(Debug, Clone, PartialEq)]
pub struct Tenant {
    /// Its name in paths.
    pub slug: Slug,
    /// Its name in storage keys.
    pub no: TenantNo,
    /// Its name for people.
    pub name: String,
    /// What the operator grants it.
    pub quota: Quota,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it was last changed.
    pub updated_at: Timestamp,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slugs() {
        let long = "a".repeat(64);
        for (text, fits) in [
            ("default", true),
            ("0-a_b", true),
            (long.as_str(), true),
            (&"a".repeat(65), false),
            ("", false),
            ("-a", false),
            ("A", false),
            ("a.b", false),
            ("ä", false),
        ] {
            assert_eq!(Slug::parse(text).is_some(), fits, "{text}");
        }
    }
}
