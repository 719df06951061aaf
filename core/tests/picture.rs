//! Reading and preprocessing pictures against the reference's recorded ones.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use std::path::Path;

use image::codecs::jpeg::JpegEncoder;
use image::codecs::webp::WebPEncoder;
use image::{ImageEncoder, Rgb, RgbImage};
use ndarray::{Array4, Ix4};
use proptest::prelude::*;
use smartedit_core::model::{Activation, VisionConfig};
use smartedit_core::picture::Resize;
use smartedit_core::picture::{
    Alpha, DecodeOptions, Filter, Format, Limits, PictureError, decode, dimensions, encode, floor_sides,
    from_tensor, pixel_values, prepare, prepared_size, resize, to_tensor,
};
use support::{Pack, json, relative_difference};

/// How the reference reads pictures.
fn reference(ignore_orientation: bool) -> DecodeOptions {
    DecodeOptions { alpha: Alpha::Drop, ignore_orientation, limits: Limits::default() }
}

fn read(path: &Path, options: &DecodeOptions) -> RgbImage {
    decode(&std::fs::read(path).unwrap(), options).unwrap()
}

fn squash(picture: &RgbImage, like: &RgbImage) -> RgbImage {
    resize(picture, like.width(), like.height(), Filter::Bicubic)
}

/// The vision tower of the pack, as far as pictures are concerned.
fn vision(pack: &Pack) -> VisionConfig {
    let folder = pack.official(&["preprocessor_config.json", "config.json"]);
    let config = json(&folder.join("preprocessor_config.json"));
    let three = |name: &str| {
        let values: Vec<f32> =
            config[name].as_array().unwrap().iter().map(|value| value.as_f64().unwrap() as f32).collect();
        <[f32; 3]>::try_from(values).unwrap()
    };
    let pixels = pack.tensors.f32("case0.pixel_values");
    VisionConfig {
        hidden_size: 0,
        intermediate_size: 0,
        num_layers: 0,
        num_heads: 0,
        image_size: pixels.shape()[3],
        patch_size: 14,
        layer_norm_eps: 1e-5,
        activation: Activation::QuickGelu,
        image_mean: three("image_mean"),
        image_std: three("image_std"),
    }
}

#[test]
fn golden_pictures_of_edits() {
    let pack = Pack::open();
    let vision = vision(&pack);
    for (index, case) in pack.json["cases"].as_array().unwrap().iter().enumerate() {
        let picture = read(&pack.root.join(case["png"].as_str().unwrap()), &reference(false));
        let name = |what: &str| format!("case{index}.{what}");

        let tower = pack.tensors.picture(&name("vit_u8"));
        assert_eq!(squash(&picture, &tower), tower, "{index}");
        let pixels = pixel_values(&picture, &vision).into_dyn();
        let difference = relative_difference(&pixels, &pack.tensors.f32(&name("pixel_values")));
        assert!(difference <= 1e-6, "pixel values: {difference:e}");

        let expected = pack.tensors.picture(&name("sd_input_u8"));
        let resized = match case["res"].as_array() {
            Some(sides) => {
                let [width, height] = [0, 1].map(|side| sides[side].as_u64().unwrap() as u32);
                let resized = resize(&picture, width, height, Filter::Bicubic);
                if width % 8 == 0 && height % 8 == 0 {
                    assert_eq!(prepare(&picture, Resize::Stretch { width, height }).unwrap(), resized);
                }
                resized
            }
            None => picture.clone(),
        };
        let is_floored = resized.dimensions() != expected.dimensions();
        let ours = if is_floored { floor_sides(&resized).unwrap() } else { resized };
        assert_eq!(ours, expected, "{index}");

        if pack.tensors.has(&name("sd_noresize_lanczos_u8")) {
            let floored = pack.tensors.picture(&name("sd_noresize_lanczos_u8"));
            assert_eq!(prepare(&picture, Resize::Keep).unwrap(), floored, "{index}");
        }

        let decoded = pack.tensors.f32(&name("vae_decode_out")).into_dimensionality::<Ix4>().unwrap();
        assert_eq!(from_tensor(&decoded).unwrap(), pack.tensors.picture(&name("image_u8")), "{index}");
    }
}

#[test]
fn golden_pictures_with_orientation() {
    let pack = Pack::open();
    if pack.lacks("exif.vit_u8") {
        return;
    }
    let path = pack.root.join("exif6.png");
    let ignored = pack.tensors.picture("exif.vit_u8");
    assert_eq!(squash(&read(&path, &reference(true)), &ignored), ignored);

    let name = pack.tensors.names().into_iter().find(|name| name.starts_with("exif.sd_input_")).unwrap();
    let upright = pack.tensors.f32(&name);
    let (height, width) = (upright.shape()[2] as u32, upright.shape()[3] as u32);
    let picture = resize(&read(&path, &reference(false)), width, height, Filter::Bicubic);
    assert!(relative_difference(&to_tensor(&picture).into_dyn(), &upright) <= 1e-6);
}

