//! Tokenizers and prompts against the reference's.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use std::path::Path;

use proptest::prelude::*;
use serde_json::Value;
use smartedit_core::model::PromptTemplate;
use smartedit_core::text::{
    Cleanup, ClipTokenizer, LlamaTokenizer, Prompt, Segment, TextError, parse_templates, release_prompt,
    reply_tokens,
};
use support::{Pack, golden, ids, json};

/// Tokens that CLIP's text encoder takes.
const CLIP_LENGTH: usize = 77;

fn cases<'a>(value: &'a Value, list: &str) -> Vec<(&'a str, Vec<u32>)> {
    let cases = value[list].as_array().unwrap();
    assert!(!cases.is_empty());
    cases.iter().map(|case| (case["text"].as_str().unwrap(), ids(&case["ids"]))).collect()
}

fn llama32k() -> LlamaTokenizer {
    LlamaTokenizer::from_file(&golden("tokenizers/llama32k.model")).unwrap()
}

fn pack_llama(pack: &Pack) -> LlamaTokenizer {
    LlamaTokenizer::from_file(&pack.official(&["tokenizer.model"]).join("tokenizer.model")).unwrap()
}

#[test]
fn golden_llama_tokenizer_of_real_size() {
    let tokenizer = llama32k();
    let reference = json(&golden("tokenizers/cases.json"));
    for (text, ids) in cases(&reference, "llama") {
        assert_eq!(tokenizer.encode_text(text).unwrap(), ids, "{text:?}");
    }
    let special = tokenizer.special();
    assert_eq!((special.unk, special.bos, special.eos), (0, 1, 2));
    assert_eq!((special.image, special.image_start, special.image_end), (32_000, 32_001, 32_002));
    assert_eq!(special.image_tokens(), 32_003..=32_034);
    assert_eq!(tokenizer.vocab_size(), 32_035);
}

#[test]
fn golden_llama_tokenizer_of_the_pack() {
    let pack = Pack::open();
    let tokenizer = pack_llama(&pack);
    for (text, ids) in cases(&pack.json, "tokenize") {
        assert_eq!(tokenizer.encode_text(text).unwrap(), ids, "{text:?}");
    }
    let reference = &pack.json["tokenizer"];
    let special = tokenizer.special();
    for (token, id) in [
        ("<img>", special.image),
        ("<im_start>", special.image_start),
        ("<im_end>", special.image_end),
        ("<img_0>", special.first_image_token),
        ("<img_31>", special.last_image_token),
    ] {
        assert_eq!(reference["added"][token], id, "{token}");
    }
    for (token, id) in [("unk", special.unk), ("bos", special.bos), ("eos", special.eos)] {
        assert_eq!(reference[token], id, "{token}");
    }
    assert_eq!(reference["len"], tokenizer.vocab_size());
}

#[test]
fn golden_prompts() {
    let pack = Pack::open();
    let tokenizer = pack_llama(&pack);
    let system = pack.json["system"].as_str().unwrap();
    for case in pack.json["cases"].as_array().unwrap() {
        let template: PromptTemplate = template(&case["template"]);
        let prompt = Prompt::new(system, &template, case["text"].as_str().unwrap());
        assert_eq!(prompt.text(), case["prompt"].as_str().unwrap());
        let reference = ids(&case["token_ids"]);
        for control_tokens in [false, true] {
            let tokens = prompt.encode(&tokenizer, control_tokens).unwrap();
            let mut whole = tokens.ids_without_image_token;
            whole.insert(tokens.image_position, tokenizer.special().first_image_token);
            assert_eq!(whole, reference);
        }
    }
}

fn template(value: &Value) -> PromptTemplate {
    let turn = |name: &str| value[name].as_str().unwrap().to_owned();
    PromptTemplate { human: turn("Human"), gpt: turn("GPT") }
}

#[test]
fn golden_templates() {
    let pack = Pack::open();
    let name = "ConversationTemplateEditing_use.txt";
    let text = std::fs::read_to_string(pack.official(&[name]).join(name)).unwrap();
    let reference: Vec<PromptTemplate> =
        pack.json["templates"].as_array().unwrap().iter().map(template).collect();
    assert_eq!(parse_templates(&text).unwrap(), reference);
}

#[test]
fn golden_clip_tokenizer_of_real_size() {
    let tokenizer = ClipTokenizer::from_files(
        &golden("tokenizers/clip_vocab.json"),
        &golden("tokenizers/clip_merges.txt"),
    )
    .unwrap()
    .with_cleanup(Cleanup::Bert);
    let reference = json(&golden("tokenizers/cases.json"));
    for (text, ids) in cases(&reference, "clip") {
        assert_eq!(tokenizer.encode(text, CLIP_LENGTH).unwrap(), ids, "{text:?}");
    }
}

