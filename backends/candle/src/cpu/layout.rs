//! Rearrangements of elements of any type.

use rayon::prelude::*;

use super::tasks;

/// Side of the squares in which a matrix is transposed.
const BLOCK: usize = 16;

/// Transposes each of the matrices `[rows, columns]`.
pub(crate) fn transpose<T: Copy + Default + Send + Sync>(x: &[T], rows: usize, columns: usize) -> Vec<T> {
    let mut out = vec![T::default(); x.len()];
    if out.is_empty() {
        return out;
    }
    let matrices = x.par_chunks_exact(rows * columns);
    let matrices = out.par_chunks_exact_mut(rows * columns).zip(matrices);
    matrices.with_min_len(tasks::items(rows * columns)).for_each(|(out, x)| {
        let blocks = out.par_chunks_mut(BLOCK * rows).enumerate();
        blocks.with_min_len(tasks::items(BLOCK * rows)).for_each(|(block, out)| {
            let first_column = block * BLOCK;
            for first_row in (0..rows).step_by(BLOCK) {
                for (column, out) in out.chunks_exact_mut(rows).enumerate() {
                    let out = out[first_row..].iter_mut().take(BLOCK);
                    for (out, row) in out.zip(x[first_row * columns..].chunks_exact(columns)) {
                        *out = row[first_column + column];
                    }
                }
            }
        });
    });
    out
}

/// Exchanges the two middle ones of four dimensions `[_, outer, inner, width]`.
pub(crate) fn swap_middle<T: Copy + Default + Send + Sync>(
    x: &[T],
    outer: usize,
    inner: usize,
    width: usize,
) -> Vec<T> {
    let mut out = vec![T::default(); x.len()];
    if out.is_empty() {
        return out;
    }
    let items = x.par_chunks_exact(outer * inner * width);
    let items = out.par_chunks_exact_mut(outer * inner * width).zip(items);
    items.with_min_len(tasks::items(outer * inner * width)).for_each(|(out, x)| {
        let rows = out.par_chunks_exact_mut(outer * width).enumerate();
        rows.with_min_len(tasks::items(outer * width)).for_each(|(index, out)| {
            for (out, x) in out.chunks_exact_mut(width).zip(x.chunks_exact(inner * width)) {
                out.copy_from_slice(&x[index * width..][..width]);
            }
        });
    });
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn matrices_of_odd_sizes_are_transposed() {
        for (rows, columns) in [(1, 1), (3, 50), (17, 16), (40, 33)] {
            let x: Vec<usize> = (0..2 * rows * columns).collect();
            let out = transpose(&x, rows, columns);
            for (index, found) in out.iter().enumerate() {
                let (matrix, place) = (index / (rows * columns), index % (rows * columns));
                assert_eq!(*found, matrix * rows * columns + place % rows * columns + place / rows);
            }
            assert_eq!(transpose(&out, columns, rows), x);
        }
    }

    #[test]
    fn swapping_twice_restores() {
        let (outer, inner, width) = (37, 3, 5);
        let x: Vec<usize> = (0..2 * outer * inner * width).collect();
        let out = swap_middle(&x, outer, inner, width);
        for (index, found) in out.iter().enumerate() {
            let (item, place) = (index / (outer * inner * width), index % (outer * inner * width));
            let (i, o, w) = (place / (outer * width), place / width % outer, place % width);
            assert_eq!(*found, ((item * outer + o) * inner + i) * width + w);
        }
        assert_eq!(swap_middle(&out, inner, outer, width), x);
    }
}
