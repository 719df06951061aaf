//! Conversion of the golden pack's official tree, and of damaged copies of it.

#![allow(clippy::unwrap_used)]

mod files;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use files::{Tensor, names, official_copy, pack, read_json, sources, write_safetensors};
use half::{bf16, f16};
use serde_json::{Value, json};
use smartedit_core::engine::Precision;
use smartedit_core::model::checkpoint::Checkpoint;
use smartedit_core::model::convert::{
    ConvertError, InstructPix2PixSources, Problem, Report, SmartEditSources, convert_instruct_pix2pix,
    convert_smartedit,
};
use smartedit_core::model::inspect::inspect;
use smartedit_core::model::{DirectoryError, ModelDirectory, NetworkConfig, PipelineConfig, SchedulerKind};
use smartedit_core::networks;
use smartedit_core::stage::StageKind;
use smartedit_core::text::{RELEASE_SYSTEM, parse_templates};
use smartedit_core::weights::Dtype;
use tempfile::TempDir;

/// Old and new names of the VAE's attention.
const ATTENTION: [(&str, &str); 4] =
    [("query", "to_q"), ("key", "to_k"), ("value", "to_v"), ("proj_attn", "to_out.0")];

/// A checkpoint's tensors as shape and `f32` values, by an own conversion.
struct Values(Checkpoint);

impl Values {
    fn open(paths: &[PathBuf]) -> Self {
        Self(Checkpoint::open(paths).unwrap())
    }

