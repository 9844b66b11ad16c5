//! What is done to a store that no gateway has open.

use std::{io::Read, path::Path};

use crate::app::StartError;
use crate::storage::fjall::{self, Fjall};

pub use crate::storage::fjall::{Step, Verified};

/// Checks the store in `folder`: its files, then its tables.
///
/// # Errors
/// When the check cannot be made.
pub fn verify(folder: &Path, step: &mut dyn FnMut(Step<'_>)) -> Result<Verified, StartError> {
    let shards = fjall::shards_of(folder)?;
    Ok(fjall::verify(folder, &fjall::Config::default(), shards, step)?)
}

/// Gives up what cannot be read, and writes down what that is.
///
/// # Errors
/// When nothing can be kept.
pub fn accept_loss(folder: &Path) -> Result<(), StartError> {
    let config = fjall::Config { accept_loss: true, ..fjall::Config::default() };
    let shards = match fjall::shards_of(folder) {
        Ok(shards) => shards,
        Err(error) if !fjall::has_store(folder) => return Err(error.into()),
        // Without a readable file of marks there are only the tables to go by.
        Err(_) => fjall::AS_THE_TABLES_TELL,
    };
    drop(Fjall::open(folder, &config, shards)?);
    Ok(())
}

/// Writes a backup of the store in `folder`; how many rows it has.
///
/// # Errors
/// When the store cannot be opened or read, or `to` not be written.
pub fn backup(folder: &Path, to: &mut dyn std::io::Write) -> Result<u64, StartError> {
    let shards = fjall::shards_of(folder)?;
    let fjall = Fjall::open(folder, &fjall::Config::default(), shards)?;
    Ok(fjall.backup(shards, to)?)
}

/// Reads a backup through; how many rows it has.
///
/// # Errors
/// When it is not as it was written.
pub fn check_backup(from: impl Read) -> Result<u64, StartError> {
    Ok(fjall::check_backup(from)?)
}

/// Whether there is a store in `folder`, or what is left of one.
pub fn has_store(folder: &Path) -> bool {
    fjall::has_store(folder)
}

/// Makes a store in a new directory from a backup; how many rows it has.
///
/// # Errors
/// When the backup is damaged or the directory has a store.
pub fn restore(backup: &Path, folder: &Path) -> Result<u64, StartError> {
    Ok(fjall::restore(backup, folder, &fjall::Config::default())?)
}
