//! Products of `bf16` matrices on the processor's dot products of pairs (AVX-512 BF16), summed in `f32`.
//!
//! Both operands are packed into panels first: [`ROWS`] rows of the weight, and [`COLUMNS`] columns of what it is
//! multiplied with, each as pairs of adjacent elements along the depth.

use half::bf16;
use rayon::prelude::*;

use super::scratch::with_scratch;

/// Rows of the weight in a panel: what the lanes of two vectors hold.
const ROWS: usize = 32;

/// Columns in a panel.
const COLUMNS: usize = 12;

/// Panels of the weight that a thread packs at a time, at most.
const WEIGHT_PANELS: usize = 4;

/// Whether the processor has the dot products.
pub(crate) fn is_available() -> bool {
    #[cfg(target_arch = "x86_64")]
    {
        is_x86_feature_detected!("avx512bf16") && is_x86_feature_detected!("avx512f")
    }
    #[cfg(not(target_arch = "x86_64"))]
    false
}

/// Two adjacent elements along the depth, the first in the lower half: bits that only pass for an `f32` because scratch
/// memory holds these.
pub(super) type Pair = f32;

fn pair(first: bf16, second: bf16) -> Pair {
    f32::from_bits(u32::from(first.to_bits()) | u32::from(second.to_bits()) << 16)
}

/// Joins two rows element by element.
pub(super) fn pair_up(first: &[bf16], second: &[bf16], pairs: &mut [Pair]) {
    for ((slot, &first), &second) in pairs.iter_mut().zip(first).zip(second) {
        *slot = pair(first, second);
    }
}

