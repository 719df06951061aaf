//! Generates the stubs and the descriptor set that gRPC reflection serves; no protoc needed.

use std::path::PathBuf;

const FILES: [&str; 3] =
    ["smartedit/v1/admin.proto", "smartedit/v1/service.proto", "inference/grpc_service.proto"];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-changed=smartedit");
    println!("cargo::rerun-if-changed=inference");
    let mut compiler = protox::Compiler::new(["."])?;
    compiler.include_imports(true).include_source_info(true).open_files(FILES)?;
    let out = PathBuf::from(std::env::var_os("OUT_DIR").ok_or("OUT_DIR is not set")?);
    std::fs::write(out.join("descriptors.bin"), compiler.encode_file_descriptor_set())?;
    tonic_prost_build::configure()
        .bytes(".smartedit.v1")
        .bytes(".inference")
        .compile_fds(compiler.file_descriptor_set())?;
    Ok(())
}
