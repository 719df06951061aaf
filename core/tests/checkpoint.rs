//! Damaged and malicious checkpoint files.

#![allow(clippy::unwrap_used)]

mod files;

use std::fs;
use std::path::{Path, PathBuf};

use files::{View, f32_tensor, pickle, torch_zip, write_safetensors};
use proptest::prelude::*;
use smartedit_core::model::checkpoint::Checkpoint;
use smartedit_core::weights::Dtype;
use zip::CompressionMethod;

fn matrix<'a>() -> View<'a> {
    View { name: "w", storage: "FloatStorage", storage_len: 6, offset: 0, shape: &[2, 3], strides: &[3, 1] }
}

fn six() -> Vec<u8> {
    (1..=6).flat_map(|value| (value as f32).to_le_bytes()).collect()
}

fn floats(path: &Path, name: &str) -> Vec<f32> {
    let checkpoint = Checkpoint::open(&[path]).unwrap();
    let bytes = checkpoint.get(name).unwrap().bytes();
    bytes.chunks(4).map(|value| f32::from_le_bytes(value.try_into().unwrap())).collect()
}

fn error(path: &Path) -> String {
    let text = Checkpoint::open(&[path]).unwrap_err().to_string();
    assert!(text.contains(path.to_str().unwrap()), "the file is named: {text}");
    text
}

