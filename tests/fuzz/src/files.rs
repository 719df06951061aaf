//! Pictures, checkpoints and configurations.

use smartedit_core::model::checkpoint::{Checkpoint, pickle as pickles};
use smartedit_core::picture::{DecodeOptions, Limits, decode, dimensions};
use smartedit_core::weights::WeightFile;
use smartedit_server::config::load;
use smartedit_server::engines::Engines;

use super::with_file;

/// Bytes of a tensor that are read.
const READ: usize = 1 << 20;

/// A source file: its size is what its header says, and no more is decoded than the limits allow.
pub fn picture(content: &[u8]) {
    let limits = Limits { max_pixels: 1 << 18, ..Limits::default() };
    for ignore_orientation in [false, true] {
        let options = DecodeOptions { limits, ignore_orientation, ..DecodeOptions::default() };
        let size = dimensions(content, &options);
        if let Ok(picture) = decode(content, &options) {
            assert_eq!(size.ok(), Some(picture.dimensions()));
            assert!(u64::from(picture.width()) * u64::from(picture.height()) <= limits.max_pixels);
        }
    }
}

/// A file of weights: safetensors or PyTorch's zip.
pub fn checkpoint(content: &[u8]) {
    with_file("checkpoint", content, |path| {
        if let Ok(checkpoint) = Checkpoint::open(&[path]) {
            for (_, tensor) in checkpoint.iter() {
                if tensor.byte_len() <= READ {
                    assert_eq!(tensor.bytes().len(), tensor.byte_len());
                }
                let end = tensor.elements().min(READ);
                let mut read = 0;
                let counted = tensor.for_each_chunk(0..end, |bytes| {
                    read += bytes.len();
                    Ok::<_, ()>(())
                });
                assert_eq!(counted, Ok(()));
                assert_eq!(read * tensor.elements(), end * tensor.byte_len());
            }
        }
        if let Ok(weights) = WeightFile::open(path) {
            for (name, _, shape) in weights.tensors() {
                let view = weights.view(name, shape).expect("a tensor has its own shape");
                if view.bytes().len() <= READ {
                    view.to_f32();
                }
            }
        }
    });
}

/// The pickle in PyTorch's zip.
pub fn pickle(content: &[u8]) {
    let _ = pickles::tensors(content);
}

/// The server's configuration.
pub fn configuration(content: &[u8]) {
    with_file("smartedit.toml", content, |path| {
        if let Ok(loaded) = load(Some(path), &[]) {
            let _ = loaded.check(&Engines::default());
        }
    });
}
