//! Convolution with 3×3 kernels by minimal filtering, F(2×2, 3×3) of Lavin and Gray (arXiv:1509.09308): 16
//! multiplications for four cells of the output instead of 36.
//!
//! A *tile* is a square of four output cells with the 4×4 input cells that they read. Tiles and kernels are brought
//! into a form of 16 *elements* in which a convolution is a product of each element by itself, summed over channels:
//! 16 matrix products. These run on packed panels, whose sums need no memory of their own.

use std::ops::Range;

use rayon::prelude::*;

use super::conv::Shape;
use super::microkernel::{COLUMNS, ROWS, multiply_panels};
use super::scratch::with_scratch;
use super::vectorised::vectorised;

const KERNEL: usize = 9;
const ELEMENTS: usize = 16;

/// Elements of the input tiles that are held at a time: 32 MiB of `f32`.
const TILE_BUFFER: usize = 1 << 23;

/// Panels of outputs whose sums a thread holds at a time.
const OUTPUT_PANELS: usize = 8;

/// Cells of a picture from which on the work on the kernels is outweighed. The batch has no say: a picture's result
/// must not depend on its neighbours.
const MIN_CELLS: usize = 256;

/// Channels from which on the work on tiles is outweighed.
const MIN_CHANNELS: usize = 48;

/// Whether this is the faster way.
pub(super) fn is_faster(shape: &Shape, output_size: (usize, usize)) -> bool {
    shape.kernel == (3, 3)
        && shape.stride == 1
        && output_size.0 * output_size.1 >= MIN_CELLS
        && shape.channels >= MIN_CHANNELS
        && shape.outputs >= MIN_CHANNELS
}

/// As [`super::conv2d`], for kernels of 3×3 and a stride of 1.
pub(super) fn conv2d(
    x: &[f32],
    weight: &[f32],
    bias: Option<&[f32]>,
    shape: &Shape,
    output_size: (usize, usize),
) -> Vec<f32> {
    let grid = Grid { rows: output_size.0.div_ceil(2), columns: output_size.1.div_ceil(2) };
    let convolution = Convolution { x, weight, bias, shape, output_size, grid };
    let mut out = vec![0.0; shape.batch * shape.outputs * output_size.0 * output_size.1];
    if out.is_empty() {
        return out;
    }
    let tiles = shape.batch * grid.rows * grid.columns;
    let panel = ELEMENTS * shape.channels * ROWS;
    let panels = tiles.div_ceil(ROWS).min((TILE_BUFFER / panel).max(1));
    with_scratch(panels * panel, |buffer| {
        for first in (0..tiles).step_by(panels * ROWS) {
            let tiles = first..tiles.min(first + panels * ROWS);
            let buffer = &mut buffer[..tiles.len().div_ceil(ROWS) * panel];
            buffer.par_chunks_exact_mut(panel).enumerate().for_each(|(index, panel)| {
                let first = tiles.start + index * ROWS;
                let tiles = first..tiles.end.min(first + ROWS);
                vectorised(
                    #[inline(always)]
                    || convolution.transform_tiles(tiles.clone(), panel),
                );
            });
            convolution.multiply(buffer, tiles, &mut out);
        }
    });
    out
}

/// Rows and columns of tiles of one picture.
#[derive(Clone, Copy)]
struct Grid {
    rows: usize,
    columns: usize,
}

/// Adjacent tiles of one row of one picture.
struct Run {
    picture: usize,
    row: usize,
    column: usize,
    length: usize,
}

impl Grid {
    /// Splits a range of tiles, counted over the rows of all pictures.
    fn runs(self, tiles: Range<usize>) -> impl Iterator<Item = Run> {
        let mut next = tiles.start;
        std::iter::from_fn(move || {
            let column = next % self.columns;
            let row = next / self.columns;
            let length = (self.columns - column).min(tiles.end - next);
            next += length;
            (length > 0).then_some(Run { picture: row / self.rows, row: row % self.rows, column, length })
        })
    }
}

