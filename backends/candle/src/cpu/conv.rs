//! Convolution as a matrix product with a bounded column buffer.

use std::ops::Range;

use rayon::prelude::*;
use smartedit_core::engine::Padding;

use super::matrix::{Destination, Matrix, Threads, multiply};
use super::scratch::with_scratch;
use super::{bf16, tasks, winograd};

/// Elements of the column buffer: 16 MiB of `f32`.
const COLUMN_BUFFER: usize = 1 << 22;

/// The largest number of rows and columns that `gemm` takes for a small product.
const SMALL_PRODUCT: usize = 64;

/// Sizes of a convolution.
#[derive(Clone, Copy)]
pub(crate) struct Shape {
    pub(crate) batch: usize,
    pub(crate) channels: usize,
    pub(crate) height: usize,
    pub(crate) width: usize,
    pub(crate) outputs: usize,
    pub(crate) kernel: (usize, usize),
    pub(crate) stride: usize,
    pub(crate) padding: Padding,
}

impl Shape {
    /// Height and width of the result; `None` if the padded picture is smaller than the kernel.
    pub(crate) fn output_size(&self) -> Option<(usize, usize)> {
        let size = |size: usize, before: usize, after: usize, kernel: usize| {
            Some((size + before + after).checked_sub(kernel)?.checked_div(self.stride)? + 1)
        };
        let Padding { top, left, bottom, right } = self.padding;
        Some((size(self.height, top, bottom, self.kernel.0)?, size(self.width, left, right, self.kernel.1)?))
    }

    fn depth(&self) -> usize {
        self.channels * self.kernel.0 * self.kernel.1
    }

    fn is_pointwise(&self) -> bool {
        self.kernel == (1, 1) && self.stride == 1 && self.padding == Padding::all(0)
    }
}

/// `x [batch, channels, h, w]`, `weight [outputs, channels · kh · kw]`, `bias [outputs]` →
/// `[batch, outputs, h', w']`.
pub(crate) fn conv2d(
    x: &[f32],
    weight: &[f32],
    bias: Option<&[f32]>,
    shape: &Shape,
    output_size: (usize, usize),
) -> Vec<f32> {
    if winograd::is_faster(shape, output_size) {
        return winograd::conv2d(x, weight, bias, shape, output_size);
    }
    let matrix = Matrix::new(weight, shape.outputs, shape.depth());
    let add_product = |right: &[f32], count: usize, out: &mut [f32]| {
        if let Some(bias) = bias {
            for (row, bias) in out.chunks_exact_mut(count).zip(bias) {
                row.fill(*bias);
            }
        }
        let mut destination = Destination { data: out, row_stride: count };
        multiply(
            &mut destination,
            matrix,
            Matrix::new(right, shape.depth(), count),
            bias.is_some(),
            Threads::All,
        );
    };
    if shape.is_pointwise() {
        let cells = output_size.0 * output_size.1;
        let mut out = vec![0.0; shape.batch * shape.outputs * cells];
        let pictures = x.chunks_exact((shape.channels * cells).max(1));
        for (picture, out) in pictures.zip(out.chunks_exact_mut((shape.outputs * cells).max(1))) {
            add_product(picture, cells, out);
        }
        return out;
    }
    // `gemm` splits the depth of small products in another way, so that pictures would depend on their neighbours.
    let together = if shape.outputs > SMALL_PRODUCT { shape.batch } else { 1 };
    in_blocks(shape, output_size, together, |rows| {
        let count = rows.len() * output_size.1;
        let mut product = vec![0.0; shape.outputs * count];
        with_scratch(shape.depth() * count, |columns| {
            let cells = columns.par_chunks_exact_mut(count).enumerate();
            cells.with_min_len(tasks::items(count)).for_each(|(index, column)| {
                fill_column(column, x, shape, index, rows.clone(), output_size);
            });
            add_product(columns, count, &mut product);
        });
        product
    })
}

