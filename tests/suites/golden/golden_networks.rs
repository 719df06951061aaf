//! Tensors inside a stage, which its named outputs do not show.

use ndarray::{ArrayD, Axis};
use smartedit_core::engine::{Engine, Precision};
use smartedit_core::model::{InteractionConfig, NetworkConfig};
use smartedit_core::networks::{Bim, Connector, Interaction, LanguageModel, VaeEncoder, position_encoding};
use smartedit_core::stage::StageKind;
use smartedit_core::tensor::HostTensor;
use smartedit_core::weights::{EngineWeights, WeightFile, Weights};
use smartedit_tests::golden::{Case, converted, open, pack};
use smartedit_tests::reference::ReferenceSums;
use smartedit_tests::tolerance::Tolerance;

smartedit_tests::matrix!(engine: spliced_embeddings, qformer, bim, vae_encoder_with_the_sums_of_the_reference);

#[track_caller]
fn check<E: Engine>(e: &E, case: &Case<'_>, what: &str, found: &E::Tensor) {
    let found = download(e, found);
    let what_of = format!("{} {what}", case.name());
    Tolerance::Approximate.check(Precision::F32, &what_of, found.view(), case.tensor(what).view());
}

fn download<E: Engine>(e: &E, tensor: &E::Tensor) -> ArrayD<f32> {
    match e.download(tensor).unwrap_or_else(|e| panic!("{e}")) {
        HostTensor::F32(array) => array,
        HostTensor::I64(_) => panic!("floats are needed"),
    }
}

fn upload<E: Engine>(e: &E, tensor: impl Into<HostTensor>) -> E::Tensor {
    e.upload(&tensor.into()).unwrap_or_else(|e| panic!("{e}"))
}

fn weights(kind: StageKind) -> (WeightFile, NetworkConfig) {
    let directory = open(&converted().smartedit());
    let path = directory.stage_file(kind).expect("SmartEdit has all stages");
    let file = WeightFile::open(&path).unwrap_or_else(|e| panic!("{e}"));
    (file, directory.config().stages[&kind].network.clone())
}

fn spliced_embeddings<E: Engine>(e: &E) {
    let (file, config) = weights(StageKind::LanguageModel);
    let NetworkConfig::LanguageModel(config) = config else { panic!("not a language model") };
    let source = EngineWeights::new(e, &file);
    let model = LanguageModel::load(&Weights::root(&source), &config).unwrap_or_else(|e| panic!("{e}"));
    let image = pack().json()["tokenizer"]["added"]["<img_0>"].as_u64().expect("an id") as u32;
    for case in pack().cases() {
        let tokens = case.ids("token_ids");
        let position = tokens.iter().position(|&id| id == image).expect("the prompt has an image");
        let embed = |ids: &[u32]| {
            let ids = ndarray::Array1::from_iter(ids.iter().map(|&id| i64::from(id)));
            model.embed(e, &upload(e, ids.insert_axis(Axis(0)))).unwrap_or_else(|e| panic!("{e}"))
        };
        let projected =
            model.project(e, &upload(e, case.tensor("vision_features"))).unwrap_or_else(|e| panic!("{e}"));
        if case.optional("projected").is_some() {
            check(e, &case, "projected", &projected);
        }
        let parts = [&embed(&tokens[..position]), &projected, &embed(&tokens[position + 1..])];
        let spliced = e.concat(&parts, 1).unwrap_or_else(|e| panic!("{e}"));
        check(e, &case, "spliced_embeds", &spliced);
    }
}

fn connector<E: Engine>(e: &E) -> Connector<E::Tensor> {
    let (file, config) = weights(StageKind::Connector);
    let NetworkConfig::Connector(config) = config else { panic!("not a connector") };
    let source = EngineWeights::new(e, &file);
    Connector::load(&Weights::root(&source), &config).unwrap_or_else(|e| panic!("{e}"))
}

fn qformer<E: Engine>(e: &E) {
    let connector = connector(e);
    for case in pack().cases() {
        for prefix in ["", "forced_text."] {
            let states = upload(e, case.tensor(&format!("{prefix}img_states")));
            let queries = connector.qformer.forward(e, &states).unwrap_or_else(|e| panic!("{e}"));
            check(e, &case, &format!("{prefix}qformer_out"), &queries);
        }
    }
}

fn bim<E: Engine>(e: &E) {
    let connector = connector(e);
    let Interaction::Bim(bim) = &connector.interaction else { panic!("the release has BIM") };
    for case in pack().cases() {
        let text = upload(e, case.tensor("qformer_out"));
        let image = upload(e, case.tensor("vision_features"));
        let output = Bim::forward(bim, e, &text, &image).unwrap_or_else(|e| panic!("{e}"));
        check(e, &case, "bim_queries", &output.queries);
        check(e, &case, "bim_keys", &output.keys);
        check(e, &case, "bim_sd_feature", &output.text_feature);
        let sizes = ["bim_image_feature", "bim_image_feature_h28_w20"];
        for name in sizes.into_iter().filter(|name| case.optional(name).is_some()) {
            let like = upload(e, case.tensor(name));
            let resized = e.resize_bilinear_like(&output.image_feature, &like);
            check(e, &case, name, &resized.unwrap_or_else(|e| panic!("{e}")));
        }
    }
}

#[test]
fn bim_position_encoding() {
    let (file, config) = weights(StageKind::Connector);
    let NetworkConfig::Connector(config) = config else { panic!("not a connector") };
    let InteractionConfig::Bim(config) = config.interaction else { panic!("the release has BIM") };
    let name = "bim.pe_layer.positional_encoding_gaussian_matrix";
    let view = file.view(name, &[2, config.vision_size / 2]).unwrap_or_else(|e| panic!("{e}"));
    let gaussian = ArrayD::from_shape_vec(view.shape(), view.to_f32()).expect("a matrix");
    let found = position_encoding(&gaussian, config.grid_size).unwrap_or_else(|e| panic!("{e}"));
    let expected = pack().tensor("bim.pe_16x16");
    let expected = expected.to_shape((expected.shape()[0], config.grid_size.pow(2))).expect("cells");
    let expected = expected.t().insert_axis(Axis(0)).into_dyn();
    Tolerance::Approximate.check(Precision::F32, "bim.pe_16x16", found.view().into_dyn(), expected);
}

fn vae_encoder_with_the_sums_of_the_reference<E: Engine>(e: &E) {
    let (file, config) = weights(StageKind::VaeEncoder);
    let NetworkConfig::VaeEncoder(config) = config else { panic!("not a VAE encoder") };
    let source = EngineWeights::new(e, &file);
    let encoder = VaeEncoder::load(&Weights::root(&source), &config).unwrap_or_else(|e| panic!("{e}"));
    let e = &ReferenceSums::new(e);
    for case in pack().cases() {
        let latents = encoder.forward(e, &upload(e, case.source_pixels()));
        check(e, &case, "image_latents", &latents.unwrap_or_else(|e| panic!("{e}")));
    }
}