    fn get(&self, name: &str) -> (Vec<usize>, Vec<f32>) {
        let view = self.0.get(name).unwrap_or_else(|| panic!("`{name}` is missing in {:?}", self.0));
        let bytes = view.bytes();
        let values = match view.dtype() {
            Dtype::F32 => bytes.chunks(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect(),
            Dtype::F16 => {
                bytes.chunks(2).map(|b| f16::from_le_bytes(b.try_into().unwrap()).to_f32()).collect()
            }
            Dtype::BF16 => {
                bytes.chunks(2).map(|b| bf16::from_le_bytes(b.try_into().unwrap()).to_f32()).collect()
            }
            other => panic!("{other:?}"),
        };
        (view.shape().to_vec(), values)
    }
}

/// The only file in a directory, or the index if there are several, that is a checkpoint.
fn weights_in(directory: &Path) -> PathBuf {
    let files = names(directory);
    let index = files.iter().find(|name| name.ends_with(".index.json"));
    let single = files.iter().find(|name| name.ends_with(".bin") || name.ends_with(".safetensors"));
    directory.join(index.or(single).unwrap_or_else(|| panic!("no checkpoint in {}", directory.display())))
}

fn entry(directory: &Path, prefix: &str) -> PathBuf {
    let name = names(directory).into_iter().find(|name| name.starts_with(prefix)).unwrap();
    directory.join(name)
}

/// `adapter_config.json` beside or in the directory of the trunk.
fn adapter_config(smartedit: &Path) -> PathBuf {
    let inside = entry(smartedit, "LLM-").join("adapter_config.json");
    if inside.is_file() { inside } else { smartedit.join("adapter_config.json") }
}

struct Converted {
    place: TempDir,
    out: PathBuf,
    sources: SmartEditSources,
    report: Report,
}

fn converted() -> Converted {
    let place = tempfile::tempdir().unwrap();
    let sources = sources(&pack(), &pack().join("official"));
    let out = place.path().join("model");
    let report = convert_smartedit(&sources, &out).unwrap();
    Converted { place, out, sources, report }
}

fn problems(result: Result<Report, ConvertError>) -> Vec<Problem> {
    match result {
        Err(ConvertError::Problems(problems)) => problems,
        other => panic!("{other:?}"),
    }
}

#[test]
fn golden_pack_becomes_a_whole_model_directory() {
    let Converted { place, out, sources, report } = converted();
    assert_eq!(names(place.path()), ["model"], "nothing but the model is left");
    let directory = ModelDirectory::open(&out).unwrap();
    directory.verify().unwrap();
    let config = directory.config();
    assert_eq!(config.stages.keys().copied().collect::<Vec<_>>(), StageKind::ALL);

    let golden = read_json(&pack().join("golden.json"));
    let PipelineConfig::SmartEdit { prompt, .. } = &config.pipeline else { panic!("{:?}", config.pipeline) };
    assert_eq!(prompt.system, golden["system"].as_str().unwrap());
    let templates = golden["templates"].as_array().unwrap();
    assert_eq!(prompt.templates.len(), templates.len());
    for (found, expected) in prompt.templates.iter().zip(templates) {
        assert_eq!((&found.human, &found.gpt), (&text(&expected["Human"]), &text(&expected["GPT"])));
    }
    assert!(directory.tokenizer().unwrap().is_file());
    assert!(directory.clip_tokenizer().join("merges.txt").is_file());
    assert_eq!(config.scheduler.default, SchedulerKind::EulerAncestral);
    assert_eq!(config.defaults.resolution, Some((256, 256)));
    assert_eq!(config.name, report.name);

    // Every file holds exactly what its network asks for.
    for (kind, stage) in &config.stages {
        assert_eq!(stage.network.kind(), *kind);
        let weights = directory.stage_weights(*kind).unwrap().unwrap();
        let manifest = networks::manifest(&stage.network).unwrap();
        for (name, shape) in &manifest {
            let view = weights.view(name, shape).unwrap();
            let size = view.dtype().bitsize() / 8;
            assert_eq!(view.bytes().as_ptr() as usize % size, 0, "`{name}` is not aligned");
        }
        let asked: BTreeSet<&str> = manifest.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(weights.tensors().map(|(name, _, _)| name).collect::<BTreeSet<_>>(), asked);
    }

    // No path of this machine gets into the directory.
    let model = fs::read_to_string(out.join("model.json")).unwrap();
    let root = sources.smartedit.parent().unwrap().canonicalize().unwrap();
    assert!(!model.contains(root.to_str().unwrap()), "{model}");
    assert!(!report.dropped.is_empty());
    println!("{report}\n{}", inspect(&out).unwrap());
}

fn text(value: &Value) -> String {
    value.as_str().unwrap().to_owned()
}

#[test]
fn golden_sizes_are_those_of_the_sources() {
    let Converted { place: _place, out, .. } = converted();
    let golden = &read_json(&pack().join("golden.json"))["config"];
    let size = |key: &str| usize::try_from(golden[key].as_u64().unwrap_or_else(|| panic!("{key}"))).unwrap();
    let directory = ModelDirectory::open(&out).unwrap();
    for stage in directory.config().stages.values() {
        match &stage.network {
            NetworkConfig::VisionEncoder(c) => {
                assert_eq!((c.hidden_size, c.num_heads), (size("clip_hidden"), size("clip_heads")));
                assert_eq!(c.num_layers, size("clip_layers") - 1);
            }
            NetworkConfig::LanguageModel(c) => {
                assert_eq!((c.hidden_size, c.num_heads), (size("llm_hidden"), size("llm_heads")));
                assert_eq!((c.num_layers, c.intermediate_size), (size("llm_layers"), size("llm_inter")));
                assert_eq!(c.vocab_size, size("sp_vocab") + 35);
            }
            NetworkConfig::Connector(c) => {
                assert_eq!(
                    (c.qformer.hidden_size, c.qformer.num_heads),
                    (size("qf_hidden"), size("qf_heads"))
                );
                assert_eq!((c.qformer.num_layers, c.qformer.num_queries), (size("qf_layers"), 77));
                assert_eq!(c.qformer.cross_attention_frequency, 2);
            }
            NetworkConfig::TextEncoder(c) => {
                assert_eq!((c.num_layers, c.num_heads), (size("text_layers"), size("text_heads")));
            }
            NetworkConfig::Denoiser(c) => {
                assert_eq!(c.in_channels, 8);
                assert_eq!(json!(c.block_channels), golden["unet_blocks"]);
                match &golden["unet_heads"] {
                    Value::Array(heads) => assert_eq!(json!(c.num_heads), json!(heads)),
                    heads => assert!(c.num_heads.iter().all(|&found| json!(found) == *heads)),
                }
            }
            NetworkConfig::VaeEncoder(c) | NetworkConfig::VaeDecoder(c) => {
                assert_eq!(json!(c.block_channels), golden["vae_blocks"]);
            }
        }
    }
}

#[test]
fn golden_tables_are_composed_of_three_files() {
    let Converted { place: _place, out, sources, .. } = converted();
    let model = Values::open(&[out.join("language_model.safetensors")]);
    let llava = Values::open(&[weights_in(&sources.llava)]);
    let trunk = Values::open(&[weights_in(&entry(&sources.smartedit, "LLM-"))]);
    let qformer = Values::open(&[weights_in(&sources.smartedit.join("embeddings_qformer"))]);
    let added_embeddings = trunk.get("model.base_model.model.embed_tokens.weight").1;
    let added_head = qformer.get("lm_head.weight").1;
    for (name, base, added) in [
        ("embed_tokens.weight", llava.get("model.embed_tokens.weight"), added_embeddings),
        ("lm_head.weight", llava.get("lm_head.weight"), added_head),
    ] {
        let (shape, found) = model.get(name);
        let (rows, width) = (shape[0], shape[1]);
        assert_eq!(base.0, [rows - 35 + 3, width]);
        let split = (rows - 35) * width;
        assert_eq!(found[..split], base.1[..split], "{name}");
        assert_eq!(found[split..], added[added.len() - 35 * width..], "{name}");
    }
    assert_eq!(model.get("mm_projector.weight"), qformer.get("mm_projector.weight"));
}

#[test]
fn golden_lora_is_merged_into_its_targets_alone() {
    let Converted { place: _place, out, sources, .. } = converted();
    let model = Values::open(&[out.join("language_model.safetensors")]);
    let trunk = Values::open(&[weights_in(&entry(&sources.smartedit, "LLM-"))]);
    let adapter = read_json(&adapter_config(&sources.smartedit));
    let scale = adapter["lora_alpha"].as_f64().unwrap() / adapter["r"].as_f64().unwrap();
    let mut changed = 0;
    for layer in 0.. {
        let prefix = format!("model.base_model.model.layers.{layer}.self_attn.");
        if trunk.0.get(&format!("{prefix}q_proj.weight")).is_none() {
            assert!(layer > 0);
            break;
        }
        for module in ["q_proj", "k_proj", "v_proj", "o_proj"] {
            let (shape, base) = trunk.get(&format!("{prefix}{module}.weight"));
            let (found_shape, found) = model.get(&format!("layers.{layer}.self_attn.{module}.weight"));
            assert_eq!(found_shape, shape);
            if !adapter["target_modules"].as_array().unwrap().contains(&json!(module)) {
                assert_eq!(found, base, "{module}");
                continue;
            }
            let (a_shape, a) = trunk.get(&format!("{prefix}{module}.lora_A.default.weight"));
            let (_, b) = trunk.get(&format!("{prefix}{module}.lora_B.default.weight"));
            let (rank, width) = (a_shape[0], a_shape[1]);
            for (index, (&found, &base)) in found.iter().zip(&base).enumerate() {
                let (row, column) = (index / width, index % width);
                let delta: f64 =
                    (0..rank).map(|k| f64::from(b[row * rank + k]) * f64::from(a[k * width + column])).sum();
                let expected = f64::from(base) + scale * delta;
                assert!((f64::from(found) - expected).abs() <= 1e-6 * expected.abs().max(1.0), "{module}");
                changed += usize::from(found != base);
            }
        }
    }
    assert!(changed > 0, "the adapter changes something");
}

#[test]
fn golden_vae_attention_has_its_new_names() {
    let Converted { place: _place, out, sources, .. } = converted();
    let encoder = Values::open(&[out.join("vae_encoder.safetensors")]);
    let source = Values::open(&[weights_in(&sources.instruct_pix2pix.join("vae"))]);
    let attention = "encoder.mid_block.attentions.0";
    for (old, new) in ATTENTION {
        let new = format!("{attention}.{new}.weight");
        let old = format!("{attention}.{old}.weight");
        let expected = if source.0.get(&old).is_some() { source.get(&old) } else { source.get(&new) };
        assert_eq!(encoder.get(&new), expected);
    }
}

#[test]
fn golden_instruct_pix2pix_converts_alone() {
    let place = tempfile::tempdir().unwrap();
    let out = place.path().join("model");
    let from = pack().join("official/timbrooks/instruct-pix2pix");
    let sources = InstructPix2PixSources { from, name: Some("tiny".into()), dtype: None };
    let report = convert_instruct_pix2pix(&sources, &out).unwrap();
    let stages: Vec<StageKind> = report.stages.iter().map(|stage| stage.stage).collect();
    assert_eq!(
        stages,
        [StageKind::TextEncoder, StageKind::VaeEncoder, StageKind::Denoiser, StageKind::VaeDecoder]
    );
    let directory = ModelDirectory::open(&out).unwrap();
    directory.verify().unwrap();
    assert_eq!(directory.config().name, "tiny");
    assert_eq!(directory.config().defaults.resolution, None);
    assert_eq!(directory.tokenizer(), None);
}

#[test]
fn golden_dtypes_are_converted_on_request() {
    let place = tempfile::tempdir().unwrap();
    let from = pack().join("official/timbrooks/instruct-pix2pix");
    let source = Values::open(&[weights_in(&from.join("vae"))]);
    for (precision, name) in [(Precision::F32, "f32"), (Precision::Bf16, "bf16"), (Precision::F16, "f16")] {
        let out = place.path().join(name);
        let sources = InstructPix2PixSources { from: from.clone(), name: None, dtype: Some(precision) };
        let report = convert_instruct_pix2pix(&sources, &out).unwrap();
        for stage in &report.stages {
            assert_eq!(stage.dtypes.keys().collect::<Vec<_>>(), [name]);
        }
        let (_, found) = Values::open(&[out.join("vae_encoder.safetensors")]).get("encoder.conv_in.weight");
        let rounded: Vec<f32> = source
            .get("encoder.conv_in.weight")
            .1
            .iter()
            .map(|&value| match precision {
                Precision::F32 => value,
                Precision::Bf16 => bf16::from_f32(value).to_f32(),
                Precision::F16 => f16::from_f32(value).to_f32(),
            })
            .collect();
        assert_eq!(found, rounded);
    }
}

/// Rewrites a checkpoint as safetensors after changing its tensors.
fn rewrite(directory: &Path, stem: &str, change: impl FnOnce(&mut Vec<Tensor>)) {
    let path = weights_in(directory);
    let checkpoint = Checkpoint::open(&[&path]).unwrap();
    let mut tensors: Vec<Tensor> = checkpoint
        .iter()
        .map(|(name, view)| {
            let dtype = match view.dtype() {
                Dtype::F32 => "F32",
                Dtype::F16 => "F16",
                Dtype::BF16 => "BF16",
                Dtype::I64 => "I64",
                other => panic!("{other:?}"),
            };
            (name.to_owned(), dtype, view.shape().to_vec(), view.bytes().into_owned())
        })
        .collect();
    let files: Vec<PathBuf> = checkpoint.files().map(Path::to_owned).collect();
    drop(checkpoint);
    for file in files {
        fs::remove_file(file).unwrap();
    }
    let _ = fs::remove_file(path);
    change(&mut tensors);
    write_safetensors(&directory.join(format!("{stem}.safetensors")), &tensors);
}

#[test]
fn golden_formats_make_no_difference() {
    let Converted { place: _place, out, .. } = converted();
    let place = tempfile::tempdir().unwrap();
    let official = official_copy(&pack(), place.path());
    let mut sources = sources(&pack(), &official);
    // One safetensors file for LLaVA's shards, the fp16 name for the UNet, a higher step beside the old one.
    rewrite(&sources.llava, "model", |_| {});
    rewrite(&entry(&sources.smartedit, "unet-"), "adapter_model", |_| {});
    rewrite(&sources.instruct_pix2pix.join("vae"), "diffusion_pytorch_model.fp16", |tensors| {
        for (name, ..) in tensors {
            for (old, new) in ATTENTION {
                *name = name.replace(&format!(".{old}."), &format!(".{new}."));
            }
        }
    });
    let llm = entry(&sources.smartedit, "LLM-");
    let path = adapter_config(&sources.smartedit);
    let mut adapter = read_json(&path);
    adapter["fan_in_fan_out"] = json!(true);
    fs::remove_file(path).unwrap();
    fs::write(llm.join("adapter_config.json"), adapter.to_string()).unwrap();
    fs::create_dir(sources.smartedit.join("LLM-5000")).unwrap();
    sources.name = Some("other".into());
    let second = place.path().join("model");
    let report = convert_smartedit(&sources, &second).unwrap();
    let noted = |part: &str| report.notes.iter().any(|note| note.contains(part));
    assert!(noted("5000") && noted("fan_in_fan_out"), "{:?}", report.notes);
    let (first, second) = (ModelDirectory::open(&out).unwrap(), ModelDirectory::open(&second).unwrap());
    assert_eq!(first.config().files, second.config().files, "the same bytes");
}

#[test]
fn golden_every_problem_is_listed_at_once() {
    let place = tempfile::tempdir().unwrap();
    let official = official_copy(&pack(), place.path());
    let sources = sources(&pack(), &official);
    rewrite(&sources.vision_tower, "model", |tensors| {
        tensors.retain(|(name, ..)| name != "vision_model.pre_layrnorm.weight");
        tensors.push(("stranger".into(), "F32", vec![1], vec![0; 4]));
    });
    rewrite(&entry(&sources.smartedit, "modulate-"), "adapter_model", |tensors| {
        let tensor = tensors.iter_mut().find(|(name, ..)| name == "modulate_head.bias").unwrap();
        tensor.2 = vec![1, tensor.2[0]];
    });
    rewrite(&entry(&sources.smartedit, "LLM-"), "adapter_model", |tensors| {
        tensors.retain(|(name, ..)| !name.ends_with("layers.0.self_attn.q_proj.lora_A.default.weight"));
        let norm = tensors.iter_mut().find(|(name, ..)| name.ends_with("model.norm.weight")).unwrap();
        norm.1 = "I64";
        norm.3 = vec![0; 8 * norm.2[0]];
    });
    let unet = weights_in(&entry(&sources.smartedit, "unet-"));
    let mut bytes = fs::read(&unet).unwrap();
    bytes.truncate(bytes.len() / 2);
    fs::write(&unet, bytes).unwrap();
    fs::remove_file(sources.instruct_pix2pix.join("tokenizer/merges.txt")).unwrap();
    fs::remove_file(sources.instruct_pix2pix.join("scheduler/scheduler_config.json")).unwrap();
    fs::write(sources.instruct_pix2pix.join("vae/config.json"), "{").unwrap();
    fs::remove_dir_all(sources.smartedit.join("embeddings_qformer")).unwrap();

    let before = names(place.path());
    let out = place.path().join("model");
    let error = convert_smartedit(&sources, &out).unwrap_err();
    let text = error.to_string();
    println!("{text}");
    for part in [
        "tensor `vision_model.pre_layrnorm.weight` is missing (vision_encoder needs it)",
        "tensor `stranger` is unexpected",
        "q_proj.lora_A.default.weight` is missing (language_model needs it)",
        "norm.weight` holds i64 elements",
        "unet-",
        "merges.txt",
        "scheduler_config.json",
        "vae/config.json: is not valid JSON",
        "embeddings_qformer",
    ] {
        assert!(text.contains(part), "{part:?} is not in\n{text}");
    }
    assert_eq!(names(place.path()), before, "nothing is left behind");
}

#[test]
fn golden_wrong_shapes_name_tensor_and_both_shapes() {
    let place = tempfile::tempdir().unwrap();
    let official = official_copy(&pack(), place.path());
    let sources = sources(&pack(), &official);
    rewrite(&entry(&sources.smartedit, "modulate-"), "adapter_model", |tensors| {
        let tensor = tensors.iter_mut().find(|(name, ..)| name == "modulate_head.bias").unwrap();
        tensor.2 = vec![1, tensor.2[0]];
    });
    // One table with a row less than the others say.
    rewrite(
        &sources.smartedit.join("embeddings_qformer"),
        "checkpoint-15000_embeddings_qformer",
        |tensors| {
            let head = tensors.iter_mut().find(|(name, ..)| name == "lm_head.weight").unwrap();
            head.2[0] -= 1;
            head.3.truncate(head.2.iter().product::<usize>() * head.3.len() / ((head.2[0] + 1) * head.2[1]));
        },
    );
    let problems = problems(convert_smartedit(&sources, &place.path().join("model")));
    let shapes: Vec<(&str, StageKind)> = problems
        .iter()
        .map(|problem| match problem {
            Problem::Shape { tensor, stage, found, expected, .. } if found != expected => {
                (tensor.as_str(), *stage)
            }
            other => panic!("{other}"),
        })
        .collect();
    assert_eq!(
        shapes,
        [("lm_head.weight", StageKind::LanguageModel), ("modulate_head.bias", StageKind::Connector)]
    );
}

#[test]
fn golden_half_precision_overflow_names_the_tensor_and_leaves_nothing() {
    let place = tempfile::tempdir().unwrap();
    let official = official_copy(&pack(), place.path());
    let from = sources(&pack(), &official).instruct_pix2pix;
    rewrite(&from.join("vae"), "diffusion_pytorch_model", |tensors| {
        let tensor = tensors.iter_mut().find(|(name, ..)| name == "decoder.conv_out.bias").unwrap();
        let values = [1.0_f32, 1e6, 2.0];
        (tensor.1, tensor.3) = ("F32", values.iter().flat_map(|value| value.to_le_bytes()).collect());
    });
    let out = place.path().join("model");
    let sources = InstructPix2PixSources { from, name: None, dtype: Some(Precision::F16) };
    let text = convert_instruct_pix2pix(&sources, &out).unwrap_err().to_string();
    assert!(text.contains("`decoder.conv_out.bias`") && text.contains("f16"), "{text}");
    assert_eq!(names(place.path()), ["official"]);
}

#[test]
fn golden_unsupported_networks_are_refused_by_name() {
    let place = tempfile::tempdir().unwrap();
    let official = official_copy(&pack(), place.path());
    let from = sources(&pack(), &official).instruct_pix2pix;
    let path = from.join("unet/config.json");
    let original = read_json(&path);
    let cases = [
        ("use_linear_projection", json!(true), "use_linear_projection"),
        ("in_channels", json!(4), "`in_channels` is 4"),
        ("class_embed_type", json!("timestep"), "class_embed_type"),
        ("attention_head_dim", json!([8, 8]), "different lengths"),
        ("attention_head_dim", json!(7), "7"),
        ("layers_per_block", json!(1_000_000_000), "layers_per_block"),
        ("block_out_channels", json!([0, 0, 0, 0]), "block_channels"),
        ("norm_num_groups", json!(-1), "-1"),
    ];
    for (key, value, expected) in cases {
        let mut config = original.clone();
        config[key] = value;
        fs::write(&path, config.to_string()).unwrap();
        let sources = InstructPix2PixSources { from: from.clone(), ..Default::default() };
        let text = convert_instruct_pix2pix(&sources, &place.path().join("model")).unwrap_err().to_string();
        assert!(text.contains("unet/config.json") && text.contains(expected), "{key}: {text}");
    }
}

#[test]
fn golden_missing_shards_are_named() {
    let place = tempfile::tempdir().unwrap();
    let official = official_copy(&pack(), place.path());
    let sources = sources(&pack(), &official);
    let shards: Vec<String> =
        names(&sources.llava).into_iter().filter(|name| name.contains("-of-")).collect();
    let last = shards.last().expect("LLaVA comes in shards");
    let index = weights_in(&sources.llava);

    // Without an index the shards are found by their names.
    let moved = place.path().join("index");
    fs::rename(&index, &moved).unwrap();
    convert_smartedit(&sources, &place.path().join("model")).unwrap();

    fs::remove_file(sources.llava.join(last)).unwrap();
    for with_index in [false, true] {
        if with_index {
            fs::rename(&moved, &index).unwrap();
        }
        let problems = problems(convert_smartedit(&sources, &place.path().join("other")));
        let text = problems.first().unwrap().to_string();
        assert!(problems.len() == 1 && text.contains("missing") && text.contains(last.as_str()), "{text}");
    }
}

#[test]
fn golden_layer_selection_decides_what_is_dropped() {
    let place = tempfile::tempdir().unwrap();
    let official = official_copy(&pack(), place.path());
    let sources = sources(&pack(), &official);
    let layers = read_json(&pack().join("golden.json"))["config"]["clip_layers"].as_u64().unwrap() as usize;
    let path = sources.llava.join("config.json");
    let mut config = read_json(&path);
    for (select, expected) in [(json!(-1), layers), (json!(1), 1), (Value::Null, layers - 1)] {
        config["mm_vision_select_layer"] = select.clone();
        fs::write(&path, config.to_string()).unwrap();
        let out = place.path().join(format!("model{select}"));
        convert_smartedit(&sources, &out).unwrap();
        let directory = ModelDirectory::open(&out).unwrap();
        match &directory.config().stages[&StageKind::VisionEncoder].network {
            NetworkConfig::VisionEncoder(config) => assert_eq!(config.num_layers, expected),
            other => panic!("{other:?}"),
        }
    }
    config["mm_vision_select_layer"] = json!(-1000);
    fs::write(&path, config.to_string()).unwrap();
    let text = convert_smartedit(&sources, &place.path().join("model")).unwrap_err().to_string();
    assert!(text.contains("hidden state -1000"), "{text}");
}

#[test]
fn golden_foreign_tokenizers_and_adapters_are_noticed() {
    let place = tempfile::tempdir().unwrap();
    let official = official_copy(&pack(), place.path());
    let sources = sources(&pack(), &official);
    let foreign = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden/tokenizers/llama32k.model");
    fs::write(sources.vicuna.join("tokenizer.model"), fs::read(foreign).unwrap()).unwrap();
    fs::remove_file(adapter_config(&sources.smartedit)).unwrap();
    let text = convert_smartedit(&sources, &place.path().join("model")).unwrap_err().to_string();
    assert!(text.contains("makes 32035 tokens") && text.contains("adapter_config.json"), "{text}");
    assert!(text.contains("2 problems"), "{text}");
}

#[test]
fn what_exists_is_neither_overwritten_nor_touched() {
    let place = tempfile::tempdir().unwrap();
    let out = place.path().join("model");
    fs::create_dir(&out).unwrap();
    fs::write(out.join("precious"), "x").unwrap();
    let sources = sources(&pack(), &pack().join("official"));
    let error = convert_smartedit(&sources, &out).unwrap_err();
    assert!(error.to_string().contains("not an empty directory"), "{error}");
    assert_eq!(names(&out), ["precious"]);
    assert_eq!(names(place.path()), ["model"]);
}

#[test]
fn empty_sources_are_a_list_of_what_is_missing() {
    let place = tempfile::tempdir().unwrap();
    let empty = place.path().join("empty");
    fs::create_dir(&empty).unwrap();
    let sources = SmartEditSources {
        vicuna: empty.clone(),
        llava: empty.clone(),
        vision_tower: empty.clone(),
        smartedit: empty.clone(),
        instruct_pix2pix: empty.clone(),
        ..Default::default()
    };
    let problems = problems(convert_smartedit(&sources, &place.path().join("model")));
    let text: String = problems.iter().map(|problem| format!("{problem}\n")).collect();
    for part in ["LLM-<steps>", "modulate-<steps>", "unet-<steps>", "tokenizer.model", "vae", "text_encoder"]
    {
        assert!(text.contains(part), "{part:?} is not in\n{text}");
    }
}

#[test]
fn golden_release_prompt_is_built_in() {
    let place = tempfile::tempdir().unwrap();
    let mut sources = sources(&pack(), &pack().join("official"));
    (sources.system, sources.templates) = (None, None);
    let out = place.path().join("model");
    convert_smartedit(&sources, &out).unwrap();
    let directory = ModelDirectory::open(&out).unwrap();
    let PipelineConfig::SmartEdit { prompt, .. } = &directory.config().pipeline else { panic!() };
    assert_eq!(prompt.system, RELEASE_SYSTEM);
    assert_eq!(prompt.templates.len(), 1);
    assert!(parse_templates("").is_err());
}

#[test]
fn golden_damaged_directories_are_refused() {
    let Converted { place: _place, out, .. } = converted();
    let model_file = out.join("model.json");
    let original = read_json(&model_file);
    let refused = |change: &dyn Fn(&mut Value)| {
        let mut model = original.clone();
        change(&mut model);
        fs::write(&model_file, model.to_string()).unwrap();
        ModelDirectory::open(&out).unwrap_err().to_string()
    };
    let digest = json!({"sha256": "", "bytes": 1});
    assert!(refused(&|model| model["format"] = json!(2)).contains("format 2"));
    assert!(refused(&|model| model["surprise"] = json!(1)).contains("surprise"));
    for outside in ["../passwd", "/etc/passwd", "a/../../b", "C:\\x", ""] {
        let text = refused(&|model| model["files"][outside] = digest.clone());
        assert!(text.contains("no relative path"), "{outside:?}: {text}");
    }
    let text = refused(&|model| model["stages"]["denoiser"]["file"] = json!("../denoiser.safetensors"));
    assert!(text.contains("not listed"), "{text}");
    let text = refused(&|model| model["stages"]["denoiser"] = model["stages"]["vae_decoder"].clone());
    assert!(text.contains("network of kind vae_decoder"), "{text}");
    let text = refused(&|model| {
        model["stages"]["language_model"]["network"]["num_layers"] = json!(1_000_000_000);
    });
    assert!(text.contains("num_layers"), "{text}");
    let text = refused(&|model| model["pipeline"]["tokenizer"] = json!("../../tokenizer.model"));
    assert!(text.contains("tokenizer"), "{text}");

    let text = refused(&|model| drop(model["stages"].as_object_mut().unwrap().remove("connector")));
    assert!(text.contains("stage connector"), "{text}");
    let text = refused(&|model| model["scheduler"]["num_train_timesteps"] = json!(0));
    assert!(text.contains("num_train_timesteps"), "{text}");
    let text = refused(&|model| model["scheduler"]["beta_end"] = json!(2.0));
    assert!(text.contains("beta_end"), "{text}");
    let text = refused(&|model| model["defaults"]["steps"] = json!(0));
    assert!(text.contains("steps: 0"), "{text}");

    fs::write(&model_file, original.to_string()).unwrap();
    let directory = ModelDirectory::open(&out).unwrap();
    let file = directory.stage_file(StageKind::Connector).unwrap();
    let mut bytes = fs::read(&file).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&file, &bytes).unwrap();
    assert!(matches!(directory.verify(), Err(DirectoryError::Digest { path, .. }) if path == file));
    fs::write(&file, &bytes[1..]).unwrap();
    assert!(matches!(ModelDirectory::open(&out), Err(DirectoryError::Size { .. })));
    fs::remove_file(&file).unwrap();
    assert!(matches!(ModelDirectory::open(&out), Err(DirectoryError::Io { path, .. }) if path == file));
}

