//! What a result is kept under.

use sha2::{Digest, Sha256};

use crate::tensor::{HostTensor, Tensors};

/// A SHA-256 digest of everything that shapes a result.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Key([u8; 32]);

/// Makes a key of parts. Every part is written with its kind and length, so that no two lists of parts read the same.
#[derive(Clone)]
pub struct KeyBuilder(Sha256);

impl KeyBuilder {
    /// A key of things of this kind.
    pub fn new(kind: &str) -> Self {
        Self(Sha256::new()).bytes(kind.as_bytes())
    }

    /// Adds bytes.
    #[must_use]
    pub fn bytes(mut self, bytes: &[u8]) -> Self {
        self.begin(b'b', bytes.len());
        self.0.update(bytes);
        self
    }

    /// Adds a number.
    #[must_use]
    pub fn number(mut self, number: u64) -> Self {
        self.begin(b'n', 8);
        self.0.update(number.to_le_bytes());
        self
    }

    /// Adds token ids.
    #[must_use]
    pub fn ids(mut self, ids: &[u32]) -> Self {
        self.begin(b'i', ids.len());
        ids.iter().for_each(|id| self.0.update(id.to_le_bytes()));
        self
    }

    /// Adds another key.
    #[must_use]
    pub fn key(mut self, key: Key) -> Self {
        self.begin(b'k', key.0.len());
        self.0.update(key.0);
        self
    }

    /// Adds tensors: names, shapes, element types and every element's bits.
    #[must_use]
    pub fn tensors(mut self, tensors: &Tensors) -> Self {
        self.begin(b't', tensors.iter().count());
        tensors.iter().fold(self, |builder, (name, tensor)| builder.bytes(name.as_bytes()).tensor(tensor))
    }

    /// Adds a tensor: shape, element type and every element's bits.
    #[must_use]
    pub fn tensor(mut self, tensor: &HostTensor) -> Self {
        self = self.bytes(tensor.dtype().as_bytes());
        self.begin(b's', tensor.shape().len());
        tensor.shape().iter().for_each(|size| self.0.update((*size as u64).to_le_bytes()));
        match tensor {
            HostTensor::F32(array) => self.elements(array.iter().map(|value| value.to_le_bytes())),
            HostTensor::I64(array) => self.elements(array.iter().map(|value| value.to_le_bytes())),
        }
        self
    }

    /// The key of all parts.
    pub fn finish(self) -> Key {
        Key(self.0.finalize().into())
    }

    fn begin(&mut self, kind: u8, length: usize) {
        self.0.update([kind]);
        self.0.update((length as u64).to_le_bytes());
    }

    fn elements<const N: usize>(&mut self, elements: impl Iterator<Item = [u8; N]>) {
        let mut block = Vec::with_capacity(1 << 14);
        for element in elements {
            block.extend_from_slice(&element);
            if block.len() >= 1 << 14 {
                self.0.update(&block);
                block.clear();
            }
        }
        self.0.update(&block);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use ndarray::{arr1, arr2};
    use proptest::prelude::*;

    use super::*;

    fn tensors(names: &[&str], values: &[f32]) -> Tensors {
        names.iter().fold(Tensors::new(), |tensors, name| tensors.with(name, arr1(values)))
    }

    #[test]
    fn parts_that_run_together_differ() {
        let start = || KeyBuilder::new("test");
        let keys = [
            start(),
            start().bytes(b"ab"),
            start().bytes(b"a").bytes(b"b"),
            start().bytes(b""),
            start().ids(&[1, 2]),
            start().ids(&[1]).ids(&[2]),
            start().number(1),
            start().tensors(&Tensors::new()),
            start().tensors(&tensors(&["x"], &[1.0, 2.0])),
            start().tensors(&tensors(&["y"], &[1.0, 2.0])),
            start().tensors(&tensors(&["x", "y"], &[1.0, 2.0])),
            start().tensors(&Tensors::new().with("x", arr2(&[[1.0f32], [2.0]]))),
            start().tensors(&Tensors::new().with("x", arr2(&[[1.0f32, 2.0]]))),
            start().tensors(&Tensors::new().with("x", arr1(&[1i64, 2]))),
            start().tensor(&arr1(&[0.0f32]).into()),
            start().tensor(&arr1(&[-0.0f32]).into()),
            KeyBuilder::new("tests"),
        ];
        let mut seen = BTreeMap::new();
        for (index, key) in keys.into_iter().enumerate() {
            let other = seen.insert(key.finish().0, index);
            assert_eq!(other, None, "the same key as {index}");
        }
    }

    proptest! {
        #[test]
        fn a_key_is_a_function_of_every_element(
            length in 1usize..9000,
            index in any::<proptest::sample::Index>(),
            bit in 0u32..32,
        ) {
            let key = |values: &[f32]| KeyBuilder::new("test").tensors(&tensors(&["x"], values)).finish();
            let values: Vec<f32> = (0..length).map(|index| (index as f32).sin()).collect();
            let mut changed = values.clone();
            let place = index.index(values.len());
            changed[place] = f32::from_bits(values[place].to_bits() ^ (1 << bit));
            prop_assert_eq!(key(&values), key(&values.clone()));
            prop_assert_ne!(key(&values), key(&changed));
        }
    }
}