fn stored(path: &Path, views: &[View<'_>], storage: &[u8]) {
    torch_zip(path, &pickle(views), storage, CompressionMethod::Stored);
}

#[test]
fn views_of_a_storage_are_gathered() {
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("a.bin");
    let views = [
        matrix(),
        View { name: "transposed", shape: &[3, 2], strides: &[1, 3], ..matrix() },
        View { name: "row", offset: 3, shape: &[3], strides: &[1], ..matrix() },
        View { name: "column", offset: 1, shape: &[2, 1], strides: &[3, 1], ..matrix() },
        View { name: "scalar", offset: 5, shape: &[], strides: &[], ..matrix() },
        View { name: "empty", shape: &[0, 3], strides: &[3, 1], ..matrix() },
    ];
    stored(&path, &views, &six());
    assert_eq!(floats(&path, "w"), [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
    assert_eq!(floats(&path, "transposed"), [1.0, 4.0, 2.0, 5.0, 3.0, 6.0]);
    assert_eq!(floats(&path, "row"), [4.0, 5.0, 6.0]);
    assert_eq!(floats(&path, "column"), [2.0, 5.0]);
    assert_eq!(floats(&path, "scalar"), [6.0]);
    assert!(floats(&path, "empty").is_empty());
    let checkpoint = Checkpoint::open(&[&path]).unwrap();
    let view = checkpoint.get("transposed").unwrap();
    assert_eq!((view.dtype(), view.shape()), (Dtype::F32, [3, 2].as_slice()));
    let mut pieces = Vec::new();
    view.for_each_chunk(2..5, |bytes| {
        pieces.extend_from_slice(bytes);
        Ok::<_, ()>(())
    })
    .unwrap();
    assert_eq!(pieces, view.bytes()[8..20]);
}

#[test]
fn tensors_outside_their_storage_are_refused() {
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("a.bin");
    let huge = i32::MAX as usize;
    let cases = [
        View { offset: 1, ..matrix() },
        View { strides: &[6, 1], ..matrix() },
        View { shape: &[2, 4], ..matrix() },
        View { shape: &[huge, huge, huge], strides: &[huge, huge, huge], ..matrix() },
        View { storage_len: 7, ..matrix() },
        View { storage: "DoubleStorage", ..matrix() },
        View { shape: &[huge, 1], strides: &[0, 1], ..matrix() },
    ];
    for case in cases {
        stored(&path, &[case], &six());
        assert!(error(&path).contains("tensor `w`"));
    }
}

#[test]
fn unfit_files_are_refused_with_a_remedy() {
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("a.bin");
    fs::write(&path, b"").unwrap();
    assert!(error(&path).contains("is empty"));
    fs::write(&path, b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.rest").unwrap();
    assert!(error(&path).contains("before 1.6"));
    fs::write(&path, b"version https://git-lfs.github.com/spec/v1\n").unwrap();
    assert!(error(&path).contains("git lfs pull"));
    fs::write(&path, b"<!DOCTYPE html>").unwrap();
    assert!(error(&path).contains("neither"));
    assert!(error(place.path()).contains("no file"));
    assert!(error(&place.path().join("none.bin")).contains("cannot read"));
    torch_zip(&path, b"\x80\x02cposix\nsystem\n.", &[], CompressionMethod::Stored);
    assert!(error(&path).contains("`posix.system`"));
    torch_zip(&path, b"\x80\x02N.", &[], CompressionMethod::Stored);
    assert!(error(&path).contains("ends with None"));
    torch_zip(&path, b"\x80\x02}X\x01\x00\x00\x00aK\x01s.", &[], CompressionMethod::Stored);
    assert!(error(&path).contains("an int as `a`"));
}

#[test]
fn compressed_entries_are_refused_with_a_remedy() {
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("a.bin");
    stored(&path, &[matrix()], &six());
    // The writer at hand stores only: say "deflated" in the local and in the central header.
    let mut bytes = fs::read(&path).unwrap();
    for index in 0..bytes.len() - 12 {
        match &bytes[index..index + 4] {
            b"PK\x03\x04" => bytes[index + 8] = 8,
            b"PK\x01\x02" => bytes[index + 10] = 8,
            _ => {}
        }
    }
    fs::write(&path, bytes).unwrap();
    let text = error(&path);
    assert!(text.contains("compressed entry `archive/data.pkl`") && text.contains("torch.save"), "{text}");
}

#[test]
fn no_truncation_of_a_file_is_read() {
    let place = tempfile::tempdir().unwrap();
    let (torch, safetensors) = (place.path().join("a.bin"), place.path().join("a.safetensors"));
    stored(&torch, &[matrix()], &six());
    write_safetensors(&safetensors, &[f32_tensor("w", &[2, 3], &[1.0; 6])]);
    for path in [torch, safetensors] {
        let whole = fs::read(&path).unwrap();
        for len in 0..whole.len() {
            fs::write(&path, &whole[..len]).unwrap();
            assert!(Checkpoint::open(&[&path]).is_err(), "{} with {len} bytes", path.display());
        }
    }
}

#[test]
fn indexes_name_shards_beside_them() {
    let place = tempfile::tempdir().unwrap();
    let index = place.path().join("model.safetensors.index.json");
    let write = |map: &str| fs::write(&index, format!(r#"{{"weight_map": {map}}}"#)).unwrap();
    write_safetensors(&place.path().join("1.safetensors"), &[f32_tensor("a", &[1], &[1.0])]);
    write_safetensors(&place.path().join("2.safetensors"), &[f32_tensor("b", &[1], &[2.0])]);
    write(r#"{"a": "1.safetensors", "b": "2.safetensors"}"#);
    let checkpoint = Checkpoint::open(&[&index]).unwrap();
    assert_eq!(checkpoint.names().collect::<Vec<_>>(), ["a", "b"]);
    assert_eq!(floats(&index, "b"), [2.0]);

    write(r#"{"a": "1.safetensors", "b": "3.safetensors", "c": "4.safetensors"}"#);
    assert!(error(&index).contains("missing: 3.safetensors, 4.safetensors"));
    for outside in ["../1.safetensors", "/etc/passwd", "..", ""] {
        write(&format!(r#"{{"a": "{outside}"}}"#));
        assert!(error(&index).contains("no plain file name"), "{outside}");
    }
    write(r#"{"z": "1.safetensors"}"#);
    assert!(
        error(&index).contains("no such")
            || Checkpoint::open(&[&index]).unwrap_err().to_string().contains("`z`")
    );
    fs::write(&index, "[]").unwrap();
    assert!(error(&index).contains("no index"));
    let twice = [place.path().join("1.safetensors"), place.path().join("1.safetensors")];
    assert!(Checkpoint::open(&twice).unwrap_err().to_string().contains("`a`"));
}

/// Reads everything that a file claims to hold.
fn read_all(path: &PathBuf) {
    if let Ok(checkpoint) = Checkpoint::open(&[path]) {
        for (_, view) in checkpoint.iter() {
            assert_eq!(view.bytes().len(), view.byte_len());
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn no_mutation_of_a_file_panics(
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
        safetensors in any::<bool>(),
    ) {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("a");
        if safetensors {
            write_safetensors(&path, &[f32_tensor("w", &[2, 3], &[1.0; 6])]);
        } else {
            stored(&path, &[matrix(), View { name: "t", shape: &[3, 2], strides: &[1, 3], ..matrix() }], &six());
        }
        let mut bytes = fs::read(&path).unwrap();
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        fs::write(&path, bytes).unwrap();
        read_all(&path);
    }
}
