//! What is behind the objects.

use std::sync::LazyLock;

use fastrand::Rng;

use crate::world::SIZE;

/// A background: one colour or a passage between two, perhaps with a faint texture.
#[derive(Clone, Debug, PartialEq)]
pub struct Background {
    from: Shade,
    to: Shade,
    passage: Passage,
    texture: Option<Texture>,
}

/// A colour of the palette, a little off: its name and its channels in `0..=1`.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Shade {
    name: &'static str,
    rgb: [f32; 3],
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Passage {
    Plain,
    Down,
    Right,
    Diagonal,
    AntiDiagonal,
    Outwards,
    Halves,
}

#[derive(Clone, Copy, Debug, PartialEq)]
struct Texture {
    index: usize,
    strength: f32,
}

/// Mid-range colours, so that white, grey and black things all stand out.
const PALETTE: [Shade; 9] = [
    Shade { name: "red", rgb: [0.78, 0.42, 0.42] },
    Shade { name: "orange", rgb: [0.81, 0.60, 0.42] },
    Shade { name: "yellow", rgb: [0.80, 0.77, 0.44] },
    Shade { name: "green", rgb: [0.47, 0.70, 0.47] },
    Shade { name: "blue", rgb: [0.42, 0.55, 0.80] },
    Shade { name: "purple", rgb: [0.62, 0.47, 0.77] },
    Shade { name: "pink", rgb: [0.81, 0.58, 0.70] },
    Shade { name: "brown", rgb: [0.58, 0.47, 0.39] },
    Shade { name: "gray", rgb: [0.60, 0.60, 0.60] },
];

const PASSAGES: [Passage; 6] = [
    Passage::Down,
    Passage::Right,
    Passage::Diagonal,
    Passage::AntiDiagonal,
    Passage::Outwards,
    Passage::Halves,
];

const TEXTURES: usize = 32;

impl Background {
    /// Draws one: a third plain, two fifths textured, all channels in `0.35..=0.85` before the texture.
    pub fn sample(rng: &mut Rng) -> Self {
        let from = Shade::sample(rng);
        let (to, passage) = if rng.f32() < 0.35 {
            (from, Passage::Plain)
        } else {
            (Shade::sample(rng), PASSAGES[rng.usize(..PASSAGES.len())])
        };
        let texture = (rng.f32() < 0.4)
            .then(|| Texture { index: rng.usize(..TEXTURES), strength: 0.01 + 0.015 * rng.f32() });
        Self { from, to, passage, texture }
    }

    /// What to call it: "blue", or "blue and green".
    pub fn name(&self) -> String {
        if self.from.name == self.to.name {
            self.from.name.to_owned()
        } else {
            format!("{} and {}", self.from.name, self.to.name)
        }
    }

    /// Its colour in row `y` and column `x`, channels in `0..=1`.
    pub(crate) fn at(&self, x: usize, y: usize) -> [f32; 3] {
        let share = self.passage.share(x as f32 / SIZE as f32, y as f32 / SIZE as f32);
        let grain =
            self.texture.map_or(0.0, |texture| texture.strength * GRAINS[texture.index][y * SIZE + x]);
        std::array::from_fn(|channel| {
            let (from, to) = (self.from.rgb[channel], self.to.rgb[channel]);
            (from + (to - from) * share + grain).clamp(0.0, 1.0)
        })
    }
}

impl Shade {
    fn sample(rng: &mut Rng) -> Self {
        let Self { name, rgb } = PALETTE[rng.usize(..PALETTE.len())];
        Self { name, rgb: rgb.map(|channel| (channel + 0.1 * (rng.f32() - 0.5)).clamp(0.35, 0.85)) }
    }
}

impl Passage {
    /// How far from the first colour to the second a point of the unit square is.
    fn share(self, x: f32, y: f32) -> f32 {
        match self {
            Self::Plain => 0.0,
            Self::Down => y,
            Self::Right => x,
            Self::Diagonal => (x + y) / 2.0,
            Self::AntiDiagonal => (x - y + 1.0) / 2.0,
            Self::Outwards => ((x - 0.5).hypot(y - 0.5) * 1.4).min(1.0),
            Self::Halves => f32::from(y >= 0.5),
        }
    }
}

/// Smooth noise of about unit strength, a picture each.
static GRAINS: LazyLock<Vec<Vec<f32>>> = LazyLock::new(|| {
    let mut rng = Rng::with_seed(0);
    (0..TEXTURES)
        .map(|_| {
            let (coarse, fine) = (Noise::sample(&mut rng, 4), Noise::sample(&mut rng, 8));
            let point = |index: usize| {
                let (x, y) = ((index % SIZE) as f32 / SIZE as f32, (index / SIZE) as f32 / SIZE as f32);
                coarse.at(x, y) + 0.5 * fine.at(x, y)
            };
            (0..SIZE * SIZE).map(point).collect()
        })
        .collect()
});

/// Values on a square lattice and between them.
struct Noise {
    cells: usize,
    values: Vec<f32>,
}

impl Noise {
    fn sample(rng: &mut Rng, cells: usize) -> Self {
        let values = (0..(cells + 1) * (cells + 1)).map(|_| 3.0 * (rng.f32() - 0.5)).collect();
        Self { cells, values }
    }

    /// The value at a point of the unit square, `1` excluded.
    fn at(&self, x: f32, y: f32) -> f32 {
        let (x, y) = (x * self.cells as f32, y * self.cells as f32);
        let (column, row) = (x as usize, y as usize);
        let ease = |t: f32| t * t * (3.0 - 2.0 * t);
        let (right, down) = (ease(x.fract()), ease(y.fract()));
        let corner = |row: usize, column: usize| self.values[row * (self.cells + 1) + column];
        let across = |row| corner(row, column) * (1.0 - right) + corner(row, column + 1) * right;
        across(row) * (1.0 - down) + across(row + 1) * down
    }
}
