use std::path::PathBuf;

use safetensors::tensor::TensorView;
use safetensors::{Dtype, serialize_to_file};
use serde_json::json;

use super::*;
use crate::model::ModelDirectory;
use crate::networks;

const QUERY: &str = "layers.0.self_attn.q_proj";
const CROSS: &str = "down_blocks.0.attentions.0.transformer_blocks.0.attn2";

fn model() -> ModelConfig {
    let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/../models/tiny-random");
    ModelDirectory::open(directory.as_ref()).expect("the model is there").config().clone()
}

/// The shape of a layer's weight.
fn shape(layer: &str) -> Vec<usize> {
    let wanted = format!("{layer}.weight");
    let networks = ADAPTED.map(|stage| model().stages[&stage].network.clone());
    let layers = networks.iter().flat_map(|network| networks::updatable(network).expect("it can be built"));
    let found = layers.into_iter().find(|(name, _)| *name == wanted);
    found.unwrap_or_else(|| panic!("{layer} is no layer")).1
}

/// A directory for a file of an adapter.
struct Place {
    directory: tempfile::TempDir,
    tensors: Vec<(String, Vec<usize>, Vec<f32>)>,
}

impl Place {
    fn new() -> Self {
        Self { directory: tempfile::tempdir().expect("a directory"), tensors: Vec::new() }
    }

    fn with(mut self, name: &str, shape: &[usize]) -> Self {
        let count = shape.iter().product();
        let values = (0..count).map(|index| (index as f32 + 1.0).sin()).collect();
        self.tensors.push((name.to_owned(), shape.to_vec(), values));
        self
    }

    fn number(mut self, name: &str, value: f32) -> Self {
        self.tensors.push((name.to_owned(), Vec::new(), vec![value]));
        self
    }

    /// Both factors of rank 2 for a linear layer.
    fn linear(self, down: &str, up: &str, layer: &str) -> Self {
        let shape = shape(layer);
        self.with(down, &[2, shape[1]]).with(up, &[shape[0], 2])
    }

    fn file(&self, name: &str) -> PathBuf {
        let path = self.directory.path().join(name);
        let bytes = |values: &[f32]| values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>();
        let tensors: Vec<_> =
            self.tensors.iter().map(|(name, shape, values)| (name, shape, bytes(values))).collect();
        let views = tensors.iter().map(|(name, shape, bytes)| {
            (name.as_str(), TensorView::new(Dtype::F32, (*shape).clone(), bytes).expect("it fits"))
        });
        serialize_to_file(views, None, &path).expect("it can be written");
        path
    }

    fn read(&self) -> Result<Adapter, AdapterError> {
        Adapter::read(&self.file("adapter.safetensors"), &model(), 1 << 20)
    }
}

fn layers(adapter: &Adapter) -> Vec<(StageKind, usize)> {
    adapter.stages().collect()
}

fn scale(adapter: &Adapter, stage: StageKind, layer: &str) -> f32 {
    adapter.stages[&stage][&format!("{layer}.weight")].scale
}

#[test]
fn layouts_of_peft_diffusers_and_kohya() {
    let query = format!("{CROSS}.to_q");
    let out = format!("{CROSS}.to_out.0");
    let projection = "down_blocks.0.attentions.0.proj_in";
    let channels = shape(projection);
    let kohya = |layer: &str| format!("lora_unet_{}", layer.replace('.', "_"));
    let denoisers = [
        Place::new().linear(
            &format!("unet.{query}.lora_A.weight"),
            &format!("unet.{query}.lora_B.weight"),
            &query,
        ),
        Place::new().linear(
            &format!("unet.{query}.lora.down.weight"),
            &format!("unet.{query}.lora.up.weight"),
            &query,
        ),
        Place::new().linear(
            &format!("unet.{CROSS}.processor.to_out_lora.down.weight"),
            &format!("unet.{CROSS}.processor.to_out_lora.up.weight"),
            &out,
        ),
        Place::new().linear(
            &format!("{}.lora_down.weight", kohya(&query)),
            &format!("{}.lora_up.weight", kohya(&query)),
            &query,
        ),
        // A convolution of one cell, with and without its last dimensions.
        Place::new()
            .with(&format!("{}.lora_down.weight", kohya(projection)), &[2, channels[1], 1, 1])
            .with(&format!("{}.lora_up.weight", kohya(projection)), &[channels[0], 2]),
    ];
    for place in denoisers {
        let adapter = place.read().unwrap_or_else(|error| panic!("{:?}: {error}", place.tensors[0].0));
        assert_eq!(layers(&adapter), [(StageKind::Denoiser, 1)], "{}", place.tensors[0].0);
        assert_eq!(adapter.rank(), 2);
    }
}

#[test]
fn alpha_is_in_the_file_beside_it_or_the_rank() {
    let query = format!("{CROSS}.to_q");
    let (down, up) = (format!("unet.{query}.lora_A.weight"), format!("unet.{query}.lora_B.weight"));
    let plain = Place::new().linear(&down, &up, &query);
    assert_eq!(scale(&plain.read().unwrap(), StageKind::Denoiser, &query), 1.0);
    let told = plain.number(&format!("unet.{query}.alpha"), 6.0);
    assert_eq!(scale(&told.read().unwrap(), StageKind::Denoiser, &query), 3.0);

    let peft = |half: &str| format!("base_model.model.model.{QUERY}.lora_{half}.weight");
    let peft = Place::new().linear(&peft("A"), &peft("B"), QUERY);
    let path = peft.file("adapter_model.safetensors");
    let message = Adapter::read(&path, &model(), 1 << 20).unwrap_err().to_string();
    assert!(message.contains("adapter_config.json"), "{message}");
    let config = |rank: usize, rslora: bool| {
        let text = json!({"peft_type": "LORA", "r": rank, "lora_alpha": 8, "use_rslora": rslora, "target_modules": ["q_proj"]});
        std::fs::write(peft.directory.path().join("adapter_config.json"), text.to_string()).unwrap();
        Adapter::read(peft.directory.path(), &model(), 1 << 20)
    };
    assert_eq!(scale(&config(2, false).unwrap(), StageKind::LanguageModel, QUERY), 4.0);
    assert_eq!(scale(&config(2, true).unwrap(), StageKind::LanguageModel, QUERY), 8.0 / 2.0f32.sqrt());
    let message = config(4, false).unwrap_err().to_string();
    assert!(message.contains("q_proj") && message.contains("rank 2") && message.contains('4'), "{message}");
}

