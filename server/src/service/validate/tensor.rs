//! Recorded noise.

use ndarray::Array4;
use smartedit_core::picture::SIDE_MULTIPLE;
use smartedit_proto::v1;

use super::Check;

/// Channels of latents.
const CHANNELS: u32 = 4;

impl Check<'_> {
    /// Reads the recorded noise, whose shape must fit the size of the edit as far as that is known.
    pub(super) fn replay(
        &mut self,
        options: &v1::EditOptions,
        steps: usize,
        size: Option<(u32, u32)>,
    ) -> (Option<Array4<f32>>, Option<Vec<Array4<f32>>>) {
        let Some(replay) = &options.replay else { return (None, None) };
        let shape = size.map(|(width, height)| [1, CHANNELS, height / SIDE_MULTIPLE, width / SIDE_MULTIPLE]);
        let initial = replay.initial_latents.as_ref();
        let initial = initial.and_then(|tensor| self.noise("options.replay.initial_latents", tensor, shape));

        let count = replay.step_noise.len();
        if count == 0 {
            return (initial, None);
        }
        if count != steps {
            let message = format!("has {count} tensors, one for each of {steps} steps is needed");
            self.violations.add("options.replay.step_noise", message);
            return (initial, None);
        }
        let read =
            |(index, tensor)| self.noise(&format!("options.replay.step_noise[{index}]"), tensor, shape);
        let noise: Option<Vec<_>> = replay.step_noise.iter().enumerate().map(read).collect();
        (initial, noise)
    }

    fn noise(&mut self, field: &str, tensor: &v1::Tensor, shape: Option<[u32; 4]>) -> Option<Array4<f32>> {
        match read(tensor, shape) {
            Ok(array) => Some(array),
            Err(message) => {
                self.violations.add(field, message);
                None
            }
        }
    }
}

fn read(tensor: &v1::Tensor, expected: Option<[u32; 4]>) -> Result<Array4<f32>, String> {
    let found = &tensor.shape;
    let shape: [u32; 4] = found
        .as_slice()
        .try_into()
        .ok()
        .filter(|shape: &[u32; 4]| {
            expected.map_or(shape[0] == 1 && shape[1] == CHANNELS, |expected| *shape == expected)
        })
        .ok_or_else(|| match expected {
            Some(expected) => format!("has shape {found:?}, {expected:?} is needed"),
            None => format!("has shape {found:?}, [1, {CHANNELS}, height / 8, width / 8] is needed"),
        })?;
    let elements = shape.iter().try_fold(1_usize, |product, side| product.checked_mul(*side as usize));
    let bytes = elements.and_then(|elements| elements.checked_mul(size_of::<f32>()));
    if bytes != Some(tensor.data.len()) {
        return Err(format!(
            "has {} bytes of data, shape {shape:?} needs 4 for each element",
            tensor.data.len()
        ));
    }
    let data: Vec<f32> = tensor.data.as_chunks().0.iter().map(|chunk| f32::from_le_bytes(*chunk)).collect();
    if data.iter().any(|value| !value.is_finite()) {
        return Err("holds values that are not finite".to_owned());
    }
    let [batch, channels, height, width] = shape.map(|side| side as usize);
    Array4::from_shape_vec((batch, channels, height, width), data).map_err(|error| error.to_string())
}
