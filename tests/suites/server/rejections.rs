//! What the server refuses: by which code, and that it names the culprit and goes on serving.

use bytes::Bytes;
use image::ImageFormat;
use smartedit_client::Code;
use smartedit_proto::v1;
use smartedit_server::Config;
use smartedit_server::config::Limits;
use tonic::Status;
use tonic_types::StatusExt;

use crate::running::{INSTRUCT_PIX2PIX, Running, config, file, gradient, message, png, streaming};

/// A refusal: what is wrong with the request, the field at fault, words that tell why.
type Case = (&'static str, fn(&mut v1::EditRequest), &'static str, &'static str);

const MAX_IMAGE_BYTES: usize = 256 << 10;
const MAX_IMAGE_PIXELS: u32 = 1000 * 1000;
const MAX_MESSAGE_BYTES: usize = 1 << 20;

async fn start() -> Running {
    let limits = Limits {
        max_message_bytes: MAX_MESSAGE_BYTES,
        max_image_bytes: MAX_IMAGE_BYTES,
        max_image_pixels: MAX_IMAGE_PIXELS.into(),
        ..Limits::default()
    };
    Running::start_with(Config { limits, ..config() }).await
}

/// What either call answers.
async fn answers(server: &Running, message: v1::EditRequest) -> [Status; 2] {
    let unary = server.raw.clone().edit(message.clone()).await;
    let stream = server.raw.clone().edit_stream(streaming(message)).await;
    let streamed = match stream {
        Err(status) => status,
        Ok(stream) => {
            let mut stream = stream.into_inner();
            loop {
                match stream.message().await {
                    Ok(Some(_)) => {}
                    Ok(None) => panic!("the stream ended well"),
                    Err(status) => break status,
                }
            }
        }
    };
    [unary.expect_err("the call ended well"), streamed]
}

/// Makes sure that each request is refused for its field alone.
async fn refuses(cases: &[Case]) {
    let server = start().await;
    for (what, spoil, field, words) in cases {
        let mut message = message(1);
        spoil(&mut message);
        for status in answers(&server, message).await {
            assert_eq!(status.code(), Code::InvalidArgument, "{what}: {status}");
            let details = status.get_error_details();
            let violations = &details.bad_request().expect("a BadRequest").field_violations;
            let fields: Vec<_> = violations.iter().map(|violation| violation.field.as_str()).collect();
            assert_eq!(fields, [*field], "{what}: {status}");
            assert!(status.message().contains(field), "{what}: {}", status.message());
            assert!(status.message().contains(words), "{what}: {}", status.message());
        }
        server.still_serves().await;
    }
}

fn options(message: &mut v1::EditRequest) -> &mut v1::EditOptions {
    message.options.get_or_insert_default()
}

fn half(file: Bytes) -> Bytes {
    file.slice(..file.len() / 2)
}

/// A small file that says to be a picture of this size.
fn bomb(width: u32, height: u32) -> Bytes {
    let mut file = Vec::new();
    let mut writer = png::Encoder::new(&mut file, width, height).write_header().unwrap();
    // A deflate stream of nothing.
    writer.write_chunk(png::chunk::IDAT, &[0x78, 0x9c, 0x03, 0, 0, 0, 0, 1]).unwrap();
    drop(writer);
    assert!(file.len() < 200);
    file.into()
}

#[tokio::test(flavor = "multi_thread")]
async fn pictures() {
    refuses(&[
        ("empty", |m| m.image = Bytes::new(), "image", "empty"),
        ("text", |m| m.image = Bytes::from_static(b"This is no picture."), "image", "neither PNG"),
        (
            "GIF",
            |m| m.image = Bytes::from_static(b"GIF89a\x01\x00\x01\x00\x80\x00\x00\xff\xff\xff\x00\x00\x00,\x00\x00\x00\x00\x01\x00\x01\x00\x00\x02\x02D\x01\x00;"),
            "image",
            "neither PNG",
        ),
        ("half a PNG", |m| m.image = half(png(&gradient(64, 64))), "image", "damaged"),
        ("half a JPEG", |m| m.image = half(file(&gradient(64, 64), ImageFormat::Jpeg)), "image", "damaged"),
        ("half a WebP", |m| m.image = half(file(&gradient(64, 64), ImageFormat::WebP)), "image", "damaged"),
        ("eight bytes of PNG", |m| m.image = png(&gradient(64, 64)).slice(..8), "image", "damaged"),
        ("a file above the limit", |m| m.image = vec![0; MAX_IMAGE_BYTES + 1].into(), "image", "bytes"),
        ("a bomb", |m| m.image = bomb(60_000, 60_000), "image", "pixels"),
        ("a bomb with sides of four bytes", |m| m.image = bomb(0x7fff_ffff, 0x7fff_ffff), "image", "pixels"),
        ("one row of pixels too many", |m| m.image = png(&flat(1000, 1001)), "image", "1001000"),
    ])
    .await;
}

/// A picture that makes a small file whatever its size.
fn flat(width: u32, height: u32) -> image::RgbImage {
    image::RgbImage::from_pixel(width, height, image::Rgb([7, 8, 9]))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_picture_of_just_the_limit_is_edited() {
    let server = start().await;
    let mut message = message(1);
    message.image = png(&flat(1000, 1000));
    server.raw.clone().edit(message).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn instructions() {
    let long = Limits::default().max_instruction_chars;
    assert_eq!(long, 2000);
    refuses(&[
        ("empty", |m| m.instruction.clear(), "instruction", "empty"),
        ("blank", |m| m.instruction = " \n\t".to_owned(), "instruction", "empty"),
        ("long", |m| m.instruction = "é".repeat(2001), "instruction", "2001"),
    ])
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn numbers() {
    refuses(&[
        ("no steps", |m| options(m).steps = Some(0), "options.steps", "is 0"),
        ("10⁹ steps", |m| options(m).steps = Some(1_000_000_000), "options.steps", "1000000000"),
        ("NaN", |m| options(m).text_guidance = Some(f32::NAN), "options.text_guidance", "NaN"),
        ("infinity", |m| options(m).text_guidance = Some(f32::INFINITY), "options.text_guidance", "inf"),
        ("NaN", |m| options(m).image_guidance = Some(f32::NAN), "options.image_guidance", "NaN"),
        ("−∞", |m| options(m).image_guidance = Some(f32::NEG_INFINITY), "options.image_guidance", "-inf"),
        ("negative", |m| options(m).temperature = Some(-0.5), "options.temperature", "-0.5"),
        ("NaN", |m| options(m).temperature = Some(f32::NAN), "options.temperature", "NaN"),
        ("no such template", |m| options(m).template = Some(u32::MAX), "options.template", "4294967295"),
        (
            "quality above 100",
            |m| {
                options(m).output_format = v1::OutputFormat::Jpeg.into();
                options(m).output_quality = Some(101);
            },
            "options.output_quality",
            "101",
        ),
        (
            "previews too rare",
            |m| options(m).preview_interval = Some(u32::MAX),
            "options.preview_interval",
            "4294967295",
        ),
    ])
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn choices_that_do_not_exist() {
    refuses(&[
        ("scheduler", |m| options(m).scheduler = 77, "options.scheduler", "77"),
        ("format", |m| options(m).output_format = -1, "options.output_format", "-1"),
        ("resize mode", |m| options(m).resize_mode = i32::MAX, "options.resize_mode", "2147483647"),
        ("image tokens", |m| options(m).image_tokens = 9, "options.image_tokens", "9"),
        ("orientation", |m| options(m).exif_orientation = 3, "options.exif_orientation", "3"),
        ("alpha mode", |m| options(m).alpha_mode = 3, "options.alpha_mode", "3"),
        (
            "negative prompt of a SmartEdit model",
            |m| options(m).negative_prompt = Some("blurry".to_owned()),
            "options.negative_prompt",
            "InstructPix2Pix",
        ),
        (
            "template of an InstructPix2Pix model",
            |m| {
                INSTRUCT_PIX2PIX.clone_into(&mut m.deployment);
                options(m).template = Some(1);
            },
            "options.template",
            "no templates",
        ),
    ])
    .await;
}

fn resolution(message: &mut v1::EditRequest, width: u32, height: u32) {
    options(message).resolution = Some(v1::Resolution { width, height });
}

#[tokio::test(flavor = "multi_thread")]
async fn sizes() {
    refuses(&[
        ("no multiple of 8", |m| resolution(m, 60, 64), "options.resolution.width", "is 60"),
        ("zero", |m| resolution(m, 64, 0), "options.resolution.height", "is 0"),
        ("huge", |m| resolution(m, u32::MAX - 7, 64), "options.resolution.width", "4294967288"),
        ("too many pixels", |m| resolution(m, 2048, 2048), "options.resolution", "4194304"),
        (
            "the picture's own size and another one",
            |m| options(m).resize_mode = v1::ResizeMode::Keep.into(),
            "options.resolution",
            "absent",
        ),
        (
            "a picture that is too small to keep its size",
            |m| {
                m.image = png(&gradient(7, 64));
                options(m).resolution = None;
                options(m).resize_mode = v1::ResizeMode::Keep.into();
            },
            "image",
            "8",
        ),
    ])
    .await;
}

const LATENTS: &str = "options.replay.initial_latents";

/// Noise for 64 × 64 pixels, with this shape and so many values, all the same.
fn noise(shape: &[u32], values: usize, value: f32) -> v1::Tensor {
    v1::Tensor { shape: shape.to_vec(), data: value.to_le_bytes().repeat(values).into() }
}

fn latents(message: &mut v1::EditRequest, tensor: v1::Tensor) {
    options(message).replay.get_or_insert_default().initial_latents = Some(tensor);
}

fn step_noise(message: &mut v1::EditRequest, tensors: Vec<v1::Tensor>) {
    options(message).replay.get_or_insert_default().step_noise = tensors;
}

#[tokio::test(flavor = "multi_thread")]
async fn recorded_noise() {
    refuses(&[
        ("another size", |m| latents(m, noise(&[1, 4, 8, 9], 288, 0.0)), LATENTS, "[1, 4, 8, 8]"),
        ("another rank", |m| latents(m, noise(&[4, 8, 8], 256, 0.0)), LATENTS, "[4, 8, 8]"),
        ("no shape", |m| latents(m, noise(&[], 0, 0.0)), LATENTS, "[]"),
        ("a shape that overflows", |m| latents(m, noise(&[u32::MAX; 4], 256, 0.0)), LATENTS, "4294967295"),
        ("a value too few", |m| latents(m, noise(&[1, 4, 8, 8], 255, 0.0)), LATENTS, "1020 bytes"),
        (
            "half a value",
            |m| {
                let tensor = noise(&[1, 4, 8, 8], 256, 0.0);
                latents(m, v1::Tensor { data: tensor.data.slice(..1022), ..tensor });
            },
            LATENTS,
            "1022 bytes",
        ),
        ("NaN", |m| latents(m, noise(&[1, 4, 8, 8], 256, f32::NAN)), LATENTS, "not finite"),
        ("infinity", |m| latents(m, noise(&[1, 4, 8, 8], 256, f32::INFINITY)), LATENTS, "not finite"),
        (
            "noise for more steps than there are",
            |m| step_noise(m, vec![noise(&[1, 4, 8, 8], 256, 0.0); 2]),
            "options.replay.step_noise",
            "2 tensors",
        ),
        (
            "noise of a step of another size",
            |m| step_noise(m, vec![noise(&[1, 4, 9, 8], 288, 0.0)]),
            "options.replay.step_noise[0]",
            "[1, 4, 8, 8]",
        ),
    ])
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn all_that_is_wrong_is_told_at_once() {
    let server = start().await;
    let mut message = message(1);
    message.image = Bytes::new();
    message.instruction.clear();
    options(&mut message).steps = Some(0);
    options(&mut message).scheduler = 77;
    for status in answers(&server, message).await {
        let details = status.get_error_details();
        let violations = &details.bad_request().unwrap().field_violations;
        let mut fields: Vec<_> = violations.iter().map(|violation| violation.field.as_str()).collect();
        fields.sort_unstable();
        assert_eq!(fields, ["image", "instruction", "options.scheduler", "options.steps"]);
    }
    server.still_serves().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deployment_that_does_not_exist() {
    let server = start().await;
    let mut message = message(1);
    "nobody".clone_into(&mut message.deployment);
    let described = server.client.deployment("nobody").await.unwrap_err();
    assert_eq!(described.code(), Some(Code::NotFound));
    for status in answers(&server, message).await {
        assert_eq!(status.code(), Code::NotFound);
        assert!(status.message().contains("`nobody`"), "{}", status.message());
        let details = status.get_error_details();
        assert_eq!(details.resource_info().unwrap().resource_name, "nobody");
    }
    server.still_serves().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_above_the_limit() {
    let server = start().await;
    let mut message = message(1);
    message.image = vec![0; MAX_MESSAGE_BYTES + 1].into();
    for status in answers(&server, message).await {
        assert_eq!(status.code(), Code::ResourceExhausted, "{status}");
        assert!(status.message().contains(&MAX_MESSAGE_BYTES.to_string()), "{}", status.message());
    }
    server.still_serves().await;
}
