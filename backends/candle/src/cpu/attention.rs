//! Scaled dot-product attention in blocks of queries, so that scores never need memory for all of them.

use rayon::prelude::*;

use super::functions::exponentiate;
use super::matrix::{Destination, Matrix, Threads, multiply};
use super::scratch::with_scratch;
use super::tasks;
use super::vectorised::vectorised;

/// Queries whose scores are held at a time.
const QUERIES: usize = 64;

/// Sizes of an attention.
#[derive(Clone, Copy)]
pub(crate) struct Shape {
    /// Batch times heads.
    pub(crate) heads: usize,
    pub(crate) queries: usize,
    pub(crate) keys: usize,
    pub(crate) head_dim: usize,
}

/// `q [heads, n, d]`, `k` and `v [heads, m, d]`, `mask [n, m]` → `[heads, n, d]`.
pub(crate) fn attention(
    q: &[f32],
    k: &[f32],
    v: &[f32],
    mask: Option<&[f32]>,
    scale: f32,
    shape: &Shape,
) -> Vec<f32> {
    let Shape { heads, queries, keys, head_dim } = *shape;
    let mut out = vec![0.0; heads * queries * head_dim];
    if out.is_empty() {
        return out;
    }
    // A score takes as long as eight of the products that it is the sum of.
    let cost = queries * keys * (1 + head_dim / 8);
    out.par_chunks_mut(queries * head_dim).enumerate().with_min_len(tasks::items(cost)).for_each(
        |(head, out)| {
            let q = &q[head * queries * head_dim..][..queries * head_dim];
            let k = Matrix::new(&k[head * keys * head_dim..], keys, head_dim);
            let v = Matrix::new(&v[head * keys * head_dim..], keys, head_dim);
            out.par_chunks_mut(QUERIES * head_dim).enumerate().for_each(|(block, out)| {
                let first = block * QUERIES;
                let rows = out.len() / head_dim;
                with_scratch(rows * keys, |scores| {
                    let q = Matrix::new(&q[first * head_dim..], rows, head_dim);
                    let mut destination = Destination { data: scores, row_stride: keys };
                    multiply(&mut destination, q, k.transposed(), false, Threads::One);
                    let mut sums = [0.0; QUERIES];
                    for (row, (scores, sum)) in
                        scores.chunks_exact_mut(keys.max(1)).zip(&mut sums).enumerate()
                    {
                        let mask = mask.map(|mask| &mask[(first + row) * keys..][..keys]);
                        *sum = exponentiate(scores, scale, mask);
                    }
                    let mut destination = Destination { data: &mut *out, row_stride: head_dim };
                    multiply(&mut destination, Matrix::new(scores, rows, keys), v, false, Threads::One);
                    vectorised(
                        #[inline(always)]
                        || {
                            for (out, sum) in out.chunks_exact_mut(head_dim).zip(sums) {
                                out.iter_mut().for_each(|value| *value /= sum);
                            }
                        },
                    );
                });
            });
        },
    );
    out
}
