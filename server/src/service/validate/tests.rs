//! Every field that can be wrong, and that its violation names it.

use std::net::Ipv6Addr;

use bytes::Bytes;
use image::RgbImage;
use smartedit_core::picture::encode;

use super::*;
use crate::security::Access;
use crate::service::{Destination, Hints};
use crate::work::testing;

fn picture(width: u32, height: u32) -> Bytes {
    encode(&RgbImage::new(width, height), Format::Png, None).unwrap().into()
}

fn order(options: v1::EditOptions) -> Order {
    Order {
        image: picture(64, 40),
        instruction: "Make it blue".to_owned(),
        destination: Destination::Named { name: String::new(), hints: Hints::of(&http::HeaderMap::new()) },
        options,
        access: Access::anybody(Some(Ipv6Addr::LOCALHOST.into())),
    }
}

fn limits() -> Limits {
    Limits { max_edit_pixels: 4096, max_edit_side: 256, max_steps: 100, ..Limits::default() }
}

fn smartedit_model() -> ModelConfig {
    let mut model = testing::config();
    let pipeline = serde_json::json!({
        "kind": "smartedit",
        "tokenizer": "t",
        "clip_tokenizer": "c",
        "prompt": {"system": "s", "templates": [{"human": "h", "gpt": "g"}, {"human": "h", "gpt": "g"}]}
    });
    model.pipeline = serde_json::from_value(pipeline).unwrap();
    model
}

/// The fields at fault.
fn faults_of(order: Order, model: &ModelConfig) -> Vec<String> {
    match check(order, &limits(), model, None) {
        Ok(_) => Vec::new(),
        Err(Failure::Invalid(violations)) => violations.iter().map(|(field, _)| field.to_owned()).collect(),
        Err(Failure::Picture(error)) => vec![format!("image: {error}")],
        Err(other) => panic!("{other}"),
    }
}

fn faults(options: v1::EditOptions) -> Vec<String> {
    faults_of(order(options), &testing::config())
}

fn tensor(shape: &[u32]) -> v1::Tensor {
    let elements: u32 = shape.iter().product();
    v1::Tensor { shape: shape.to_vec(), data: vec![0; elements as usize * 4].into() }
}

#[test]
fn defaults_are_valid() {
    let checked = check(order(v1::EditOptions::default()), &limits(), &testing::config(), None).unwrap();
    assert_eq!(checked.task.options.steps, None);
    assert_eq!(checked.task.options.resize, None);
    assert!(!checked.keep);
}

#[test]
fn an_edit_is_on_the_account_of_its_host_unless_it_names_a_caller() {
    let account = |options| check(order(options), &limits(), &testing::config(), None).unwrap().account;
    let plain = account(v1::EditOptions::default());
    let expected = Account {
        caller: "host ::1".into(),
        priority: Priority::Interactive,
        steps: testing::config().defaults.steps,
        pixels: 64 * 40,
    };
    assert_eq!(plain, expected);
    let named = v1::EditOptions {
        caller: "host ::1".to_owned(),
        priority: v1::Priority::Batch.into(),
        steps: Some(7),
        ..Default::default()
    };
    let named = account(named);
    assert_ne!(named.caller, plain.caller, "no name is a host");
    assert_eq!((named.priority, named.steps), (Priority::Batch, 7));
}

#[test]
fn a_seed_is_chosen_where_none_is_given() {
    let seed = |seed| {
        let options = v1::EditOptions { seed, ..Default::default() };
        let checked = check(order(options), &limits(), &testing::config(), None).unwrap();
        assert_eq!(checked.seed, checked.task.options.seed);
        checked.seed
    };
    assert_eq!(seed(Some(0)), 0);
    assert_eq!(seed(Some(u64::MAX)), u64::MAX);
    assert!((0..4).any(|_| seed(None) != seed(None)));
}

