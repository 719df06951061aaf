//! A model's adapters: the one in its weights, and those that edits choose beside it.

use std::sync::{Arc, Mutex, PoisonError, Weak};

use super::model::Model;
use crate::adapter::Strength;
use crate::cache::{Key, KeyBuilder};
use crate::stage::{LoadError, StageKind};

/// What is merged into a model's weights, and the adapted models of its that are in use.
#[derive(Default)]
pub(super) struct Adapted {
    merged: Option<Strength>,
    /// Tells the denoiser from those with other updates beside its weights; `None` if it has none.
    denoiser: Option<Key>,
    in_use: Mutex<Vec<(Key, Weak<Model>)>>,
}

impl Adapted {
    /// Of a model with this adapter in its weights.
    pub(super) fn beside(merged: Option<Strength>) -> Self {
        Self { merged, ..Self::default() }
    }

    /// Of a model that has been adapted.
    pub(super) fn of(added: &[Strength]) -> Self {
        let updates = added.iter().any(|added| added.update(StageKind::Denoiser).is_some());
        Self { denoiser: updates.then(|| wanted(added)), ..Self::default() }
    }

    pub(super) fn denoiser(&self) -> Option<Key> {
        self.denoiser
    }

    pub(super) fn merged(&self) -> Option<&Strength> {
        self.merged.as_ref()
    }

    /// What tells a stage with merged weights from every other one.
    pub(super) fn identity(&self, stage: StageKind, identity: Key) -> Key {
        identity_with("merged", stage, identity, self.merged.as_slice())
    }

    /// The adapted model, made if none is in use.
    pub(super) fn get_or_make(
        &self,
        added: &[Strength],
        make: impl FnOnce() -> Result<Arc<Model>, LoadError>,
    ) -> Result<Arc<Model>, LoadError> {
        let wanted = wanted(added);
        let mut in_use = self.in_use.lock().unwrap_or_else(PoisonError::into_inner);
        in_use.retain(|(_, model)| model.strong_count() > 0);
        let found = in_use.iter().find(|(key, _)| *key == wanted);
        if let Some(model) = found.and_then(|(_, model)| model.upgrade()) {
            return Ok(model);
        }
        let model = make()?;
        in_use.push((wanted, Arc::downgrade(&model)));
        Ok(model)
    }
}

fn wanted(added: &[Strength]) -> Key {
    key(KeyBuilder::new("adapters"), added.iter())
}

/// What tells a stage with updates beside its weights from every other one.
pub(super) fn identity(stage: StageKind, identity: Key, added: &[Strength]) -> Key {
    identity_with("updated", stage, identity, added)
}

fn identity_with(how: &str, stage: StageKind, identity: Key, adapters: &[Strength]) -> Key {
    let mut own = adapters.iter().filter(|adapter| adapter.update(stage).is_some()).peekable();
    match own.peek() {
        Some(_) => key(KeyBuilder::new(how).key(identity), own),
        None => identity,
    }
}

fn key<'a>(start: KeyBuilder, adapters: impl Iterator<Item = &'a Strength>) -> Key {
    let add = |key: KeyBuilder, Strength { adapter, scale }: &Strength| {
        key.key(adapter.digest()).number(scale.to_bits().into())
    };
    adapters.fold(start, add).finish()
}
