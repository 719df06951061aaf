//! Rows of a table, where it lies.

use candle_core::{Device, Result, Tensor, bail};

use crate::tensor::Elements;

/// Rows `ids` of a table `[rows, width]`, one after the other, in the table's element type.
pub(crate) fn embedding(table: Elements<'_>, width: usize, ids: &[i64], shape: &[usize]) -> Result<Tensor> {
    match table {
        Elements::F32(table) => Tensor::from_vec(gather(table, width, ids)?, shape, &Device::Cpu),
        Elements::Bf16(table) => Tensor::from_vec(gather(table, width, ids)?, shape, &Device::Cpu),
        Elements::F16(table) => Tensor::from_vec(gather(table, width, ids)?, shape, &Device::Cpu),
    }
}

fn gather<T: Copy>(table: &[T], width: usize, ids: &[i64]) -> Result<Vec<T>> {
    let mut out = Vec::with_capacity(ids.len() * width);
    for &id in ids {
        let row = usize::try_from(id).ok().and_then(|id| table.get(id.checked_mul(width)?..));
        match row.and_then(|row| row.get(..width)) {
            Some(row) => out.extend_from_slice(row),
            None => bail!("row {id} is not in a table of {} rows", table.len() / width.max(1)),
        }
    }
    Ok(out)
}
