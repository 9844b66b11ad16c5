use crate::domain::{EndpointId, EndpointNo, Pattern, Seq, Slug, Timestamp};

/// How far a replay is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReplayState {
    /// It goes on, after a restart too.
    Running,
    /// Every event it asked for has been looked at.
    Finished,
    /// Somebody stopped it, or its endpoint is gone.
    Stopped,
}

impl ReplayState {
    /// Each state with its name in the API.
    pub const NAMES: [(Self, &'static str); 3] =
        [(Self::Running, "running"), (Self::Finished, "finished"), (Self::Stopped, "stopped")];

    /// Its name in the API.
    pub fn name(self) -> &'static str {
        Self::NAMES.iter().find(|(it, _)| *it == self).expect("each state has a name").1
    }
}

/// A replay: events of the past, once more or for the first time, for one endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replay {
    /// `rpl_…`.
    pub id: String,
    /// Whose it is.
    pub tenant: Slug,
    /// Which endpoint gets the events.
    pub endpoint: EndpointId,
    /// Its number.
    pub endpoint_no: EndpointNo,
    /// Events accepted from then on,
    pub since: Timestamp,
    /// and before then.
    pub until: Timestamp,
    /// Only these types; none: those the endpoint asks for.
    pub event_types: Vec<Pattern>,
    /// Only what the endpoint has not received.
    pub undelivered_only: bool,
    /// How far it is.
    pub state: ReplayState,
    /// The first place in the log that it looks at.
    pub first: Seq,
    /// The last place in the log that it looks at.
    pub last: Seq,
    /// Up to here it has looked.
    pub cursor: Seq,
    /// Events of the tenant that it has looked at.
    pub examined: u64,
    /// Deliveries that it has set off.
    pub replayed: u64,
    /// When it was asked for.
    pub created_at: Timestamp,
    /// When it last came further.
    pub updated_at: Timestamp,
}

impl Replay {
    /// The share that is done, `0..=1`.
    pub fn progress(&self) -> f64 {
        let whole = (self.last.0 + 1).saturating_sub(self.first.0);
        let done = (self.cursor.0 + 1).saturating_sub(self.first.0);
        match (self.state, whole) {
            (ReplayState::Finished, _) | (_, 0) => 1.0,
            _ => (done as f64 / whole as f64).min(1.0),
        }
    }
}
