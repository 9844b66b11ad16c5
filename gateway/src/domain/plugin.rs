use std::{fmt, sync::Arc};

use crate::domain::{EndpointNo, EventId, Share, Timestamp};

const NAME_CHARS_MAX: usize = 64;

/// A plugin's name within its tenant: `[a-z0-9][a-z0-9_-]{0,63}`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct PluginName(Arc<str>);

impl PluginName {
    /// Checks the form, which is that of a tenant's slug.
    pub fn parse(text: &str) -> Option<Self> {
        let fits = text.len() <= NAME_CHARS_MAX && crate::domain::Slug::parse(text).is_some();
        fits.then(|| Self(text.into()))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for PluginName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for PluginName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One upload of a plugin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PluginVersion {
    /// 1 for the first upload.
    pub version: u32,
    /// SHA-256 of the component.
    pub digest: [u8; 32],
    /// What it is asked: `filter`, `transform`, ….
    pub kind: String,
    /// Bytes of the component.
    pub size: u64,
    /// When it was uploaded.
    pub created_at: Timestamp,
}

/// A version on trial: it meets a share of the events in place of the active one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Canary {
    /// Which version.
    pub version: u32,
    /// The share of events that meet it.
    pub share: Share,
    /// Whether the active version sees those events too, so that the two can be compared.
    pub compare: bool,
    /// By how much its share of failed calls may exceed the active version's before the trial is
    /// ended; `None`: somebody watches.
    pub abort_on_error_rate: Option<Share>,
    /// Since when.
    pub started_at: Timestamp,
}

impl Canary {
    /// Whether this event meets it at this endpoint: a rule without memory, so that a retry
    /// meets what the first attempt met, before and after a restart.
    pub fn takes(&self, event: &EventId, endpoint: EndpointNo) -> bool {
        let text = event.as_str().bytes().chain(endpoint.0.to_le_bytes());
        self.share.covers(text.chain(self.version.to_le_bytes()))
    }
}

/// A tenant's WebAssembly component and its versions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plugin {
    /// Unique within its tenant.
    pub name: PluginName,
    /// The version that endpoints without a pin run.
    pub active_version: u32,
    /// The version on trial, if there is one.
    pub canary: Option<Canary>,
    /// All uploads, oldest first; never empty.
    pub versions: Vec<PluginVersion>,
}

impl Plugin {
    /// The version that runs where `pin` is asked for; `None`: the active one.
    pub fn version(&self, pin: Option<u32>) -> Option<&PluginVersion> {
        let wanted = pin.unwrap_or(self.active_version);
        self.versions.iter().find(|it| it.version == wanted)
    }

    /// The version that meets this event at this endpoint, and whether it is there on trial.
    pub fn version_for(
        &self,
        pin: Option<u32>,
        event: &EventId,
        endpoint: EndpointNo,
    ) -> Option<(&PluginVersion, bool)> {
        let canary = self.canary.as_ref().filter(|it| pin.is_none() && it.takes(event, endpoint));
        match canary.and_then(|it| self.version(Some(it.version))) {
            Some(version) => Some((version, true)),
            None => Some((self.version(pin)?, false)),
        }
    }

    /// What the active version is asked.
    pub fn kind(&self) -> &str {
        self.version(None).map_or("", |it| it.kind.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(version: u32) -> PluginVersion {
        let (digest, kind) = ([version as u8; 32], "filter".to_owned());
        PluginVersion { version, digest, kind, size: 1, created_at: Timestamp(0) }
    }

    fn plugin(share: f64) -> Plugin {
        Plugin {
            name: PluginName::parse("p").unwrap(),
            active_version: 1,
            canary: Some(Canary {
                version: 2,
                share: Share::of(share).unwrap(),
                compare: false,
                abort_on_error_rate: None,
                started_at: Timestamp(0),
            }),
            versions: vec![version(1), version(2)],
        }
    }

    #[test]
    fn a_canary_meets_its_share_and_always_the_same_events() {
        let plugin = plugin(0.05);
        let meets = |n: u32| {
            let id = EventId::parse(&format!("evt-{n}")).unwrap();
            plugin.version_for(None, &id, EndpointNo(1)).unwrap().1
        };
        let first: Vec<bool> = (0..20_000).map(meets).collect();
        assert_eq!(first, (0..20_000).map(meets).collect::<Vec<_>>());
        let met = first.iter().filter(|it| **it).count();
        assert!((800..1200).contains(&met), "{met} of 20,000");
    }

    #[test]
    fn a_pin_meets_no_canary() {
        let plugin = plugin(1.0);
        let id = EventId::parse("e").unwrap();
        let met = |pin| plugin.version_for(pin, &id, EndpointNo(1)).map(|(it, _)| it.version);
        assert_eq!([met(None), met(Some(1)), met(Some(3))], [Some(2), Some(1), None]);
    }
}
