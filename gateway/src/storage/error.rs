/// The result of a storage call.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Storage failed; says what the caller should do.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// A passing fault or a store that stopped: refuse with 503, the caller may try again.
    #[error("storage is unavailable: {0}")]
    Unavailable(String),
    /// The stored bytes are not what was written: stop, and ask a human.
    #[error("storage is damaged: {0}")]
    Corrupt(String),
    /// Another process has the data directory.
    #[error("the data directory is in use: {0}")]
    InUse(String),
    /// The master key is not the one that the store's secrets were sealed with.
    #[error("the master key is not this store's: give the right one, or the one before as well")]
    WrongKey,
    /// The data directory was written by a newer version.
    #[error("the store has format {found}, this version reads {known}: run a newer hookgate")]
    Newer {
        /// The format found.
        found: u32,
        /// The format this version knows.
        known: u32,
    },
}

impl Error {
    pub(crate) fn corrupt(what: impl std::fmt::Display) -> Self {
        Self::Corrupt(what.to_string())
    }

    pub(crate) fn unavailable(what: impl std::fmt::Display) -> Self {
        Self::Unavailable(what.to_string())
    }
}
