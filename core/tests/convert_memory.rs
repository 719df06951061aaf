//! Conversion streams: its memory is bounded by the largest tensor, not by the checkpoint.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used)]

mod files;

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::Path;

use files::{copy_tree, pack};
use serde_json::json;
use smartedit_core::engine::Precision;
use smartedit_core::model::convert::{InstructPix2PixSources, convert_instruct_pix2pix};

/// What conversion may need beside the largest tensor: buffers, headers, names.
const CONSTANT: u64 = 24 << 20;

/// The most memory this process has had resident, mapped files included.
fn peak_resident() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}

/// Writes a CLIP text encoder of `layers` layers, all ones; its size and that of its largest tensor.
fn write_text_encoder(directory: &Path, layers: usize, width: usize, vocabulary: usize) -> (u64, u64) {
    let config = json!({
        "hidden_size": width, "intermediate_size": 4 * width, "num_hidden_layers": layers,
        "num_attention_heads": 8, "vocab_size": vocabulary, "max_position_embeddings": 77,
    });
    fs::write(directory.join("config.json"), config.to_string()).unwrap();
    let mut shapes = vec![
        ("embeddings.token_embedding.weight".to_owned(), vec![vocabulary, width]),
        ("embeddings.position_embedding.weight".to_owned(), vec![77, width]),
        ("final_layer_norm.weight".to_owned(), vec![width]),
        ("final_layer_norm.bias".to_owned(), vec![width]),
    ];
    for layer in 0..layers {
        let parts = [
            ("self_attn.q_proj", width, width),
            ("self_attn.k_proj", width, width),
            ("self_attn.v_proj", width, width),
            ("self_attn.out_proj", width, width),
            ("mlp.fc1", 4 * width, width),
            ("mlp.fc2", width, 4 * width),
        ];
        for (name, rows, columns) in parts {
            shapes.push((format!("encoder.layers.{layer}.{name}.weight"), vec![rows, columns]));
            shapes.push((format!("encoder.layers.{layer}.{name}.bias"), vec![rows]));
        }
        for norm in ["layer_norm1", "layer_norm2"] {
            shapes.push((format!("encoder.layers.{layer}.{norm}.weight"), vec![width]));
            shapes.push((format!("encoder.layers.{layer}.{norm}.bias"), vec![width]));
        }
    }
    let bytes = |shape: &[usize]| shape.iter().product::<usize>() as u64 * 4;
    let mut header = serde_json::Map::new();
    let mut end = 0;
    for (name, shape) in &shapes {
        let start = end;
        end += bytes(shape);
        header.insert(
            format!("text_model.{name}"),
            json!({"dtype": "F32", "shape": shape, "data_offsets": [start, end]}),
        );
    }
    let header = serde_json::to_vec(&header).unwrap();
    let mut file = BufWriter::new(File::create(directory.join("model.safetensors")).unwrap());
    file.write_all(&(header.len() as u64).to_le_bytes()).unwrap();
    file.write_all(&header).unwrap();
    let ones = 1.0_f32.to_le_bytes().repeat(1 << 14);
    let mut rest = end;
    while rest > 0 {
        let len = rest.min(ones.len() as u64);
        file.write_all(&ones[..len as usize]).unwrap();
        rest -= len;
    }
    file.flush().unwrap();
    (end, shapes.iter().map(|(_, shape)| bytes(shape)).max().unwrap())
}

#[test]
fn golden_memory_is_bounded_by_the_largest_tensor() {
    let place = tempfile::tempdir().unwrap();
    let from = place.path().join("from");
    copy_tree(&pack().join("official/timbrooks/instruct-pix2pix"), &from);
    let text_encoder = from.join("text_encoder");
    files::remove_weights(&text_encoder);
    let (total, largest) = write_text_encoder(&text_encoder, 8, 768, 10_000);
    assert!(total > 7 * largest, "{total} bytes in all, {largest} in the largest tensor");

    let before = peak_resident();
    for dtype in [Some(Precision::Bf16), None] {
        let sources = InstructPix2PixSources { from: from.clone(), name: None, dtype };
        convert_instruct_pix2pix(&sources, &place.path().join(format!("{dtype:?}"))).unwrap();
        let grown = peak_resident() - before;
        println!(
            "{dtype:?}: {} MiB in all, {} MiB in the largest tensor, memory grew by {} MiB",
            total >> 20,
            largest >> 20,
            grown >> 20
        );
        assert!(grown <= largest + CONSTANT, "memory grew by {grown} bytes");
    }
}
