use std::num::NonZeroUsize;
use std::path::Path;

use ndarray::Array3;
use proptest::prelude::*;
use proptest::strategy::ValueTree;

use super::*;
use crate::engine::Precision;
use crate::model::NetworkConfig;
use crate::stage::{GraphOptimization, Program, Provider};

/// Everything that shapes a reply.
#[derive(Debug, Clone)]
struct Given {
    identity: u64,
    prompt: PromptTokens,
    features: ArrayD<f32>,
    special: SpecialIds,
    options: DecodingOptions,
    in_parts: bool,
}

impl Given {
    fn key(&self) -> Key {
        let Self { identity, prompt, features, special, options, in_parts } = self;
        ReplyKey { prompt, features, special, options, in_parts: *in_parts }
            .build(KeyBuilder::new("test").number(*identity).finish())
    }

    fn with(&self, change: impl FnOnce(&mut Self)) -> Self {
        let mut changed = self.clone();
        change(&mut changed);
        changed
    }
}

fn given() -> impl Strategy<Value = Given> {
    let ids = || proptest::collection::vec(0u32..50, 1..9);
    let temperature = prop_oneof![Just(0.0f32), 0.1f32..2.0];
    let drafts = proptest::collection::vec(ids(), 0..3);
    (any::<u64>(), ids(), any::<f32>(), any::<bool>(), temperature, any::<u64>(), drafts).prop_map(
        |(identity, ids, value, in_parts, temperature, seed, drafts)| Given {
            identity,
            prompt: PromptTokens { image_position: ids.len() / 2, ids_without_image_token: ids },
            features: Array3::from_elem((1, 4, 3), value).into_dyn(),
            special: SpecialIds {
                unk: 0,
                bos: 1,
                eos: 2,
                image: 50,
                image_start: 51,
                image_end: 52,
                first_image_token: 53,
                last_image_token: 84,
            },
            options: DecodingOptions { temperature, seed, drafts, ..DecodingOptions::default() },
            in_parts,
        },
    )
}

proptest! {
    #[test]
    fn whatever_shapes_a_reply_shapes_its_key(given in given()) {
        prop_assert_eq!(given.key(), given.clone().key());
        let changed = [
            given.with(|given| given.identity ^= 1),
            given.with(|given| given.prompt.ids_without_image_token[0] += 1),
            given.with(|given| given.prompt.ids_without_image_token.push(0)),
            given.with(|given| given.prompt.image_position += 1),
            given.with(|given| given.features[[0, 3, 2]] = f32::from_bits(given.features[[0, 3, 2]].to_bits() ^ 1)),
            given.with(|given| given.special.unk += 1),
            given.with(|given| given.special.bos += 1),
            given.with(|given| given.special.eos += 1),
            given.with(|given| given.special.image += 1),
            given.with(|given| given.special.image_start += 1),
            given.with(|given| given.special.image_end += 1),
            given.with(|given| given.special.first_image_token += 1),
            given.with(|given| given.special.last_image_token += 1),
            given.with(|given| given.options.image_tokens = ImageTokens::Free),
            given.with(|given| given.options.max_tokens += 1),
            given.with(|given| given.options.max_positions -= 1),
            given.with(|given| given.options.drafts.push(vec![7])),
            given.with(|given| given.in_parts ^= true),
            given.with(|given| given.options.temperature += 0.5),
        ];
        for (index, changed) in changed.iter().enumerate() {
            prop_assert_ne!(given.key(), changed.key(), "change {}", index);
        }
    }

    #[test]
    fn a_seed_shapes_the_key_of_a_sampled_reply_alone(given in given(), bit in 0u32..64) {
        let other = given.with(|given| given.options.seed ^= 1 << bit);
        prop_assert_eq!(given.key() == other.key(), given.options.is_greedy());
    }
}

#[test]
fn greedy_is_greedy() {
    let runner = &mut proptest::test_runner::TestRunner::deterministic();
    let given = given().new_tree(runner).expect("a reply").current();
    let greedy = |temperature| given.with(|given| given.options.temperature = temperature).key();
    assert_eq!(greedy(0.0), greedy(9e-5));
    assert_ne!(greedy(0.0), greedy(2e-4));
}

