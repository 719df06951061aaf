//! What the tests of conversion share: the golden pack, and writers of small checkpoint files.

#![allow(dead_code, unreachable_pub, clippy::unwrap_used)]

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use smartedit_core::model::convert::SmartEditSources;
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipWriter};

/// The golden pack: `SMARTEDIT_GOLDEN_PACK`, or the one that ships.
pub fn pack() -> PathBuf {
    std::env::var_os("SMARTEDIT_GOLDEN_PACK")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden/pack_a"), PathBuf::from)
}

pub fn read_json(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))).unwrap()
}

/// The sources that `golden.json` names, under another root.
pub fn sources(pack: &Path, official: &Path) -> SmartEditSources {
    let golden = read_json(&pack.join("golden.json"));
    let path = |role: &str| official.join(golden["paths"][role].as_str().unwrap());
    let llava = path("llava");
    let tower = read_json(&llava.join("config.json"))["mm_vision_tower"].as_str().unwrap().to_owned();
    SmartEditSources {
        vicuna: path("vicuna"),
        vision_tower: official.join(tower),
        llava,
        smartedit: path("total"),
        instruct_pix2pix: official.join("timbrooks/instruct-pix2pix"),
        qformer_config: Some(official.join("bert-base-uncased/config.json")),
        templates: Some(official.join("data/ConversationTemplateEditing_use.txt")),
        system: Some(golden["system"].as_str().unwrap().to_owned()),
        name: None,
        dtype: None,
    }
}

/// A writable copy of the official tree.
pub fn official_copy(pack: &Path, to: &Path) -> PathBuf {
    let official = to.join("official");
    copy_tree(&pack.join("official"), &official);
    official
}

/// Copies a directory.
pub fn copy_tree(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        match entry.path().is_dir() {
            true => copy_tree(&entry.path(), &target),
            // Content alone, so that copies of read-only files can be written.
            false => fs::write(target, fs::read(entry.path()).unwrap()).unwrap(),
        }
    }
}

/// A tensor to write: name, element type (`F32`, `F16`, `BF16`, …), shape, bytes.
pub type Tensor = (String, &'static str, Vec<usize>, Vec<u8>);

pub fn f32_tensor(name: &str, shape: &[usize], values: &[f32]) -> Tensor {
    (name.to_owned(), "F32", shape.to_vec(), values.iter().flat_map(|v| v.to_le_bytes()).collect())
}

pub fn write_safetensors(path: &Path, tensors: &[Tensor]) {
    let mut header = serde_json::Map::new();
    let mut end = 0;
    for (name, dtype, shape, bytes) in tensors {
        let start = end;
        end += bytes.len();
        header.insert(name.clone(), json!({"dtype": dtype, "shape": shape, "data_offsets": [start, end]}));
    }
    let header = serde_json::to_vec(&header).unwrap();
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend(header);
    tensors.iter().for_each(|(_, _, _, bytes)| file.extend(bytes));
    fs::write(path, file).unwrap();
}

/// The pickle instruction for a small number.
fn int(value: usize) -> Vec<u8> {
    let mut bytes = vec![b'J'];
    bytes.extend(i32::try_from(value).unwrap().to_le_bytes());
    bytes
}

fn text(value: &str) -> Vec<u8> {
    let mut bytes = vec![b'X'];
    bytes.extend(u32::try_from(value.len()).unwrap().to_le_bytes());
    bytes.extend(value.as_bytes());
    bytes
}

fn tuple(values: &[usize]) -> Vec<u8> {
    let mut bytes = vec![b'('];
    values.iter().for_each(|&value| bytes.extend(int(value)));
    bytes.push(b't');
    bytes
}

/// A tensor as a pickle describes it: a view of storage `0`.
pub struct View<'a> {
    pub name: &'a str,
    pub storage: &'a str,
    pub storage_len: usize,
    pub offset: usize,
    pub shape: &'a [usize],
    pub strides: &'a [usize],
}

/// `data.pkl` of a checkpoint with these tensors, as `torch.save` writes it.
pub fn pickle(views: &[View<'_>]) -> Vec<u8> {
    let mut program = b"\x80\x02}(".to_vec();
    for view in views {
        program.extend(text(view.name));
        program.extend(b"ctorch._utils\n_rebuild_tensor_v2\n((");
        program.extend(text("storage"));
        program.extend(format!("ctorch\n{}\n", view.storage).as_bytes());
        program.extend(text("0"));
        program.extend(text("cpu"));
        program.extend(int(view.storage_len));
        program.extend(b"tQ");
        program.extend(int(view.offset));
        program.extend(tuple(view.shape));
        program.extend(tuple(view.strides));
        program.extend(b"\x89ccollections\nOrderedDict\n)RtR");
    }
    program.extend(b"u.");
    program
}

/// A PyTorch zip file with one storage.
pub fn torch_zip(path: &Path, pickle: &[u8], storage: &[u8], compression: CompressionMethod) {
    let mut zip = ZipWriter::new(fs::File::create(path).unwrap());
    let options = SimpleFileOptions::default().compression_method(compression);
    for (name, content) in [("archive/data.pkl", pickle), ("archive/data/0", storage)] {
        zip.start_file(name, options).unwrap();
        zip.write_all(content).unwrap();
    }
    zip.finish().unwrap();
}

/// Names in a directory, hidden ones included.
pub fn names(directory: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

/// Removes the checkpoints of a directory.
pub fn remove_weights(directory: &Path) {
    for name in names(directory) {
        if name.contains(".bin") || name.contains(".safetensors") {
            fs::remove_file(directory.join(name)).unwrap();
        }
    }
}
