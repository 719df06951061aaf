//! Compiles the C++ in `src`, and says how final binaries find libtorch: torch-sys links it, but a linker looks for it at
//! build time only.
//!
//! The linker's argument is for the tests of this package, and for packages that depend on it: their build scripts find it in
//! `DEP_SMARTEDIT_TORCH_LINK_ARG`.

use std::path::{Path, PathBuf};

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let Some(directory) = std::env::var_os("DEP_TCH_LIBTORCH_LIB") else {
        panic!("torch-sys does not tell where libtorch is");
    };
    let directory = Path::new(&directory);
    compile(directory);
    let mut argument = format!("-Wl,-rpath,{}", directory.display());
    // Nothing refers to a symbol of the CUDA half: it registers itself when it is loaded, so the linker must not
    // drop it as unneeded.
    if directory.join("libtorch_cuda.so").exists() {
        argument.push_str(",--no-as-needed,-ltorch,-ltorch_cuda,--as-needed");
    }
    println!("cargo::rustc-link-arg={argument}");
    println!("cargo::metadata=link_arg={argument}");
}

/// Compiles against the headers of the libtorch in this directory, as torch-sys does.
fn compile(libraries: &Path) {
    const SOURCES: [&str; 2] = ["src/attention.cpp", "src/packed.cpp"];
    for file in SOURCES.into_iter().chain(["src/guarded.h"]) {
        println!("cargo::rerun-if-changed={file}");
    }
    let variable = |name: &str| {
        println!("cargo::rerun-if-env-changed={name}");
        std::env::var(name).ok()
    };
    let root = variable("LIBTORCH_INCLUDE").map_or_else(|| libraries.join(".."), PathBuf::from);
    let abi = variable("LIBTORCH_CXX11_ABI").unwrap_or_else(|| "1".to_owned());
    cc::Build::new()
        .cpp(true)
        .std("c++17")
        .define("_GLIBCXX_USE_CXX11_ABI", abi.as_str())
        .include(root.join("include"))
        // Headers that are not ours to mend.
        .warnings(false)
        // libtorch's own threads share the work of a loop.
        .flag("-fopenmp")
        .files(SOURCES)
        .compile("smartedit_torch_operators");
    println!("cargo::rustc-link-lib=gomp");
}
