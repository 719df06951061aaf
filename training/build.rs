//! Lets the binaries of this package find libtorch where it was when they were linked.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    if let Some(argument) = std::env::var_os("DEP_SMARTEDIT_TORCH_LINK_ARG") {
        println!("cargo::rustc-link-arg={}", argument.display());
    }
}