/// The same in `bf16`, where [`bf16::is_available`].
pub(crate) fn conv2d_bf16(
    x: &[half::bf16],
    weight: &[half::bf16],
    bias: Option<&[f32]>,
    shape: &Shape,
    output_size: (usize, usize),
) -> Vec<half::bf16> {
    let depth = shape.depth();
    in_blocks(shape, output_size, shape.batch, |rows| {
        let count = rows.len() * output_size.1;
        with_scratch(depth.div_ceil(2) * count, |pairs| {
            pairs.par_chunks_exact_mut(count).enumerate().for_each_init(
                || [vec![half::bf16::ZERO; count], vec![half::bf16::ZERO; count]],
                |[upper, lower], (step, pairs)| {
                    fill_column(upper, x, shape, 2 * step, rows.clone(), output_size);
                    if 2 * step + 1 < depth {
                        fill_column(lower, x, shape, 2 * step + 1, rows.clone(), output_size);
                    } else {
                        lower.fill(half::bf16::ZERO);
                    }
                    bf16::pair_up(upper, lower, pairs);
                },
            );
            let right = bf16::Right::Pairs(pairs);
            bf16::multiply(weight, right, bias, (shape.outputs, depth, count), bf16::Order::Rows)
        })
    })
}

/// Computes blocks of output rows, counted over `together` pictures, so that the columns of a block stay within a bound.
/// `product` makes `[outputs, rows · w']` of a range of rows.
fn in_blocks<T: Copy + Default + Send + Sync>(
    shape: &Shape,
    (height, width): (usize, usize),
    together: usize,
    product: impl Fn(Range<usize>) -> Vec<T>,
) -> Vec<T> {
    let mut out = vec![T::default(); shape.batch * shape.outputs * height * width];
    if out.is_empty() {
        return out;
    }
    let rows = (COLUMN_BUFFER / (shape.depth() * width).max(1)).max(1);
    for first_picture in (0..shape.batch).step_by(together) {
        let end = (first_picture + together).min(shape.batch) * height;
        for first in (first_picture * height..end).step_by(rows) {
            let block = first..end.min(first + rows);
            let product = product(block.clone());
            let planes = out.par_chunks_exact_mut(height * width).enumerate();
            planes.with_min_len(tasks::items(height * width)).for_each(|(index, plane)| {
                let (picture, output) = (index / shape.outputs, index % shape.outputs);
                let (start, end) = (block.start.max(picture * height), block.end.min((picture + 1) * height));
                if start < end {
                    let from = (output * block.len() + start - block.start) * width;
                    let to = (start - picture * height) * width;
                    let length = (end - start) * width;
                    plane[to..to + length].copy_from_slice(&product[from..from + length]);
                }
            });
        }
    }
    out
}

/// The column at `index` of the depth, which counts `(channel, ky, kx)`: for every cell of the given output rows, the
/// input that this element of the kernel meets.
fn fill_column<T: Copy + Default>(
    column: &mut [T],
    x: &[T],
    shape: &Shape,
    index: usize,
    rows: Range<usize>,
    (output_height, output_width): (usize, usize),
) {
    let (kernel_height, kernel_width) = shape.kernel;
    let (channel, kernel) = (index / (kernel_height * kernel_width), index % (kernel_height * kernel_width));
    let (ky, kx) = (kernel / kernel_width, kernel % kernel_width);
    for (row, out) in rows.zip(column.chunks_exact_mut(output_width)) {
        let plane = (row / output_height * shape.channels + channel) * shape.height * shape.width;
        match (row % output_height * shape.stride + ky).checked_sub(shape.padding.top) {
            Some(y) if y < shape.height => {
                fill_row(out, &x[plane + y * shape.width..][..shape.width], kx, shape)
            }
            _ => out.fill(T::default()),
        }
    }
}