#[test]
fn golden_pictures_with_alpha_and_without_colour() {
    let pack = Pack::open();
    for kind in ["rgba", "grey"] {
        if pack.lacks(&format!("{kind}.vit_u8")) {
            continue;
        }
        let expected = pack.tensors.picture(&format!("{kind}.vit_u8"));
        let picture = read(&pack.root.join(format!("{kind}.png")), &reference(false));
        assert_eq!(squash(&picture, &expected), expected, "{kind}");
    }
}

#[test]
fn golden_edited_pictures_are_read_as_they_were_written() {
    let pack = Pack::open();
    for list in ["case", "ip2p"] {
        for index in (0..).take_while(|index| pack.tensors.has(&format!("{list}{index}.image_u8"))) {
            let picture =
                read(&pack.root.join(format!("{list}{index}_edited.png")), &DecodeOptions::default());
            assert_eq!(picture, pack.tensors.picture(&format!("{list}{index}.image_u8")));
        }
    }
}

/// Not symmetric in any way.
fn sample(width: u32, height: u32) -> RgbImage {
    RgbImage::from_fn(width, height, |x, y| Rgb([(x * 9) as u8, (y * 15) as u8, ((x + 2 * y) * 4) as u8]))
}

#[test]
fn every_format_is_written_and_read() {
    let picture = sample(24, 16);
    for format in Format::ALL {
        let bytes = encode(&picture, format, None).unwrap();
        assert_eq!(Format::sniff(&bytes), Some(format));
        let read = decode(&bytes, &DecodeOptions::default()).unwrap();
        if format == Format::Jpeg {
            assert_eq!(read.dimensions(), picture.dimensions());
        } else {
            assert_eq!(read, picture);
        }
    }
}

#[test]
fn quality_is_for_jpeg() {
    let picture = sample(64, 64);
    let size = |quality| encode(&picture, Format::Jpeg, Some(quality)).unwrap().len();
    assert!(size(10) < size(95));
    assert_eq!(encode(&picture, Format::Png, Some(10)), encode(&picture, Format::Png, None));
    for (format, quality) in [(Format::WebP, 80), (Format::Jpeg, 0), (Format::Jpeg, 101), (Format::Png, 0)] {
        let error = encode(&picture, format, Some(quality)).unwrap_err();
        assert!(
            matches!(error, PictureError::Quality { quality: q, format: f, .. } if (q, f) == (quality, format))
        );
    }
}

/// A TIFF header and one entry: the orientation.
fn exif(orientation: u8) -> Vec<u8> {
    let mut exif = b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0".to_vec();
    exif.extend([orientation, 0, 0, 0, 0, 0, 0]);
    exif
}

#[test]
fn orientation_is_applied_in_every_format() {
    let picture = sample(24, 16);
    let mut jpeg = Vec::new();
    let mut encoder = JpegEncoder::new_with_quality(&mut jpeg, 100);
    encoder.set_exif_metadata(exif(6)).unwrap();
    picture.write_with_encoder(encoder).unwrap();
    let mut webp = Vec::new();
    let mut encoder = WebPEncoder::new_lossless(&mut webp);
    encoder.set_exif_metadata([b"Exif\0\0".as_slice(), &exif(6)].concat()).unwrap();
    picture.write_with_encoder(encoder).unwrap();
    let png = png_of(&picture, |info| info.exif_metadata = Some(exif(6).into()));
    for (bytes, lossy) in [(jpeg, true), (webp, false), (png, false)] {
        let upright = decode(&bytes, &DecodeOptions::default()).unwrap();
        let ignored =
            decode(&bytes, &DecodeOptions { ignore_orientation: true, ..Default::default() }).unwrap();
        assert_eq!((upright.dimensions(), ignored.dimensions()), ((16, 24), (24, 16)));
        assert_eq!(upright, image::imageops::rotate90(&ignored));
        assert!(lossy || ignored == picture);
    }
}

fn png_of(picture: &RgbImage, change: impl FnOnce(&mut png::Info<'_>)) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut info = png::Info::with_size(picture.width(), picture.height());
    info.color_type = png::ColorType::Rgb;
    info.bit_depth = png::BitDepth::Eight;
    change(&mut info);
    let mut writer = png::Encoder::with_info(&mut bytes, info).unwrap().write_header().unwrap();
    writer.write_image_data(picture.as_raw()).unwrap();
    writer.finish().unwrap();
    bytes
}

/// A picture of two pixels.
fn two_pixels(color_type: png::ColorType, depth: png::BitDepth, palette: &[u8], data: &[u8]) -> RgbImage {
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, 2, 1);
    encoder.set_color(color_type);
    encoder.set_depth(depth);
    if !palette.is_empty() {
        encoder.set_palette(palette.to_vec());
    }
    let mut writer = encoder.write_header().unwrap();
    writer.write_image_data(data).unwrap();
    writer.finish().unwrap();
    decode(&bytes, &DecodeOptions::default()).unwrap()
}

