//! The official SmartEdit release.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::json;

use super::configs::{self, ConfigFile};
use super::diffusion::{CLIP_TOKENIZER, Diffusers};
use super::lora::Lora;
use super::plan::{Findings, Plan, dims};
use super::recipe::{Merge, Part, Recipe};
use super::source::{ADAPTER, Source, Step, TRANSFORMERS, base_name, find_step, read_text};
use super::{Assembly, ConvertError, Problem, Report, SmartEditSources};
use crate::model::{
    BimConfig, ConnectorConfig, EditDefaults, IMAGE_TOKENS, InteractionConfig, LlamaConfig, NetworkConfig,
    PipelineConfig, PromptConfig, QFormerConfig, VisionConfig,
};
use crate::stage::StageKind;
use crate::text::{LlamaTokenizer, parse_templates, release_prompt};

/// Rows that SmartEdit adds to the base vocabulary: `<img>`, `<im_start>`, `<im_end>` and the image tokens.
const ADDED_ROWS: usize = 3 + IMAGE_TOKENS;
/// Rows that LLaVA adds to it, with other meanings.
const LLAVA_ROWS: usize = 3;
/// What precedes the names of the language model's tensors in `LLM-*`.
const TRUNK: &str = "model.base_model.model.";
/// Attention heads of the official BIM; its checkpoint does not tell.
const BIM_HEADS: usize = 8;
/// PyTorch's default for layer norms, which the official BIM uses.
const BIM_EPS: f64 = 1e-5;
/// The hidden state of the vision tower that is used if LLaVA's configuration does not tell.
const SELECT_LAYER: i64 = -2;

pub(super) fn convert(sources: &SmartEditSources, out: &Path) -> Result<Report, ConvertError> {
    let mut findings = Findings::default();
    let files = Files::open(&mut findings, sources);
    let tokenizer = find_tokenizer(&mut findings, &sources.vicuna);
    let prompt = prompt(&mut findings, sources);

    let vision = files.vision_config(&mut findings, sources);
    let mut plans = Vec::new();
    if let Some((source, config)) = files.vision_tower.as_ref().zip(vision.as_ref()) {
        plans.extend(plan_vision(&mut findings, source, config, &sources.vision_tower.join("config.json")));
    }
    let vicuna_config = sources.vicuna.join("config.json");
    let llama = files.llama_config(&mut findings, &vicuna_config, vision.as_ref());
    if let Some(llama) = &llama {
        if let Some((_, tokenizer)) = &tokenizer
            && tokenizer.vocab_size() != llama.vocab_size
        {
            findings.problems.push(Problem::Contradiction(format!(
                "the tokenizer in {} makes {} tokens with the added ones, the checkpoints have rows for {}",
                sources.vicuna.display(),
                tokenizer.vocab_size(),
                llama.vocab_size
            )));
        }
        plans.extend(plan_language_model(&mut findings, &files, llama, &vicuna_config));
    }
    if let Some((vision, llama)) = vision.as_ref().zip(llama.as_ref()) {
        plans.extend(plan_connector(&mut findings, &files, vision, llama, sources));
    }
    files.diffusers.plan(&mut findings, &mut plans);
    if let Some((config, unet)) = files.diffusers.unet.clone().zip(files.unet.as_ref()) {
        let network = NetworkConfig::Denoiser(config);
        let plan = Plan::renamed(&mut findings, network, &files.diffusers.unet_config(), unet, |name| {
            vec![format!("unet.{name}"), name.to_owned()]
        });
        if plan.is_some() {
            findings.settle(unet, |_| None);
        }
        plans.extend(plan);
    }

    let (tokenizer_path, tokenizer_name) = match tokenizer {
        Some((path, _)) => {
            let name = base_name(&path);
            (path, name)
        }
        None => (PathBuf::new(), String::new()),
    };
    let provenance = [
        ("vicuna", &sources.vicuna),
        ("llava", &sources.llava),
        ("vision_tower", &sources.vision_tower),
        ("smartedit", &sources.smartedit),
        ("instruct_pix2pix", &sources.instruct_pix2pix),
    ];
    Assembly {
        name: sources.name.clone().unwrap_or_else(|| base_name(&sources.smartedit)),
        pipeline: PipelineConfig::SmartEdit {
            tokenizer: tokenizer_name.clone(),
            clip_tokenizer: CLIP_TOKENIZER.to_owned(),
            prompt,
        },
        defaults: EditDefaults {
            steps: 100,
            text_guidance: 7.5,
            image_guidance: 1.5,
            resolution: Some((256, 256)),
        },
        sources: provenance.map(|(role, path)| (role.to_owned(), base_name(path))).into(),
        dtype: sources.dtype,
        findings,
        plans,
    }
    .write(out, files.diffusers.scheduler.clone(), |writer| {
        writer.copy(&tokenizer_path, &tokenizer_name)?;
        files.diffusers.copy_tokenizer(writer)
    })
}

