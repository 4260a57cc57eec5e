//! Codec bundles on disk. Decoders are loaded from here and nowhere else.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use sidecod_wire::bundle::{Bundle, BundleError, DECODER, ENCODER, LABELS, MANIFEST, TABLES, TAIL};
use sidecod_wire::describe::FILES;
use sidecod_wire::interface::Labels;

/// A bundle whose files are the ones that its manifest lists.
#[derive(Debug)]
pub struct Stored {
    /// Manifest, digest and tables.
    pub bundle: Bundle,
    /// The TorchScript decoder.
    pub decoder: Vec<u8>,
    /// The TorchScript tail of the model, of a bundle for features.
    pub tail: Option<Vec<u8>>,
    /// Labels of the model's outputs, where the bundle has them.
    pub labels: Labels,
    /// [`FILES`], for devices; empty where the folder has no encoder, or it is one for features.
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
    let verified = |name: &str| {
        let bytes = file(name)?;
        parsed.manifest.verify(name, &bytes).map_err(bundle)?;
        Ok::<_, StoreError>(bytes)
    };
    let decoder = verified(DECODER)?;
    let (mut tail, mut labels) = (None, Labels::default());
    if let Some(point) = &parsed.manifest.point {
        tail = Some(verified(TAIL)?);
        if parsed.manifest.files.contains_key(LABELS) {
            let read = Labels::parse(&verified(LABELS)?, point.outputs);
            labels = read.map_err(|error| bundle(error.into()))?;
        }
    }
    // A device needs the head as well: it is given a feature's bundle by hand.
    let files = match verified(ENCODER) {
        Ok(encoder) if tail.is_none() => FILES
            .into_iter()
            .zip([manifest, encoder, tables].map(Bytes::from))
            .collect(),
        Ok(_) => Vec::new(),
        Err(StoreError::Read { source, .. }) if source.kind() == ErrorKind::NotFound => Vec::new(),
        Err(error) => return Err(error),
    };
    Ok(Stored {
        bundle: parsed,
        decoder,
        tail,
        labels,
        files,
    })
}
