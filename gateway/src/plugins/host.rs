use std::{
    collections::BTreeMap,
    hash::{DefaultHasher, Hash, Hasher},
    sync::{Arc, Mutex, PoisonError},
};

use bytes::Bytes;
use wasmtime::Engine;

use crate::plugins::cache::Cache;
use crate::plugins::compile::compile;
use crate::plugins::inspect::inspect;
use crate::plugins::sandbox::Sandboxed;
use crate::plugins::workers::Workers;
use crate::plugins::{Artifact, Asked, Call, Called, Config, Diary, Digest, Refusal, engine};
use crate::world::Entropy;

/// Compilations at once; the rest wait.
const COMPILATIONS_MAX: usize = 2;

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
    diary: Diary,
}

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
        let loaded = Mutex::default();
        let compiling = tokio::sync::Semaphore::new(COMPILATIONS_MAX);
        let diary = Diary::default();
        Ok(Self(Arc::new(Inner { engine, config, cache, loaded, compiling, workers, diary })))
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
        let path = match self.0.cache.get(digest) {
            Some(path) => path,
            None => {
                let missing = || Refusal::new("plugin_invalid", "the component is gone");
                let component = component().ok_or_else(missing)?;
                inspect(&component, &self.0.config)?;
                let started = tokio::time::Instant::now();
                let compiled = compile(&component, &self.0.config).await?;
                metrics::histogram!("hookgate_plugin_compile_seconds")
                    .record(started.elapsed().as_secs_f64());
                let unkept = |it| Refusal::new("plugin_compile_failed", it);
                self.0.cache.put(digest, &compiled).map_err(unkept)?
            }
        };
        let (sandboxed, hooks) = Sandboxed::load(&self.0.engine, &path)?;
        let artifact = Arc::new(Artifact { digest, hooks, sandboxed });
        let mut loaded = self.0.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        loaded.insert(digest, artifact.clone());
        Ok(artifact)
    }

    /// Asks a plugin, on a thread of its own.
    pub async fn call<Q: Asked>(&self, call: Call<Q>) -> Called<Q::Answer> {
        self.0.workers.call(call.untyped()).await.typed::<Q>()
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