/// Everything that is read; what could not be opened is missing.
struct Files {
    vision_tower: Option<Source>,
    llava: Option<Source>,
    /// The language model's own layers, with LoRA.
    trunk: Option<Source>,
    lora: Option<Lora>,
    qformer: Option<Source>,
    bim: Option<Source>,
    unet: Option<Source>,
    diffusers: Diffusers,
    /// Which hidden state of the vision tower is used.
    select_layer: i64,
}

impl Files {
    fn open(findings: &mut Findings, sources: &SmartEditSources) -> Self {
        let total = &sources.smartedit;
        let mut steps = Vec::new();
        let mut adapter = |findings: &mut Findings, prefix: &str| {
            let step = findings.keep(find_step(total, prefix, ""))?;
            let directory = total.join(&step.name);
            steps.push(step);
            let source = findings.keep(Source::open(&directory, ADAPTER));
            Some((directory, source))
        };
        let trunk = adapter(findings, "LLM-");
        let bim = adapter(findings, "modulate-");
        let unet = adapter(findings, "unet-");
        let folder = total.join("embeddings_qformer");
        let qformer =
            findings.keep(find_step(&folder, "checkpoint-", "_embeddings_qformer")).and_then(|step| {
                let source = findings.keep(Source::open(&folder, &[&step.name]));
                steps.push(step);
                source
            });
        note_steps(findings, &steps);

        let (trunk_directory, trunk) = trunk.unzip();
        let trunk = trunk.flatten();
        let lora =
            trunk.as_ref().and_then(|trunk| read_lora(findings, trunk, total, trunk_directory.as_deref()));
        let select_layer = findings.keep(read_select_layer(&sources.llava.join("config.json")));
        Self {
            select_layer: select_layer.flatten().unwrap_or(SELECT_LAYER),
            vision_tower: findings.keep(Source::open(&sources.vision_tower, TRANSFORMERS)),
            llava: findings.keep(Source::open(&sources.llava, TRANSFORMERS)),
            trunk,
            lora,
            qformer,
            bim: bim.and_then(|(_, source)| source),
            unet: unet.and_then(|(_, source)| source),
            diffusers: Diffusers::open(findings, &sources.instruct_pix2pix),
        }
    }

    fn vision_config(&self, findings: &mut Findings, sources: &SmartEditSources) -> Option<VisionConfig> {
        let path = sources.vision_tower.join("config.json");
        let file = findings.keep(ConfigFile::read(&path))?;
        let preprocessor = sources.vision_tower.join("preprocessor_config.json");
        let config = configs::vision(file, &preprocessor, self.select_layer);
        findings.keep(config)
    }

    fn llama_config(
        &self,
        findings: &mut Findings,
        path: &Path,
        vision: Option<&VisionConfig>,
    ) -> Option<LlamaConfig> {
        let file = findings.keep(ConfigFile::read(path))?;
        // The tables should agree; where one does not, the others outvote it, so that the message names it.
        #[derive(Deserialize)]
        struct Vocabulary {
            vocab_size: usize,
        }
        let tables = [
            (&self.llava, "model.embed_tokens.weight".to_owned(), LLAVA_ROWS),
            (&self.llava, "lm_head.weight".to_owned(), LLAVA_ROWS),
            (&self.trunk, format!("{TRUNK}embed_tokens.weight"), ADDED_ROWS),
            (&self.qformer, "lm_head.weight".to_owned(), ADDED_ROWS),
        ];
        let mut votes: BTreeMap<usize, usize> = BTreeMap::new();
        for (source, name, added) in tables {
            let rows = source.as_ref().and_then(|source| source.rows(&name)?.checked_sub(added));
            if let Some(rows) = rows {
                *votes.entry(rows).or_default() += 1;
            }
        }
        let elected = votes.into_iter().max_by_key(|&(_, count)| count).map(|(rows, _)| rows);
        let base = match elected {
            Some(rows) => rows,
            None => findings.keep(file.parse::<Vocabulary>())?.vocab_size,
        };
        let vision_size = match (vision, &self.qformer) {
            (Some(vision), _) => vision.hidden_size,
            (None, Some(source)) => dims::<2>(source.peek("mm_projector.weight")?)?[1],
            (None, None) => return None,
        };
        findings.keep(configs::llama(&file, base.saturating_add(ADDED_ROWS), vision_size))
    }
}

