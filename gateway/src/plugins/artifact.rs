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
pub struct Hooks {
    /// Decides whether an endpoint gets an event.
    pub filter: bool,
    /// Rewrites what an endpoint gets.
    pub transform: bool,
    /// Judges an event before it is stored.
    pub ingest: bool,
    /// Tells what an endpoint's answer means.
    pub classify: bool,
    /// Signs a request.
    pub sign: bool,
}

impl Hooks {
    /// The names of all hooks.
    pub const NAMES: [&str; 5] = ["filter", "transform", "ingest", "classify", "sign"];

    pub(super) fn among(has: impl Fn(&str) -> bool) -> Self {
        let [filter, transform, ingest, classify, sign] = Self::NAMES.map(has);
        Self { filter, transform, ingest, classify, sign }
    }

    /// Those that a version's kind names: `filter+transform`.
    pub fn of_kind(kind: &str) -> Self {
        Self::among(|hook| kind.split('+').any(|it| it == hook))
    }

    /// Whether an endpoint has a use for it.
    pub fn serves_endpoints(self) -> bool {
        self.delivers() || self.classify || self.sign
    }

    /// Whether it may run in place of `other` where an endpoint uses that: what decides over
    /// deliveries is not replaced by what does not. A filter may become a transform.
    pub fn can_replace(self, other: Self) -> bool {
        match other.delivers() {
            true => self.delivers(),
            false => {
                let lost = (other.classify && !self.classify) || (other.sign && !self.sign);
                !lost
            }
        }
    }

    /// Whether it decides what becomes of a delivery.
    pub fn delivers(self) -> bool {
        self.filter || self.transform
    }

    /// Those that are there, with a plus between: `filter+transform`.
    pub fn kind(self) -> String {
        let there = [self.filter, self.transform, self.ingest, self.classify, self.sign];
        let there = Self::NAMES.into_iter().zip(there).filter(|(_, it)| *it);
        there.map(|(name, _)| name).collect::<Vec<_>>().join("+")
    }
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

    /// Whether it brings a whole language's runtime: starting one takes long, and more memory.
    pub fn heavy(&self) -> bool {
        self.sandboxed.heavy
    }

    /// Which hooks it has.
    pub fn hooks(&self) -> Hooks {
        self.hooks
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_decides_over_deliveries_is_replaced_by_its_like() {
        for (other, one, fits) in [
            ("filter", "transform", true),
            ("filter+transform+classify", "filter", true),
            ("transform", "ingest", false),
            ("transform", "sign", false),
            ("sign", "sign+classify", true),
            ("sign", "classify", false),
            ("classify", "transform", false),
            ("ingest", "transform", true),
        ] {
            let (one_hooks, other_hooks) = (Hooks::of_kind(one), Hooks::of_kind(other));
            assert_eq!(one_hooks.can_replace(other_hooks), fits, "{one} for {other}");
            assert_eq!(one_hooks.kind(), Hooks::among(|it| one.contains(it)).kind());
        }
        assert!(!Hooks::of_kind("ingest").serves_endpoints());
    }
}