#[test]
fn every_kind_of_png_becomes_rgb() {
    use png::{BitDepth, ColorType};
    let pixels = |a, b| RgbImage::from_raw(2, 1, [a, b].concat()).unwrap();
    let palette = [1, 2, 3, 40, 50, 60];
    assert_eq!(
        two_pixels(ColorType::Indexed, BitDepth::One, &palette, &[0b0100_0000]),
        pixels([1, 2, 3], [40, 50, 60])
    );
    assert_eq!(
        two_pixels(ColorType::Grayscale, BitDepth::Sixteen, &[], &[0x80, 0x80, 0xff, 0xff]),
        pixels([128; 3], [255; 3])
    );
    assert_eq!(
        two_pixels(ColorType::Grayscale, BitDepth::One, &[], &[0b0100_0000]),
        pixels([0; 3], [255; 3])
    );
    // Half transparent red, and nothing, over white.
    assert_eq!(
        two_pixels(ColorType::Rgba, BitDepth::Eight, &[], &[255, 0, 0, 128, 9, 9, 9, 0]),
        pixels([255, 127, 127], [255; 3])
    );
    assert_eq!(
        two_pixels(ColorType::GrayscaleAlpha, BitDepth::Eight, &[], &[10, 255, 10, 0]),
        pixels([10; 3], [255; 3])
    );
}

#[test]
fn limits_are_checked_before_pixels_are_decoded() {
    for format in Format::ALL {
        let whole = encode(&sample(48, 20), format, None).unwrap();
        // The header alone, or for JPEG up to the scan: decoding pixels would fail otherwise.
        let cut = if format == Format::Jpeg { whole.len() - 20 } else { 48 };
        let limits = Limits::default();
        for (limits, quantity, value, limit) in [
            (Limits { max_bytes: 30, ..limits }, "bytes", cut as u64, 30),
            (Limits { max_pixels: 959, ..limits }, "pixels", 960, 959),
            (Limits { max_side: 47, ..limits }, "pixels of width", 48, 47),
        ] {
            let error = decode(&whole[..cut], &DecodeOptions { limits, ..Default::default() }).unwrap_err();
            assert_eq!(error, PictureError::TooLarge { quantity, value, limit }, "{format}");
        }
        let exact = Limits { max_bytes: whole.len() as u64, max_pixels: 960, max_side: 48 };
        decode(&whole, &DecodeOptions { limits: exact, ..Default::default() }).unwrap();
    }
}

/// PNG's checksum.
fn crc32(bytes: &[u8]) -> u32 {
    let step = |crc: u32| if crc & 1 == 1 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 };
    !bytes.iter().fold(!0, |crc, &byte| (0..8).fold(crc ^ u32::from(byte), |crc, _| step(crc)))
}

#[test]
fn a_small_file_that_claims_to_be_huge_is_refused() {
    for side in [60_000_u32, i32::MAX as u32] {
        let mut bomb = encode(&sample(2, 2), Format::Png, None).unwrap();
        bomb[16..20].copy_from_slice(&side.to_be_bytes());
        bomb[20..24].copy_from_slice(&side.to_be_bytes());
        let crc = crc32(&bomb[12..29]);
        bomb[29..33].copy_from_slice(&crc.to_be_bytes());
        let error = decode(&bomb, &DecodeOptions::default()).unwrap_err();
        let limit = u64::from(Limits::default().max_side);
        let expected = PictureError::TooLarge { quantity: "pixels of width", value: side.into(), limit };
        assert_eq!(error, expected);
    }
}

#[test]
fn bad_bytes_are_refused() {
    let options = DecodeOptions::default();
    assert_eq!(decode(b"", &options), Err(PictureError::Empty));
    for unknown in [b"GIF89a\x01\0\x01\0".as_slice(), b"text", b"\xff", &[0; 100]] {
        assert_eq!(decode(unknown, &options), Err(PictureError::UnknownFormat));
    }
    for format in Format::ALL {
        let whole = encode(&sample(48, 20), format, None).unwrap();
        for length in [12, 30, whole.len() / 2, whole.len() - 10] {
            let error = decode(&whole[..length], &options).unwrap_err();
            assert!(
                matches!(error, PictureError::Damaged { format: found, .. } if found == format),
                "{format} of {length} bytes: {error}"
            );
        }
    }
}