/// Which hidden state of the vision tower LLaVA was trained on.
fn read_select_layer(path: &Path) -> Result<Option<i64>, Problem> {
    #[derive(Deserialize)]
    struct Llava {
        mm_vision_select_layer: Option<i64>,
    }
    let file = ConfigFile::read(path)?;
    file.only(&[("mm_vision_select_feature", json!("patch"))])?;
    Ok(file.parse::<Llava>()?.mm_vision_select_layer)
}

fn note_steps(findings: &mut Findings, steps: &[Step]) {
    for step in steps.iter().filter(|step| !step.others.is_empty()) {
        let others: Vec<String> = step.others.iter().map(u64::to_string).collect();
        findings.notes.push(format!("{} is used, not that of {} steps", step.name, others.join(", ")));
    }
    if let Some((first, other)) =
        steps.first().and_then(|first| Some((first, steps.iter().find(|step| step.steps != first.steps)?)))
    {
        findings.notes.push(format!("{} and {} are of different training steps", first.name, other.name));
    }
}

/// `adapter_config.json` lies in `LLM-*` or beside it. A trunk without LoRA needs none.
fn read_lora(
    findings: &mut Findings,
    trunk: &Source,
    total: &Path,
    directory: Option<&Path>,
) -> Option<Lora> {
    const NAME: &str = "adapter_config.json";
    let places = directory.into_iter().chain([total]);
    match places.map(|place| place.join(NAME)).find(|path| path.is_file()) {
        Some(path) => {
            let (lora, notes) = findings.keep(Lora::read(&path))?;
            findings.notes.extend(notes);
            Some(lora)
        }
        None => {
            if trunk.names().any(|name| name.contains(".lora_")) {
                findings.problems.push(Problem::MissingFile {
                    path: total.to_owned(),
                    what: "the configuration of the LoRA adapter".to_owned(),
                    looked_for: format!("{NAME}, here and in LLM-*"),
                });
            }
            None
        }
    }
}

fn find_tokenizer(findings: &mut Findings, vicuna: &Path) -> Option<(PathBuf, LlamaTokenizer)> {
    const NAMES: [&str; 2] = ["tokenizer.model", "tokenizer.json"];
    match NAMES.map(|name| vicuna.join(name)).into_iter().find(|path| path.is_file()) {
        Some(path) => {
            let tokenizer = LlamaTokenizer::from_file(&path)
                .map_err(|e| Problem::Config { path: path.clone(), message: e.to_string() });
            findings.keep(tokenizer).map(|tokenizer| (path, tokenizer))
        }
        None => {
            findings.problems.push(Problem::MissingFile {
                path: vicuna.to_owned(),
                what: "the tokenizer".to_owned(),
                looked_for: NAMES.join(", "),
            });
            None
        }
    }
}

fn prompt(findings: &mut Findings, sources: &SmartEditSources) -> PromptConfig {
    let mut prompt = release_prompt();
    if let Some(system) = &sources.system {
        prompt.system.clone_from(system);
    }
    if let Some(path) = &sources.templates {
        let templates = read_text(path).and_then(|text| {
            parse_templates(&text).map_err(|e| Problem::Config { path: path.clone(), message: e.to_string() })
        });
        if let Some(templates) = findings.keep(templates) {
            prompt.templates = templates;
        }
    }
    prompt
}

fn plan_vision<'a>(
    findings: &mut Findings,
    source: &'a Source,
    config: &VisionConfig,
    config_file: &Path,
) -> Option<Plan<'a>> {
    let network = NetworkConfig::VisionEncoder(config.clone());
    let plan = Plan::renamed(findings, network, config_file, source, |name| {
        vec![format!("vision_model.{name}"), name.to_owned()]
    })?;
    findings.settle(source, |name| {
        let inner = name.strip_prefix("vision_model.").unwrap_or(name);
        let layer = inner.strip_prefix("encoder.layers.").and_then(|rest| rest.split('.').next());
        let reason = match inner {
            _ if inner.ends_with("position_ids") => "buffer, computed",
            _ if inner.starts_with("text_model.") => "CLIP's text half",
            "visual_projection.weight" | "text_projection.weight" | "logit_scale" => {
                "the projections for image search"
            }
            _ if inner.starts_with("post_layernorm.") => "comes after the layer whose output is used",
            _ if layer
                .and_then(|layer| layer.parse().ok())
                .is_some_and(|n: usize| n >= config.num_layers) =>
            {
                "comes after the layer whose output is used"
            }
            _ => return None,
        };
        Some(reason.to_owned())
    });
    Some(plan)
}