struct Convolution<'a> {
    x: &'a [f32],
    weight: &'a [f32],
    bias: Option<&'a [f32]>,
    shape: &'a Shape,
    output_size: (usize, usize),
    grid: Grid,
}

impl Convolution<'_> {
    /// Transforms at most [`ROWS`] tiles into a panel `[ELEMENTS, channels, ROWS]`.
    #[inline(always)]
    fn transform_tiles(&self, tiles: Range<usize>, panel: &mut [f32]) {
        let Shape { channels, height, width, .. } = *self.shape;
        if tiles.len() < ROWS {
            panel.fill(0.0);
        }
        let mut lane = 0;
        for run in self.grid.runs(tiles) {
            let pictures = &self.x[run.picture * channels * height * width..];
            for (channel, plane) in pictures.chunks_exact(height * width).take(channels).enumerate() {
                let combined = self.combine_rows(plane, &run);
                for (row, cells) in combined.iter().enumerate() {
                    let [first, second, third, fourth] =
                        std::array::from_fn(|column| ((row * 4 + column) * channels + channel) * ROWS + lane);
                    let length = run.length;
                    for tile in 0..length {
                        panel[first + tile] = cells.even[tile] - cells.even[tile + 1];
                    }
                    for tile in 0..length {
                        panel[second + tile] = cells.odd[tile] + cells.even[tile + 1];
                    }
                    for tile in 0..length {
                        panel[third + tile] = cells.even[tile + 1] - cells.odd[tile];
                    }
                    for tile in 0..length {
                        panel[fourth + tile] = cells.odd[tile] - cells.odd[tile + 1];
                    }
                }
            }
            lane += run.length;
        }
    }

    /// The four rows of a run of tiles, combined as the transform asks.
    #[inline(always)]
    fn combine_rows(&self, plane: &[f32], run: &Run) -> [Cells; 4] {
        let row = |index: usize| self.cells(plane, 2 * run.row + index, run);
        let rows = [row(0), row(1), row(2), row(3)];
        let combine = |a: &Cells, b: &Cells, sign: f32| Cells {
            even: std::array::from_fn(|i| a.even[i] + sign * b.even[i]),
            odd: std::array::from_fn(|i| a.odd[i] + sign * b.odd[i]),
        };
        [
            combine(&rows[0], &rows[2], -1.0),
            combine(&rows[1], &rows[2], 1.0),
            combine(&rows[2], &rows[1], -1.0),
            combine(&rows[1], &rows[3], -1.0),
        ]
    }

    /// The cells of a row of the padded picture that a run of tiles reads.
    #[inline(always)]
    fn cells(&self, plane: &[f32], padded_row: usize, run: &Run) -> Cells {
        let Shape { height, width, padding, .. } = *self.shape;
        let mut cells = Cells { even: [0.0; ROWS + 1], odd: [0.0; ROWS + 1] };
        let Some(row) = padded_row.checked_sub(padding.top).filter(|row| *row < height) else {
            return cells;
        };
        let row = &plane[row * width..][..width];
        let start = 2 * run.column;
        if start >= padding.left && start - padding.left + 2 * (run.length + 1) <= width {
            let pairs = row[start - padding.left..].as_chunks::<2>().0;
            let places = cells.even.iter_mut().zip(&mut cells.odd).take(run.length + 1);
            for ((even, odd), pair) in places.zip(pairs) {
                (*even, *odd) = (pair[0], pair[1]);
            }
            return cells;
        }
        let cell = |column: usize| column.checked_sub(padding.left).and_then(|column| row.get(column));
        for (index, (even, odd)) in cells.even.iter_mut().zip(&mut cells.odd).enumerate().take(run.length + 1)
        {
            *even = cell(start + 2 * index).copied().unwrap_or(0.0);
            *odd = cell(start + 2 * index + 1).copied().unwrap_or(0.0);
        }
        cells
    }

    /// Writes the output cells of the transformed tiles.
    fn multiply(&self, transformed: &[f32], tiles: Range<usize>, out: &mut [f32]) {
        let Shape { outputs, channels, .. } = *self.shape;
        let panels = outputs.div_ceil(COLUMNS);
        let share = panels.div_ceil(rayon::current_num_threads());
        let per_task = share.div_ceil(share.div_ceil(OUTPUT_PANELS));
        let mut tasks: Vec<Vec<&mut [f32]>> = Vec::new();
        tasks.resize_with(panels.div_ceil(per_task), Vec::new);
        for (index, plane) in out.chunks_exact_mut(self.output_size.0 * self.output_size.1).enumerate() {
            tasks[index % outputs / (per_task * COLUMNS)].push(plane);
        }
        tasks.into_par_iter().enumerate().for_each(|(index, mut planes)| {
            let first = index * per_task * COLUMNS;
            let task = first..outputs.min(first + per_task * COLUMNS);
            let panels = task.len().div_ceil(COLUMNS);
            let kernels = ELEMENTS * panels * channels * COLUMNS;
            with_scratch(kernels + ELEMENTS * panels * COLUMNS * ROWS, |scratch| {
                let (kernels, sums) = scratch.split_at_mut(kernels);
                vectorised(
                    #[inline(always)]
                    || self.transform_kernels(task.clone(), kernels),
                );
                let panel = ELEMENTS * channels * ROWS;
                for (index, transformed) in transformed.chunks_exact(panel).enumerate() {
                    multiply_elements(transformed, kernels, sums, channels);
                    let first = tiles.start + index * ROWS;
                    let tiles = first..tiles.end.min(first + ROWS);
                    vectorised(
                        #[inline(always)]
                        || self.write_tiles(tiles.clone(), task.clone(), sums, &mut planes),
                    );
                }
            });
        });
    }

    /// Transforms the kernels of some outputs into panels `[ELEMENTS, panels, channels, COLUMNS]`.
    #[inline(always)]
    fn transform_kernels(&self, outputs: Range<usize>, kernels: &mut [f32]) {
        let channels = self.shape.channels;
        let element = outputs.len().div_ceil(COLUMNS) * channels * COLUMNS;
        for (index, first) in outputs.clone().step_by(COLUMNS).enumerate() {
            let count = COLUMNS.min(outputs.end - first);
            for channel in 0..channels {
                let mut kernel = [[0.0; COLUMNS]; KERNEL];
                for output in 0..count {
                    let weight = &self.weight[((first + output) * channels + channel) * KERNEL..][..KERNEL];
                    for (kernel, &weight) in kernel.iter_mut().zip(weight) {
                        kernel[output] = weight;
                    }
                }
                let place = (index * channels + channel) * COLUMNS;
                for (number, values) in transform_kernel(&kernel).iter().enumerate() {
                    kernels[number * element + place..][..COLUMNS].copy_from_slice(values);
                }
            }
        }
    }

    /// Brings sums `[panels, ELEMENTS, COLUMNS, ROWS]` back into cells, and adds the bias.
    #[inline(always)]
    fn write_tiles(&self, tiles: Range<usize>, task: Range<usize>, sums: &[f32], planes: &mut [&mut [f32]]) {
        let (height, width) = self.output_size;
        for (index, output) in task.clone().enumerate() {
            let (panel, column) = (index / COLUMNS, index % COLUMNS);
            let bias = self.bias.map_or(0.0, |bias| bias[output]);
            let cells = cells_of(&sums[panel * ELEMENTS * COLUMNS * ROWS..], column, bias);
            let mut lane = 0;
            for run in self.grid.runs(tiles.clone()) {
                let plane = &mut planes[run.picture * task.len() + index];
                for (parity, [left, right]) in cells.iter().enumerate() {
                    let row = 2 * run.row + parity;
                    if row >= height {
                        continue;
                    }
                    let out =
                        &mut plane[row * width..][2 * run.column..width.min(2 * (run.column + run.length))];
                    let (pairs, rest) = out.as_chunks_mut::<2>();
                    let (left, right) = (&left[lane..], &right[lane..]);
                    for ((pair, &left), &right) in pairs.iter_mut().zip(left).zip(right) {
                        *pair = [left, right];
                    }
                    if let [last] = rest {
                        *last = left[pairs.len()];
                    }
                }
                lane += run.length;
            }
        }
    }
}

