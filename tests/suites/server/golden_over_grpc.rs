//! Golden edits, replayed with recorded noise that travels in the request.
//!
//! The served VAE encoder sums more exactly than the reference's (see [`smartedit_tests::reference`]), so pictures
//! are held to what that allows.

use ndarray::Array4;
use smartedit_client::{EditOptions, EditRequest, Edited, Replay, Resize, Tensor};
use smartedit_tests::golden::{Case, pack};
use smartedit_tests::tolerance::Identical;

use crate::running::{INSTRUCT_PIX2PIX, Running, SMARTEDIT, decoded};

fn tensor(array: &Array4<f32>) -> Tensor {
    let shape = array.shape().iter().map(|&side| u32::try_from(side).unwrap()).collect();
    Tensor { shape, data: array.iter().copied().collect() }
}

fn replay(case: &Case<'_>) -> EditOptions {
    EditOptions {
        steps: Some(u32::try_from(case.steps()).unwrap()),
        replay: Some(Replay {
            initial_latents: Some(tensor(&case.latents("noise_init"))),
            step_noise: case.step_noise().iter().map(tensor).collect(),
        }),
        ..EditOptions::default()
    }
}

fn stretch(json: &serde_json::Value) -> Option<Resize> {
    let side = |index: usize| json[index].as_u64().map(|side| u32::try_from(side).unwrap());
    Some(Resize::Stretch(side(0)?, side(1)?))
}

fn request(case: &Case<'_>, deployment: &str, instruction: &str, options: EditOptions) -> EditRequest {
    let source = std::fs::read(pack().file(case.text("png"))).unwrap();
    EditRequest {
        deployment: Some(deployment.to_owned()),
        options,
        ..EditRequest::new(source, case.text(instruction))
    }
}

/// Makes the edit through both calls and compares both pictures with the recorded one.
async fn check(server: &Running, case: &Case<'_>, request: EditRequest) -> Edited {
    let unary = server.client.edit(request.clone()).await.unwrap();
    let streamed = server.client.edit_stream(request).await.unwrap().finish().await.unwrap();
    for (call, edited) in [("unary", &unary), ("stream", &streamed)] {
        let what = format!("{} {} over gRPC, {call}", edited.deployment, case.name());
        Identical::Mostly.check(&what, &decoded(&edited.image), case.bytes("image_u8").view());
    }
    assert_eq!(unary.image, streamed.image);
    unary
}

#[tokio::test(flavor = "multi_thread")]
async fn golden_smartedit_over_grpc() {
    let server = Running::start().await;
    for case in pack().cases() {
        let options = EditOptions {
            text_guidance: Some(7.5),
            image_guidance: Some(1.5),
            resize: stretch(&case.json()["res"]).unwrap_or(Resize::Keep),
            template: case.json()["tmpl"].as_u64().map(|index| u32::try_from(index).unwrap()),
            control_tokens: true,
            ..replay(&case)
        };
        let edited = check(&server, &case, request(&case, SMARTEDIT, "text", options)).await;
        assert_eq!(edited.deployment, SMARTEDIT);
        assert_eq!(edited.reply.as_deref(), Some(""), "the packs' models reply with image tokens alone");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn golden_instruct_pix2pix_over_grpc() {
    let server = Running::start().await;
    for case in pack().instruct_pix2pix_cases() {
        let json = case.json();
        let scale = |key: &str| json[key].as_f64().map(|scale| scale as f32);
        let options = EditOptions {
            text_guidance: scale("guidance"),
            image_guidance: scale("image_guidance"),
            resize: stretch(&json["resize"]).unwrap_or(Resize::Keep),
            negative_prompt: json["negative_prompt"].as_str().map(str::to_owned),
            ..replay(&case)
        };
        let edited = check(&server, &case, request(&case, INSTRUCT_PIX2PIX, "prompt", options)).await;
        assert_eq!(edited.deployment, INSTRUCT_PIX2PIX);
        assert_eq!(edited.reply, None);
    }
}
