use std::fmt;

use data_encoding::HEXLOWER;
use sha2::{Digest as _, Sha256};

use crate::plugins::sandbox::Sandboxed;

/// SHA-256 of a component.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Digest(pub [u8; 32]);

impl Digest {
    /// Of these bytes.
    pub fn of(component: &[u8]) -> Self {
        Self(Sha256::digest(component).into())
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&HEXLOWER.encode(&self.0))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Which hooks a component has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Hooks {
    pub(super) filter: bool,
    pub(super) transform: bool,
}

/// A component that was checked and compiled, ready to run.
pub struct Artifact {
    pub(super) digest: Digest,
    pub(super) hooks: Hooks,
    pub(super) sandboxed: Sandboxed,
}

impl Artifact {
    /// SHA-256 of the component.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// What it is asked: `filter`, `transform`, or both with a plus between.
    pub fn kind(&self) -> &'static str {
        match (self.hooks.filter, self.hooks.transform) {
            (true, false) => "filter",
            (false, true) => "transform",
            _ => "filter+transform",
        }
    }
}

/// Why a component is not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{detail}")]
pub struct Refusal {
    /// The machine code: `plugin_invalid`, `plugin_too_large`, `plugin_import_denied`,
    /// `plugin_no_hook`, `plugin_compile_limit`.
    pub code: &'static str,
    /// What is wrong and how to mend it.
    pub detail: String,
}

impl Refusal {
    pub(super) fn new(code: &'static str, detail: impl fmt::Display) -> Self {
        Self { code, detail: detail.to_string() }
    }
}