/// The right operand of a product.
#[derive(Clone, Copy)]
pub(super) enum Right<'a> {
    /// `[count, depth]`: each column one after the other.
    Columns(&'a [bf16]),
    /// `[depth / 2, count]`: rows two and two, joined by [`pair_up`].
    Pairs(&'a [Pair]),
}

/// Where a product goes.
#[derive(Clone, Copy)]
pub(super) enum Order {
    /// `[count, rows]`: each column one after the other.
    Columns,
    /// `[rows, count]`: each row one after the other.
    Rows,
}

/// `weight [rows, depth] · right [depth, count] + bias [rows]` in the given order.
pub(super) fn multiply(
    weight: &[bf16],
    right: Right<'_>,
    bias: Option<&[f32]>,
    (rows, depth, count): (usize, usize, usize),
    order: Order,
) -> Vec<bf16> {
    let mut out = vec![bf16::ZERO; rows * count];
    if out.is_empty() {
        return out;
    }
    assert!(weight.len() >= rows * depth, "the weight is whole");
    assert!(bias.is_none_or(|bias| bias.len() >= rows), "there is a bias for every row");
    let pairs = depth.div_ceil(2);
    let panel = pairs * COLUMNS;
    let target = Target { out: out.as_mut_ptr(), rows, count, order };
    with_scratch(count.div_ceil(COLUMNS) * panel, |columns| {
        columns.par_chunks_exact_mut(panel.max(1)).enumerate().for_each(|(index, panel)| {
            let first = index * COLUMNS;
            match right {
                Right::Columns(right) => {
                    pack_rows::<COLUMNS>(&right[first * depth..], count - first, depth, panel)
                }
                Right::Pairs(right) => pack_columns(right, first, count, panel),
            }
        });
        let columns = &*columns;
        let share = rows.div_ceil(ROWS).div_ceil(rayon::current_num_threads());
        let block = share.div_ceil(share.div_ceil(WEIGHT_PANELS)) * ROWS;
        (0..rows.div_ceil(block)).into_par_iter().for_each(|index| {
            let first = index * block;
            let block = block.min(rows - first);
            with_scratch(block.div_ceil(ROWS) * pairs * ROWS, |panels| {
                for (index, panel) in panels.chunks_exact_mut((pairs * ROWS).max(1)).enumerate() {
                    let first = first + index * ROWS;
                    pack_rows::<ROWS>(&weight[first * depth..], rows - first, depth, panel);
                }
                for column in (0..count).step_by(COLUMNS) {
                    let columns = &columns[column / COLUMNS * panel..][..panel];
                    for row in (0..block).step_by(ROWS) {
                        let panel = &panels[row / ROWS * pairs * ROWS..][..pairs * ROWS];
                        let mut sums = [[0.0; ROWS]; COLUMNS];
                        multiply_panels(panel, columns, &mut sums);
                        if let Some(bias) = bias {
                            let bias = &bias[first + row..];
                            for sums in &mut sums {
                                sums.iter_mut().zip(bias).for_each(|(sum, bias)| *sum += bias);
                            }
                        }
                        target.write(&sums, first + row, column);
                    }
                }
            });
        });
    });
    out
}

/// Packs at most `N` rows of `matrix [count, depth]` into `[depth / 2, N]` pairs, with zeros where there is nothing.
fn pack_rows<const N: usize>(matrix: &[bf16], count: usize, depth: usize, panel: &mut [Pair]) {
    /// Pairs that are read of a row at a time: a cache line.
    const BLOCK: usize = 16;
    let count = count.min(N);
    let mut block = [[0.0; BLOCK]; N];
    for (index, panel) in panel.chunks_mut(BLOCK * N).enumerate() {
        let first = index * 2 * BLOCK;
        for (row, block) in matrix.chunks_exact(depth).zip(&mut block).take(count) {
            let row = &row[first..depth.min(first + 2 * BLOCK)];
            let (pairs, rest) = row.as_chunks::<2>();
            for (slot, values) in block.iter_mut().zip(pairs) {
                *slot = pair(values[0], values[1]);
            }
            if let [last] = rest {
                block[pairs.len()] = pair(*last, bf16::ZERO);
            }
        }
        for (step, panel) in panel.as_chunks_mut::<N>().0.iter_mut().enumerate() {
            for (slot, row) in panel.iter_mut().zip(&block) {
                *slot = row[step];
            }
        }
    }
}

/// Packs [`COLUMNS`] columns of pairs `[depth / 2, count]`, from the first on, with zeros where there is nothing.
fn pack_columns(pairs: &[Pair], first: usize, count: usize, panel: &mut [Pair]) {
    let width = COLUMNS.min(count - first);
    for (row, panel) in pairs.chunks_exact(count).zip(panel.as_chunks_mut::<COLUMNS>().0) {
        panel[..width].copy_from_slice(&row[first..first + width]);
        panel[width..].fill(0.0);
    }
}

/// The result, which tasks write in disjoint tiles.
struct Target {
    out: *mut bf16,
    rows: usize,
    count: usize,
    order: Order,
}

// SAFETY: the pointer is only written through, in `write`, by tasks that each own other rows of the product.
#[allow(unsafe_code)]
unsafe impl Sync for Target {}

impl Target {
    /// Writes the part of a tile that lies inside the product.
    #[allow(unsafe_code)]
    fn write(&self, sums: &[[f32; ROWS]; COLUMNS], row: usize, column: usize) {
        let (height, width) = (ROWS.min(self.rows - row), COLUMNS.min(self.count - column));
        match self.order {
            Order::Columns => {
                for (x, sums) in sums.iter().enumerate().take(width) {
                    let start = (column + x) * self.rows + row;
                    let values = sums.map(bf16::from_f32);
                    // SAFETY: `row + height ≤ rows` and `column + x < count`, so the elements lie inside the
                    // `rows · count` behind the pointer, which outlive the tasks; no other task writes these rows.
                    unsafe { self.out.add(start).copy_from_nonoverlapping(values.as_ptr(), height) };
                }
            }
            Order::Rows => {
                let rows: [[bf16; COLUMNS]; ROWS] =
                    std::array::from_fn(|y| std::array::from_fn(|x| bf16::from_f32(sums[x][y])));
                for (y, values) in rows.iter().enumerate().take(height) {
                    let start = (row + y) * self.count + column;
                    // SAFETY: as above, with `column + width ≤ count` and `row + y < rows`.
                    unsafe { self.out.add(start).copy_from_nonoverlapping(values.as_ptr(), width) };
                }
            }
        }
    }
}

/// `sums[column][row] = Σ left[pair][row] · right[pair][column]`, summed in the order of pairs.
#[allow(unsafe_code)]
fn multiply_panels(left: &[Pair], right: &[Pair], sums: &mut [[f32; ROWS]; COLUMNS]) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: `multiply` is only called where `is_available` holds, which asks for these features.
    unsafe {
        x86::multiply_panels(left.as_chunks().0, right.as_chunks().0, sums);
    }
    #[cfg(not(target_arch = "x86_64"))]
    unreachable!("`is_available` is false");
}

/// `Σ a · b`, where both are long.
#[allow(unsafe_code)]
pub(super) fn dot(a: &[bf16], b: &[bf16]) -> f32 {
    let (a, a_rest) = a.as_chunks::<32>();
    let (b, b_rest) = b.as_chunks::<32>();
    let rest = a_rest.iter().zip(b_rest).map(|(a, b)| a.to_f32() * b.to_f32());
    #[cfg(target_arch = "x86_64")]
    // SAFETY: called only where `is_available` holds.
    let sum = unsafe { x86::dot(a, b) };
    #[cfg(not(target_arch = "x86_64"))]
    let sum: f32 = unreachable!("`is_available` is false");
    sum + rest.sum::<f32>()
}

#[cfg(target_arch = "x86_64")]
#[allow(unsafe_code)]
mod x86 {
    use std::arch::x86_64::*;

    use half::bf16;

    use super::{COLUMNS, Pair, ROWS};

