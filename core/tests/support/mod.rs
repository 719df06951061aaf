//! Golden data of the reference, as integration tests read it.

#![allow(dead_code, reason = "each test binary uses a part of it")]

use std::path::{Path, PathBuf};

use ndarray::{ArrayD, IxDyn};
use safetensors::{Dtype, SafeTensors};
use serde_json::Value;

/// A file or folder of `tests/golden`.
pub(crate) fn golden(path: &str) -> PathBuf {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/golden")).join(path)
}

/// The golden pack: `tests/golden/pack_a`, or the folder that `SMARTEDIT_GOLDEN_PACK` names.
pub(crate) struct Pack {
    pub(crate) root: PathBuf,
    pub(crate) json: Value,
    pub(crate) tensors: Tensors,
}

impl Pack {
    pub(crate) fn open() -> Self {
        let root = std::env::var_os("SMARTEDIT_GOLDEN_PACK").map_or_else(|| golden("pack_a"), PathBuf::from);
        let json = json(&root.join("golden.json"));
        let tensors = Tensors::open(&root.join("golden.safetensors"));
        Self { root, json, tensors }
    }

    /// Whether the pack leaves a tensor out, which another pack than our own may.
    pub(crate) fn lacks(&self, tensor: &str) -> bool {
        let lacks = !self.tensors.has(tensor);
        assert!(!lacks || self.root != golden("pack_a"), "{tensor} is missing");
        lacks
    }

    /// The first folder below `official/` that holds all of these files.
    pub(crate) fn official(&self, names: &[&str]) -> PathBuf {
        let mut folders = vec![self.root.join("official")];
        while let Some(folder) = folders.pop() {
            if names.iter().all(|name| folder.join(name).is_file()) {
                return folder;
            }
            let mut children: Vec<PathBuf> = std::fs::read_dir(&folder)
                .unwrap()
                .map(|entry| entry.unwrap().path())
                .filter(|path| path.is_dir())
                .collect();
            children.sort();
            folders.extend(children);
        }
        panic!("no folder of the pack holds {names:?}");
    }
}

pub(crate) fn json(path: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display())))
        .unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// The ids of a JSON array.
pub(crate) fn ids(value: &Value) -> Vec<u32> {
    value.as_array().unwrap().iter().map(|id| u32::try_from(id.as_u64().unwrap()).unwrap()).collect()
}

/// The tensors of a safetensors file.
pub(crate) struct Tensors(Vec<u8>);

impl Tensors {
    pub(crate) fn open(path: &Path) -> Self {
        Self(std::fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display())))
    }

    fn file(&self) -> SafeTensors<'_> {
        SafeTensors::deserialize(&self.0).unwrap()
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        self.file().tensor(name).is_ok()
    }

    pub(crate) fn names(&self) -> Vec<String> {
        self.file().names().into_iter().map(str::to_owned).collect()
    }

    pub(crate) fn f32(&self, name: &str) -> ArrayD<f32> {
        let file = self.file();
        let view = file.tensor(name).unwrap_or_else(|e| panic!("{name}: {e}"));
        let data: Vec<f32> = match view.dtype() {
            Dtype::F32 => view
                .data()
                .chunks_exact(4)
                .map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap()))
                .collect(),
            Dtype::F64 => view
                .data()
                .chunks_exact(8)
                .map(|bytes| f64::from_le_bytes(bytes.try_into().unwrap()) as f32)
                .collect(),
            other => panic!("{name} holds {other:?}"),
        };
        ArrayD::from_shape_vec(IxDyn(view.shape()), data).unwrap()
    }

    /// A picture `[height, width, 3]`.
    pub(crate) fn picture(&self, name: &str) -> image::RgbImage {
        let file = self.file();
        let view = file.tensor(name).unwrap_or_else(|e| panic!("{name}: {e}"));
        assert_eq!(view.dtype(), Dtype::U8);
        let [height, width, 3] = *view.shape() else { panic!("{name}: {:?}", view.shape()) };
        image::RgbImage::from_raw(width as u32, height as u32, view.data().to_vec()).unwrap()
    }
}

/// The largest difference, as a part of the largest reference value.
pub(crate) fn relative_difference(ours: &ArrayD<f32>, reference: &ArrayD<f32>) -> f32 {
    assert_eq!(ours.shape(), reference.shape());
    let largest = reference.iter().fold(0.0_f32, |max, value| max.max(value.abs()));
    let difference =
        ours.iter().zip(reference).fold(0.0_f32, |max, (ours, reference)| max.max((ours - reference).abs()));
    assert!(ours.iter().all(|value| value.is_finite()));
    difference / largest
}
