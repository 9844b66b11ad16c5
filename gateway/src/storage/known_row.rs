use serde::{Deserialize, Serialize};

use crate::domain::{
    EndpointId, EndpointNo, EventType, KnownType, Pattern, Replay, ReplayState, Schema, Seq, Slug,
    Timestamp,
};
use crate::storage::{Error, Result};

/// A described event type on disk.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct KnownTypeRow {
    pub(super) name: String,
    description: String,
    schema: Option<String>,
    strict: bool,
    created_at: u64,
    updated_at: u64,
}

impl From<&KnownType> for KnownTypeRow {
    fn from(it: &KnownType) -> Self {
        Self {
            name: it.name.to_string(),
            description: it.description.clone(),
            schema: it.schema.as_ref().map(|it| it.source().to_owned()),
            strict: it.strict,
            created_at: it.created_at.0,
            updated_at: it.updated_at.0,
        }
    }
}

impl KnownTypeRow {
    pub(super) fn into_noun(self) -> Result<KnownType> {
        let schema = self.schema.map(|it| Schema::restore(&it).map_err(Error::corrupt));
        Ok(KnownType {
            name: EventType::parse(&self.name).ok_or_else(|| Error::corrupt("event type"))?,
            description: self.description,
            schema: schema.transpose()?,
            strict: self.strict,
            created_at: Timestamp(self.created_at),
            updated_at: Timestamp(self.updated_at),
        })
    }
}

/// A replay on disk.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct ReplayRow {
    pub(super) id: String,
    tenant: String,
    endpoint: String,
    endpoint_no: u32,
    since: u64,
    until: u64,
    event_types: Vec<String>,
    undelivered_only: bool,
    /// The place in the table of names: new ones go to the end.
    state: u8,
    first: u64,
    last: u64,
    cursor: u64,
    examined: u64,
    replayed: u64,
    created_at: u64,
    updated_at: u64,
}

impl From<&Replay> for ReplayRow {
    fn from(it: &Replay) -> Self {
        let state = ReplayState::NAMES.iter().position(|(state, _)| *state == it.state);
        Self {
            id: it.id.clone(),
            tenant: it.tenant.to_string(),
            endpoint: it.endpoint.to_string(),
            endpoint_no: it.endpoint_no.0,
            since: it.since.0,
            until: it.until.0,
            event_types: it.event_types.iter().map(|it| it.as_str().to_owned()).collect(),
            undelivered_only: it.undelivered_only,
            state: state.expect("each has a name") as u8,
            first: it.first.0,
            last: it.last.0,
            cursor: it.cursor.0,
            examined: it.examined,
            replayed: it.replayed,
            created_at: it.created_at.0,
            updated_at: it.updated_at.0,
        }
    }
}

impl ReplayRow {
    pub(super) fn into_noun(self) -> Result<Replay> {
        let pattern = |it: &String| Pattern::parse(it).ok_or_else(|| Error::corrupt("pattern"));
        let state = ReplayState::NAMES.get(usize::from(self.state)).map(|(it, _)| *it);
        Ok(Replay {
            id: self.id,
            tenant: Slug::parse(&self.tenant).ok_or_else(|| Error::corrupt("tenant"))?,
            endpoint: EndpointId::parse(&self.endpoint)
                .ok_or_else(|| Error::corrupt("endpoint id"))?,
            endpoint_no: EndpointNo(self.endpoint_no),
            since: Timestamp(self.since),
            until: Timestamp(self.until),
            event_types: self.event_types.iter().map(pattern).collect::<Result<_>>()?,
            undelivered_only: self.undelivered_only,
            state: state.ok_or_else(|| Error::corrupt("a replay's state"))?,
            first: Seq(self.first),
            last: Seq(self.last),
            cursor: Seq(self.cursor),
            examined: self.examined,
            replayed: self.replayed,
            created_at: Timestamp(self.created_at),
            updated_at: Timestamp(self.updated_at),
        })
    }
}
