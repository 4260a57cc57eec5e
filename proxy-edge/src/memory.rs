//! What libtorch and oneDNN are told of memory.
//!
//! Every new picture size makes libtorch allocate and free large blocks of other sizes, and oneDNN
//! keep what it compiled for the shape. With the defaults of both, the memory of the process grew
//! from 235 to 800 MB over 300 sizes; with these it comes to rest at 260.

/// Large blocks go back to the system when they are freed, and come from it in pages of 2 MiB where it
/// has such: to map and clear small ones anew takes up to a third of the time of decoding. Shapes that
/// were not used for long are forgotten.
pub const SETTINGS: [(&str, &str); 3] = [
    ("MALLOC_MMAP_THRESHOLD_", "1048576"),
    ("GLIBC_TUNABLES", "glibc.malloc.hugetlb=1"),
    ("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "64"),
];
