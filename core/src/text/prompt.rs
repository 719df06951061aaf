//! SmartEdit's prompt.

use super::{LlamaTokenizer, Segment, TextError};
use crate::model::PromptTemplate;

/// What the language model is asked, by who wrote which part.
///
/// The whole reads `{system} USER: {human} ASSISTANT:`, in which `human` is the template's turn with every `[cap]`
/// replaced by `"<im_start> <img_0> <im_end>{instruction}"`. Line feeds are left out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prompt {
    template: String,
    parts: Vec<Part>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Template(String),
    Instruction(String),
}

/// A prompt as the language model takes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PromptTokens {
    /// All ids but that of the token in whose place the image features come.
    pub ids_without_image_token: Vec<u32>,
    /// Index in `ids_without_image_token` before which the image features stand.
    pub image_position: usize,
}

impl Prompt {
    /// Fills a template.
    pub fn new(system: &str, template: &PromptTemplate, instruction: &str) -> Self {
        let without_line_feeds = |text: &str| text.replace('\n', "");
        let mut parts = vec![];
        let mut text = format!("{system} USER: ");
        for (index, between) in template.human.split("[cap]").enumerate() {
            if index > 0 {
                text.push_str("\"<im_start> <img_0> <im_end>");
                parts.push(Part::Template(without_line_feeds(&std::mem::take(&mut text))));
                parts.push(Part::Instruction(without_line_feeds(instruction)));
                text.push('"');
            }
            text.push_str(between);
        }
        text.push_str(" ASSISTANT:");
        parts.push(Part::Template(without_line_feeds(&text)));
        Self { template: template.human.clone(), parts }
    }

    /// The whole as one text.
    pub fn text(&self) -> String {
        self.parts
            .iter()
            .map(|part| match part {
                Part::Template(text) | Part::Instruction(text) => text.as_str(),
            })
            .collect()
    }

    /// The ids. Control tokens spelled out in the instruction are text, or with `control_tokens` act as such, as
    /// in the reference.
    pub fn encode(
        &self,
        tokenizer: &LlamaTokenizer,
        control_tokens: bool,
    ) -> Result<PromptTokens, TextError> {
        let segments: Vec<Segment<'_>> = self
            .parts
            .iter()
            .map(|part| match part {
                Part::Instruction(text) if !control_tokens => Segment::User(text),
                Part::Template(text) | Part::Instruction(text) => Segment::Template(text),
            })
            .collect();
        let mut ids = tokenizer.encode(&segments)?;
        let image = tokenizer.special().first_image_token;
        let position = ids
            .iter()
            .position(|&id| id == image)
            .ok_or_else(|| TextError::NoImage { template: self.template.clone() })?;
        ids.remove(position);
        Ok(PromptTokens { ids_without_image_token: ids, image_position: position })
    }
}

/// The ids of a reply as the language model gives it after a prompt: those of the words, then the image tokens,
/// for which `[img]` stands. What follows them is left out.
pub fn reply_tokens(reply: &str, tokenizer: &LlamaTokenizer) -> Result<Vec<u32>, TextError> {
    let words = reply.split("[img]").next().unwrap_or_default().trim();
    let mut ids = tokenizer.encode(&[Segment::Template(words)])?;
    let special = tokenizer.special();
    ids.retain(|id| *id != special.bos);
    ids.extend(special.image_tokens());
    Ok(ids)
}