fn plan_language_model<'a>(
    findings: &mut Findings,
    files: &'a Files,
    config: &LlamaConfig,
    config_file: &Path,
) -> Option<Plan<'a>> {
    const STAGE: StageKind = StageKind::LanguageModel;
    let network = NetworkConfig::LanguageModel(config.clone());
    let base_rows = config.vocab_size.checked_sub(ADDED_ROWS)?;
    let (llava, trunk, qformer) = (files.llava.as_ref(), files.trunk.as_ref(), files.qformer.as_ref());
    let plan = Plan::new(findings, network, config_file, |findings, name, shape| match name {
        "embed_tokens.weight" => {
            let base = take_rows(findings, llava, "model.embed_tokens.weight", base_rows, config);
            let name = format!("{TRUNK}embed_tokens.weight");
            let added = take_added(findings, trunk, &name, base_rows, shape);
            Some(Recipe::Join(vec![base?, added?]))
        }
        "lm_head.weight" => {
            let base = take_rows(findings, llava, name, base_rows, config);
            let added = take_added(findings, qformer, name, base_rows, shape);
            Some(Recipe::Join(vec![base?, added?]))
        }
        "mm_projector.weight" | "mm_projector.bias" => {
            let part = findings.take_shaped(STAGE, qformer?, &[name.to_owned()], shape)?;
            Some(Recipe::Join(vec![part]))
        }
        _ => plan_trunk(findings, trunk?, files.lora.as_ref(), name, shape),
    })?;
    if let Some(llava) = llava {
        findings.settle(llava, |_| Some("overwritten by SmartEdit's own weights".to_owned()));
    }
    if let Some(trunk) = trunk {
        findings.settle(trunk, |name| match name {
            name if name.ends_with("rotary_emb.inv_freq") => Some("buffer, computed".to_owned()),
            // That the adapter's configuration is missing was said already.
            name if name.contains(".lora_") && files.lora.is_none() => Some("not merged".to_owned()),
            _ => None,
        });
    }
    Some(plan)
}

/// The base vocabulary's rows of one of LLaVA's tables.
fn take_rows<'a>(
    findings: &mut Findings,
    llava: Option<&'a Source>,
    name: &str,
    base_rows: usize,
    config: &LlamaConfig,
) -> Option<Part<'a>> {
    let shape = [base_rows + LLAVA_ROWS, config.hidden_size];
    let part = findings.take_shaped(StageKind::LanguageModel, llava?, &[name.to_owned()], &shape)?;
    Some(Part { rows: Some(0..base_rows), ..part })
}

/// The added rows of one of SmartEdit's tables.
fn take_added<'a>(
    findings: &mut Findings,
    source: Option<&'a Source>,
    name: &str,
    base_rows: usize,
    shape: &[usize],
) -> Option<Part<'a>> {
    let part = findings.take_shaped(StageKind::LanguageModel, source?, &[name.to_owned()], shape)?;
    Some(Part { rows: Some(base_rows..base_rows + ADDED_ROWS), ..part })
}

/// A tensor of the trunk, with the LoRA factors of its module if it has them.
fn plan_trunk<'a>(
    findings: &mut Findings,
    trunk: &'a Source,
    lora: Option<&Lora>,
    name: &str,
    shape: &[usize],
) -> Option<Recipe<'a>> {
    const STAGE: StageKind = StageKind::LanguageModel;
    let full = format!("{TRUNK}{name}");
    let module = full.strip_suffix(".weight").unwrap_or(&full);
    let names = [full.clone(), format!("{module}.base_layer.weight")];
    let base = findings.take_shaped(STAGE, trunk, &names, shape);

    let factor = |half: &str| [format!("{module}.{half}.default.weight"), format!("{module}.{half}.weight")];
    let (factor_a, factor_b) = (factor("lora_A"), factor("lora_B"));
    let merged = match (lora, shape) {
        (Some(lora), &[rows, columns]) => {
            let adapted = lora
                .targets(module)
                .unwrap_or_else(|| factor_a.iter().chain(&factor_b).any(|name| trunk.peek(name).is_some()));
            adapted.then_some((lora, rows, columns))
        }
        _ => None,
    };
    let Some((lora, rows, columns)) = merged else { return Some(Recipe::Join(vec![base?])) };
    let a = findings.take_shaped(STAGE, trunk, &factor_a, &[lora.rank, columns]);
    let b = findings.take_shaped(STAGE, trunk, &factor_b, &[rows, lora.rank]);
    Some(Recipe::Merge(Box::new(Merge { base: base?, a: a?, b: b?, scale: lora.scale })))
}

