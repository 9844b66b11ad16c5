use hmac::{Hmac, KeyInit, Mac};
use wasmtime::ResourceLimiter;

use crate::plugins::wit::{host, keys, types};
use crate::plugins::{Limits, LogLine};

/// What a call has left to use, and what it leaves behind.
pub(super) struct State {
    limits: Limits,
    /// A limit was run into: whatever trap follows is because of that.
    pub(super) limit_hit: Option<&'static str>,
    host_calls: usize,
    pub(super) logs: Vec<LogLine>,
    log_bytes: usize,
    table_elements: usize,
    memory_bytes: usize,
    /// What signs, newest first; only while it is asked to sign.
    keys: Vec<Vec<u8>>,
}

impl State {
    pub(super) fn new(limits: &Limits) -> Self {
        Self {
            limits: *limits,
            limit_hit: None,
            host_calls: 0,
            logs: Vec::new(),
            log_bytes: 0,
            table_elements: 0,
            memory_bytes: 0,
            keys: Vec::new(),
        }
    }

    pub(super) fn hold(&mut self, keys: Vec<Vec<u8>>) {
        self.keys = keys;
    }

    /// Counts a call from the guest.
    pub(super) fn count(&mut self) -> wasmtime::Result<()> {
        self.host_calls += 1;
        if self.host_calls > self.limits.host_calls_max {
            self.limit_hit = Some("it calls the gateway too often");
            wasmtime::bail!("it calls the gateway too often");
        }
        Ok(())
    }

    fn mac(&self, algorithm: keys::Algorithm, key: &[u8], message: &[u8]) -> Vec<u8> {
        let finish = "any length is a key";
        match algorithm {
            keys::Algorithm::Sha1 => {
                let mac = Hmac::<sha1::Sha1>::new_from_slice(key).expect(finish);
                mac.chain_update(message).finalize().into_bytes().to_vec()
            }
            keys::Algorithm::Sha256 => {
                let mac = Hmac::<sha2::Sha256>::new_from_slice(key).expect(finish);
                mac.chain_update(message).finalize().into_bytes().to_vec()
            }
            keys::Algorithm::Sha512 => {
                let mac = Hmac::<sha2::Sha512>::new_from_slice(key).expect(finish);
                mac.chain_update(message).finalize().into_bytes().to_vec()
            }
        }
    }
}

impl host::Host for State {
    /// Lines over the limit are left out; a plugin is not failed for being talkative, but a flood
    /// runs into the limit of calls.
    fn log(&mut self, level: host::Level, message: String) -> wasmtime::Result<()> {
        self.count()?;
        if self.logs.len() >= self.limits.log_lines_max
            || self.log_bytes + message.len() > self.limits.log_bytes_max
        {
            return Ok(());
        }
        self.log_bytes += message.len();
        let level = match level {
            host::Level::Debug => "debug",
            host::Level::Info => "info",
            host::Level::Warn => "warn",
            host::Level::Error => "error",
        };
        self.logs.push(LogLine { level, message });
        Ok(())
    }
}

impl keys::Host for State {
    fn hmac(&mut self, algorithm: keys::Algorithm, message: Vec<u8>) -> wasmtime::Result<Vec<u8>> {
        self.count()?;
        let Some(newest) = self.keys.first() else {
            wasmtime::bail!("there are no keys: it is not being asked to sign");
        };
        Ok(self.mac(algorithm, newest, &message))
    }

    fn hmac_each(
        &mut self,
        algorithm: keys::Algorithm,
        message: Vec<u8>,
    ) -> wasmtime::Result<Vec<Vec<u8>>> {
        self.count()?;
        Ok(self.keys.iter().map(|it| self.mac(algorithm, it, &message)).collect())
    }
}

impl types::Host for State {}

/// Memories and tables of all core instances count together.
impl ResourceLimiter for State {
    fn memory_growing(
        &mut self,
        current: usize,
        desired: usize,
        _maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        let total = self.memory_bytes.saturating_add(desired - current);
        let fits = total <= self.limits.memory_bytes_max;
        if fits {
            self.memory_bytes = total;
        } else {
            self.limit_hit = Some("it needs more memory than it may have");
        }
        Ok(fits)
    }

    fn table_growing(
        &mut self,
        current: usize,
        desired: usize,
        _maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        let total = self.table_elements.saturating_add(desired - current);
        let fits = total <= self.limits.table_elements_max;
        if fits {
            self.table_elements = total;
        } else {
            self.limit_hit = Some("it needs larger tables than it may have");
        }
        Ok(fits)
    }
}
