use hmac::{Hmac, KeyInit, Mac};
use wasmtime::ResourceLimiter;

use crate::plugins::deadline::Deadline;
use crate::plugins::wit::{host, keys, types};
use crate::plugins::{Limits, LogLine, Question};

const MIB: usize = 1024 * 1024;

/// What a call has left to use, and what it leaves behind.
pub(super) struct State {
    limits: Limits,
    pub(super) deadline: Deadline,
    /// A limit was run into: whatever trap follows is because of that.
    pub(super) limit_hit: Option<String>,
    host_calls: usize,
    logs: Vec<LogLine>,
    log_bytes: usize,
    table_elements: usize,
    memory_bytes: usize,
    /// What signs, newest first; only while it is asked to sign.
    keys: Vec<Vec<u8>>,
    /// What was written to stdout and stderr since the last line's end.
    written: [Vec<u8>; 2],
    /// The event's time and what its id made of chance: a run repeats exactly.
    now_ms: u64,
    chance: u64,
}

impl State {
    pub(super) fn new(limits: &Limits) -> Self {
        Self {
            limits: *limits,
            deadline: Deadline::begin(limits.deadline),
            limit_hit: None,
            host_calls: 0,
            logs: Vec::new(),
            log_bytes: 0,
            table_elements: 0,
            memory_bytes: 0,
            keys: Vec::new(),
            written: [Vec::new(), Vec::new()],
            now_ms: 0,
            chance: 0,
        }
    }

    /// Decides what time and chance are, by what is asked.
    pub(super) fn decide(&mut self, question: &Question) {
        let (id, now_ms) = match question {
            Question::Configure => ("", 0),
            Question::Event(it) => (it.id.as_str(), it.timestamp_ms),
            Question::Incoming(it) => (it.id.as_deref().unwrap_or_default(), it.timestamp_ms),
            Question::Response(it) => (it.event_id.as_str(), it.timestamp_ms),
            Question::Request(it) => (it.id.as_str(), it.timestamp.saturating_mul(1000)),
        };
        self.now_ms = now_ms;
        // FNV-1a: the same id gives the same chance on every machine.
        let mix = |hash: u64, it: u8| (hash ^ u64::from(it)).wrapping_mul(0x0100_0000_01b3);
        self.chance = id.bytes().fold(0xcbf2_9ce4_8422_2325, mix);
    }

    /// The event's time, in milliseconds.
    pub(super) fn now_ms(&self) -> u64 {
        self.now_ms
    }

    /// The next random number (SplitMix64).
    pub(super) fn draw(&mut self) -> u64 {
        self.chance = self.chance.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.chance;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Takes what the guest writes to stdout or stderr: a line of it is a line of the log.
    pub(super) fn write(&mut self, is_error: bool, bytes: &[u8]) {
        let place = usize::from(is_error);
        for part in bytes.split_inclusive(|it| *it == b'\n') {
            let room = self.limits.log_bytes_max.saturating_sub(self.written[place].len());
            self.written[place].extend_from_slice(&part[..part.len().min(room)]);
            if part.ends_with(b"\n") {
                self.end_line(is_error);
            }
        }
    }

    fn end_line(&mut self, is_error: bool) {
        let line = std::mem::take(&mut self.written[usize::from(is_error)]);
        let text = String::from_utf8_lossy(&line).trim_end().to_owned();
        if !text.is_empty() {
            self.keep(if is_error { "error" } else { "info" }, text);
        }
    }

    /// Keeps a line within the limits; further ones are left out.
    fn keep(&mut self, level: &'static str, message: String) {
        let bytes = self.log_bytes + message.len();
        if self.logs.len() < self.limits.log_lines_max && bytes <= self.limits.log_bytes_max {
            self.log_bytes = bytes;
            self.logs.push(LogLine { level, message });
        }
    }

    /// All that was logged.
    pub(super) fn take_logs(&mut self) -> Vec<LogLine> {
        self.end_line(false);
        self.end_line(true);
        std::mem::take(&mut self.logs)
    }

    /// Begins another call of a kept instance: what it holds stays counted.
    pub(super) fn renew(&mut self, fresh: Self) {
        let (memory_bytes, table_elements) = (self.memory_bytes, self.table_elements);
        *self = Self { memory_bytes, table_elements, ..fresh };
    }

    pub(super) fn hold(&mut self, keys: Vec<Vec<u8>>) {
        self.keys = keys;
    }

    /// Counts a call from the guest.
    pub(super) fn count(&mut self) -> wasmtime::Result<()> {
        self.host_calls += 1;
        if self.host_calls > self.limits.host_calls_max {
            let max = self.limits.host_calls_max;
            let limit =
                format!("it calls the gateway too often: at most {max} times, log lines included");
            self.limit_hit = Some(limit.clone());
            wasmtime::bail!(limit);
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
        let level = match level {
            host::Level::Debug => "debug",
            host::Level::Info => "info",
            host::Level::Warn => "warn",
            host::Level::Error => "error",
        };
        self.keep(level, message);
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
            let max = size(self.limits.memory_bytes_max);
            self.limit_hit = Some(format!("it needs more memory than it may have, {max}"));
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
            let max = self.limits.table_elements_max;
            self.limit_hit =
                Some(format!("it needs larger tables than it may have, {max} elements"));
        }
        Ok(fits)
    }
}

fn size(bytes: usize) -> String {
    match bytes % MIB {
        0 => format!("{} MiB", bytes / MIB),
        _ => format!("{bytes} bytes"),
    }
}
