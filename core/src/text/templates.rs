//! The release's prompt texts, and its file of templates.

use super::TextError;
use crate::model::{PromptConfig, PromptTemplate};

/// The system text of the release (conversation template `vicuna_v1.3`).
pub const RELEASE_SYSTEM: &str = "A chat between a curious user and an artificial intelligence assistant. \
The assistant can generate <img>. \
The assistant needs to conduct the image to image translation task based on given image and text information. \
The assistant gives helpful, detailed, and polite answers to the user's questions.";

const RELEASE_HUMAN: &str =
    "Could you produce an image based on the previous image and text description [cap]?";
const RELEASE_GPT: &str = "Certainly, I can create the image you requested [img].";

/// What a prompt is made of where no list of templates is given: the release's system text and one of its pairs.
pub fn release_prompt() -> PromptConfig {
    PromptConfig {
        system: RELEASE_SYSTEM.to_owned(),
        templates: vec![PromptTemplate { human: RELEASE_HUMAN.to_owned(), gpt: RELEASE_GPT.to_owned() }],
        replies: Vec::new(),
    }
}

/// Reads the release's form of a list of templates: a line `Human: …` with `[cap]` in it, then a line `GPT: …`.
/// White space at both ends of a line does not count, nor do other lines.
pub fn parse_templates(text: &str) -> Result<Vec<PromptTemplate>, TextError> {
    let mut templates = Vec::new();
    let mut pending: Option<(usize, &str)> = None;
    let error = |line: usize, message: &str| TextError::Templates { line, message: message.to_owned() };
    for (line, content) in (1..).zip(text.lines()) {
        let content = content.trim();
        if let Some(human) = content.strip_prefix("Human: ") {
            if let Some((line, _)) = pending {
                return Err(error(line, "this `Human:` line has no `GPT:` line"));
            }
            if !human.contains("[cap]") {
                return Err(error(line, "`[cap]`, which stands for image and instruction, is missing"));
            }
            pending = Some((line, human));
        } else if let Some(gpt) = content.strip_prefix("GPT: ") {
            let Some((_, human)) = pending.take() else {
                return Err(error(line, "this `GPT:` line has no `Human:` line"));
            };
            templates.push(PromptTemplate { human: human.to_owned(), gpt: gpt.to_owned() });
        }
    }
    match pending {
        Some((line, _)) => Err(error(line, "this `Human:` line has no `GPT:` line")),
        None if templates.is_empty() => {
            Err(error(text.lines().count().max(1), "the end is reached without a `Human:` line"))
        }
        None => Ok(templates),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_malformed_list_is_refused_with_the_line() {
        for (text, line) in [
            ("", 1),
            ("1.\nHuman: no place\nGPT: x", 2),
            ("Human: [cap]\n\n", 1),
            ("Human: [cap]\nHuman: [cap]\nGPT: a", 1),
            ("\nGPT: a", 2),
        ] {
            match parse_templates(text) {
                Err(TextError::Templates { line: found, .. }) => assert_eq!(found, line, "{text:?}"),
                other => panic!("{text:?}: {other:?}"),
            }
        }
    }
}
