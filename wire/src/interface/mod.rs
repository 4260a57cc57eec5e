//! What stands around a model in its server: how its input is made of a photo, and the answer of its
//! outputs. With it a sidecar that runs a part of the model, or all of it, answers as the server would.

mod answer;
mod input;

use std::collections::BTreeMap;

use serde::Deserialize;

pub use answer::{Answer, Labels, LabelsError, Scale};
pub use input::Input;

use crate::bundle::{BundleError, FileDigest, verify};

/// A value out of its range.
pub(crate) fn wrong<T>(
    field: &'static str,
    value: &impl ToString,
    expected: &str,
) -> Result<T, BundleError> {
    Err(BundleError::Value {
        field,
        value: value.to_string(),
        expected: expected.to_owned(),
    })
}

/// Most numbers that a model may give for one input.
pub const MAX_OUTPUTS: usize = 1 << 20;

/// `manifest.json` of a folder whose model the device runs whole.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Whole {
    /// Name of the model.
    pub name: String,
    /// Always `model`.
    pub domain: Domain,
    /// Numbers that the model gives for one input.
    pub outputs: usize,
    /// How its input is made.
    pub input: Input,
    /// How the answer is made.
    pub answer: Answer,
    /// Digest and size of each file.
    pub files: BTreeMap<String, FileDigest>,
}

/// The one domain of such a folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Domain {
    /// A whole model.
    Model,
}

impl Whole {
    /// Reads and checks a manifest.
    ///
    /// # Errors
    /// [`BundleError::Manifest`] or [`BundleError::Value`].
    pub fn parse(json: &[u8]) -> Result<Self, BundleError> {
        let whole: Self = serde_json::from_slice(json)?;
        check_outputs(whole.outputs)?;
        whole.input.check()?;
        Ok(whole)
    }

    /// Whether `bytes` are the file that the manifest lists under this name.
    ///
    /// # Errors
    /// [`BundleError::Unlisted`] or [`BundleError::Digest`].
    pub fn verify(&self, file: &str, bytes: &[u8]) -> Result<(), BundleError> {
        verify(&self.files, file, bytes)
    }
}

pub(crate) fn check_outputs(outputs: usize) -> Result<(), BundleError> {
    if (1..=MAX_OUTPUTS).contains(&outputs) {
        return Ok(());
    }
    wrong("outputs", &outputs, &format!("1 to {MAX_OUTPUTS}"))
}
