//! Instances that are asked more than once. A whole language's runtime takes milliseconds to
//! start, so a heavy plugin's instance is kept: for one tenant, one version and one configuration,
//! until it fails, traps or has been asked often enough. A component may ask for it, or against.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex, PoisonError},
};

use wasmtime::{Store, component::Instance};

use serde::Deserialize;
use wasmparser::{Parser, Payload};

use crate::plugins::state::State;
use crate::plugins::{Call, Digest, Question, Refusal};

/// The custom section of a component in which it says what its instances are to be.
const SECTION: &str = "hookgate:instance";

/// What a component asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Keep {
    /// Each call meets a fresh instance, however long one takes to start.
    Fresh,
    /// An instance answers call after call: of one tenant, version and configuration.
    Kept,
}

impl Keep {
    fn word(self) -> &'static str {
        match self {
            Self::Fresh => "fresh",
            Self::Kept => "kept",
        }
    }

    /// The component with this in it: a custom section behind all others.
    pub fn mark(self, component: &[u8]) -> Vec<u8> {
        let word = self.word();
        let length = 1 + SECTION.len() + word.len();
        let byte = |it: usize| u8::try_from(it).expect("names and words are short");
        let head = [0, byte(length), byte(SECTION.len())];
        [component, &head, SECTION.as_bytes(), word.as_bytes()].concat()
    }

    /// What a component asks for.
    ///
    /// # Errors
    /// When it asks for something else.
    pub(super) fn asked_in(component: &[u8]) -> Result<Option<Self>, Refusal> {
        let (mut depth, mut asked) = (0_usize, None);
        for payload in Parser::new(0).parse_all(component) {
            match payload.map_err(|it| Refusal::new("plugin_invalid", it))? {
                Payload::Version { .. } => depth += 1,
                Payload::End(_) => depth = depth.saturating_sub(1),
                // What modules within say is their own.
                Payload::CustomSection(it) if depth == 1 && it.name() == SECTION => {
                    let all = [Self::Fresh, Self::Kept];
                    asked = all.into_iter().find(|keep| keep.word().as_bytes() == it.data());
                    if asked.is_none() {
                        let told = String::from_utf8_lossy(it.data());
                        let detail = format!("`{SECTION}` is {told:?}; `fresh` and `kept` are");
                        return Err(Refusal::new("plugin_invalid", detail + " known"));
                    }
                }
                _ => {}
            }
        }
        Ok(asked)
    }
}

/// When instances are kept, and how many.
#[derive(Debug, Clone)]
pub struct KeptConfig {
    /// From how many bytes of compiled code on a plugin is heavy.
    pub compiled_bytes_min: u64,
    /// Linear memory of a heavy plugin, in bytes, where a tenant has no limit of its own.
    pub memory_bytes_max: usize,
    /// Instances kept at once. When there are more, the tenant that has most of them loses the
    /// one that was not asked for longest.
    pub instances_max: u32,
    /// How often one is asked.
    pub calls_max: u32,
}

impl Default for KeptConfig {
    fn default() -> Self {
        Self {
            compiled_bytes_min: 16 * 1024 * 1024,
            memory_bytes_max: 64 * 1024 * 1024,
            instances_max: 32,
            calls_max: 1000,
        }
    }
}

/// Which of the instances goes: the oldest of the tenant that has most.
fn surplus<'a>(tenants: impl Iterator<Item = &'a str>) -> usize {
    let mut of: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
    for (place, tenant) in tenants.enumerate() {
        of.entry(tenant).or_insert((0, place)).0 += 1;
    }
    let most = of.into_values().max_by_key(|(count, oldest)| (*count, Reverse(*oldest)));
    most.map_or(0, |(_, oldest)| oldest)
}

/// A store, and the instance in it once it is configured.
pub(super) struct Live {
    pub(super) store: Store<State>,
    pub(super) instance: Option<Instance>,
    pub(super) calls: u32,
}

/// Whose instance it is, and what it was configured with.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Key {
    tenant: Arc<str>,
    digest: Digest,
    config: Vec<(String, String)>,
}

impl Key {
    pub(super) fn of(call: &Call<Question>) -> Self {
        let (tenant, digest) = (call.tenant.clone(), call.artifact.digest());
        Self { tenant, digest, config: call.config.clone() }
    }
}

pub(super) struct Kept {
    config: KeptConfig,
    live: Mutex<VecDeque<(Key, Live)>>,
}

impl Kept {
    pub(super) fn new(config: KeptConfig) -> Self {
        Self { config, live: Mutex::default() }
    }

    /// An instance that waits for the next call of this kind.
    pub(super) fn take(&self, key: &Key) -> Option<Live> {
        let mut live = self.live.lock().unwrap_or_else(PoisonError::into_inner);
        let place = live.iter().rposition(|(it, _)| it == key)?;
        live.remove(place).map(|(_, it)| it)
    }

    /// Keeps an instance that answered, unless it has been asked often enough.
    pub(super) fn put(&self, key: Key, it: Live) {
        if it.calls >= self.config.calls_max {
            return;
        }
        let mut live = self.live.lock().unwrap_or_else(PoisonError::into_inner);
        live.push_back((key, it));
        let mut gone = Vec::new();
        while live.len() > self.config.instances_max as usize {
            let tenants = live.iter().map(|(it, _)| &*it.tenant);
            let place = surplus(tenants);
            gone.extend(live.remove(place));
        }
        // Taking an instance apart takes its time.
        drop(live);
        drop(gone);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EMPTY: &[u8] = b"\0asm\x0d\0\x01\0";

    #[test]
    fn what_a_component_asks_for_is_found_in_it() {
        assert_eq!(Keep::asked_in(EMPTY), Ok(None));
        for keep in [Keep::Fresh, Keep::Kept] {
            let marked = keep.mark(EMPTY);
            wasmparser::validate(&marked).unwrap();
            assert_eq!(Keep::asked_in(&marked), Ok(Some(keep)));
            // Within another component it says nothing of that one.
            let inner = [&[4, u8::try_from(marked.len()).unwrap()][..], &marked].concat();
            let outer = [EMPTY, &inner].concat();
            wasmparser::validate(&outer).unwrap();
            assert_eq!(Keep::asked_in(&outer), Ok(None));
        }
        let mut unknown = Keep::Kept.mark(EMPTY);
        *unknown.last_mut().unwrap() = b'T';
        let refusal = Keep::asked_in(&unknown).unwrap_err();
        assert_eq!(refusal.code, "plugin_invalid");
        assert!(refusal.detail.contains("\"kepT\""), "{}", refusal.detail);
    }

    #[test]
    fn who_has_most_loses_the_oldest() {
        assert_eq!(surplus(["a", "b", "c", "b"].into_iter()), 1);
        assert_eq!(surplus(["a", "b", "b", "a"].into_iter()), 0);
        assert_eq!(surplus(["a", "b", "b", "b", "a"].into_iter()), 1);
        assert_eq!(surplus(std::iter::empty()), 0);
    }
}
