use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use crate::api::caller::Access;
use crate::api::fields::Fields;
use crate::api::page::{EXAMINED_MAX, parse_cursor};
use crate::api::problem::{Problem, Result};
use crate::api::wire::parse_time;
use crate::domain::{Endpoint, EndpointId, PluginName, Seq, Timestamp};

const EVENTS_MAX: u32 = 1000;
const EVENTS_DEFAULT: u32 = 100;

/// What a back-test is asked to do.
pub(super) struct Wish {
    pub(super) version: u32,
    /// `None`: the active one.
    pub(super) against: Option<u32>,
    config: Option<BTreeMap<String, String>>,
    endpoint: Option<EndpointId>,
    limit: u32,
    since: Option<Timestamp>,
    until: Option<Timestamp>,
    before: Seq,
}

/// An endpoint with its configuration of the plugin; none for a configuration of one's own.
pub(super) type Use = (Option<Arc<Endpoint>>, BTreeMap<String, String>);

impl Wish {
    pub(super) fn read(mut fields: Fields, access: &Access) -> Result<Self> {
        let version = fields.whole("version", 1, u32::MAX);
        let version = fields.need("version", version);
        let against = fields.whole("against", 1, u32::MAX);
        let config = fields.strings("config");
        let endpoint = fields.parsed("endpoint", "an endpoint's id", EndpointId::parse);
        let recent = fields.whole("recent", 1, EVENTS_MAX);
        let limit = fields.whole("limit", 1, EVENTS_MAX);
        let time = "a time such as 2026-01-31T12:00:00Z";
        let since = fields.parsed("since", time, parse_time);
        let until = fields.parsed("until", time, parse_time);
        let before = fields.parsed("cursor", "a cursor that a back-test gave", |it| {
            parse_cursor(&access.list("backtest"), it).map(|[seq]| Seq(seq))
        });
        if recent.is_some() && (since.is_some() || until.is_some()) {
            fields.refuse("recent", "is for the newest events; leave out `since` and `until`");
        }
        if recent.is_some() && limit.is_some() {
            fields.refuse("recent", "goes without `limit`");
        }
        if since.zip(until).is_some_and(|(since, until)| since >= until) {
            fields.refuse("until", "must be later than `since`");
        }
        fields.finish().map_err(Problem::invalid_fields)?;
        if let Some(id) = &endpoint {
            access.endpoint(id.as_str())?;
        }
        Ok(Self {
            version: version.ok_or_else(|| Problem::invalid_fields(Vec::new()))?,
            against,
            config,
            endpoint,
            limit: recent.or(limit).unwrap_or(EVENTS_DEFAULT),
            since,
            until,
            before: before.unwrap_or(Seq(u64::MAX)),
        })
    }

    /// The events to look at, the newest first, and where the next request goes on.
    pub(super) fn events(&self, access: &Access) -> Result<(VecDeque<Seq>, Option<Seq>)> {
        let mut found = VecDeque::new();
        let all = access.shard.events_before(access.no, self.before);
        for (examined, event) in all.enumerate() {
            let event = event?;
            if self.since.is_some_and(|it| event.accepted_at < it) {
                break;
            }
            if found.len() == self.limit as usize || examined == EXAMINED_MAX {
                return Ok((found, Some(event.seq.next())));
            }
            if self.until.is_none_or(|it| event.accepted_at < it) {
                found.push_back(event.seq);
            }
        }
        Ok((found, None))
    }

    /// With which configurations the versions are run: a given one, those of the endpoints that
    /// use the plugin, or none.
    pub(super) fn uses(&self, access: &Access, plugin: &PluginName) -> Vec<Use> {
        let catalog = access.shard.catalog();
        let endpoints =
            catalog.tenant(&access.slug).into_iter().flat_map(|it| it.endpoints.values());
        let wanted = |it: &&Arc<Endpoint>| self.endpoint.as_ref().is_none_or(|id| it.id == *id);
        let of_endpoint = |endpoint: &Arc<Endpoint>| -> Option<Use> {
            let own = endpoint.plugins.iter().find(|it| it.plugin == *plugin);
            let config = self.config.as_ref().or_else(|| own.map(|it| &it.config)).cloned();
            // One that was asked for is looked at as if it used the plugin.
            let config = config.or_else(|| self.endpoint.is_some().then(BTreeMap::new));
            Some((Some(endpoint.clone()), config?))
        };
        let uses: Vec<_> = match (&self.config, &self.endpoint) {
            (Some(_), None) => Vec::new(),
            _ => endpoints.filter(wanted).filter_map(of_endpoint).collect(),
        };
        match uses.is_empty() {
            true => vec![(None, self.config.clone().unwrap_or_default())],
            false => uses,
        }
    }
}