    #[target_feature(enable = "avx512f,avx512bf16")]
    pub(super) fn multiply_panels(
        left: &[[Pair; ROWS]],
        right: &[[Pair; COLUMNS]],
        out: &mut [[f32; ROWS]; COLUMNS],
    ) {
        let mut sums = [[_mm512_setzero_ps(); 2]; COLUMNS];
        for (left, right) in left.iter().zip(right) {
            // SAFETY: a row of the panel holds 32 pairs.
            let rows: [__m512bh; 2] = unsafe {
                [
                    std::mem::transmute::<__m512, __m512bh>(_mm512_loadu_ps(left.as_ptr())),
                    std::mem::transmute::<__m512, __m512bh>(_mm512_loadu_ps(left.as_ptr().add(16))),
                ]
            };
            for (sums, &factor) in sums.iter_mut().zip(right) {
                // SAFETY: both are 512 bits.
                let factor = unsafe { std::mem::transmute::<__m512, __m512bh>(_mm512_set1_ps(factor)) };
                sums[0] = _mm512_dpbf16_ps(sums[0], rows[0], factor);
                sums[1] = _mm512_dpbf16_ps(sums[1], rows[1], factor);
            }
        }
        for (sums, out) in sums.iter().zip(out) {
            // SAFETY: a column of the tile holds 32 sums.
            unsafe {
                _mm512_storeu_ps(out.as_mut_ptr(), sums[0]);
                _mm512_storeu_ps(out.as_mut_ptr().add(16), sums[1]);
            }
        }
    }

    #[target_feature(enable = "avx512f,avx512bf16")]
    pub(super) fn dot(a: &[[bf16; 32]], b: &[[bf16; 32]]) -> f32 {
        // SAFETY: a chunk is 512 bits, as is the vector.
        let load = |chunk: &[bf16; 32]| unsafe { std::mem::transmute::<[bf16; 32], __m512bh>(*chunk) };
        let mut sums = [_mm512_setzero_ps(); 4];
        let (a_fours, a_rest) = a.as_chunks::<4>();
        let (b_fours, b_rest) = b.as_chunks::<4>();
        for (a, b) in a_fours.iter().zip(b_fours) {
            for lane in 0..4 {
                sums[lane] = _mm512_dpbf16_ps(sums[lane], load(&a[lane]), load(&b[lane]));
            }
        }
        for (a, b) in a_rest.iter().zip(b_rest) {
            sums[0] = _mm512_dpbf16_ps(sums[0], load(a), load(b));
        }
        let sum = _mm512_add_ps(_mm512_add_ps(sums[0], sums[1]), _mm512_add_ps(sums[2], sums[3]));
        _mm512_reduce_add_ps(sum)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn random(count: usize, seed: u64) -> Vec<bf16> {
        let mut generator = fastrand::Rng::with_seed(seed);
        (0..count).map(|_| bf16::from_f32(2.0 * generator.f32() - 1.0)).collect()
    }

    fn product(weight: &[bf16], columns: &[bf16], depth: usize) -> f32 {
        weight.iter().zip(columns).take(depth).map(|(a, b)| a.to_f32() * b.to_f32()).sum()
    }

    #[test]
    fn equals_the_definition_at_odd_sizes() {
        if !is_available() {
            return;
        }
        for (rows, depth, count) in [(1, 1, 1), (33, 7, 13), (64, 64, 24), (100, 129, 35), (31, 2, 11)] {
            let (weight, columns) = (random(rows * depth, 1), random(count * depth, 2));
            let bias: Vec<f32> = random(rows, 3).iter().map(|value| value.to_f32()).collect();
            let row = |index: usize| -> Vec<bf16> {
                columns
                    .chunks_exact(depth)
                    .map(|column| column.get(index).copied().unwrap_or_default())
                    .collect()
            };
            let mut pairs = vec![0.0; depth.div_ceil(2) * count];
            for (step, pairs) in pairs.chunks_exact_mut(count).enumerate() {
                pair_up(&row(2 * step), &row(2 * step + 1), pairs);
            }
            let shape = (rows, depth, count);
            for right in [Right::Columns(&columns), Right::Pairs(&pairs)] {
                let by_column = multiply(&weight, right, Some(&bias), shape, Order::Columns);
                let by_row = multiply(&weight, right, Some(&bias), shape, Order::Rows);
                for (row, column) in (0..rows).flat_map(|row| (0..count).map(move |column| (row, column))) {
                    let expected =
                        bias[row] + product(&weight[row * depth..], &columns[column * depth..], depth);
                    let found = by_column[column * rows + row];
                    assert!((found.to_f32() - expected).abs() < 4e-3 * expected.abs() + 1e-3, "{shape:?}");
                    assert_eq!(found, by_row[row * count + column]);
                }
            }
        }
    }

    #[test]
    fn a_column_does_not_depend_on_its_neighbours() {
        if !is_available() {
            return;
        }
        let (rows, depth, count) = (70, 45, 29);
        let (weight, columns) = (random(rows * depth, 4), random(count * depth, 5));
        let together =
            multiply(&weight, Right::Columns(&columns), None, (rows, depth, count), Order::Columns);
        for (column, together) in columns.chunks_exact(depth).zip(together.chunks_exact(rows)) {
            let alone = multiply(&weight, Right::Columns(column), None, (rows, depth, 1), Order::Columns);
            assert_eq!(alone, together);
        }
    }

    #[test]
    fn dot_products_equal_their_definition() {
        if !is_available() {
            return;
        }
        for length in [0, 1, 31, 32, 200, 1000] {
            let (a, b) = (random(length, 6), random(length, 7));
            assert!((dot(&a, &b) - product(&a, &b, length)).abs() < 1e-3);
        }
    }
}
