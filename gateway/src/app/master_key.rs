//! Where the master key comes from, and what a start does when it is not the store's.

use std::{
    fs::{File, OpenOptions},
    io::Write,
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use data_encoding::HEXLOWER;

use crate::app::{Config, KeySource, StartError};
use crate::storage::{self, MasterKey, MasterKeys, Store};
use crate::world::Entropy;

/// Tells which master key the store has, so that another one is refused before the store is
/// opened and anything is written.
const FINGERPRINT_FILE: &str = "master-key-id";
/// Whether this is there tells a new store from one that lost its key.
const STORE_FOLDER: &str = "store";

/// The master key that is configured. A new store without one gets one.
///
/// # Errors
/// What is wrong with the key; or, where the folder of a new store is none that can be written,
/// that.
pub(super) fn find(config: &Config, entropy: &dyn Entropy) -> Result<MasterKeys, StartError> {
    let current = match to_be_made(config) {
        Some(path) => {
            make(path, entropy).map_err(|it| match path.starts_with(&config.data_dir) {
                true => unwritable(path, &it),
                false => StartError::MasterKey(format!("{}: {it}", path.display())),
            })?
        }
        None => read(&config.master_key).map_err(StartError::MasterKey)?,
    };
    of_the_store(config, current)
}

/// What a start would find, without making anything.
///
/// # Errors
/// As [`find`].
pub(super) fn look(config: &Config) -> Result<String, StartError> {
    if let Some(path) = to_be_made(config) {
        return Ok(format!("{} will be made", path.display()));
    }
    let current = read(&config.master_key).map_err(StartError::MasterKey)?;
    of_the_store(config, current)?;
    Ok(match &config.master_key {
        KeySource::Text(_) => "it is given".to_owned(),
        KeySource::File(path) => path.display().to_string(),
    })
}

/// Where a new store's key goes.
fn to_be_made(config: &Config) -> Option<&Path> {
    let is_new = !config.data_dir.join(STORE_FOLDER).exists();
    match &config.master_key {
        KeySource::File(path) if is_new && !path.exists() => Some(path),
        _ => None,
    }
}

/// The keys, unless the store is known to be under another.
fn of_the_store(config: &Config, current: MasterKey) -> Result<MasterKeys, StartError> {
    let old = config.master_key_old.as_ref().map(read).transpose();
    let masters = MasterKeys { current, old: old.map_err(StartError::MasterKey)? };

    let known = std::fs::read_to_string(fingerprint_path(config)).ok();
    let known = known.and_then(|it| HEXLOWER.decode(it.trim().as_bytes()).ok()?.try_into().ok());
    if known.is_some_and(|it| !masters.know(&it)) {
        return Err(storage::Error::WrongKey.into());
    }
    Ok(masters)
}

fn unwritable(path: &Path, error: &std::io::Error) -> StartError {
    storage::Error::Unavailable(format!("{}: {error}", path.display())).into()
}

/// Makes the current key the store's.
///
/// # Errors
/// When storage fails.
pub(super) async fn adopt(
    config: &Config,
    store: &Store,
    masters: &MasterKeys,
) -> storage::Result<()> {
    let mut changed = false;
    for shard in store.shards() {
        changed |= shard.adopt_master_key().await?;
    }
    if changed && masters.old.is_some() {
        tracing::info!("the store's secrets are under the new master key now");
    }
    let (path, text) = (fingerprint_path(config), HEXLOWER.encode(&masters.current.fingerprint()));
    if std::fs::read_to_string(&path).ok().as_deref() != Some(&text)
        && let Err(error) = std::fs::write(&path, text)
    {
        // The store itself knows its key too; only the early check is missing.
        tracing::warn!(%error, path = %path.display(), "cannot be written");
    }
    Ok(())
}

fn fingerprint_path(config: &Config) -> PathBuf {
    config.data_dir.join(FINGERPRINT_FILE)
}

fn read(source: &KeySource) -> Result<MasterKey, String> {
    let path = match source {
        KeySource::Text(text) => return MasterKey::parse(text),
        KeySource::File(path) => path,
    };
    let unreadable = |it| {
        let path = path.display();
        format!("{path}: {it}; without it the secrets in the store cannot be read")
    };
    let text = zeroize::Zeroizing::new(std::fs::read_to_string(path).map_err(unreadable)?);
    if let Ok(about) = path.metadata()
        && about.permissions().mode() & 0o077 != 0
    {
        tracing::warn!(path = %path.display(), "others may read the master key; chmod 600 it");
    }
    MasterKey::parse(&text).map_err(|it| format!("{}: {it}", path.display()))
}

fn make(path: &Path, entropy: &dyn Entropy) -> std::io::Result<MasterKey> {
    let key = MasterKey::drawn(entropy);
    let written = || -> std::io::Result<()> {
        let folder = path.parent().filter(|it| !it.as_os_str().is_empty());
        let folder = folder.unwrap_or(Path::new("."));
        storage::create_folder(folder)?;
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
        file.write_all(key.reveal().as_bytes())?;
        file.sync_all()?;
        File::open(folder)?.sync_all()
    };
    written()?;
    tracing::info!(
        path = %path.display(),
        "a master key was made. It protects secrets in copies of the store that lack this file; \
         keep it elsewhere (HOOKGATE_MASTER_KEY_FILE), and a copy of it with your backups' keys"
    );
    Ok(key)
}
