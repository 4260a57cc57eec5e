//! What both sidecars must agree on: pure functions over bytes, no I/O and nothing asynchronous.
//!
//! A photo on its way from the device to the edge passes these modules in order:
//!
//! 1. [`slot`] finds the byte range of each input in a request body and cuts it out,
//! 2. [`media`] turns the bytes of a photo into pixels, [`tensor`] the numbers of one,
//! 3. [`bundle`] says how the codec quantises the encoder's latent into [`entropy::Symbols`],
//! 4. [`entropy`] packs the symbols into a code,
//! 5. [`frame`] carries the rest of the body and the codes across the link,
//!
//! and the edge takes the same steps backwards. The samples of a sound have a codec of their own in
//! [`sound`]. Where a part of the model runs on the device,
//! [`interface`] makes the model's input of the photo and the answer of its outputs. [`describe`] is
//! what an edge says of itself, [`profile`] what it says of its speed, [`protobuf`] how the messages of
//! gRPC are read. Every size that arrives from
//! outside is compared with [`limits::Limits`] before memory is taken for it.

pub mod bundle;
pub mod describe;
pub mod entropy;
pub mod frame;
pub mod header;
pub mod interface;
pub mod limits;
pub mod media;
pub mod profile;
pub mod protobuf;
pub mod slot;
pub mod sound;
pub mod tensor;
