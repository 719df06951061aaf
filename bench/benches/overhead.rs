//! What an edit costs through loopback gRPC, beside the same pipeline called as a library.
//!
//! Runs on the model directory `SMARTEDIT_TEST_MODEL`, or the one that ships.

#![allow(missing_docs, reason = "criterion's macros make public items without any")]

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use criterion::{Criterion, criterion_group, criterion_main};
use smartedit_client::{Client, EditRequest, Resize as ClientResize};
use smartedit_core::picture::{DecodeOptions, Format, decode, encode};
use smartedit_core::pipeline::{self, EditOptions, Progress, Resize};
use smartedit_server::config::{CacheConfig, DeploymentConfig};
use smartedit_server::deployment::{EngineLoader, Loader};
use smartedit_server::engines::Engines;
use smartedit_server::work::Editor;
use smartedit_server::{Config, Server};

const SIDE: u32 = 64;
const SEED: u64 = 7;
const STEPS: u32 = 1;
const INSTRUCTION: &str = "Make it blue";

fn model() -> PathBuf {
    let shipped = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/tiny-random");
    std::env::var_os("SMARTEDIT_TEST_MODEL").map_or_else(shipped, PathBuf::from)
}

fn picture() -> Bytes {
    let picture = image::RgbImage::from_fn(256, 256, |x, y| image::Rgb([x as u8, y as u8, (x ^ y) as u8]));
    encode(&picture, Format::Png, None).expect("a picture can be encoded").into()
}

fn edit_as_library(editor: &Arc<dyn Editor>, file: &[u8]) -> Vec<u8> {
    let options = EditOptions {
        seed: SEED,
        steps: Some(STEPS as usize),
        resize: Some(Resize::Stretch { width: SIDE, height: SIDE }),
        ..EditOptions::default()
    };
    let image = decode(file, &DecodeOptions::default()).expect("the picture can be decoded");
    let request = pipeline::EditRequest { image, instruction: INSTRUCTION.to_owned(), options };
    let mut edit = Arc::clone(editor).edit(request).expect("the request is valid");
    loop {
        if let Progress::Finished(output) = edit.advance().expect("the edit goes on") {
            return encode(&output.image, Format::Png, None).expect("the result can be encoded");
        }
    }
}

fn overhead(criterion: &mut Criterion) {
    let loader =
        EngineLoader::new(Engines::built_in(), &CacheConfig { max_bytes: 0, ..CacheConfig::default() });
    let Ok(editor) = loader.load(&DeploymentConfig::new(model())) else {
        panic!("cannot load {}", model().display());
    };
    let file = picture();
    let runtime = tokio::runtime::Runtime::new().expect("a runtime can be started");
    let client = runtime.block_on(async {
        let config = Config { listen: SocketAddr::from(([127, 0, 0, 1], 0)), ..Config::single(model()) };
        let server = Server::bind(config).await.expect("the server can be bound");
        let address = server.local_addr();
        let ready = server.ready("");
        tokio::spawn(server.serve());
        ready.await.expect("the model can be loaded");
        Client::connect(address.to_string()).await.expect("the server answers")
    });
    let mut request = EditRequest::new(file.clone(), INSTRUCTION);
    request.options.seed = Some(SEED);
    request.options.steps = Some(STEPS);
    request.options.resize = ClientResize::Stretch(SIDE, SIDE);

    let mut group = criterion.benchmark_group("overhead");
    group.sample_size(30).measurement_time(Duration::from_secs(10));
    group.bench_function("library", |bencher| bencher.iter(|| edit_as_library(&editor, &file)));
    group.bench_function("grpc", |bencher| {
        bencher.iter(|| runtime.block_on(client.edit(request.clone())).expect("the edit succeeds"));
    });
    group.finish();
}

criterion_group!(benches, overhead);
criterion_main!(benches);
