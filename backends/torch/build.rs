//! Says how final binaries find libtorch: torch-sys links it, but a linker looks for it at build time only.
//!
//! The argument is for the tests of this package, and for packages that depend on it: their build scripts find it in
//! `DEP_SMARTEDIT_TORCH_LINK_ARG`.

use std::path::Path;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let Some(directory) = std::env::var_os("DEP_TCH_LIBTORCH_LIB") else { return };
    let directory = Path::new(&directory);
    let mut argument = format!("-Wl,-rpath,{}", directory.display());
    // Nothing refers to a symbol of the CUDA half: it registers itself when it is loaded, so the linker must not
    // drop it as unneeded.
    if directory.join("libtorch_cuda.so").exists() {
        argument.push_str(",--no-as-needed,-ltorch,-ltorch_cuda,--as-needed");
    }
    println!("cargo::rustc-link-arg={argument}");
    println!("cargo::metadata=link_arg={argument}");
}
