//! How large the input of a stage may be: about as large as the largest edit makes it.

use smartedit_core::picture::SIDE_MULTIPLE;
use smartedit_core::stages::Dim;

use crate::config::Limits;
use crate::service::inference::catalog::Spec;

/// Rows of a batch.
const MAX_BATCH: usize = 64;

/// Tokens of a conditioning.
const MAX_TOKENS: usize = 256;

/// Branches of guidance, each of which has the edit's size.
const BRANCHES: u64 = 3;

/// Checks the shape of an input, of which each dimension is one that the model takes.
pub(super) fn check(spec: &Spec, shape: &[usize], limits: &Limits) -> Result<(), String> {
    let size = |wanted: &str| {
        let found = spec
            .shape
            .iter()
            .zip(shape)
            .find(|(dim, _)| matches!(dim, Dim::Any(name) | Dim::MultipleOf(name, _) if *name == wanted));
        found.map(|(dim, size)| (*dim, *size))
    };
    let batch = size("batch").map_or(1, |(_, batch)| batch);
    let of = |name| size(name).map_or(0, |(_, size)| size);
    for (name, found, most) in [
        ("batch", batch, MAX_BATCH),
        ("features", of("features"), MAX_BATCH),
        ("tokens", of("tokens"), MAX_TOKENS),
    ] {
        if found > most {
            return Err(format!("has {name} {found}, at most {most} is allowed"));
        }
    }
    if let (Some((dim, height)), Some((_, width))) = (size("height"), size("width")) {
        picture(dim, batch, [height, width], limits)?;
    }
    Ok(())
}

/// Checks height and width of pictures or, where they need not be multiples of anything, of latents.
fn picture(dim: Dim, batch: usize, sides: [usize; 2], limits: &Limits) -> Result<(), String> {
    let scale = match dim {
        Dim::MultipleOf(..) => 1,
        Dim::Is(_) | Dim::Any(_) => u64::from(SIDE_MULTIPLE),
    };
    let [height, width] = sides.map(|side| (side as u64).saturating_mul(scale));
    let (side, most) = (height.max(width), u64::from(limits.max_edit_side));
    if side > most {
        return Err(format!("is of pictures with sides up to {side}, at most {most} are allowed"));
    }
    let pixels = height.saturating_mul(width).saturating_mul(batch as u64);
    let most = limits.max_edit_pixels.saturating_mul(BRANCHES);
    if pixels > most {
        return Err(format!("is of {pixels} pixels in all, at most {most} are allowed"));
    }
    Ok(())
}
