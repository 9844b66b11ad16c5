//! Compiled components on disk. Loading one is trusting it with the process, so each file has a
//! MAC under a key that never leaves the folder, over its bytes, its component and the engine.

use std::{
    fs, io,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use crate::plugins::Digest;
use crate::telemetry::PLUGIN_ARTIFACTS_REFUSED;

/// Bytes of compiled code that are kept.
const BYTES_MAX: u64 = 4 * 1024 * 1024 * 1024;

#[derive(Debug)]
pub(super) struct Cache {
    folder: PathBuf,
    key: [u8; 32],
    engine: u64,
}

impl Cache {
    /// Opens the folder for an engine of this kind; `fresh` is the key of a new folder.
    pub(super) fn open(folder: &Path, engine: u64, fresh: [u8; 32]) -> io::Result<Self> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        fs::set_permissions(folder, fs::Permissions::from_mode(0o700))?;
        let path = folder.join("key");
        let key = match fs::read(&path) {
            Ok(bytes) if bytes.len() == 32 => bytes.try_into().expect("32 bytes"),
            _ => {
                let options = fs::OpenOptions::new()
                    .write(true)
                    .create(true)
                    .truncate(true)
                    .mode(0o600)
                    .open(&path);
                io::Write::write_all(&mut options?, &fresh)?;
                fresh
            }
        };
        let cache = Self { folder: folder.to_owned(), key, engine };
        cache.clear_others()?;
        Ok(cache)
    }

    /// The file of a component, if it is there and is what was put there.
    pub(super) fn get(&self, digest: Digest) -> Option<PathBuf> {
        let path = self.path(digest);
        let bytes = fs::read(&path).ok()?;
        let tag = fs::read(path.with_extension("mac")).unwrap_or_default();
        match self.mac(digest, &bytes).verify_slice(&tag) {
            Ok(()) => Some(path),
            Err(_) => {
                PLUGIN_ARTIFACTS_REFUSED.count(1, &[]);
                tracing::error!(%digest, path = %path.display(), "a compiled plugin is not what \
                     was put there; it is compiled again, but somebody changed it");
                None
            }
        }
    }

    /// Removes what other engines left: an older version of the gateway, or other settings.
    fn clear_others(&self) -> io::Result<()> {
        let own = format!("-{:016x}", self.engine);
        for entry in fs::read_dir(&self.folder)? {
            let path = entry?.path();
            let artifact = path.extension().is_some_and(|it| it == "cwasm" || it == "mac");
            let stem = path.file_stem().unwrap_or_default().to_string_lossy();
            if artifact && !stem.ends_with(&own) {
                fs::remove_file(&path)?;
            }
        }
        Ok(())
    }

    /// Keeps a compiled component.
    pub(super) fn put(&self, digest: Digest, compiled: &[u8]) -> io::Result<PathBuf> {
        let path = self.path(digest);
        let tag = self.mac(digest, compiled).finalize().into_bytes();
        for (path, bytes) in [(path.with_extension("mac"), &tag[..]), (path.clone(), compiled)] {
            let mut file = tempfile::NamedTempFile::new_in(&self.folder)?;
            io::Write::write_all(&mut file, bytes)?;
            file.persist(&path).map_err(|it| it.error)?;
        }
        self.trim(&path)?;
        Ok(path)
    }

    /// Removes what was compiled longest ago, until the rest fits. What runs stays mapped.
    fn trim(&self, newest: &Path) -> io::Result<()> {
        let mut kept = Vec::new();
        for entry in fs::read_dir(&self.folder)? {
            // Somebody else may have been quicker.
            let known = entry.and_then(|it| Ok((it.path(), it.metadata()?)));
            let Ok((path, about)) = known else { continue };
            if path.extension().is_some_and(|it| it == "cwasm") && path != newest {
                kept.push((about.modified()?, about.len(), path));
            }
        }
        kept.sort();
        let mut bytes: u64 = kept.iter().map(|(_, bytes, _)| bytes).sum();
        for (_, size, path) in kept {
            if bytes <= BYTES_MAX {
                break;
            }
            bytes -= size;
            fs::remove_file(&path)?;
            fs::remove_file(path.with_extension("mac"))?;
        }
        Ok(())
    }

    fn path(&self, digest: Digest) -> PathBuf {
        self.folder.join(format!("{digest}-{:016x}.cwasm", self.engine))
    }

    fn mac(&self, digest: Digest, compiled: &[u8]) -> Hmac<Sha256> {
        let mut mac = Hmac::new_from_slice(&self.key).expect("any length is a key");
        mac.update(&digest.0);
        mac.update(&self.engine.to_le_bytes());
        mac.update(compiled);
        mac
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_changed_file_is_not_loaded() {
        let folder = tempfile::tempdir().unwrap();
        let digest = Digest([1; 32]);
        let cache = Cache::open(folder.path(), 7, [9; 32]).unwrap();
        let path = cache.put(digest, b"compiled").unwrap();
        let again = Cache::open(folder.path(), 7, [8; 32]).unwrap();
        assert_eq!(again.get(digest), Some(path.clone()), "the key of the folder is kept");
        assert_eq!(again.get(Digest([2; 32])), None);
        fs::write(&path, b"c0mpiled").unwrap();
        assert_eq!(again.get(digest), None);
        fs::write(&path, b"compile").unwrap();
        assert_eq!(again.get(digest), None, "cut short");
        again.put(digest, b"compiled").unwrap();
        // Another component's artifact under this one's name, MAC and all.
        let other = again.put(Digest([2; 32]), b"another's").unwrap();
        fs::copy(&other, &path).unwrap();
        fs::copy(other.with_extension("mac"), path.with_extension("mac")).unwrap();
        assert_eq!(again.get(digest), None);
    }

    #[test]
    fn what_another_version_compiled_is_not_loaded() {
        let folder = tempfile::tempdir().unwrap();
        let digest = Digest([1; 32]);
        let old = Cache::open(folder.path(), 7, [9; 32]).unwrap();
        let path = old.put(digest, b"compiled").unwrap();
        let (copy, tag) = (fs::read(&path).unwrap(), fs::read(path.with_extension("mac")).unwrap());
        let new = Cache::open(folder.path(), 8, [9; 32]).unwrap();
        assert!(!path.exists() && new.get(digest).is_none(), "it is removed");
        // Nor under the new one's name.
        fs::write(new.path(digest), copy).unwrap();
        fs::write(new.path(digest).with_extension("mac"), tag).unwrap();
        assert_eq!(new.get(digest), None);
    }
}
