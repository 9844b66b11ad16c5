use std::{
    collections::BTreeMap,
    hash::{DefaultHasher, Hash, Hasher},
    sync::{Arc, Mutex, OnceLock, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use wasmtime::Engine;

use crate::domain::{PluginName, PluginQuota};
use crate::plugins::cache::Cache;
use crate::plugins::compile::compile;
use crate::plugins::inspect::inspect;
use crate::plugins::line::Lines;
use crate::plugins::sandbox::Sandboxed;
use crate::plugins::workers::Workers;
use crate::plugins::{
    Artifact, Asked, Breakers, Busy, Call, Called, Class, Config, Diary, Digest, FaultKind, Keep,
    Refusal, engine,
};
use crate::telemetry::PLUGIN_COMPILE;
use crate::world::Entropy;

/// Compilations at once; the rest wait.
const COMPILATIONS_MAX: usize = 2;
/// Calls of those who stand in a tenant's line that are in its queue at once.
const IN_LINE_AT_ONCE: usize = 16;

/// The host cannot start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The engine refuses its settings.
    #[error("the plugin engine cannot start: {0}")]
    Engine(String),
    /// The cache or the threads cannot be had.
    #[error("the plugin host cannot start: {0}")]
    Io(#[from] std::io::Error),
}

/// Compiles, keeps and runs plugins.
#[derive(Clone)]
pub struct Host(Arc<Inner>);

struct Inner {
    engine: Engine,
    config: Config,
    cache: Cache,
    loaded: Mutex<BTreeMap<Digest, Arc<Artifact>>>,
    compiling: tokio::sync::Semaphore,
    workers: Workers,
    lines: Lines,
    diary: Diary,
    breakers: Breakers,
    quotas: OnceLock<Quotas>,
}

/// What a tenant is granted.
type Quotas = Box<dyn Fn(&str) -> PluginQuota + Send + Sync>;

impl Host {
    /// Starts the engine and its threads.
    ///
    /// # Errors
    /// When the engine, the cache's folder or the threads cannot be had.
    pub fn start(config: Config, entropy: &dyn Entropy) -> Result<Self, Error> {
        let engine = engine::running(&config).map_err(|it| Error::Engine(format!("{it:#}")))?;
        let mut key = [0; 32];
        entropy.fill(&mut key);
        let mut hasher = DefaultHasher::new();
        engine.precompile_compatibility_hash().hash(&mut hasher);
        let cache = Cache::open(&config.cache, hasher.finish(), key)?;
        let workers = Workers::start(&engine, &config)?;
        // Enough to keep the threads busy, and at most a half of the tenant's queue.
        let at_once = (config.queue_max / 2).min(IN_LINE_AT_ONCE).max(2 * config.workers.max(1));
        let loaded = Mutex::default();
        let compiling = tokio::sync::Semaphore::new(COMPILATIONS_MAX);
        let inner = Inner {
            breakers: Breakers::new(config.breaker.clone()),
            engine,
            config,
            cache,
            loaded,
            compiling,
            workers,
            lines: Lines::new(at_once),
            diary: Diary::default(),
            quotas: OnceLock::new(),
        };
        Ok(Self(Arc::new(inner)))
    }

    /// Tells where it stands what each tenant is granted; it is asked for each call. Without it,
    /// all have what the settings say.
    pub fn grant_by(&self, quotas: impl Fn(&str) -> PluginQuota + Send + Sync + 'static) {
        // The first to tell it is the one who wires the rooms.
        let _ = self.0.quotas.set(Box::new(quotas));
    }

    /// Its settings.
    pub fn config(&self) -> &Config {
        &self.0.config
    }

    /// Checks a component from outside, compiles it and makes it ready.
    ///
    /// # Errors
    /// Why it is not taken.
    pub async fn check(&self, component: Bytes) -> Result<Arc<Artifact>, Refusal> {
        let digest = Digest::of(&component);
        self.artifact(digest, || Some(component)).await
    }

    /// The artifact of a component that was taken before: from memory, from disk, or compiled
    /// again from `component`.
    ///
    /// # Errors
    /// When there is no component, or it is not taken any more.
    pub async fn artifact(
        &self,
        digest: Digest,
        component: impl FnOnce() -> Option<Bytes>,
    ) -> Result<Arc<Artifact>, Refusal> {
        if let Some(artifact) = self.loaded(digest) {
            return Ok(artifact);
        }
        let _turn = self.0.compiling.acquire().await.expect("it is never closed");
        if let Some(artifact) = self.loaded(digest) {
            return Ok(artifact);
        }
        let component = component();
        let path = match self.0.cache.get(digest) {
            Some(path) => path,
            None => {
                let missing = || Refusal::new("plugin_invalid", "the component is gone");
                let component = component.as_ref().ok_or_else(missing)?;
                inspect(component, &self.0.config)?;
                let started = tokio::time::Instant::now();
                let compiled = compile(component, &self.0.config).await?;
                PLUGIN_COMPILE.observe(started.elapsed().as_secs_f64(), &[]);
                let unkept = |it| Refusal::new("plugin_compile_failed", it);
                self.0.cache.put(digest, &compiled).map_err(unkept)?
            }
        };
        let compiled_bytes = std::fs::metadata(&path).map_or(0, |it| it.len());
        let heavy = compiled_bytes >= self.0.config.kept.compiled_bytes_min;
        let keep = component.map(|it| Keep::asked_in(&it)).transpose()?.flatten();
        let (sandboxed, hooks) = Sandboxed::load(&self.0.engine, &path, heavy, keep)?;
        let artifact = Arc::new(Artifact { digest, hooks, sandboxed });
        let mut loaded = self.0.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        loaded.insert(digest, artifact.clone());
        Ok(artifact)
    }

    /// Asks a plugin, on a thread of its own. A call for which there is no room is a fault; who
    /// can wait asks [`try_call`](Self::try_call).
    pub async fn call<Q: Asked>(&self, call: Call<Q>) -> Called<Q::Answer> {
        let called = self.try_call(call, Class::Live).await;
        called.unwrap_or_else(|busy| Called::fault(FaultKind::Overloaded, busy.to_string()))
    }

    /// Asks a plugin, on a thread of its own, when it is the tenant's turn.
    ///
    /// # Errors
    /// When too many calls of the tenant wait already, with when to try again.
    pub async fn try_call<Q: Asked>(
        &self,
        call: Call<Q>,
        class: Class,
    ) -> Result<Called<Q::Answer>, Busy> {
        let quota = self.0.quotas.get().map(|it| it(&call.tenant)).unwrap_or_default();
        let called = self.0.workers.call(call.untyped(), (class, quota)).await?;
        Ok(called.typed::<Q>())
    }

    /// Asks a plugin for somebody who can wait so long: behind those of the tenant who came before,
    /// and as soon as there is room in its queue.
    ///
    /// # Errors
    /// When its turn has not come by then, with when to come again.
    pub async fn call_within<Q: Asked + Clone>(
        &self,
        call: Call<Q>,
        patience: Duration,
    ) -> Result<Called<Q::Answer>, Busy> {
        let asked = async {
            let line = self.0.lines.of(&call.tenant);
            let _place = line.acquire().await.expect("it is never closed");
            loop {
                match self.try_call(call.clone(), Class::Live).await {
                    Ok(called) => return called,
                    Err(Busy { retry_after }) => tokio::time::sleep(retry_after).await,
                }
            }
        };
        // What is still in the queue then is passed over when its turn comes.
        let asked = tokio::time::timeout(patience, asked).await;
        asked.map_err(|_| Busy { retry_after: patience })
    }

    /// Which versions fail so much that they are not run.
    pub fn breakers(&self) -> &Breakers {
        &self.0.breakers
    }

    /// Forgets how a plugin did: it was deleted.
    pub fn forget(&self, tenant: &str, plugin: &PluginName) {
        self.0.diary.forget(tenant, plugin);
        self.0.breakers.forget(tenant, Some(plugin));
    }

    /// Forgets how all plugins of a tenant did: it was deleted.
    pub fn forget_tenant(&self, tenant: &str) {
        self.0.diary.forget_tenant(tenant);
        self.0.breakers.forget(tenant, None);
    }

    /// What plugins did and logged.
    pub fn diary(&self) -> &Diary {
        &self.0.diary
    }

    fn loaded(&self, digest: Digest) -> Option<Arc<Artifact>> {
        let loaded = self.0.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        loaded.get(&digest).cloned()
    }
}
