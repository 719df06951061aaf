//! Everything that a fuzzer has ever found, and what it began with, in the functions that it tries.

#[allow(unreachable_pub, reason = "the targets use it as a crate")]
#[path = "../fuzz/src/lib.rs"]
mod fuzz;

use std::path::Path;

#[test]
fn every_file_of_every_corpus_is_read() {
    let corpora = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus");
    let mut directories: Vec<_> =
        std::fs::read_dir(&corpora).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    directories.sort();
    assert_eq!(directories, fuzz::TARGETS.map(|(name, _)| name), "a corpus for each target");
    for (name, target) in fuzz::TARGETS {
        let files: Vec<_> =
            std::fs::read_dir(corpora.join(name)).unwrap().map(|entry| entry.unwrap().path()).collect();
        assert!(!files.is_empty(), "{name}: the corpus is empty");
        for file in files {
            println!("{}", file.display());
            target(&std::fs::read(&file).unwrap());
        }
        target(&[]);
    }
}