#[test]
fn what_does_not_fit_is_named() {
    let query = format!("{CROSS}.to_q");
    let (down, up) = (format!("unet.{query}.lora_A.weight"), format!("unet.{query}.lora_B.weight"));
    let (outputs, inputs) = (shape(&query)[0], shape(&query)[1]);
    let cases = [
        (Place::new().with(&down, &[2, inputs + 1]).with(&up, &[outputs, 2]), down.as_str(), "has shape"),
        (Place::new().with(&down, &[2, inputs]).with(&up, &[outputs, 3]), up.as_str(), "has shape"),
        (Place::new().with(&down, &[2, inputs]).with(&up, &[2]), up.as_str(), "has shape"),
        (Place::new().with(&down, &[0, inputs]).with(&up, &[outputs, 0]), down.as_str(), "rank 0"),
        (Place::new().with(&down, &[2, inputs]), down.as_str(), "other half"),
        (Place::new().number(&format!("unet.{query}.alpha"), 1.0), ".alpha", "no factors"),
        (Place::new().with("unet.nowhere.lora_A.weight", &[2, 2]), "unet.nowhere", "`nowhere`"),
        (Place::new().with("unet.conv_norm_out.lora_A.weight", &[2, 2]), "conv_norm_out", "no linear"),
        (Place::new().with("model.embed_tokens.lora_A.weight", &[2, 2]), "embed_tokens", "no linear"),
        (Place::new().with("text_encoder.x.lora_A.weight", &[2, 2]), "text_encoder.x", "text encoder"),
        (Place::new().with(&format!("unet.{query}.hada_w1_a"), &[2, 2]), "hada_w1_a", "LoRA"),
        (
            Place::new()
                .linear(&down, &up, &query)
                .with(&format!("unet.{query}.lora.down.weight"), &[2, inputs]),
            &query,
            "same layer",
        ),
        (
            Place::new().linear(&down, &up, &query).number(&format!("unet.{query}.alpha"), f32::NAN),
            ".alpha",
            "finite",
        ),
    ];
    for (place, key, words) in cases {
        let message = place.read().unwrap_err().to_string();
        assert!(message.contains(key) && message.contains(words), "{key}, {words}: {message}");
    }
    assert!(matches!(Place::new().read(), Err(AdapterError::Empty)));
}

#[test]
fn files_that_are_none_or_too_large() {
    let query = format!("{CROSS}.to_q");
    let place = Place::new().linear("unet.a", "unet.b", &query);
    let path = place.file("a.safetensors");
    let bytes = path.metadata().unwrap().len();
    let error = Adapter::read(&path, &model(), bytes - 1).unwrap_err();
    assert!(matches!(error, AdapterError::TooLarge { limit, .. } if limit == bytes - 1), "{error}");
    for content in [&b""[..], b"not safetensors", &[255; 64]] {
        std::fs::write(&path, content).unwrap();
        assert!(matches!(Adapter::read(&path, &model(), 1 << 20), Err(AdapterError::Format(_))));
    }
    for path in [place.directory.path().join("nowhere"), place.directory.path().to_owned()] {
        let message = Adapter::read(&path, &model(), 1 << 20).unwrap_err().to_string();
        assert!(!message.contains(&*place.directory.path().to_string_lossy()), "{message}");
    }
}

#[test]
fn what_edits_choose_takes_the_place_of_what_is_merged() {
    let query = format!("{CROSS}.to_q");
    let adapter = |seed: f32| {
        let (down, up) = (format!("unet.{query}.lora_A.weight"), format!("unet.{query}.lora_B.weight"));
        let place = Place::new().linear(&down, &up, &query).number(&format!("unet.{query}.alpha"), seed);
        Arc::new(place.read().unwrap())
    };
    let strength = |adapter: &Arc<Adapter>, scale| Strength { adapter: adapter.clone(), scale };
    let (first, second) = (adapter(1.0), adapter(2.0));
    let merged = strength(&first, 0.75);
    let beside = |choice: AdapterChoice, merged: Option<&Strength>| {
        choice
            .beside(merged)
            .into_iter()
            .map(|added| (added.adapter.digest(), added.scale))
            .collect::<Vec<_>>()
    };
    let (one, two) = (first.digest(), second.digest());
    assert_ne!(one, two);
    assert_eq!(beside(AdapterChoice::Default, Some(&merged)), []);
    assert_eq!(beside(AdapterChoice::None, None), []);
    assert_eq!(beside(AdapterChoice::None, Some(&merged)), [(one, -0.75)]);
    assert_eq!(beside(AdapterChoice::Of(strength(&first, 0.75)), Some(&merged)), []);
    assert_eq!(beside(AdapterChoice::Of(strength(&first, 1.0)), Some(&merged)), [(one, 0.25)]);
    assert_eq!(beside(AdapterChoice::Of(strength(&second, 1.0)), Some(&merged)), [(two, 1.0), (one, -0.75)]);
    assert_eq!(beside(AdapterChoice::Of(strength(&second, 1.0)), None), [(two, 1.0)]);
}
