//! What a device needs of a bundle.

use sidecod_wire::bundle::{BundleError, Digest, ENCODER, Manifest, TABLES};

/// Bytes that each of the files may have, in the order of [`sidecod_wire::describe::FILES`]. The
/// bundles that ship need a twentieth of it.
pub const MOST: [usize; 3] = [1 << 20, 64 << 20, 16 << 20];

/// The files of a bundle that a device needs.
#[derive(Clone, PartialEq, Eq)]
pub struct Files {
    /// `manifest.json`.
    pub manifest: Vec<u8>,
    /// `encoder.onnx`.
    pub encoder: Vec<u8>,
    /// `tables.bin`.
    pub tables: Vec<u8>,
}

impl std::fmt::Debug for Files {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let [manifest, encoder, tables] = self.all().map(<[u8]>::len);
        write!(f, "Files({manifest}, {encoder} and {tables} bytes)")
    }
}

/// Why files are not the bundle that they should be.
#[derive(Debug, thiserror::Error)]
pub enum FilesError {
    /// The manifest is another.
    #[error("the manifest has the digest {found}, expected {expected}")]
    Digest {
        /// The digest of what is there.
        found: Digest,
        /// The digest of the bundle.
        expected: Digest,
    },
    /// A file is not the one that the manifest lists.
    #[error(transparent)]
    Bundle(#[from] BundleError),
}

impl Files {
    /// The files, in the order of [`sidecod_wire::describe::FILES`].
    #[must_use]
    pub fn all(&self) -> [&[u8]; 3] {
        [&self.manifest, &self.encoder, &self.tables]
    }

    /// Whether they are the bundle of this digest.
    ///
    /// # Errors
    /// [`FilesError`] that says which is not.
    pub fn check(&self, expected: Digest) -> Result<(), FilesError> {
        let found = Digest::of(&self.manifest);
        if found != expected {
            return Err(FilesError::Digest { found, expected });
        }
        let manifest = Manifest::parse(&self.manifest)?;
        manifest.verify(ENCODER, &self.encoder)?;
        manifest.verify(TABLES, &self.tables)?;
        Ok(())
    }
}