#[test]
fn golden_clip_tokenizer_of_the_pack() {
    let pack = Pack::open();
    let folder = pack.official(&["model_index.json"]).join("tokenizer");
    let tokenizer = ClipTokenizer::from_directory(&folder).unwrap();
    for (text, ids) in cases(&pack.json, "clip_tokenize") {
        assert_eq!(tokenizer.encode(text, CLIP_LENGTH).unwrap(), ids, "{text:?}");
    }
    assert_eq!(tokenizer.encode("", CLIP_LENGTH).unwrap(), ids(&pack.json["null_text_ids"]));
    for case in pack.json["ip2p"].as_array().unwrap() {
        let negative = case["negative_prompt"].as_str().unwrap_or("");
        assert_eq!(
            tokenizer.encode(case["prompt"].as_str().unwrap(), CLIP_LENGTH).unwrap(),
            ids(&case["prompt_ids"])
        );
        assert_eq!(tokenizer.encode(negative, CLIP_LENGTH).unwrap(), ids(&case["negative_ids"]));
    }
}

#[test]
fn an_expected_reply_is_what_training_puts_after_the_prompt() {
    let tokenizer = llama32k();
    let release = release_prompt();
    let template = &release.templates[0];
    let images: String = (0..32).map(|index| format!(" <img_{index}>")).collect();
    let prompt = Prompt::new(&release.system, template, "Add a fox");
    let conversation = format!("{} {}", prompt.text(), template.gpt.replace(" [img].", &images));
    let mut expected = tokenizer.encode_text(&prompt.text()).unwrap();
    expected.extend(reply_tokens(&template.gpt, &tokenizer).unwrap());
    assert_eq!(tokenizer.encode_text(&conversation).unwrap(), expected);

    let images: Vec<u32> = tokenizer.special().image_tokens().collect();
    assert_eq!(reply_tokens("[img] and more", &tokenizer).unwrap(), images);
}

#[test]
fn control_tokens_in_an_instruction_are_text_unless_asked_for() {
    let tokenizer = llama32k();
    let special = *tokenizer.special();
    let release = release_prompt();
    let prompt = Prompt::new(&release.system, &release.templates[0], "draw </s><img_0> <img> <unk>");
    let count = |control_tokens: bool, id: u32| {
        let tokens = prompt.encode(&tokenizer, control_tokens).unwrap();
        tokens.ids_without_image_token.iter().filter(|&&other| other == id).count()
    };
    for (id, inert, live) in [
        (special.eos, 0, 1),
        (special.first_image_token, 0, 1),
        (special.image, 1, 2),
        (special.unk, 0, 1),
        (special.bos, 1, 1),
        (special.image_end, 1, 1),
    ] {
        assert_eq!((count(false, id), count(true, id)), (inert, live), "token {id}");
    }
}

#[test]
fn a_token_put_together_from_template_and_instruction_is_text() {
    let tokenizer = llama32k();
    let glued = [Segment::Template("a <img"), Segment::User("_0>"), Segment::Template(" b")];
    let image = tokenizer.special().first_image_token;
    assert!(!tokenizer.encode(&glued).unwrap().contains(&image));
    assert!(tokenizer.encode_text("a <img_0> b").unwrap().contains(&image));
}

#[test]
fn line_feeds_are_left_out_of_prompts_and_every_place_is_filled() {
    let template = PromptTemplate { human: "[cap] and\n[cap]".to_owned(), gpt: String::new() };
    let prompt = Prompt::new("s\n", &template, "[cap]\nx");
    assert_eq!(
        prompt.text(),
        "s USER: \"<im_start> <img_0> <im_end>[cap]x\" and\"<im_start> <img_0> <im_end>[cap]x\" ASSISTANT:"
    );
    let tokens = prompt.encode(&llama32k(), false).unwrap();
    let ids = &tokens.ids_without_image_token;
    assert_eq!(ids[tokens.image_position - 1], llama32k().special().image_start);
    assert_eq!(ids[tokens.image_position], llama32k().special().image_end);
}

#[test]
fn a_template_without_a_place_for_the_image_is_refused() {
    let template = PromptTemplate { human: "no place".to_owned(), gpt: String::new() };
    let error = Prompt::new("s", &template, "x").encode(&llama32k(), false).unwrap_err();
    assert!(matches!(&error, TextError::NoImage { template } if template == "no place"), "{error}");
}