#[test]
fn single_values() {
    let nan = Some(f32::NAN);
    let cases = [
        (v1::EditOptions { steps: Some(0), ..Default::default() }, "options.steps"),
        (v1::EditOptions { steps: Some(1_000_000_000), ..Default::default() }, "options.steps"),
        (v1::EditOptions { text_guidance: nan, ..Default::default() }, "options.text_guidance"),
        (v1::EditOptions { text_guidance: Some(-0.5), ..Default::default() }, "options.text_guidance"),
        (
            v1::EditOptions { image_guidance: Some(f32::INFINITY), ..Default::default() },
            "options.image_guidance",
        ),
        (v1::EditOptions { temperature: Some(-1.0), ..Default::default() }, "options.temperature"),
        (v1::EditOptions { scheduler: 77, ..Default::default() }, "options.scheduler"),
        (v1::EditOptions { priority: 77, ..Default::default() }, "options.priority"),
        (v1::EditOptions { caller: "x".repeat(129), ..Default::default() }, "options.caller"),
        (v1::EditOptions { output_format: 77, ..Default::default() }, "options.output_format"),
        (v1::EditOptions { resize_mode: -1, ..Default::default() }, "options.resize_mode"),
        (v1::EditOptions { image_tokens: 77, ..Default::default() }, "options.image_tokens"),
        (v1::EditOptions { noise_source: 77, ..Default::default() }, "options.noise_source"),
        (v1::EditOptions { exif_orientation: 77, ..Default::default() }, "options.exif_orientation"),
        (v1::EditOptions { alpha_mode: 77, ..Default::default() }, "options.alpha_mode"),
        (v1::EditOptions { template: Some(1), ..Default::default() }, "options.template"),
        (v1::EditOptions { adapter: Some("x".to_owned()), ..Default::default() }, "options.adapter"),
        (v1::EditOptions { adapter_scale: Some(1.0), ..Default::default() }, "options.adapter"),
        (v1::EditOptions { output_quality: Some(0), ..Default::default() }, "options.output_quality"),
        (v1::EditOptions { output_quality: Some(300), ..Default::default() }, "options.output_quality"),
        (v1::EditOptions { preview_interval: Some(101), ..Default::default() }, "options.preview_interval"),
    ];
    for (options, field) in cases {
        assert_eq!(faults(options.clone()), [field], "{options:?}");
    }
}

#[test]
fn all_violations_come_at_once() {
    let options = v1::EditOptions { steps: Some(0), text_guidance: Some(-1.0), ..Default::default() };
    let order = Order { instruction: " \n".to_owned(), image: Bytes::new(), ..order(options) };
    let fields = faults_of(order, &testing::config());
    assert_eq!(fields, ["instruction", "options.steps", "options.text_guidance", "image"]);
}

#[test]
fn instructions_are_counted_in_characters() {
    let with = |instruction: String| {
        faults_of(Order { instruction, ..order(Default::default()) }, &testing::config())
    };
    assert!(with("é".repeat(2000)).is_empty());
    assert_eq!(with("e".repeat(2001)), ["instruction"]);
}

#[test]
fn pictures() {
    let with = |image: Bytes| faults_of(Order { image, ..order(Default::default()) }, &testing::config());
    assert_eq!(with(Bytes::new()), ["image: the image is empty"]);
    assert_eq!(with(Bytes::from_static(b"GIF89a")), ["image: the image is neither PNG nor JPEG nor WebP"]);
    let big = with(vec![0; limits().max_image_bytes + 1].into());
    assert!(big[0].contains("bytes"), "{big:?}");
    let cut = with(picture(64, 40).slice(..20));
    assert!(cut[0].contains("damaged"), "{cut:?}");
    // Without a resolution, the picture's own size is that of the edit.
    assert_eq!(with(picture(512, 512)), ["options.resolution"]);
    assert_eq!(with(picture(7, 64)), ["image"]);
}

