//! Carrying an option out. It keeps a core busy: call it on a thread of the encoding pool.

use super::option::Kind;
use crate::encode::{Codec, Coded, Coding, Looked, NotCoded, Single};

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
        Kind::Head { head, quality } => {
            let head = codec.parts().heads().get(head).ok_or(NotCoded::NoPart)?;
            head.code(&Single::of(looked, codec.limits())?, quality)
        }
        Kind::Local => local(codec, looked),
        Kind::Classical(classical) => classical.code(looked, codec.limits()),
        Kind::Passthrough => Err(NotCoded::NotSmaller {
            frame: looked.sent,
            body: looked.sent,
        }),
    }
}

/// The answer of the model that runs here as a whole.
///
/// # Errors
/// [`NotCoded`] if there is none, or not one input for it.
pub fn local(codec: &Codec, looked: &Looked) -> Result<Coded, NotCoded> {
    let local = codec.parts().local().ok_or(NotCoded::NoPart)?;
    local.answer(&Single::of(looked, codec.limits())?)
}
