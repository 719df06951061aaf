//! A sheet of edits to look at.

use std::path::Path;

use fastrand::Rng;
use image::imageops::{self, FilterType};
use image::{Rgb, RgbImage};

use smartedit_core::directory::WriteError;

use crate::world::output::Output;
use crate::world::{Edit, SIZE, Scenario, Split, sample_edit};

const COLUMNS: usize = 8;
const SCALE: usize = 2;
const GAP: usize = 6;

/// Pictures before, above the pictures after, eight edits to a row.
pub fn sheet(edits: &[Edit]) -> RgbImage {
    let side = SCALE * SIZE;
    let columns = edits.len().clamp(1, COLUMNS);
    let rows = edits.len().div_ceil(COLUMNS).max(1);
    let (width, height) = (columns * (side + GAP) + GAP, rows * (2 * side + 2 * GAP) + GAP);
    let mut sheet = RgbImage::from_pixel(width as u32, height as u32, Rgb([24; 3]));
    for (index, edit) in edits.iter().enumerate() {
        let x = GAP + index % COLUMNS * (side + GAP);
        let y = GAP + index / COLUMNS * (2 * side + 2 * GAP);
        for (picture, y) in [(edit.scene.render(), y), (edit.target().render(), y + side)] {
            let large = imageops::resize(&picture, side as u32, side as u32, FilterType::Nearest);
            imageops::replace(&mut sheet, &large, x as i64, y as i64);
        }
    }
    sheet
}

/// Writes edits of every scenario in turn to a directory: `sheet.png`, `instructions.txt`, and the pictures
/// of each before and after.
///
/// # Errors
/// If the directory is there already and not empty, or the file system refuses.
pub fn write_sample(path: &Path, count: usize, seed: u64) -> Result<(), WriteError> {
    let mut rng = Rng::with_seed(seed);
    let scenarios = Scenario::ALL.into_iter().cycle().take(count);
    let edits: Vec<Edit> =
        scenarios.map(|one| sample_edit(&mut rng, Some(one), Split::Train, Split::Train)).collect();
    let directory = Output::create(path)?;
    directory.write_png("sheet.png", &sheet(&edits))?;
    let mut lines = String::new();
    for (index, edit) in edits.iter().enumerate() {
        let number = index + 1;
        directory.write_png(&format!("{number:04}.png"), &edit.scene.render())?;
        directory.write_png(&format!("{number:04}_target.png"), &edit.target().render())?;
        lines += &format!("{number:04} {}: {}\n", edit.scenario.key(), edit.instruction);
    }
    directory.write("instructions.txt", lines.as_bytes())?;
    directory.finish()
}
