use crate::domain::Timestamp;

/// Whether an endpoint that fails is still tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Breaker {
    /// It is sent to.
    #[default]
    Closed,
    /// It failed too often: it is left alone until its next probe.
    Open,
    /// One attempt is out to see whether it is back.
    HalfOpen,
}

impl Breaker {
    /// Its name in the API.
    pub fn name(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Open => "open",
            Self::HalfOpen => "half_open",
        }
    }
}

/// How an endpoint does, as far as it is not well. Kept over a restart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Health {
    /// Whether it is sent to.
    pub breaker: Breaker,
    /// How often the breaker has opened since the endpoint last took something.
    pub trips: u32,
    /// When the next probe may go, while the breaker is open.
    pub probe_at: Option<Timestamp>,
    /// Attempts that failed since it last took something.
    pub failures: u32,
    /// Since when nothing but failures.
    pub failing_since: Option<Timestamp>,
    /// How many warnings of it were given.
    pub warnings: u8,
    /// Until when it asked to be left alone.
    pub paused_until: Option<Timestamp>,
    /// Until about when it is sent to more slowly because it asked for less. Not kept.
    pub slowed_until: Option<Timestamp>,
}