fn plan_connector<'a>(
    findings: &mut Findings,
    files: &'a Files,
    vision: &VisionConfig,
    llama: &LlamaConfig,
    sources: &SmartEditSources,
) -> Option<Plan<'a>> {
    const STAGE: StageKind = StageKind::Connector;
    let (qformer, bim) = (files.qformer.as_ref()?, files.bim.as_ref()?);
    let heads = findings.keep(configs::bert(sources.qformer_config.as_deref()));
    let qformer_config = qformer_config(findings, qformer, llama, heads?);
    let bim_config = bim_config(findings, bim, vision);
    let network = NetworkConfig::Connector(ConnectorConfig {
        qformer: qformer_config?,
        interaction: InteractionConfig::Bim(bim_config?),
    });
    let config_file = sources.qformer_config.as_deref().unwrap_or(&sources.smartedit);
    let plan = Plan::new(findings, network, config_file, |findings, name, shape| {
        let (source, name) = match name.strip_prefix("bim.") {
            Some(name) => (bim, name.to_owned()),
            None => (qformer, format!("sd_{name}")),
        };
        let part = findings.take_shaped(STAGE, source, &[name], shape)?;
        Some(Recipe::Join(vec![part]))
    })?;
    findings.settle(qformer, |name| match name {
        "sd_qformer.embeddings.position_ids" => Some("buffer, computed".to_owned()),
        "model.base_model.model.embed_tokens.weight" => Some("a copy of that in LLM-*".to_owned()),
        // Accounted for by the language model.
        "lm_head.weight" | "mm_projector.weight" | "mm_projector.bias" => {
            Some("does not fit the language model".to_owned())
        }
        _ => None,
    });
    findings.settle(bim, |_| None);
    Some(plan)
}

/// Sizes of the QFormer from its tensors; head count and epsilon are not in them.
fn qformer_config(
    findings: &mut Findings,
    source: &Source,
    llama: &LlamaConfig,
    (num_heads, layer_norm_eps): (usize, f64),
) -> Option<QFormerConfig> {
    const LAYERS: &str = "sd_qformer.encoder.layer.";
    let [_, num_queries, hidden_size] = sized(findings, source, "sd_query_tokens")?;
    let [intermediate_size, _] =
        sized(findings, source, &format!("{LAYERS}0.intermediate_query.dense.weight"))?;
    let num_layers = source.count(LAYERS);
    let crosses =
        |layer: &usize| source.peek(&format!("{LAYERS}{layer}.crossattention.self.query.weight")).is_some();
    Some(QFormerConfig {
        num_queries,
        hidden_size,
        intermediate_size,
        num_layers,
        num_heads,
        encoder_width: llama.hidden_size,
        cross_attention_frequency: (1..num_layers).find(crosses).unwrap_or(num_layers).max(1),
        layer_norm_eps,
    })
}

/// Sizes of the BIM from its tensors.
fn bim_config(findings: &mut Findings, source: &Source, vision: &VisionConfig) -> Option<BimConfig> {
    const LAYERS: &str = "modulate_transformer.layers.";
    let [mlp_size, _] = sized(findings, source, &format!("{LAYERS}0.mlp.lin1.weight"))?;
    let [narrow, wide] =
        sized(findings, source, "modulate_transformer.final_attn_token_to_image.q_proj.weight")?;
    let [feature_channels, _, _, _] = sized(findings, source, "dimension_reduction_head_zeroconv.weight")?;
    Some(BimConfig {
        vision_size: vision.hidden_size,
        grid_size: vision.image_size / vision.patch_size.max(1),
        depth: source.count(LAYERS),
        num_heads: BIM_HEADS,
        mlp_size,
        downsample_rate: wide / narrow.max(1),
        feature_channels,
        layer_norm_eps: BIM_EPS,
    })
}

/// The shape of a tensor that sizes the connector.
fn sized<const N: usize>(findings: &mut Findings, source: &Source, name: &str) -> Option<[usize; N]> {
    let Some(view) = source.peek(name) else {
        findings.problems.push(Problem::MissingTensor {
            source_name: source.name.clone(),
            tensor: name.to_owned(),
            stage: StageKind::Connector,
        });
        return None;
    };
    let shape = dims(view);
    if shape.is_none() {
        findings.problems.push(Problem::Contradiction(format!(
            "{}: tensor `{name}` has {} dimensions, not {N}",
            source.name,
            view.shape().len()
        )));
    }
    shape
}
