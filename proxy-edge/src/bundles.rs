//! Codec bundles on disk. Decoders are loaded from here and nowhere else.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use sidecod_wire::bundle::{Bundle, BundleError, DECODER, ENCODER, MANIFEST, TABLES};
use sidecod_wire::describe::FILES;

/// A bundle whose files are the ones that its manifest lists.
#[derive(Debug)]
pub struct Stored {
    /// Manifest, digest and tables.
    pub bundle: Bundle,
    /// The TorchScript decoder.
    pub decoder: Vec<u8>,
    /// [`FILES`], for devices; empty where the folder has no encoder.
    pub files: Vec<(&'static str, Bytes)>,
}

/// Why a folder is no usable bundle.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// A file cannot be read.
    #[error("{}: {source}", file.display())]
    Read {
        /// The file.
        file: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The files are not a bundle.
    #[error("{}: {source}", folder.display())]
    Bundle {
        /// The folder.
        folder: PathBuf,
        /// What is wrong.
        source: BundleError,
    },
    /// Two bundles have digests that a frame cannot tell apart.
    #[error("{} is the same bundle as one named before", .0.display())]
    Twice(PathBuf),
}

/// Reads the bundles and checks their digests.
///
/// # Errors
/// [`StoreError`] for the first that is not usable.
pub fn read_all(folders: &[PathBuf]) -> Result<Vec<Stored>, StoreError> {
    let mut all: Vec<Stored> = Vec::new();
    for folder in folders {
        let stored = read(folder)?;
        let short = stored.bundle.digest.short();
        if all.iter().any(|other| other.bundle.digest.short() == short) {
            return Err(StoreError::Twice(folder.clone()));
        }
        all.push(stored);
    }
    Ok(all)
}

fn read(folder: &Path) -> Result<Stored, StoreError> {
    let file = |name: &str| {
        let file = folder.join(name);
        std::fs::read(&file).map_err(|source| StoreError::Read { file, source })
    };
    let bundle = |source| StoreError::Bundle {
        folder: folder.to_owned(),
        source,
    };
    let (manifest, tables) = (file(MANIFEST)?, file(TABLES)?);
    let parsed = Bundle::parse(&manifest, &tables).map_err(bundle)?;
    let decoder = file(DECODER)?;
    parsed.manifest.verify(DECODER, &decoder).map_err(bundle)?;
    let files = match file(ENCODER) {
        Ok(encoder) => {
            parsed.manifest.verify(ENCODER, &encoder).map_err(bundle)?;
            FILES
                .into_iter()
                .zip([manifest, encoder, tables].map(Bytes::from))
                .collect()
        }
        Err(StoreError::Read { source, .. }) if source.kind() == ErrorKind::NotFound => Vec::new(),
        Err(error) => return Err(error),
    };
    Ok(Stored {
        bundle: parsed,
        decoder,
        files,
    })
}
