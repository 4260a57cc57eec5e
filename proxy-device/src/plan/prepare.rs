//! Carrying an option out. It keeps a core busy: call it on a thread of the encoding pool.

use super::option::Kind;
use crate::encode::{Codec, Coded, Coding, Looked, NotCoded};

/// What a body crosses as with an option.
///
/// # Errors
/// [`NotCoded`] where it has to cross as it is, as [`Kind::Passthrough`] always does.
pub fn prepare(
    codec: &Codec,
    coding: &Coding,
    kind: Kind,
    looked: &Looked,
) -> Result<Coded, NotCoded> {
    match kind {
        Kind::Input { quality } => codec.code(looked, coding, quality),
        Kind::Classical(classical) => classical.code(looked, codec.limits()),
        Kind::Passthrough => Err(NotCoded::NotSmaller {
            frame: looked.sent,
            body: looked.sent,
        }),
    }
}
