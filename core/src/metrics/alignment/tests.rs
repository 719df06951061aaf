//! Constructed scenes: grey, with squares of one colour on it.

use image::{Rgb, RgbImage};

use super::*;

const GREY: [u8; 3] = [128; 3];
const RED: [u8; 3] = [200, 40, 40];
const BLUE: [u8; 3] = [40, 40, 200];
const GREEN: [u8; 3] = [40, 200, 40];

/// A square of 8×8 pixels from a corner on.
type Square = ((u32, u32), [u8; 3]);

const LEFT: (u32, u32) = (4, 12);
const RIGHT: (u32, u32) = (20, 12);

fn scene(squares: &[Square]) -> RgbImage {
    RgbImage::from_fn(32, 32, |x, y| {
        let within =
            |&&((left, top), _): &&Square| (left..left + 8).contains(&x) && (top..top + 8).contains(&y);
        Rgb(squares.iter().find(within).map_or(GREY, |square| square.1))
    })
}

/// Two red squares of which the left one becomes blue.
struct Scene {
    source: RgbImage,
    target: RgbImage,
    wrong_places: Vec<RgbImage>,
    wrong_classes: Vec<RgbImage>,
    mask: Mask,
}

impl Scene {
    fn new() -> Self {
        Self {
            source: scene(&[(LEFT, RED), (RIGHT, RED)]),
            target: scene(&[(LEFT, BLUE), (RIGHT, RED)]),
            wrong_places: vec![scene(&[(LEFT, RED), (RIGHT, BLUE)])],
            wrong_classes: vec![scene(&[(LEFT, GREEN), (RIGHT, RED)]), scene(&[(RIGHT, RED)])],
            mask: Mask::from_picture(&RgbImage::from_fn(32, 32, |x, y| {
                Rgb([if (4..12).contains(&x) && (12..20).contains(&y) { 255 } else { 0 }; 3])
            })),
        }
    }

    fn align(&self, edited: &RgbImage) -> Alignment {
        let outcomes = Outcomes {
            source: &self.source,
            target: &self.target,
            wrong_places: &self.wrong_places,
            wrong_classes: &self.wrong_classes,
            mask: &self.mask,
        };
        alignment(edited, &outcomes).unwrap()
    }
}

#[test]
fn the_target_is_aligned() {
    let scene = Scene::new();
    let found = scene.align(&scene.target);
    assert!(found.strictly_aligned(), "{found:?}");
    assert_eq!((found.edit_psnr, found.background_psnr), (f64::INFINITY, Some(f64::INFINITY)));
}

#[test]
fn the_source_is_not() {
    let scene = Scene::new();
    let found = scene.align(&scene.source);
    assert_eq!(found.misalignments[0], Misalignment::Unedited);
    assert!(!found.aligned() && !found.strictly_aligned(), "{found:?}");
}

#[test]
fn an_edit_of_the_other_object_is_not() {
    let scene = Scene::new();
    let found = scene.align(&scene.wrong_places[0]);
    assert!(found.misalignments.contains(&Misalignment::WrongPlace(0)), "{found:?}");
}

/// Both squares blue: as near to the wrong place as to the target.
#[test]
fn an_edit_of_both_objects_is_not() {
    let scene_ = Scene::new();
    let found = scene_.align(&scene(&[(LEFT, BLUE), (RIGHT, BLUE)]));
    assert!(found.misalignments.contains(&Misalignment::WrongPlace(0)), "{found:?}");
    assert!(!found.misalignments.contains(&Misalignment::Unedited), "{found:?}");
}

#[test]
fn another_class_at_the_right_place_is_aligned_but_not_strictly() {
    let scene_ = Scene::new();
    // Nearer to blue than to red, and to green and to nothing than to blue.
    let found = scene_.align(&scene(&[(LEFT, [40, 150, 130]), (RIGHT, RED)]));
    assert!(found.aligned() && !found.strictly_aligned(), "{found:?}");
    assert_eq!(found.mistaken_classes, [0, 1]);
    let expected = peak_signal_to_noise((110.0 * 110.0 + 70.0 * 70.0) / 3.0);
    assert!((found.edit_psnr - expected).abs() < 1e-9, "{found:?}");
}

#[test]
fn the_background_must_be_kept() {
    let scene_ = Scene::new();
    let changed = |by: u8| {
        let mut edited = scene_.target.clone();
        let outside =
            edited.enumerate_pixels_mut().filter(|(x, y, _)| !((4..12).contains(x) && (12..20).contains(y)));
        outside.for_each(|(_, _, pixel)| pixel.0 = pixel.0.map(|value| value + by));
        scene_.align(&edited)
    };
    // 20 dB are an error of 25.5 levels.
    let kept = changed(25);
    assert!(kept.strictly_aligned(), "{kept:?}");
    assert!((kept.background_psnr.unwrap() - peak_signal_to_noise(625.0)).abs() < 1e-9, "{kept:?}");
    let lost = changed(26);
    assert_eq!(lost.misalignments, [Misalignment::Background]);
    assert_eq!(lost.edit_psnr, f64::INFINITY);
}

/// A shadow outside the mask that the target has and the source lacks is no part of the background.
#[test]
fn what_the_target_changes_outside_the_mask_is_no_background() {
    let mut scene = Scene::new();
    let shadow = |picture: &mut RgbImage| (0..32).for_each(|x| picture.put_pixel(x, 31, Rgb([0; 3])));
    shadow(&mut scene.target);
    let found = scene.align(&scene.target);
    assert_eq!(found.background_psnr, Some(f64::INFINITY));
    assert!(found.aligned(), "{found:?}");
}

#[test]
fn two_levels_are_no_difference() {
    let mut almost = Scene::new().source;
    almost.pixels_mut().for_each(|pixel| pixel.0 = pixel.0.map(|value| value + 2));
    assert!(!differ(&almost, &Scene::new().source));
    almost.get_pixel_mut(3, 3).0[1] += 1;
    assert!(differ(&almost, &Scene::new().source));
}

#[test]
fn an_edit_of_another_size_comes_to_the_sources() {
    let scene = Scene::new();
    let large = resize(&scene.target, 64, 96, Filter::Bicubic);
    assert!(scene.align(&large).strictly_aligned());
}

#[test]
fn outcomes_of_another_size_are_named() {
    let mut scene = Scene::new();
    scene.wrong_classes[1] = RgbImage::new(16, 8);
    let outcomes = Outcomes {
        source: &scene.source,
        target: &scene.target,
        wrong_places: &scene.wrong_places,
        wrong_classes: &scene.wrong_classes,
        mask: &scene.mask,
    };
    let error = alignment(&scene.target, &outcomes).unwrap_err();
    assert_eq!(error.to_string(), "wrong class 2 is 16×8 pixels, the source 32×32");
}