/// Cells of a row at even and at odd places.
struct Cells {
    even: [f32; ROWS + 1],
    odd: [f32; ROWS + 1],
}

/// `Σ` over channels of tiles `[ELEMENTS, channels, ROWS]` and kernels `[ELEMENTS, panels, channels, COLUMNS]` →
/// `[panels, ELEMENTS, COLUMNS, ROWS]`.
fn multiply_elements(tiles: &[f32], kernels: &[f32], sums: &mut [f32], channels: usize) {
    let kernels = kernels.chunks_exact(kernels.len() / ELEMENTS);
    for (number, (tiles, kernels)) in tiles.chunks_exact(channels * ROWS).zip(kernels).enumerate() {
        for (index, kernels) in kernels.chunks_exact(channels * COLUMNS).enumerate() {
            let sums = &mut sums[(index * ELEMENTS + number) * COLUMNS * ROWS..][..COLUMNS * ROWS];
            multiply_panels(tiles, kernels, sums);
        }
    }
}

/// `G g Gᵀ` of one kernel per lane.
#[inline(always)]
fn transform_kernel(kernel: &[[f32; COLUMNS]; KERNEL]) -> [[f32; COLUMNS]; ELEMENTS] {
    let mut rows = [[0.0; COLUMNS]; 12];
    for column in 0..3 {
        for lane in 0..COLUMNS {
            let [a, b, c] = [kernel[column][lane], kernel[3 + column][lane], kernel[6 + column][lane]];
            rows[column][lane] = a;
            rows[3 + column][lane] = 0.5 * (a + b + c);
            rows[6 + column][lane] = 0.5 * (a - b + c);
            rows[9 + column][lane] = c;
        }
    }
    let mut elements = [[0.0; COLUMNS]; ELEMENTS];
    for row in 0..4 {
        for lane in 0..COLUMNS {
            let [a, b, c] = [rows[3 * row][lane], rows[3 * row + 1][lane], rows[3 * row + 2][lane]];
            elements[4 * row][lane] = a;
            elements[4 * row + 1][lane] = 0.5 * (a + b + c);
            elements[4 * row + 2][lane] = 0.5 * (a - b + c);
            elements[4 * row + 3][lane] = c;
        }
    }
    elements
}

/// `Aᵀ m A` of one tile per lane: the four cells of each, from sums `[ELEMENTS, COLUMNS, ROWS]`.
#[inline(always)]
fn cells_of(sums: &[f32], column: usize, bias: f32) -> [[[f32; ROWS]; 2]; 2] {
    let element = |number: usize| &sums[(number * COLUMNS + column) * ROWS..][..ROWS];
    let columns: [[[f32; ROWS]; 2]; 4] = std::array::from_fn(|column| {
        let [a, b, c, d] = [element(column), element(4 + column), element(8 + column), element(12 + column)];
        [
            std::array::from_fn(|lane| a[lane] + b[lane] + c[lane]),
            std::array::from_fn(|lane| b[lane] - c[lane] - d[lane]),
        ]
    });
    std::array::from_fn(|row| {
        let [a, b, c, d] = columns.each_ref().map(|column| &column[row]);
        [
            std::array::from_fn(|lane| a[lane] + b[lane] + c[lane] + bias),
            std::array::from_fn(|lane| b[lane] - c[lane] - d[lane] + bias),
        ]
    })
}