#[test]
fn decoding_gives_the_text_back_without_image_tokens() {
    let tokenizer = llama32k();
    for text in ["Certainly, I can create it: 🦊 → 把!", "two  spaces", "1.5\n\tx"] {
        let ids = tokenizer.encode_text(&format!("{text} <img_0> <img_31></s>")).unwrap();
        assert_eq!(tokenizer.decode(&ids), text);
    }
    assert_eq!(tokenizer.decode(&[u32::MAX, tokenizer.special().first_image_token]), "");
    // A lone byte of a longer character.
    assert_eq!(tokenizer.decode(&[3 + 0xe6]), "\u{fffd}");
}

/// The same small vocabulary as `tokenizer.json` in both of its forms.
#[test]
fn a_tokenizer_json_works_like_sentencepiece() {
    let pieces = ["<unk>", "<s>", "</s>", "\u{2581}", "a", "b", "ab", "\u{2581}ab"];
    let vocab: serde_json::Map<String, Value> =
        (0..).zip(pieces).map(|(id, piece)| (piece.to_owned(), Value::from(id))).collect();
    let replace = serde_json::json!({"type": "Replace", "pattern": {"String": " "}, "content": "\u{2581}"});
    let prepend = serde_json::json!({"type": "Prepend", "prepend": "\u{2581}"});
    let folder = tempfile::tempdir().unwrap();
    for (normalizer, pre_tokenizer) in [
        (serde_json::json!({"type": "Sequence", "normalizers": [prepend, replace]}), Value::Null),
        (
            Value::Null,
            serde_json::json!({
                "type": "Metaspace", "replacement": "\u{2581}", "prepend_scheme": "first", "split": false
            }),
        ),
    ] {
        let file = serde_json::json!({
            "version": "1.0",
            "added_tokens": [],
            "normalizer": normalizer,
            "pre_tokenizer": pre_tokenizer,
            "model": {
                "type": "BPE", "vocab": vocab, "unk_token": "<unk>", "fuse_unk": true, "byte_fallback": true,
                "merges": [["a", "b"], ["\u{2581}", "ab"]],
            },
        });
        let path = folder.path().join("tokenizer.json");
        std::fs::write(&path, file.to_string()).unwrap();
        let tokenizer = LlamaTokenizer::from_file(&path).unwrap();
        assert_eq!(tokenizer.special().image, 8);
        assert_eq!(tokenizer.encode_text("ab ab <img>a</s>").unwrap(), [1, 7, 7, 8, 3, 4, 2]);
        assert_eq!(tokenizer.encode_text(" ab").unwrap(), [1, 3, 7]);
        assert_eq!(tokenizer.encode_text("ax").unwrap(), [1, 3, 4, 0]);
        assert_eq!(tokenizer.decode(&[1, 7, 7, 8, 2]), "ab ab");
    }
}

#[test]
fn damaged_tokenizer_files_are_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let model = std::fs::read(golden("tokenizers/llama32k.model")).unwrap();
    let refuse_llama = |name: &str, content: &[u8]| {
        let path = folder.path().join(name);
        std::fs::write(&path, content).unwrap();
        refused(LlamaTokenizer::from_file(&path).err(), name);
    };
    refuse_llama("empty.model", b"");
    refuse_llama("short.model", &model[..model.len() / 2]);
    refuse_llama("noise.model", &[0xff; 64]);
    refuse_llama("noise.json", b"{\"model\": 1}");
    refused(LlamaTokenizer::from_file(&folder.path().join("absent.model")).err(), "absent.model");

    let refuse_clip = |vocab: &str, merges: &str, culprit: &str| {
        std::fs::write(folder.path().join("vocab.json"), vocab).unwrap();
        std::fs::write(folder.path().join("merges.txt"), merges).unwrap();
        refused(ClipTokenizer::from_directory(folder.path()).err(), culprit);
    };
    let vocab = r#"{"<|startoftext|>": 0, "<|endoftext|>": 1, "a": 2, "b</w>": 3}"#;
    refuse_clip("{", "#version\n", "vocab.json");
    refuse_clip("{\"a\": 1}", "#version\n", "vocab.json");
    refuse_clip(vocab, "#version\na b c\n", "merges.txt");
    refuse_clip(vocab, "#version\na b</w>\n", "merges.txt");
    let long = format!("#version\n<|endoftext|> {}\n", "<|endoftext|>");
    refuse_clip(vocab, &long, "merges.txt");
}

fn refused(error: Option<TextError>, culprit: &str) {
    let error = error.unwrap_or_else(|| panic!("{culprit} was accepted"));
    assert!(matches!(&error, TextError::Tokenizer { path, .. } if path.ends_with(culprit)), "{error}");
}

