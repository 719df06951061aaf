//! An engine's words, for callers.

/// What stands in the place of a path.
const PATH: &str = "(path in the log)";

/// An engine's words without the paths in them, which are nobody's business but the operator's.
pub(crate) fn without_paths(words: &str) -> String {
    let mut told = String::with_capacity(words.len());
    for piece in words.split_inclusive(char::is_whitespace) {
        let word = piece.trim_end();
        let inner = word.trim_matches(|c: char| "`'\"(),;:".contains(c));
        match is_path(inner) {
            true => told += &piece.replacen(inner, PATH, 1),
            false => told += piece,
        }
    }
    told
}

/// Whether a word is one: a slash parts two names of more than a letter, or begins it.
fn is_path(word: &str) -> bool {
    let parts = || word.split(['/', '\\']);
    let names = parts().filter(|part| part.len() > 1).count();
    parts().nth(1).is_some()
        && (names > 1 || word.starts_with(['/', '\\', '~', '.']))
        && !word.contains("://")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_left_out_and_the_rest_stays() {
        for (words, told) in [
            (
                "not in /opt/app, /opt/app/.cache; run `cargo xtask engines`",
                "not in (path in the log), (path in the log); run `cargo xtask engines`",
            ),
            (
                "`lib/libonnx.so` cannot be loaded: I/O error",
                "`(path in the log)` cannot be loaded: I/O error",
            ),
            ("/x: is gone", "(path in the log): is gone"),
            ("C:\\models\\x is gone", "(path in the log) is gone"),
            ("see https://example.org/a/b\nor not", "see https://example.org/a/b\nor not"),
            ("cuda:0 is not there", "cuda:0 is not there"),
            ("", ""),
        ] {
            assert_eq!(without_paths(words), told);
        }
    }
}
