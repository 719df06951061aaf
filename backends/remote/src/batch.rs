//! Calls of a model whose server adds the first dimension and limits it.

use ndarray::{ArrayD, ArrayViewD, Axis, Slice, concatenate};
use smartedit_core::engine::{EngineError, Result};
use smartedit_core::tensor::{HostTensor, Tensors};

/// Runs a model on at most `most` rows at a time. What is given once for all rows is given for each of them.
pub(crate) fn in_parts(
    inputs: &Tensors,
    most: usize,
    run: impl Fn(&Tensors) -> Result<Tensors>,
) -> Result<Tensors> {
    let rows = inputs.iter().filter_map(|(_, tensor)| tensor.shape().first().copied()).max().unwrap_or(0);
    let mut parts = Vec::new();
    for from in (0..rows.max(1)).step_by(most.max(1)) {
        let range = from..rows.max(1).min(from.saturating_add(most.max(1)));
        let mut part = Tensors::new();
        for (name, tensor) in inputs.iter() {
            part.insert(name, rows_of(tensor, range.clone()));
        }
        parts.push(run(&part)?);
    }
    match parts.len() {
        1 => Ok(parts.swap_remove(0)),
        _ => joined(&parts),
    }
}

fn rows_of(tensor: &HostTensor, range: std::ops::Range<usize>) -> HostTensor {
    fn part<T: Clone>(array: &ArrayD<T>, range: std::ops::Range<usize>) -> ArrayD<T> {
        match array.shape().first() {
            Some(1) => {
                let once = vec![array.view(); range.len()];
                concatenate(Axis(0), &once).unwrap_or_else(|_| array.clone())
            }
            Some(_) => array.slice_axis(Axis(0), Slice::from(range)).to_owned(),
            None => array.clone(),
        }
    }
    match tensor {
        HostTensor::F32(array) => part(array, range).into(),
        HostTensor::I64(array) => part(array, range).into(),
    }
}

/// Outputs of the same names, one after the other.
fn joined(parts: &[Tensors]) -> Result<Tensors> {
    let mut outputs = Tensors::new();
    let Some(first) = parts.first() else { return Ok(outputs) };
    for (name, _) in first.iter() {
        let pieces: Vec<ArrayViewD<'_, f32>> = parts
            .iter()
            .map(|part| part.f32(name))
            .collect::<std::result::Result<_, _>>()
            .map_err(|e| EngineError::new("join", e))?;
        let whole = concatenate(Axis(0), &pieces).map_err(|e| EngineError::new("join", e))?;
        outputs.insert(name, whole.into());
    }
    Ok(outputs)
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use ndarray::Array2;

    use super::*;

    #[test]
    fn rows_are_parted_and_joined() {
        let x = Array2::from_shape_fn((5, 2), |(row, column)| (10 * row + column) as f32);
        let shared = Array2::from_elem((1, 2), 100.0_f32);
        let inputs = Tensors::new().with("x", x.clone()).with("shared", shared);
        let sizes = RefCell::new(Vec::new());
        let sum = |part: &Tensors| {
            let (x, shared) = (part.f32("x").unwrap(), part.f32("shared").unwrap());
            assert_eq!(x.shape(), shared.shape());
            sizes.borrow_mut().push(x.shape()[0]);
            Ok(Tensors::new().with("y", &x + &shared))
        };
        let outputs = in_parts(&inputs, 2, sum).unwrap();
        assert_eq!(outputs.f32("y").unwrap(), (&x + 100.0).into_dyn());
        assert_eq!(sizes.take(), [2, 2, 1]);
        in_parts(&inputs, 8, sum).unwrap();
        assert_eq!(sizes.take(), [5]);
    }
}
