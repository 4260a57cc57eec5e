//! What oneDNN is told of memory.
//!
//! It keeps what it compiled for every shape of a picture. With its own 1024 the memory of the process
//! grew from 235 to 800 MB over 300 sizes; with this, and the program's allocator for libtorch too, from
//! 209 to 300 MB over 200 of up to 1000x1000 pixels, and not further over 200 more.

/// Shapes that were not used for long are forgotten.
pub const SETTINGS: [(&str, &str); 1] = [("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "64")];
