//! Loading and unloading adapters while their deployment serves.
//!
//! What is done is done on a thread of its own, and goes on though nobody wait for it any more: an adapter is loaded wholly or
//! not at all.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use tokio::sync::oneshot;

use super::adapters::{AdapterInfo, Adapters};
use super::turns::Turn;
use super::{Deployments, Lease};
use crate::failure::{Failure, shortened};
use crate::work::{Editor, panic_words};

/// An adapter that is to be loaded.
#[derive(Debug, Clone)]
pub struct LoadAdapter {
    /// The name that requests are to choose it by.
    pub name: String,
    /// Where it is, below the configured directory.
    pub path: String,
    /// How strong it is where a request does not say: 1 as it was trained.
    pub scale: f32,
}

impl Deployments {
    /// Loads an adapter into a deployment. Returns when requests can choose it.
    ///
    /// # Errors
    ///
    /// The deployment cannot be used, too many calls wait to change its adapters, or the adapter cannot be loaded: the
    /// deployment then is as it was.
    pub async fn load_adapter(&self, lease: Lease, load: LoadAdapter) -> Result<AdapterInfo, Failure> {
        let name = load.name.clone();
        let loading = move |adapters: &Adapters, turn: &Turn| {
            let LoadAdapter { name, path, scale } = &load;
            adapters.load(turn, name, path, *scale)
        };
        self.change_adapters(lease, ("loaded", &name), loading).await
    }

    /// Takes an adapter out of a deployment. Edits that have chosen it go on with it.
    ///
    /// # Errors
    ///
    /// The deployment cannot be used, too many calls wait to change its adapters, there is none of the name, or it is
    /// merged into the weights.
    pub async fn unload_adapter(&self, lease: Lease, name: &str) -> Result<(), Failure> {
        let unloaded = name.to_owned();
        let unloading = move |adapters: &Adapters, turn: &Turn| adapters.unload(turn, &unloaded);
        self.change_adapters(lease, ("unloaded", name), unloading).await
    }

    /// Makes a change to a deployment's adapters when its turn has come, and tells the log of it.
    async fn change_adapters<T: Send + 'static>(
        &self,
        lease: Lease,
        (what, adapter): (&'static str, &str),
        change: impl FnOnce(&Adapters, &Turn) -> Result<T, Failure> + Send + 'static,
    ) -> Result<T, Failure> {
        let editor = lease.editor()?;
        let turn = adapters_of(&editor)?.turn().await?;
        let (deployments, adapter) = (self.clone(), shortened(adapter));
        let (done, outcome) = oneshot::channel();
        let thread_name = format!("{}-adapter", lease.name());
        let body = move || {
            let _span =
                tracing::info_span!("adapter", deployment = lease.name(), version = lease.version(), adapter)
                    .entered();
            let changed = catch_unwind(AssertUnwindSafe(|| change(adapters_of(&editor)?, &turn)))
                .unwrap_or_else(|panic| Err(Failure::Panicked(panic_words(panic.as_ref()))));
            match &changed {
                Ok(_) => tracing::info!("adapter {what}"),
                Err(failure) => tracing::warn!(error = failure.to_string(), "adapter not {what}"),
            }
            // Where the model is let go of, nothing may be left of it when the last lease is.
            drop(editor);
            deployments.0.loader.release();
            drop((turn, _span, lease));
            // Whoever asked may be gone.
            let _ = done.send(changed);
        };
        std::thread::Builder::new().name(thread_name).spawn(body).map_err(|error| {
            tracing::error!(error = error.to_string(), "cannot start a thread to change adapters");
            Failure::Lost
        })?;
        outcome.await.unwrap_or(Err(Failure::Lost))
    }
}

/// The adapters of a model that can have any.
///
/// # Errors
///
/// [`Failure::Fixed`].
fn adapters_of(editor: &Arc<dyn Editor>) -> Result<&Adapters, Failure> {
    editor.adapters().ok_or_else(|| Failure::Fixed("the deployment can have no adapters".to_owned()))
}
