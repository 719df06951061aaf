#![no_main]

libfuzzer_sys::fuzz_target!(|content: &[u8]| smartedit_fuzz::clip_tokenizer(content));
