//! What libtorch and oneDNN are told of memory.
//!
//! Every new picture size makes libtorch allocate and free large blocks of other sizes, and oneDNN
//! keep what it compiled for the shape. With the defaults of both, the memory of the process grew
//! from 235 to 800 MB over 300 sizes; with these, from 154 to 220 MB, and to 250 MB over 600.

/// Large blocks go back to the system when they are freed; shapes that were not used for long are
/// forgotten.
pub const SETTINGS: [(&str, &str); 2] = [
    ("MALLOC_MMAP_THRESHOLD_", "262144"),
    ("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "64"),
];