#[test]
fn a_bomb_is_found_out_by_its_header() {
    let mut bytes = picture(1, 1).to_vec();
    // Width and height of IHDR, and its checksum over type and content.
    bytes[16..24].copy_from_slice(&[0, 0, 0xff, 0xff, 0, 0, 0xff, 0xff]);
    let order = Order { image: bytes.into(), ..order(Default::default()) };
    let fault = faults_of(order, &testing::config());
    assert!(fault[0].contains("4294836225 pixels"), "{fault:?}");
}

#[test]
fn resolutions() {
    let with = |width, height, mode: v1::ResizeMode| {
        let resolution = Some(v1::Resolution { width, height });
        faults(v1::EditOptions { resolution, resize_mode: mode.into(), ..Default::default() })
    };
    use v1::ResizeMode::{Crop, Fit, Keep, Stretch, Unspecified};
    for mode in [Unspecified, Stretch, Fit, Crop] {
        assert!(with(64, 64, mode).is_empty(), "{mode:?}");
        assert_eq!(with(0, 64, mode), ["options.resolution.width"]);
        assert_eq!(with(60, 63, mode), ["options.resolution.width", "options.resolution.height"]);
        assert_eq!(with(1 << 30, 64, mode), ["options.resolution.width"]);
    }
    assert_eq!(with(256, 256, Stretch), ["options.resolution"]);
    assert_eq!(with(64, 64, Keep), ["options.resolution"]);
    let fit = v1::EditOptions { resize_mode: Fit.into(), ..Default::default() };
    assert_eq!(faults(fit), ["options.resolution"]);
}

#[test]
fn noise_has_the_shape_of_the_edit() {
    let with = |initial_latents, step_noise| {
        let replay = Some(v1::Replay { initial_latents, step_noise });
        faults(v1::EditOptions { replay, steps: Some(2), ..Default::default() })
    };
    let right = tensor(&[1, 4, 5, 8]);
    assert!(with(Some(right.clone()), vec![right.clone(), right.clone()]).is_empty());
    let initial = "options.replay.initial_latents";
    for shape in [&[1, 4, 8, 5][..], &[2, 4, 5, 8], &[4, 5, 8], &[], &[1, 4, u32::MAX, u32::MAX]] {
        let wrong = v1::Tensor { shape: shape.to_vec(), ..right.clone() };
        assert_eq!(with(Some(wrong), Vec::new()), [initial], "{shape:?}");
    }
    let short = v1::Tensor { data: right.data.slice(4..), ..right.clone() };
    assert_eq!(with(Some(short), Vec::new()), [initial]);
    let nan = v1::Tensor { data: f32::NAN.to_le_bytes().repeat(160).into(), ..right.clone() };
    assert_eq!(with(Some(nan), Vec::new()), [initial]);
    assert_eq!(with(None, vec![right.clone()]), ["options.replay.step_noise"]);
    assert_eq!(with(None, vec![right, tensor(&[1, 4, 4, 4])]), ["options.replay.step_noise[1]"]);
}

#[test]
fn what_only_some_models_have() {
    let model = smartedit_model();
    let template = |template| v1::EditOptions { template: Some(template), ..Default::default() };
    assert!(faults_of(order(template(1)), &model).is_empty());
    assert_eq!(faults_of(order(template(2)), &model), ["options.template"]);
    let negative = v1::EditOptions { negative_prompt: Some("fog".to_owned()), ..Default::default() };
    assert!(faults(negative.clone()).is_empty());
    assert_eq!(faults_of(order(negative), &model), ["options.negative_prompt"]);
}

#[test]
fn quality_goes_with_the_format() {
    let with = |format: v1::OutputFormat| {
        faults(v1::EditOptions {
            output_format: format.into(),
            output_quality: Some(80),
            ..Default::default()
        })
    };
    assert!(with(v1::OutputFormat::Jpeg).is_empty());
    assert!(with(v1::OutputFormat::Png).is_empty());
    assert_eq!(with(v1::OutputFormat::Webp), ["options.output_quality"]);
}
