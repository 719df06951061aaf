//! Golden packs: tensors and texts that the official implementation made from tiny random weights.
//!
//! `SMARTEDIT_GOLDEN_PACK` names another pack's directory; every size and name is taken from its files.

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use ndarray::{Array4, ArrayD, Axis, IxDyn};
use safetensors::{Dtype, SafeTensors};
use serde_json::Value;
use smartedit_core::diffusion::Schedule;
use smartedit_core::model::convert::{
    InstructPix2PixSources, SmartEditSources, convert_instruct_pix2pix, convert_smartedit,
};
use smartedit_core::model::{ModelConfig, ModelDirectory, NetworkConfig, SchedulerKind};
use smartedit_core::pipeline::Model;
use smartedit_core::weights::WeightFile;
use tempfile::TempDir;

use crate::engines::Row;

/// A pack: its directory, `golden.json` and `golden.safetensors`.
pub struct Pack {
    directory: PathBuf,
    json: Value,
    tensors: Vec<u8>,
}

/// The pack under test.
pub fn pack() -> &'static Pack {
    static PACK: OnceLock<Pack> = OnceLock::new();
    PACK.get_or_init(|| {
        let directory = match std::env::var_os("SMARTEDIT_GOLDEN_PACK") {
            Some(directory) => PathBuf::from(directory),
            None => Path::new(env!("CARGO_MANIFEST_DIR")).join("golden/pack_a"),
        };
        Pack::open(&directory)
    })
}

impl Pack {
    fn open(directory: &Path) -> Self {
        let read = |name: &str| {
            let path = directory.join(name);
            std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
        };
        let json = serde_json::from_slice(&read("golden.json")).expect("golden.json is JSON");
        Self { directory: directory.to_owned(), json, tensors: read("golden.safetensors") }
    }

    /// A file of the pack.
    pub fn file(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// `golden.json`.
    pub fn json(&self) -> &Value {
        &self.json
    }

    /// The SmartEdit cases.
    pub fn cases(&self) -> Vec<Case<'_>> {
        self.list("cases", "case")
    }

    /// The InstructPix2Pix cases.
    pub fn instruct_pix2pix_cases(&self) -> Vec<Case<'_>> {
        self.list("ip2p", "ip2p")
    }

    fn list(&self, key: &str, prefix: &str) -> Vec<Case<'_>> {
        let cases = self.json[key].as_array().unwrap_or_else(|| panic!("golden.json has no list `{key}`"));
        let named = |(index, json)| Case { pack: self, prefix: format!("{prefix}{index}"), json };
        cases.iter().enumerate().map(named).collect()
    }

    /// Whether there is a tensor.
    pub fn has(&self, name: &str) -> bool {
        self.safetensors().tensor(name).is_ok()
    }

    /// A float tensor.
    pub fn tensor(&self, name: &str) -> ArrayD<f32> {
        let tensors = self.safetensors();
        let view = tensors.tensor(name).unwrap_or_else(|e| panic!("{name}: {e}"));
        assert_eq!(view.dtype(), Dtype::F32, "{name}");
        let data = view.data().as_chunks::<4>().0.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect();
        ArrayD::from_shape_vec(IxDyn(view.shape()), data).expect("safetensors checks sizes")
    }

    /// A tensor of bytes.
    pub fn bytes(&self, name: &str) -> ArrayD<u8> {
        let tensors = self.safetensors();
        let view = tensors.tensor(name).unwrap_or_else(|e| panic!("{name}: {e}"));
        assert_eq!(view.dtype(), Dtype::U8, "{name}");
        ArrayD::from_shape_vec(IxDyn(view.shape()), view.data().to_vec()).expect("safetensors checks sizes")
    }

    fn safetensors(&self) -> SafeTensors<'_> {
        SafeTensors::deserialize(&self.tensors).expect("golden.safetensors is whole")
    }

    /// The sources of the SmartEdit conversion.
    pub fn smartedit_sources(&self) -> SmartEditSources {
        let official = self.file("official");
        let path = |key: &str| {
            let name = self.json["paths"][key].as_str().unwrap_or_else(|| panic!("no path `{key}`"));
            official.join(name.trim_start_matches("./"))
        };
        SmartEditSources {
            vicuna: path("vicuna"),
            llava: path("llava"),
            vision_tower: official.join("openai/clip-vit-large-patch14"),
            smartedit: path("total"),
            instruct_pix2pix: official.join("timbrooks/instruct-pix2pix"),
            qformer_config: Some(official.join("bert-base-uncased/config.json")),
            templates: Some(official.join("data/ConversationTemplateEditing_use.txt")),
            system: self.json["system"].as_str().map(str::to_owned),
            ..SmartEditSources::default()
        }
    }

    /// The sources of the InstructPix2Pix conversion.
    pub fn instruct_pix2pix_sources(&self) -> InstructPix2PixSources {
        let from = self.file("official/timbrooks/instruct-pix2pix");
        InstructPix2PixSources { from, ..InstructPix2PixSources::default() }
    }
}

/// A case of a pack.
pub struct Case<'a> {
    pack: &'a Pack,
    prefix: String,
    json: &'a Value,
}

