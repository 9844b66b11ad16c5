use std::{ops::Deref, sync::Arc, time::Duration};

use tokio::{runtime::Handle, sync::watch};

use crate::api::body_memory::BodyMemory;
use crate::api::pace::Pace;
use crate::api::problem::{Problem, Result};
use crate::plugins::Host;
use crate::storage::Store;
use crate::telemetry::Rendering;
use crate::world::{Clock, Entropy, Transport};

/// Why a gateway that stops takes no events.
pub const STOPPING: &str = "the gateway is stopping";

/// What requests may ask for at most.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Bytes of an event's data.
    pub data_bytes_max: usize,
    /// Bytes of a JSON body with many events.
    pub batch_bytes_max: usize,
    /// Events in a JSON body.
    pub batch_events_max: usize,
    /// Bytes of any other JSON body.
    pub body_bytes_max: usize,
    /// Bytes of a component.
    pub component_bytes_max: usize,
    /// What the large bodies of all requests may take together.
    pub bodies: BodyMemory,
    /// How long a test of an endpoint is waited for.
    pub test_wait_max: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            data_bytes_max: 1024 * 1024,
            batch_bytes_max: 16 * 1024 * 1024,
            batch_events_max: 1000,
            body_bytes_max: 256 * 1024,
            component_bytes_max: 16 * 1024 * 1024,
            bodies: BodyMemory::new(256 * 1024 * 1024),
            test_wait_max: Duration::from_secs(60),
        }
    }
}

/// What the routes work with. Each request clones it, so it is one pointer.
#[derive(Clone)]
pub struct Gateway(Arc<Parts>);

impl Gateway {
    /// Whether events can be taken.
    pub(super) fn ready(&self) -> Result<()> {
        let reason = *self.unready.borrow();
        match reason {
            Some(reason) => Err(Problem::unavailable("unavailable", reason)),
            None if !self.store.is_well() => {
                Err(Problem::unavailable("storage_unavailable", "the store has failed"))
            }
            None => Ok(()),
        }
    }
}

impl From<Parts> for Gateway {
    fn from(parts: Parts) -> Self {
        Self(Arc::new(parts))
    }
}

impl Deref for Gateway {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        &self.0
    }
}

/// What a gateway consists of, as its routes see it.
pub struct Parts {
    /// Everything that is kept.
    pub store: Store,
    /// Checks and tries plugins.
    pub plugins: Host,
    /// Tells which URLs may be an endpoint's.
    pub transport: Arc<dyn Transport>,
    /// Stamps what is made.
    pub clock: Arc<dyn Clock>,
    /// Draws ids and secrets.
    pub entropy: Arc<dyn Entropy>,
    /// What requests may ask for.
    pub limits: Limits,
    /// Why it cannot take events now: `None` when it can.
    pub unready: watch::Receiver<Option<&'static str>>,
    /// How fast producers go.
    pub pace: Pace,
    /// Renders the metrics.
    pub metrics: Rendering,
    /// The runtimes that the metrics tell of, each with its name there.
    pub runtimes: Vec<(&'static str, Handle)>,
}

impl Gateway {
    /// Waits until the gateway stops.
    pub(super) async fn stopping(&self) {
        let mut unready = self.unready.clone();
        // Without whoever tells, it has stopped.
        let _ = unready.wait_for(|it| *it == Some(STOPPING)).await;
    }

    /// Bytes for a new secret.
    pub(super) fn random_bytes(&self) -> [u8; 32] {
        let mut bytes = [0; 32];
        self.entropy.fill(&mut bytes);
        bytes
    }
}