/// A stage of the model that ships, and options to load it with.
fn stage() -> (ModelConfig, StageInfo, StageOptions) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/tiny-random/model.json");
    let config = serde_json::from_slice(&std::fs::read(path).expect("model.json")).expect("a model");
    let info = StageInfo {
        kind: StageKind::VaeEncoder,
        engine: "candle",
        device: "cpu".to_owned(),
        precision: Precision::F32,
        provider: None,
        weight_bytes: 1,
    };
    (config, info, StageOptions::default())
}

#[test]
fn whatever_computes_a_stage_shapes_its_identity() {
    let place = tempfile::tempdir().expect("a directory");
    let file = place.path().join("vae.pt");
    std::fs::write(&file, "one").expect("a file");
    let program = |file: &Path| {
        Some(Program { file: file.to_owned(), inputs: BTreeMap::new(), outputs: BTreeMap::new() })
    };
    type Change<'a> = Box<dyn Fn(&mut ModelConfig, &mut StageInfo, &mut StageOptions) + 'a>;
    let weights = |config: &ModelConfig| config.stages[&StageKind::VaeEncoder].file.clone();
    let changes: Vec<Change<'_>> = vec![
        Box::new(|_, _, _| {}),
        Box::new(|_, info, _| info.kind = StageKind::VisionEncoder),
        Box::new(|_, info, _| info.engine = "torch"),
        Box::new(|_, info, _| info.device = "cuda:0".to_owned()),
        Box::new(|_, info, _| info.precision = Precision::Bf16),
        Box::new(|_, info, _| info.provider = Some("cuda".to_owned())),
        Box::new(|_, _, options| options.device = "cuda:0".to_owned()),
        Box::new(|_, _, options| options.precision = Precision::Bf16),
        Box::new(|_, _, options| options.threads = NonZeroUsize::new(2)),
        Box::new(|_, _, options| {
            options.providers = vec![Provider { name: "cuda".to_owned(), options: BTreeMap::new() }];
        }),
        Box::new(|_, _, options| options.graph_optimization = GraphOptimization::Basic),
        Box::new(|_, _, options| options.program = program(&file)),
        Box::new(|config, _, _| {
            config.files.get_mut(&weights(config)).expect("the weights").sha256 = "0".repeat(64);
        }),
        Box::new(|config, _, _| {
            let stage = config.stages.get_mut(&StageKind::VaeEncoder).expect("the stage");
            let NetworkConfig::VaeEncoder(vae) = &mut stage.network else { panic!("another network") };
            vae.norm_groups += 1;
        }),
    ];
    let identify = |change: &Change<'_>| {
        let (mut config, mut info, mut options) = stage();
        change(&mut config, &mut info, &mut options);
        identity(&config, &info, &options).expect("a readable program").expect("an identity")
    };
    let keys: Vec<Key> = changes.iter().map(identify).collect();
    for (index, key) in keys.iter().enumerate() {
        assert_eq!(keys.iter().position(|other| other == key), Some(index));
        assert_eq!(identify(&changes[index]), *key, "{index}: equal stages have equal identities");
    }

    let with_program = changes.len() - 3;
    std::fs::write(&file, "two").expect("a file");
    assert_ne!(identify(&changes[with_program]), keys[with_program], "another program under the same name");
    std::fs::remove_file(&file).expect("the file is there");
    let (config, info, options) = stage();
    assert!(identity(&config, &info, &StageOptions { program: program(&file), ..options }).is_err());
}

#[test]
fn the_name_of_a_model_and_the_size_of_its_file_are_of_no_consequence() {
    let (config, info, options) = stage();
    let renamed = ModelConfig { name: "another".to_owned(), ..config.clone() };
    let resized = StageInfo { weight_bytes: 2, ..info.clone() };
    let identify = |config, info| identity(config, info, &options).expect("there is no program");
    assert_eq!(identify(&config, &info), identify(&renamed, &resized));
}

#[test]
fn weights_of_unknown_content_have_no_identity() {
    let (mut config, info, options) = stage();
    config.files.clear();
    assert_eq!(identity(&config, &info, &options).expect("there is no program"), None);
}
