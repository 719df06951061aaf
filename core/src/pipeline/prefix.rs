//! Beginnings of prompts, whose keys and values are kept.
//!
//! A prompt reads: system text and the template up to the picture, the picture, the instruction and the rest. The
//! first part is the same for all edits with a template, the first two for all edits of a picture. Where beginnings
//! are kept, every prompt is fed in these parts, whether a part is found or not: what is found was computed by the
//! very calls that it replaces, so that an edit does not depend on those before it.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ndarray::ArrayD;

use crate::cache::{BoundedLru, Key, KeyBuilder};
use crate::decoding::DecodingInput;
use crate::engine::Precision;
use crate::model::LlamaConfig;
use crate::stage::Session;
use crate::tensor::Tensors;
use crate::text::PromptTokens;

/// Sessions of a language model that have been fed beginnings of prompts. What it has kept goes with it.
pub(super) struct Prefixes {
    kept: Arc<Kept>,
    /// Tells the language model from its adapted ones, which keep theirs in the same place.
    owner: Option<Arc<Owner>>,
}

/// Of a language model and all its adapted ones, within a number of bytes.
struct Kept {
    sessions: Mutex<Sessions>,
    bytes_per_position: usize,
}

/// Sessions, and whose they are.
type Sessions = BoundedLru<(Option<u64>, Box<dyn Session>)>;

struct Owner {
    id: u64,
    kept: Arc<Kept>,
}

impl Drop for Owner {
    fn drop(&mut self) {
        self.kept.lock().retain(|(owner, _)| *owner != Some(self.id));
    }
}

impl Kept {
    fn lock(&self) -> MutexGuard<'_, Sessions> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A part of a prompt's beginning.
pub(super) struct Part {
    /// Of this part and all before it.
    key: Key,
    pub(super) input: DecodingInput,
    /// Positions after which it ends.
    end: usize,
}

/// A prompt in parts.
pub(super) struct Parts {
    /// Those that other prompts begin with, too.
    pub(super) beginning: VecDeque<Part>,
    /// Positions of the beginning.
    pub(super) length: usize,
    /// The tokens after it.
    pub(super) rest: Vec<u32>,
}

impl Prefixes {
    /// Keeps sessions whose keys and values have so many bytes at most.
    pub(super) fn new(max_bytes: usize, config: &LlamaConfig, precision: Precision) -> Self {
        let element = match precision {
            Precision::F32 => 4,
            Precision::Bf16 | Precision::F16 => 2,
        };
        let kept = Kept {
            sessions: Mutex::new(BoundedLru::new(max_bytes)),
            bytes_per_position: 2 * config.num_layers * config.hidden_size * element,
        };
        Self { kept: Arc::new(kept), owner: None }
    }

    /// Of the same language model.
    pub(super) fn shared(&self) -> Self {
        Self { kept: self.kept.clone(), owner: self.owner.clone() }
    }

    /// Of an adapted language model.
    pub(super) fn of_another(&self) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let owner = Owner { id: NEXT.fetch_add(1, Ordering::Relaxed), kept: self.kept.clone() };
        Self { kept: self.kept.clone(), owner: Some(Arc::new(owner)) }
    }

    fn owner(&self) -> Option<u64> {
        self.owner.as_ref().map(|owner| owner.id)
    }

    /// A session that has been fed as much of the beginning as one has ever been; takes those parts out.
    pub(super) fn resume(&self, beginning: &mut VecDeque<Part>) -> Option<Box<dyn Session>> {
        let mut sessions = self.kept.lock();
        for index in (0..beginning.len()).rev() {
            let found = sessions.get(&self.key(&beginning[index]));
            if let Some(session) = found.and_then(|(_, session)| session.fork()) {
                beginning.drain(..=index);
                return Some(session);
            }
        }
        None
    }

    /// Keeps a session that has been fed a part and all parts before it, and nothing else.
    pub(super) fn keep(&self, part: &Part, session: &dyn Session) {
        if let Some(session) = session.fork() {
            let bytes = part.end * self.kept.bytes_per_position;
            self.kept.lock().put(self.key(part), (self.owner(), session), bytes);
        }
    }

    fn key(&self, part: &Part) -> Key {
        match self.owner() {
            Some(owner) => KeyBuilder::new("adapted").number(owner).key(part.key).finish(),
            None => part.key,
        }
    }
}

impl Parts {
    /// Cuts a prompt into parts. `None` if it does not have all of them.
    pub(super) fn of(prompt: &PromptTokens, features: &ArrayD<f32>) -> Option<Self> {
        let (before, after) = prompt.ids_without_image_token.split_at_checked(prompt.image_position)?;
        // A pass needs a token: the picture takes the one that follows it along.
        let (next, rest) = after.split_first()?;
        if before.is_empty() || rest.is_empty() {
            return None;
        }
        let count = features.shape().get(1).copied().unwrap_or(0);
        let words = KeyBuilder::new("prompt").ids(before);
        let picture = words.clone().tensors(&Tensors::new().with("image_features", features.clone()));
        let text = Part {
            key: words.finish(),
            input: DecodingInput {
                ids: before.to_vec(),
                image_position: None,
                cache_length: 0,
                logits_from: before.len() - 1,
            },
            end: before.len(),
        };
        let image = Part {
            key: picture.ids(&[*next]).finish(),
            input: DecodingInput {
                ids: vec![*next],
                image_position: Some(0),
                cache_length: before.len(),
                logits_from: count,
            },
            end: before.len() + count + 1,
        };
        Some(Self { length: image.end, beginning: VecDeque::from([text, image]), rest: rest.to_vec() })
    }
}