impl Case<'_> {
    /// The prefix of the case's tensors.
    pub fn name(&self) -> &str {
        &self.prefix
    }

    /// The case's part of `golden.json`.
    pub fn json(&self) -> &Value {
        self.json
    }

    /// A float tensor of the case.
    pub fn tensor(&self, name: &str) -> ArrayD<f32> {
        self.pack.tensor(&format!("{}.{name}", self.prefix))
    }

    /// A float tensor of the case, if it is there.
    pub fn optional(&self, name: &str) -> Option<ArrayD<f32>> {
        let name = format!("{}.{name}", self.prefix);
        self.pack.has(&name).then(|| self.pack.tensor(&name))
    }

    /// A four-dimensional tensor of the case.
    pub fn latents(&self, name: &str) -> Array4<f32> {
        self.tensor(name).into_dimensionality().unwrap_or_else(|e| panic!("{name}: {e}"))
    }

    /// A tensor of bytes of the case.
    pub fn bytes(&self, name: &str) -> ArrayD<u8> {
        self.pack.bytes(&format!("{}.{name}", self.prefix))
    }

    /// A list of token ids of the case.
    pub fn ids(&self, key: &str) -> Vec<u32> {
        let ids = self.json[key].as_array().unwrap_or_else(|| panic!("no list `{key}`"));
        ids.iter().map(|id| id.as_u64().expect("an id") as u32).collect()
    }

    /// A text of the case.
    pub fn text(&self, key: &str) -> &str {
        self.json[key].as_str().unwrap_or_else(|| panic!("no text `{key}`"))
    }

    /// The source picture, as the reference reads it.
    pub fn image(&self) -> image::RgbImage {
        let path = self.pack.file(self.text("png"));
        let bytes = std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        smartedit_core::picture::decode(&bytes, &smartedit_core::picture::DecodeOptions::default())
            .unwrap_or_else(|e| panic!("{}: {e}", path.display()))
    }

    /// The source picture at the size at which it is edited, in −1…1, `[1, 3, h, w]`.
    pub fn source_pixels(&self) -> ArrayD<f32> {
        let pixels = self.bytes("sd_input_u8").mapv(|value| f32::from(value) / 255.0 * 2.0 - 1.0);
        let planes = pixels.permuted_axes(vec![2, 0, 1]).insert_axis(Axis(0));
        planes.as_standard_layout().into_owned()
    }

    /// Denoising steps that were recorded.
    pub fn steps(&self) -> usize {
        (0..).take_while(|step| self.pack.has(&format!("{}.latents_{step}", self.prefix))).count()
    }

    /// Noise of each recorded step.
    pub fn step_noise(&self) -> Vec<Array4<f32>> {
        (0..self.steps()).map(|step| self.latents(&format!("noise_step_{step}"))).collect()
    }

    /// The schedule of the recorded steps.
    pub fn schedule(&self, config: &ModelConfig) -> Schedule {
        let schedule = Schedule::new(&config.scheduler, SchedulerKind::EulerAncestral, self.steps());
        schedule.unwrap_or_else(|e| panic!("{}: {e}", self.prefix))
    }
}

/// Model directories converted from the pack.
pub struct Converted {
    root: TempDir,
}

/// The pack's models, converted once.
pub fn converted() -> &'static Converted {
    static CONVERTED: OnceLock<Converted> = OnceLock::new();
    CONVERTED.get_or_init(|| {
        let converted = Converted { root: tempfile::tempdir().expect("a temporary directory") };
        convert_smartedit(&pack().smartedit_sources(), &converted.smartedit())
            .unwrap_or_else(|e| panic!("conversion of SmartEdit: {e}"));
        convert_instruct_pix2pix(&pack().instruct_pix2pix_sources(), &converted.instruct_pix2pix())
            .unwrap_or_else(|e| panic!("conversion of InstructPix2Pix: {e}"));
        converted
    })
}

impl Converted {
    /// The SmartEdit model directory.
    pub fn smartedit(&self) -> PathBuf {
        self.root.path().join("smartedit")
    }

    /// The InstructPix2Pix model directory.
    pub fn instruct_pix2pix(&self) -> PathBuf {
        self.root.path().join("instruct-pix2pix")
    }
}

/// Loads a model directory with all stages on one engine.
pub fn load(row: &Row, directory: &Path) -> Arc<Model> {
    let load = |config: &_, weights: &_| row.backend.load(config, weights, &row.options);
    Arc::new(Model::load(directory, load).unwrap_or_else(|e| panic!("{}: {e}", directory.display())))
}

/// Loads a model directory with all stages on one engine, whose VAE encoder sums as the reference's does.
pub fn load_with_reference_sums(row: &Row, directory: &Path) -> Arc<Model> {
    let load = |config: &NetworkConfig, weights: &WeightFile| match config {
        NetworkConfig::VaeEncoder(_) => (row.reference_sums)(config, weights),
        _ => row.backend.load(config, weights, &row.options),
    };
    Arc::new(Model::load(directory, load).unwrap_or_else(|e| panic!("{}: {e}", directory.display())))
}

/// Opens a model directory.
pub fn open(directory: &Path) -> ModelDirectory {
    ModelDirectory::open(directory).unwrap_or_else(|e| panic!("{}: {e}", directory.display()))
}
