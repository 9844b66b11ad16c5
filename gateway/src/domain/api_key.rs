use crate::domain::{RateLimit, Slug, Timestamp};

/// What a key may do in its tenant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scope {
    /// Everything.
    Manage,
    /// Publish events, and nothing else.
    Produce,
    /// Read everything, change nothing.
    Read,
}

impl Scope {
    /// Each scope with its name in the API.
    pub const NAMES: [(Self, &'static str); 3] =
        [(Self::Manage, "manage"), (Self::Produce, "produce"), (Self::Read, "read")];

    /// Its name in the API.
    pub fn name(self) -> &'static str {
        Self::NAMES.iter().find(|(it, _)| *it == self).expect("each scope has a name").1
    }

    /// The scope of this name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::NAMES.iter().find(|(_, it)| *it == name).map(|(it, _)| *it)
    }
}

/// A tenant's key. The secret itself is shown once and never kept.
#[derive(Debug, Clone, PartialEq)]
pub struct ApiKey {
    /// `key_…`; also the public part of the key's text.
    pub id: String,
    /// Whose it is.
    pub tenant: Slug,
    /// What people call it.
    pub name: String,
    /// What it may do.
    pub scopes: Vec<Scope>,
    /// SHA-256 of the whole key text. The secret has 256 random bits, so no slow hash is needed.
    pub hash: [u8; 32],
    /// When it was made.
    pub created_at: Timestamp,
    /// From when on it is refused.
    pub expires_at: Option<Timestamp>,
    /// The hash before the last rotation, and until when it opens too.
    pub previous: Option<([u8; 32], Timestamp)>,
    /// Requests a second that it may make.
    pub rate_limit: Option<RateLimit>,
    /// Whether it is a portal session: short-lived, and never the way to more rights.
    pub portal: bool,
    /// The key that opened the portal session, which ends with it; none for the operator's.
    pub maker: Option<String>,
}

impl ApiKey {
    /// Whether it may do what `scope` allows; `manage` may do everything.
    pub fn may(&self, scope: Scope) -> bool {
        self.scopes.contains(&scope) || self.scopes.contains(&Scope::Manage)
    }

    /// Whether its time is over.
    pub fn has_expired(&self, now: Timestamp) -> bool {
        self.expires_at.is_some_and(|it| it <= now)
    }
}
