//! Lets the built programs find libtorch by rpath: where it was at build time, then beside an installed binary.

use std::path::Path;

fn main() {
    // By a path that is right for the benches too, whose build script it is as well.
    println!("cargo::rerun-if-changed=../proxy-edge/build.rs");
    if let Ok(lib) = std::env::var("DEP_TCH_LIBTORCH_LIB") {
        println!("cargo::rustc-link-arg=-Wl,-rpath,{lib}");
        // Nothing refers to a symbol of it: the linker would leave it out, and libtorch find no GPU.
        if Path::new(&lib).join("libtorch_cuda.so").exists() {
            for argument in ["-Wl,--no-as-needed", "-ltorch_cuda", "-Wl,--as-needed"] {
                println!("cargo::rustc-link-arg={argument}");
            }
        }
    }
    println!("cargo::rustc-link-arg=-Wl,-rpath,$ORIGIN/../lib/sidecod");
}