#[test]
fn a_chunk_that_is_longer_than_its_file_is_never_given_memory() {
    let mut file = encode(&sample(48, 20), Format::WebP, None).unwrap();
    file.extend_from_slice(b"EXIF\xfe\xff\xff\xffEEEE");
    let riff = file.len() as u32 - 8;
    file[4..8].copy_from_slice(&riff.to_le_bytes());
    for outcome in [
        decode(&file, &DecodeOptions::default()).map(drop),
        dimensions(&file, &DecodeOptions::default()).map(drop),
    ] {
        let error = outcome.unwrap_err();
        assert!(matches!(error, PictureError::Damaged { format: Format::WebP, .. }), "{error}");
    }
}

#[test]
fn sizes_that_do_not_suit_are_refused() {
    for (width, height) in [(0, 8), (8, 0), (12, 8), (8, 257)] {
        for how in
            [Resize::Stretch { width, height }, Resize::Fit { width, height }, Resize::Crop { width, height }]
        {
            let error = prepared_size(100, 100, how).unwrap_err();
            assert_eq!(error, PictureError::Size { width, height, multiple: 8 });
        }
    }
    let error = prepare(&sample(7, 20), Resize::Keep).unwrap_err();
    assert_eq!(error, PictureError::TooSmall { width: 7, height: 20, min: 8 });
}

#[test]
fn fit_keeps_the_aspect_ratio_and_crop_the_middle() {
    let fit = Resize::Fit { width: 512, height: 256 };
    assert_eq!(prepared_size(1000, 1000, fit), Ok((256, 256)));
    assert_eq!(prepared_size(4000, 1000, fit), Ok((512, 128)));
    assert_eq!(prepared_size(100, 30, fit), Ok((512, 152)));
    assert_eq!(prepared_size(1, 10_000, fit), Ok((8, 256)));
    // The outer quarters are black, the middle is white.
    let wide = RgbImage::from_fn(64, 16, |x, _| Rgb([if (16..48).contains(&x) { 255 } else { 0 }; 3]));
    let cropped = prepare(&wide, Resize::Crop { width: 16, height: 8 }).unwrap();
    assert_eq!(cropped, RgbImage::from_pixel(16, 8, Rgb([255; 3])));
}

#[test]
fn an_array_that_is_no_picture_is_refused() {
    for shape in [(1, 4, 8, 8), (2, 3, 8, 8)] {
        let error = from_tensor(&Array4::zeros(shape)).unwrap_err();
        assert!(matches!(error, PictureError::Shape { .. }), "{error}");
    }
    let strange = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY];
    let picture = from_tensor(&Array4::from_shape_fn((1, 3, 1, 1), |(_, c, _, _)| strange[c])).unwrap();
    assert_eq!(picture.get_pixel(0, 0).0, [0, 255, 0]);
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_bytes_make_the_reader_panic(
        format in prop::sample::select(Format::ALL.to_vec()),
        changes in prop::collection::vec((0_usize..2000, any::<u8>()), 1..8),
    ) {
        let mut bytes = encode(&sample(9, 14), format, None).unwrap();
        for (position, value) in changes {
            let length = bytes.len();
            bytes[position % length] = value;
        }
        let limits = Limits { max_pixels: 10_000, ..Limits::default() };
        if let Ok(picture) = decode(&bytes, &DecodeOptions { limits, ..Default::default() }) {
            prop_assert!(picture.width() * picture.height() <= 10_000);
        }
    }

    #[test]
    fn resizing_leaves_a_flat_picture_flat(
        from in (1_u32..40, 1_u32..40), to in (1_u32..40, 1_u32..40), value in any::<u8>(), lanczos in any::<bool>()
    ) {
        let filter = if lanczos { Filter::Lanczos } else { Filter::Bicubic };
        let flat = RgbImage::from_pixel(from.0, from.1, Rgb([value; 3]));
        let resized = resize(&flat, to.0, to.1, filter);
        prop_assert_eq!(resized, RgbImage::from_pixel(to.0, to.1, Rgb([value; 3])));
    }

    #[test]
    fn a_picture_survives_being_a_tensor(width in 1_u32..20, height in 1_u32..20) {
        let picture = sample(width, height);
        prop_assert_eq!(from_tensor(&to_tensor(&picture)).unwrap(), picture);
    }

    #[test]
    fn prepared_sides_are_multiples_of_8_within_the_frame(
        (width, height) in (1_u32..5000, 1_u32..5000), (w, h) in (1_u32..100, 1_u32..100)
    ) {
        let (max_width, max_height) = (w * 8, h * 8);
        let how = Resize::Fit { width: max_width, height: max_height };
        let (width, height) = prepared_size(width, height, how).unwrap();
        prop_assert!(width % 8 == 0 && height % 8 == 0 && width > 0 && height > 0);
        prop_assert!(width <= max_width && height <= max_height);
    }
}
