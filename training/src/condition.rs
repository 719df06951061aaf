//! The condition that a scene itself gives: which cells an edit concerns, and what it tells a UNet of each.

use tch::{Kind, Tensor};

use crate::world::{Object, SIZE};

/// Functions of a cell's place relative to the object.
const FUNCTIONS: usize = 22;

/// How much of each cell of a `side` × `side` grid an object's box covers, row by row.
pub fn coverage(object: &Object, side: usize) -> Vec<f32> {
    let cell = SIZE as f32 / side as f32;
    let overlap = |start: usize, from: f32| {
        let (start, end) = (start as f32, (start + object.size) as f32);
        ((end.min(from + cell) - start.max(from)).max(0.0)) / cell
    };
    (0..side * side)
        .map(|index| {
            overlap(object.x, (index % side) as f32 * cell) * overlap(object.y, (index / side) as f32 * cell)
        })
        .collect()
}

/// The features that tell a UNet where to draw: for each cell that the object covers a constant vector and, by their
/// own vectors, functions of the cell's place in the object's box, the object's size and whether it is a reflection.
pub struct PlaceFeatures {
    /// `[1 + FUNCTIONS, channels]`.
    vectors: Tensor,
    side: usize,
}

impl PlaceFeatures {
    /// The vectors that a seed gives.
    pub fn new(channels: usize, side: usize, seed: u64) -> Self {
        tch::manual_seed(seed as i64);
        let scale = Tensor::from_slice(&[1.0f32].into_iter().chain([0.35; FUNCTIONS]).collect::<Vec<_>>());
        let vectors = Tensor::randn([1 + FUNCTIONS as i64, channels as i64], tch::kind::FLOAT_CPU);
        Self { vectors: vectors * scale.unsqueeze(1), side }
    }

    /// `[batch, channels, side, side]`.
    pub fn of(&self, objects: &[&Object]) -> Tensor {
        let side = self.side;
        let values: Vec<f32> = objects
            .iter()
            .flat_map(|object| {
                let covered = coverage(object, side);
                (0..side * side).flat_map(move |index| {
                    let functions = functions(object, index % side, index / side, side);
                    let part = covered[index];
                    std::iter::once(part).chain(functions.map(move |value| part * value))
                })
            })
            .collect();
        let (batch, side) = (objects.len() as i64, side as i64);
        let functions = Tensor::from_slice(&values).reshape([batch, side * side, -1]);
        functions.matmul(&self.vectors).transpose(1, 2).reshape([batch, -1, side, side])
    }
}

fn functions(object: &Object, column: usize, row: usize, side: usize) -> impl Iterator<Item = f32> + use<> {
    let cell = SIZE as f32 / side as f32;
    let relative = |index: usize, start: usize| {
        ((index as f32 + 0.5) * cell - start as f32) / object.size as f32 * 2.0 - 1.0
    };
    let (x, y) = (relative(column, object.x), relative(row, object.y));
    let waves = [1.0, 2.0, 3.0].into_iter().flat_map(move |k| {
        let angle = |v: f32| std::f32::consts::PI * k * v / 2.0;
        [angle(x).sin(), angle(x).cos(), angle(y).sin(), angle(y).cos()]
    });
    let size = |pixels: usize| if object.size == pixels { 1.0 } else { 0.0 };
    let others = [
        x,
        y,
        x * y,
        x * x,
        y * y,
        (1.0 - x.abs()).min(1.0 - y.abs()),
        size(16),
        size(24),
        size(32),
        if object.in_mirror { 1.0 } else { 0.0 },
    ];
    waves.chain(others)
}

/// Which latents an edit concerns, `[batch, 1, side, side]` of 0 and 1.
pub fn latent_mask(objects: &[&Object], side: usize) -> Tensor {
    let values: Vec<f32> = objects
        .iter()
        .flat_map(|object| coverage(object, side))
        .map(|covered| if covered > 0.0 { 1.0 } else { 0.0 })
        .collect();
    Tensor::from_slice(&values).reshape([objects.len() as i64, 1, side as i64, side as i64])
}

/// Which patches show the object, `[batch, side · side]` of 0 and 1: those it covers by a quarter or more, or else
/// the one it covers most.
pub fn patch_mask(objects: &[&Object], side: usize) -> Tensor {
    let values: Vec<f32> = objects
        .iter()
        .flat_map(|object| {
            let covered = coverage(object, side);
            let most = covered.iter().copied().fold(0.0, f32::max);
            covered.into_iter().map(move |part| if part >= most.min(0.25) { 1.0 } else { 0.0 })
        })
        .collect();
    Tensor::from_slice(&values).reshape([objects.len() as i64, (side * side) as i64]).to_kind(Kind::Float)
}
