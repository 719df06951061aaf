//! The wire formats of the SmartEdit server: messages and gRPC stubs generated from `proto/smartedit` and `proto/inference`.

/// Messages, client and server of `smartedit.v1`.
#[allow(missing_docs, unreachable_pub, clippy::all, rust_2018_idioms)]
pub mod v1 {
    tonic::include_proto!("smartedit.v1");
}

/// Messages, client and server of the Open Inference Protocol, version 2.
#[allow(missing_docs, unreachable_pub, clippy::all, rust_2018_idioms)]
pub mod inference {
    tonic::include_proto!("inference");
}

/// The encoded `FileDescriptorSet` of all files and their imports, for gRPC reflection.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