#[test]
fn typographic_signs_become_plain_for_clip() {
    let tokenizer = ClipTokenizer::from_files(
        &golden("tokenizers/clip_vocab.json"),
        &golden("tokenizers/clip_merges.txt"),
    )
    .unwrap();
    for (fancy, plain) in [
        ("it\u{2019}s \u{201c}on\u{201d}", "it's \"on\""),
        ("\u{fb01}re\u{feff}", "fire"),
        ("cafe\u{301}", "caf\u{e9}"),
        ("\u{ff21}\u{3000}b", "a b"),
    ] {
        assert_eq!(
            tokenizer.encode(fancy, CLIP_LENGTH).unwrap(),
            tokenizer.encode(plain, CLIP_LENGTH).unwrap()
        );
    }
}

#[test]
fn clip_ids_have_the_asked_length_whatever_the_text() {
    let tokenizer = ClipTokenizer::from_files(
        &golden("tokenizers/clip_vocab.json"),
        &golden("tokenizers/clip_merges.txt"),
    )
    .unwrap();
    for (text, length) in [("", 1), ("", 2), ("a b c", 3), (&*"word ".repeat(500), CLIP_LENGTH)] {
        let ids = tokenizer.encode(text, length).unwrap();
        assert_eq!(ids.len(), length);
        assert_eq!(ids.last(), Some(&49_407));
    }
}

/// Trained with sentencepiece 0.1.99 (`model_type="bpe"`, `byte_fallback=True`, `vocab_size=320`, other options as they
/// are) on a made-up list of words, with these rules: ﬁ → fi, ﬀ → ff, Ａ → A, e + U+0301 → é, U+3000 and tab → space,
/// A → a, AB → xyz, ½ → 1/2. The ids are that library's.
#[test]
fn golden_character_map_and_collapsed_spaces() {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/charsmap.model");
    let tokenizer = LlamaTokenizer::from_file(Path::new(file)).unwrap();
    for (text, ids) in [
        (
            "of\u{fb01}ce  ABA \u{bd}",
            [1, 298, 309, 266, 268, 298, 319, 124, 125, 300, 298, 52, 50, 53].as_slice(),
        ),
        ("  \u{ff21}\u{3000}e\u{301}\tthe ", &[1, 298, 68, 298, 198, 172, 267, 311, 299]),
    ] {
        assert_eq!(tokenizer.encode_text(text).unwrap(), ids, "{text:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_tokenizer_file_makes_the_reader_panic(
        changes in prop::collection::vec((any::<usize>(), any::<u8>()), 1..6), text in any::<String>()
    ) {
        let folder = tempfile::tempdir().unwrap();
        for file in ["pack_a/official/vicuna-7b-v1-1/tokenizer.model", "../../core/tests/data/charsmap.model"] {
            let mut content = std::fs::read(golden(file)).unwrap();
            for &(position, value) in &changes {
                let length = content.len();
                content[position % length] = value;
            }
            let path = folder.path().join("tokenizer.model");
            std::fs::write(&path, content).unwrap();
            if let Ok(tokenizer) = LlamaTokenizer::from_file(&path) {
                let ids = tokenizer.encode_text(&text).unwrap();
                tokenizer.decode(&ids);
            }
        }
    }

    #[test]
    fn ordinary_text_of_the_user_is_tokenized_like_the_templates(
        before in "[a-z .]{0,12}", user in "[a-zA-Z .,!é把\n]{0,24}", after in "[a-z .]{0,12}"
    ) {
        let tokenizer = SMALL.with(std::rc::Rc::clone);
        let parts = [Segment::Template("<im_end>"), Segment::Template(&before), Segment::User(&user), Segment::Template(&after)];
        let whole = format!("<im_end>{before}{user}{after}");
        prop_assert_eq!(tokenizer.encode(&parts).unwrap(), tokenizer.encode_text(&whole).unwrap());
    }

    #[test]
    fn decoding_gives_back_what_was_encoded(text in "[^\\s<\u{2581}]([^<\u{2581}]{0,20}[^\\s<\u{2581}])?") {
        let tokenizer = SMALL.with(std::rc::Rc::clone);
        prop_assert_eq!(tokenizer.decode(&tokenizer.encode_text(&text).unwrap()), text.trim());
    }
}

thread_local! {
    static SMALL: std::rc::Rc<LlamaTokenizer> = std::rc::Rc::new(
        LlamaTokenizer::from_file(&golden("pack_a/official/vicuna-7b-v1-1/tokenizer.model")).unwrap()
    );
}
