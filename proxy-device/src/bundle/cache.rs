//! Fetched bundles on disk, one folder for each digest.
//!
//! A folder appears whole or not at all, and what is read from it is compared with its digest, so
//! that a cache that was cut off, or changed, costs one more download and nothing else.

use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use sidecod_wire::bundle::Digest;
use sidecod_wire::describe::FILES;

use super::files::{Files, MOST};

/// Bundles that are kept: those that were used last.
const KEPT: usize = 4;
/// What is unfinished for longer than this has no writer any more.
const UNFINISHED: Duration = Duration::from_hours(1);
/// Begins the name of a folder that is being written.
const NEW: &str = ".new-";

/// A folder of bundles.
#[derive(Debug, Clone)]
pub struct Cache {
    folder: PathBuf,
}

impl Cache {
    /// The configured folder, or what the system or the user has for caches; none where there is no
    /// such place.
    #[must_use]
    pub fn find(configured: Option<&Path>) -> Option<Self> {
        let absolute = |name: &str| {
            let value = std::env::var_os(name).map(PathBuf::from);
            value.filter(|path| path.is_absolute())
        };
        let folder = configured
            .map(Path::to_owned)
            // systemd's CacheDirectory=.
            .or_else(|| absolute("CACHE_DIRECTORY"))
            .or_else(|| Some(absolute("XDG_CACHE_HOME")?.join("sidecod")))
            .or_else(|| Some(absolute("HOME")?.join(".cache/sidecod")))?;
        Some(Self { folder })
    }

    /// The files of a bundle, if they are here and undamaged; damaged ones are removed.
    #[must_use]
    pub fn load(&self, digest: Digest) -> Option<Files> {
        let folder = self.folder_of(digest);
        let files = read(&folder)?;
        if let Err(error) = files.check(digest) {
            tracing::warn!(folder = %folder.display(), %error, "a cached bundle is damaged, and removed");
            let _ = fs::remove_dir_all(&folder);
            return None;
        }
        // The youngest is the one that was used last; where that cannot be noted it is a download.
        let _ = File::open(&folder).and_then(|folder| folder.set_modified(SystemTime::now()));
        Some(files)
    }

    /// The bundle that was used last, if one is here and undamaged.
    #[must_use]
    pub fn latest(&self) -> Option<(Digest, Files)> {
        let by_age = self.by_age();
        by_age
            .into_iter()
            .find_map(|digest| Some((digest, self.load(digest)?)))
    }

    /// Keeps a bundle, and removes what has not been used for longest.
    ///
    /// # Errors
    /// What the system says; then the cache is as it was.
    pub fn store(&self, digest: Digest, files: &Files) -> io::Result<()> {
        fs::create_dir_all(&self.folder)?;
        let new = self
            .folder
            .join(format!("{NEW}{}-{digest}", std::process::id()));
        let written = write(&new, files).and_then(|()| {
            let folder = self.folder_of(digest);
            match fs::remove_dir_all(&folder) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
                _ => fs::rename(&new, &folder),
            }
        });
        if written.is_err() {
            let _ = fs::remove_dir_all(&new);
        }
        self.prune();
        written
    }

    fn folder_of(&self, digest: Digest) -> PathBuf {
        self.folder.join(digest.to_string())
    }

    /// What is here, the one that was used last first.
    fn by_age(&self) -> Vec<Digest> {
        let mut found: Vec<(SystemTime, Digest)> = entries(&self.folder)
            .filter_map(|(name, modified, _)| Some((modified, name.parse().ok()?)))
            .collect();
        found.sort_by_key(|(modified, _)| std::cmp::Reverse(*modified));
        found.into_iter().map(|(_, digest)| digest).collect()
    }

    fn prune(&self) {
        for digest in self.by_age().into_iter().skip(KEPT) {
            let _ = fs::remove_dir_all(self.folder_of(digest));
        }
        for (name, modified, path) in entries(&self.folder) {
            let age = modified.elapsed().unwrap_or_default();
            if name.starts_with(NEW) && age > UNFINISHED {
                let _ = fs::remove_dir_all(path);
            }
        }
    }
}

fn entries(folder: &Path) -> impl Iterator<Item = (String, SystemTime, PathBuf)> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter_map(|entry| {
        let modified = entry.metadata().ok()?.modified().ok()?;
        Some((
            entry.file_name().into_string().ok()?,
            modified,
            entry.path(),
        ))
    })
}

fn read(folder: &Path) -> Option<Files> {
    let mut bytes = FILES.into_iter().zip(MOST).map(|(name, most)| {
        let mut bytes = Vec::new();
        let file = File::open(folder.join(name)).ok()?;
        file.take(most as u64 + 1).read_to_end(&mut bytes).ok()?;
        Some(bytes)
    });
    let mut next = || bytes.next().flatten();
    Some(Files {
        manifest: next()?,
        encoder: next()?,
        tables: next()?,
    })
}

fn write(folder: &Path, files: &Files) -> io::Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => fs::create_dir(folder)?,
    }
    for (name, bytes) in FILES.into_iter().zip(files.all()) {
        let mut file = File::create_new(folder.join(name))?;
        file.write_all(bytes)?;
        file.sync_all()?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shipped(name: &str) -> (Digest, Files) {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("../onnx/codecs")
            .join(name);
        let files = read(&folder).unwrap();
        (Digest::of(&files.manifest), files)
    }

    #[test]
    fn what_is_stored_comes_back_until_it_is_damaged() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::find(Some(&folder.path().join("deep/er"))).unwrap();
        let ((old, old_files), (new, new_files)) = (shipped("photo-v0"), shipped("photo"));
        assert!(cache.latest().is_none() && cache.load(old).is_none());
        cache.store(old, &old_files).unwrap();
        cache.store(new, &new_files).unwrap();
        cache.store(new, &new_files).unwrap();
        assert_eq!(cache.load(old), Some(old_files));
        assert_eq!(cache.latest().unwrap().0, old);
        fs::write(cache.folder_of(old).join("encoder.onnx"), b"not it").unwrap();
        assert_eq!(cache.latest(), Some((new, new_files)));
        assert!(!cache.folder_of(old).exists());
    }

    #[test]
    fn the_oldest_go_and_what_was_never_finished() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::find(Some(folder.path())).unwrap();
        let aged = |name: &str, hours: u64| {
            let path = folder.path().join(name);
            fs::create_dir(&path).unwrap();
            let then = SystemTime::now() - Duration::from_hours(hours);
            File::open(&path).unwrap().set_modified(then).unwrap();
            path
        };
        let old: Vec<_> = (1..=5_u8)
            .map(|age| aged(&Digest::of(&[age]).to_string(), age.into()))
            .collect();
        let (unfinished, others) = (aged(".new-1-x", 2), aged("others", 9));
        let (digest, files) = shipped("photo-v0");
        cache.store(digest, &files).unwrap();
        let there: Vec<_> = old.iter().map(|path| path.exists()).collect();
        assert_eq!(there, [true, true, true, false, false]);
        assert!(!unfinished.exists() && others.exists());
        assert_eq!(cache.latest(), Some((digest, files)));
    }

    #[test]
    fn a_place_that_cannot_be_written_is_an_error_and_no_more() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        fs::write(&file, b"").unwrap();
        let cache = Cache::find(Some(&file)).unwrap();
        let (digest, files) = shipped("photo-v0");
        assert!(cache.store(digest, &files).is_err());
        assert!(cache.load(digest).is_none() && cache.latest().is_none());
    }
}