fn fill_row<T: Copy + Default>(out: &mut [T], input: &[T], kx: usize, shape: &Shape) {
    let left = shape.padding.left;
    if shape.stride == 1 {
        let start = left.saturating_sub(kx).min(out.len());
        let offset = (start + kx).saturating_sub(left);
        let count = input.len().saturating_sub(offset).min(out.len() - start);
        out[..start].fill(T::default());
        if count > 0 {
            out[start..start + count].copy_from_slice(&input[offset..offset + count]);
        }
        out[start + count..].fill(T::default());
        return;
    }
    for (x, out) in out.iter_mut().enumerate() {
        let position = (x * shape.stride + kx).checked_sub(left);
        *out = position.and_then(|position| input.get(position)).copied().unwrap_or_default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The definition, cell by cell.
    fn reference(x: &[f32], weight: &[f32], shape: &Shape, size: (usize, usize)) -> Vec<f32> {
        let (kh, kw) = shape.kernel;
        let mut out = Vec::new();
        for b in 0..shape.batch {
            for o in 0..shape.outputs {
                for oy in 0..size.0 {
                    for ox in 0..size.1 {
                        let mut sum = 0.0;
                        for c in 0..shape.channels {
                            for ky in 0..kh {
                                for kx in 0..kw {
                                    let y = (oy * shape.stride + ky).wrapping_sub(shape.padding.top);
                                    let xx = (ox * shape.stride + kx).wrapping_sub(shape.padding.left);
                                    if y < shape.height && xx < shape.width {
                                        let plane = b * shape.channels + c;
                                        sum += x[(plane * shape.height + y) * shape.width + xx]
                                            * weight[((o * shape.channels + c) * kh + ky) * kw + kx];
                                    }
                                }
                            }
                        }
                        out.push(sum);
                    }
                }
            }
        }
        out
    }

    #[test]
    fn equals_the_definition() {
        let value = |i: usize| ((i * 37 + 11) % 23) as f32 / 23.0 - 0.5;
        let paddings = [Padding::all(0), Padding::all(1), Padding { top: 0, left: 0, bottom: 1, right: 1 }];
        for (kernel, stride) in [(1, 1), (3, 1), (3, 2), (2, 2)] {
            for padding in paddings {
                let shape = Shape {
                    batch: 2,
                    channels: 3,
                    height: 5,
                    width: 7,
                    outputs: 4,
                    kernel: (kernel, kernel),
                    stride,
                    padding,
                };
                let size = shape.output_size().expect("the kernel fits");
                let x: Vec<f32> = (0..2 * 3 * 5 * 7).map(value).collect();
                let weight: Vec<f32> = (0..4 * 3 * kernel * kernel).map(value).collect();
                let found = conv2d(&x, &weight, None, &shape, size);
                for (found, expected) in found.iter().zip(reference(&x, &weight, &shape, size)) {
                    assert!((found - expected).abs() < 1e-5, "{kernel} {stride} {padding:?}");
                }
            }
        }
    }

    fn random(count: usize, seed: u64) -> Vec<f32> {
        let mut generator = fastrand::Rng::with_seed(seed);
        (0..count).map(|_| 2.0 * generator.f32() - 1.0).collect()
    }

    /// The sizes at which [`winograd`] takes over, with rows and columns that do not fill its tiles.
    #[test]
    fn equals_the_definition_where_tiles_are_transformed() {
        let paddings = [Padding::all(1), Padding::all(0), Padding { top: 0, left: 2, bottom: 3, right: 0 }];
        for (padding, (height, width)) in paddings.into_iter().zip([(16, 16), (19, 90), (35, 18)]) {
            let (batch, channels, outputs) = (2, 49, 51);
            let shape = Shape { batch, channels, height, width, outputs, kernel: (3, 3), stride: 1, padding };
            let size = shape.output_size().expect("the kernel fits");
            assert!(winograd::is_faster(&shape, size));
            let (x, weight) =
                (random(batch * channels * height * width, 1), random(outputs * channels * 9, 2));
            let bias = random(outputs, 3);
            let found = conv2d(&x, &weight, Some(&bias), &shape, size);
            let expected = reference(&x, &weight, &shape, size);
            for (index, (found, expected)) in found.iter().zip(expected).enumerate() {
                let expected = expected + bias[index / (size.0 * size.1) % outputs];
                assert!((found - expected).abs() < 5e-5, "{padding:?} at {index}: {found} for {expected}");
            }
        }
    }

    #[test]
    fn a_picture_does_not_depend_on_its_neighbours() {
        for (side, outputs) in [(17, 48), (4, 70), (7, 5)] {
            let shape = Shape {
                batch: 3,
                channels: 60,
                height: side,
                width: side,
                outputs,
                kernel: (3, 3),
                stride: 1,
                padding: Padding::all(1),
            };
            let (x, weight) = (random(3 * 60 * side * side, 4), random(outputs * 60 * 9, 5));
            let together = conv2d(&x, &weight, None, &shape, (side, side));
            let alone = Shape { batch: 1, ..shape };
            for (x, together) in
                x.chunks_exact(60 * side * side).zip(together.chunks_exact(outputs * side * side))
            {
                assert_eq!(conv2d(x, &weight, None, &alone, (side, side)), together);
            }
        }
    }

    #[test]
    fn a_kernel_larger_than_the_picture_has_no_output() {
        let shape = Shape {
            batch: 1,
            channels: 1,
            height: 2,
            width: 2,
            outputs: 1,
            kernel: (3, 3),
            stride: 1,
            padding: Padding::all(0),
        };
        assert_eq!(shape.output_size(), None);
    }
}
