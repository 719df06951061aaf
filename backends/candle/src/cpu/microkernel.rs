//! The innermost product of packed panels.

use pulp::{Arch, Simd, WithSimd};

/// Rows of a tile: adjacent in the left panel, and what the lanes of a vector hold.
pub(super) const ROWS: usize = 32;

/// Columns of a tile: adjacent in the right panel.
pub(super) const COLUMNS: usize = 12;

/// `out[column][row] = Σ left[depth][row] · right[depth][column]`, summed in the order of `depth`.
///
/// `left` is `[depth, ROWS]`, `right` is `[depth, COLUMNS]`, `out` is `[COLUMNS, ROWS]`.
pub(super) fn multiply_panels(left: &[f32], right: &[f32], out: &mut [f32]) {
    Arch::new().dispatch(Product { left, right, out });
}

struct Product<'a> {
    left: &'a [f32],
    right: &'a [f32],
    out: &'a mut [f32],
}

impl WithSimd for Product<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        if S::REGISTER_COUNT >= 32 {
            self.in_parts::<S, COLUMNS>(simd);
        } else {
            self.in_parts::<S, { COLUMNS / 2 }>(simd);
        }
    }
}

impl Product<'_> {
    /// Two vectors of rows times `N` columns at a time, so that the sums stay in registers.
    #[inline(always)]
    fn in_parts<S: Simd, const N: usize>(self, simd: S) {
        let width = 2 * S::F32_LANES;
        for first_column in (0..COLUMNS).step_by(N) {
            for first_row in (0..ROWS).step_by(width) {
                let mut sums = [[simd.splat_f32s(0.0); 2]; N];
                let left = self.left.as_chunks::<ROWS>().0;
                let right = self.right.as_chunks::<COLUMNS>().0;
                for (left, right) in left.iter().zip(right) {
                    let rows = S::as_simd_f32s(&left[first_row..first_row + width]).0;
                    for (sums, &factor) in sums.iter_mut().zip(&right[first_column..first_column + N]) {
                        let factor = simd.splat_f32s(factor);
                        sums[0] = simd.mul_add_f32s(rows[0], factor, sums[0]);
                        sums[1] = simd.mul_add_f32s(rows[1], factor, sums[1]);
                    }
                }
                for (sums, out) in sums.iter().zip(self.out[first_column * ROWS..].chunks_exact_mut(ROWS)) {
                    S::as_mut_simd_f32s(&mut out[first_row..first_row + width]).0.copy_from_slice(sums);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn panels_are_multiplied() {
        let value = |i: usize| ((i * 37 + 11) % 23) as f32 / 23.0 - 0.5;
        for depth in [0, 1, 7, 64] {
            let left: Vec<f32> = (0..depth * ROWS).map(value).collect();
            let right: Vec<f32> = (0..depth * COLUMNS).map(|i| value(i + 5)).collect();
            let mut out = vec![f32::NAN; ROWS * COLUMNS];
            multiply_panels(&left, &right, &mut out);
            for (index, &found) in out.iter().enumerate() {
                let (column, row) = (index / ROWS, index % ROWS);
                let expected: f32 =
                    (0..depth).map(|k| left[k * ROWS + row] * right[k * COLUMNS + column]).sum();
                assert!((found - expected).abs() < 1e-5, "depth {depth}, row {row}, column {column}");
            }
        }
    }
}
