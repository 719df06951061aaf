//! Checking a comparison before anything is done.

use std::collections::BTreeSet;

use smartedit_core::picture::SIDE_MULTIPLE;
use smartedit_proto::v1;
use tokio::sync::OwnedSemaphorePermit;

use super::Comparison;
use crate::failure::{Failure, Violations};
use crate::security::Access;
use crate::service::edit::{Order, Prepared};
use crate::service::routing::{Chosen, Destination};
use crate::service::{Arrival, Service};
use crate::work::Stop;

/// The difference at which latents part where a request does not say.
const LATENT_THRESHOLD: f32 = 0.01;

/// Channels of latents and bytes of their elements.
const LATENT_BYTES: u64 = 4 * size_of::<f32>() as u64;

impl Service {
    /// Checks a comparison, and makes sure that all of its deployments can be given the edit.
    pub(super) fn check_comparison(
        &self,
        request: v1::CompareRequest,
        arrival: Arrival,
        access: &Access,
        request_id: &str,
    ) -> Result<Comparison, Failure> {
        if !self.is_accepting() {
            return Err(Failure::ShuttingDown);
        }
        let v1::CompareRequest { image, instruction, deployments, options, latent_threshold } = request;
        let mut options = options.unwrap_or_default();
        let threshold = latent_threshold.unwrap_or(LATENT_THRESHOLD);
        self.check_own_fields(&deployments, &options, threshold)?;
        // The call itself has been counted as one request.
        access.charge(u32::try_from(deployments.len()).unwrap_or(u32::MAX).saturating_sub(1))?;
        let seed = *options.seed.get_or_insert_with(|| fastrand::u32(..).into());
        let prepare = |name: String| {
            let (image, instruction, options) = (image.clone(), instruction.clone(), options.clone());
            let deployment = self.lease(&name, access)?;
            let destination = Destination::Chosen(Chosen { deployment: deployment.clone(), route: None });
            let order = Order { image, instruction, destination, options, access: access.clone() };
            self.prepare(deployment, order)
        };
        let edits = deployments.into_iter().map(prepare).collect::<Result<Vec<_>, _>>()?;
        let memory = self.reserve(&edits)?;
        let stop = Stop::new(arrival.deadline);
        let registration = self.admit(request_id, stop.clone(), access)?;
        Ok(Comparison {
            request_id: request_id.to_owned(),
            arrival,
            seed,
            threshold,
            edits,
            stop,
            caller: access.name().map(str::to_owned),
            _registration: registration,
            _memory: memory,
        })
    }

    /// Checks what a comparison has that an edit has not.
    fn check_own_fields(
        &self,
        deployments: &[String],
        options: &v1::EditOptions,
        threshold: f32,
    ) -> Result<(), Failure> {
        let mut violations = Violations::default();
        let (count, limit) = (deployments.len(), self.0.config.limits.max_compared);
        if !(2..=limit).contains(&count) {
            violations.add("deployments", format!("has {count} names, 2 to {limit} are needed"));
        }
        let mut seen = BTreeSet::new();
        for (index, name) in deployments.iter().enumerate().take(limit) {
            if name.is_empty() {
                violations.add(format!("deployments[{index}]"), "is empty");
            } else if !seen.insert(name) {
                violations.add(format!("deployments[{index}]"), "is there twice");
            }
        }
        if !(threshold.is_finite() && threshold >= 0.0) {
            violations.add("latent_threshold", format!("is {threshold}, a number of 0 or more is needed"));
        }
        if options.keep_on_disconnect {
            violations
                .add("options.keep_on_disconnect", "is not possible: a comparison ends with its caller");
        }
        if !options.route_key.is_empty() {
            violations.add("options.route_key", "is not possible: a comparison names its deployments");
        }
        match violations.is_empty() {
            true => Ok(()),
            false => Err(Failure::Invalid(violations)),
        }
    }

    /// Takes the memory for the first deployment's latents and picture, and another picture, from what all comparisons
    /// together may have.
    fn reserve(&self, edits: &[Prepared]) -> Result<OwnedSemaphorePermit, Failure> {
        let needed = edits.first().map_or(0, |edit| {
            let (width, height) = (u64::from(edit.checked.size.0), u64::from(edit.checked.size.1));
            let multiple = u64::from(SIDE_MULTIPLE);
            let latents = (width / multiple) * (height / multiple) * LATENT_BYTES;
            latents * edit.checked.steps as u64 + 2 * 3 * width * height
        });
        let limit = self.0.config.limits.max_compare_bytes;
        let kib = u32::try_from(needed.div_ceil(1024)).unwrap_or(u32::MAX);
        if kib as usize > limit / 1024 {
            let message = format!(
                "a comparison of so many steps at this size holds {needed} bytes, at most {limit} are allowed"
            );
            return Err(Failure::invalid("options.steps", message));
        }
        let permits = self.0.compare_kib.clone().try_acquire_many_owned(kib);
        permits.map_err(|_| Failure::ComparisonsFull)
    }
}
