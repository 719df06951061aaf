//! Resizing of feature maps, as PyTorch's `interpolate` does it.

/// Height and width.
pub(crate) type Size = (usize, usize);

/// Nearest element: source index `floor(i · in / out)`.
pub(crate) fn nearest(x: &[f32], from: Size, to: Size) -> Vec<f32> {
    let (rows, columns) = (nearest_indices(from.0, to.0), nearest_indices(from.1, to.1));
    let planes = x.len().checked_div(from.0 * from.1).unwrap_or(0);
    let mut out = Vec::with_capacity(planes * to.0 * to.1);
    for plane in x.chunks_exact(from.0 * from.1) {
        for &row in &rows {
            let row = &plane[row * from.1..][..from.1];
            out.extend(columns.iter().map(|&column| row[column]));
        }
    }
    out
}

fn nearest_indices(from: usize, to: usize) -> Vec<usize> {
    let scale = from as f32 / to as f32;
    (0..to).map(|index| ((index as f32 * scale) as usize).min(from - 1)).collect()
}

/// Bilinear with half-pixel centres and without antialiasing.
pub(crate) fn bilinear(x: &[f32], from: Size, to: Size) -> Vec<f32> {
    let (rows, columns) = (bilinear_taps(from.0, to.0), bilinear_taps(from.1, to.1));
    let planes = x.len().checked_div(from.0 * from.1).unwrap_or(0);
    let mut out = Vec::with_capacity(planes * to.0 * to.1);
    for plane in x.chunks_exact(from.0 * from.1) {
        for &(y0, y1, fy) in &rows {
            let (upper, lower) = (&plane[y0 * from.1..][..from.1], &plane[y1 * from.1..][..from.1]);
            out.extend(columns.iter().map(|&(x0, x1, fx)| {
                let upper = upper[x0] * (1.0 - fx) + upper[x1] * fx;
                let lower = lower[x0] * (1.0 - fx) + lower[x1] * fx;
                upper * (1.0 - fy) + lower * fy
            }));
        }
    }
    out
}

/// For every output index the two source indices and the weight of the second.
fn bilinear_taps(from: usize, to: usize) -> Vec<(usize, usize, f32)> {
    let scale = from as f32 / to as f32;
    (0..to)
        .map(|index| {
            let position = ((index as f32 + 0.5) * scale - 0.5).max(0.0);
            let first = (position as usize).min(from - 1);
            (first, (first + 1).min(from - 1), position - first as f32)
        })
        .collect()
}
