//! Instances that are asked more than once. A whole language's runtime takes milliseconds to
//! start, so a heavy plugin's instance is kept: for one tenant, one version and one configuration,
//! until it fails, traps or has been asked often enough.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
};

use wasmtime::{Store, component::Instance};

use crate::plugins::state::State;
use crate::plugins::{Call, Digest, Question};

/// When instances are kept, and how many.
#[derive(Debug, Clone)]
pub struct KeptConfig {
    /// From how many bytes of compiled code on a plugin is heavy.
    pub compiled_bytes_min: u64,
    /// Linear memory of a heavy plugin, in bytes, where a tenant has no limit of its own.
    pub memory_bytes_max: usize,
    /// Instances kept at once; the one that was not asked for longest goes.
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
        let surplus = live.len().saturating_sub(self.config.instances_max as usize);
        let gone: Vec<_> = live.drain(..surplus).collect();
        // Taking an instance apart takes its time.
        drop(live);
        drop(gone);
    }
}