#[test]
fn golden_inspection_counts_what_is_there() {
    let Converted { place: _place, out, sources, report, .. } = converted();
    let model = inspect(&out).unwrap();
    assert_eq!(model.name.as_deref(), Some(report.name.as_str()));
    let counts = |stage: StageKind| {
        let file = model.files.iter().find(|file| file.stage == Some(stage)).unwrap();
        (file.tensors.len(), file.parameters)
    };
    for stage in &report.stages {
        assert_eq!(counts(stage.stage), (stage.tensors, stage.parameters));
    }
    let shown = model.to_string();
    assert!(StageKind::ALL.iter().all(|stage| shown.contains(stage.name())), "{shown}");

    // Shards count as one checkpoint, as a file of its own or in a directory.
    let index = inspect(&weights_in(&sources.llava)).unwrap();
    let directory = inspect(&sources.llava).unwrap();
    assert_eq!(index.files.len(), 1);
    assert_eq!(index.files[0].tensors, directory.files[0].tensors);
    assert!(index.to_string().contains("model.embed_tokens.weight"));
    let all = inspect(&sources.smartedit).unwrap();
    assert_eq!(all.files.len(), 4, "{all}");
    assert_eq!(serde_json::to_value(&all).unwrap()["files"].as_array().unwrap().len(), 4);
    assert!(inspect(&sources.smartedit.join("no such file")).is_err());
}
