//! Codec bundles on disk. Decoders are loaded from here and nowhere else.

use std::path::{Path, PathBuf};

use sidecod_wire::bundle::{Bundle, BundleError, DECODER, LABELS, MANIFEST, TABLES, TAIL};
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
    let parsed = Bundle::parse(&file(MANIFEST)?, &file(TABLES)?).map_err(bundle)?;
    let manifest = &parsed.manifest;
    let verified = |name: &str| {
        let bytes = file(name)?;
        manifest.verify(name, &bytes).map_err(bundle)?;
        Ok::<_, StoreError>(bytes)
    };
    let decoder = verified(DECODER)?;
    let (mut tail, mut labels) = (None, Labels::default());
    if let Some(point) = &manifest.point {
        tail = Some(verified(TAIL)?);
        if manifest.files.contains_key(LABELS) {
            let parsed = Labels::parse(&verified(LABELS)?, point.outputs);
            labels = parsed.map_err(|error| bundle(error.into()))?;
        }
    }
    Ok(Stored {
        bundle: parsed,
        decoder,
        tail,
        labels,
    })
}
