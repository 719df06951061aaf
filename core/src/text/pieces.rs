//! Cutting a text at control tokens.

use super::is_python_whitespace;

/// A part of a prompt, by who wrote it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Segment<'a> {
    /// Control tokens spelled out in it act as such.
    Template(&'a str),
    /// Control tokens spelled out in it are text.
    User(&'a str),
}

impl<'a> Segment<'a> {
    /// What it says.
    pub fn text(self) -> &'a str {
        match self {
            Self::Template(text) | Self::User(text) => text,
        }
    }
}

/// A token that is recognised literally, before a text is tokenized.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Literal {
    pub(super) text: String,
    pub(super) id: u32,
    /// Whether white space next to it, on both sides, belongs to it.
    pub(super) strips: bool,
}

/// What a text consists of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Piece<'a> {
    Token(u32),
    Text(&'a str),
}

/// Joins segments, and says which bytes of the whole the user wrote.
pub(super) fn join(segments: &[Segment<'_>]) -> (String, Vec<std::ops::Range<usize>>) {
    let mut whole = String::with_capacity(segments.iter().map(|s| s.text().len()).sum());
    let mut user = Vec::new();
    for segment in segments {
        let start = whole.len();
        whole.push_str(segment.text());
        if matches!(segment, Segment::User(_)) && whole.len() > start {
            user.push(start..whole.len());
        }
    }
    (whole, user)
}

/// Cuts `text` at every literal, the leftmost first and of several there the longest. A literal of which any
/// byte lies in `inert` is text. Empty pieces are left out.
pub(super) fn cut<'a>(
    text: &'a str,
    literals: &[Literal],
    inert: &[std::ops::Range<usize>],
) -> Vec<Piece<'a>> {
    let mut pieces = Vec::new();
    let mut strip_start = false;
    let mut start = 0;
    let mut position = 0;
    while let Some(rest) = text.get(position..).filter(|rest| !rest.is_empty()) {
        let found = literals
            .iter()
            .filter(|literal| !literal.text.is_empty() && rest.starts_with(&literal.text))
            .filter(|literal| {
                let end = position + literal.text.len();
                !inert.iter().any(|range| range.start < end && position < range.end)
            })
            .max_by_key(|literal| literal.text.len());
        match found {
            Some(literal) => {
                push_text(&mut pieces, &text[start..position], strip_start, literal.strips);
                pieces.push(Piece::Token(literal.id));
                strip_start = literal.strips;
                position += literal.text.len();
                start = position;
            }
            None => position += rest.chars().next().map_or(1, char::len_utf8),
        }
    }
    push_text(&mut pieces, &text[start..], strip_start, false);
    pieces
}

fn push_text<'a>(pieces: &mut Vec<Piece<'a>>, text: &'a str, strip_start: bool, strip_end: bool) {
    let text = if strip_start { text.trim_start_matches(is_python_whitespace) } else { text };
    let text = if strip_end { text.trim_end_matches(is_python_whitespace) } else { text };
    if !text.is_empty() {
        pieces.push(Piece::Text(text));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn literals() -> Vec<Literal> {
        let literal = |text: &str, id, strips| Literal { text: text.to_owned(), id, strips };
        vec![literal("<a>", 1, true), literal("<a><b>", 2, true), literal("</s>", 3, false)]
    }

    #[test]
    fn the_longest_literal_wins_and_white_space_goes_where_it_must() {
        assert_eq!(
            cut(" x \u{1f}<a><b>\u{a0}y </s> z", &literals(), &[]),
            [Piece::Text(" x"), Piece::Token(2), Piece::Text("y "), Piece::Token(3), Piece::Text(" z")]
        );
    }

    #[test]
    fn a_literal_the_user_wrote_any_byte_of_is_text() {
        let (whole, user) = join(&[
            Segment::Template("<a>"),
            Segment::User("</s>"),
            Segment::Template("<"),
            Segment::User("a"),
            Segment::Template("></s>"),
        ]);
        assert_eq!(
            cut(&whole, &literals(), &user),
            [Piece::Token(1), Piece::Text("</s><a>"), Piece::Token(3)]
        );
    }
}
