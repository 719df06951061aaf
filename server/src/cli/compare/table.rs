//! What a comparison measured, as a table or as JSON.

use std::time::Duration;

use serde_json::{Value, json};
use smartedit_client::{
    CompareEntry, Compared, Difference, LatentDifference, PixelDifference, Stage, StageTiming,
};

use crate::cli::columns::aligned;

/// What stands where nothing was measured.
const NOTHING: &str = "–";

/// One measure of an edit, in words.
type Measure = Box<dyn Fn(&Compared) -> String>;

/// A row for each measure, a column for each deployment.
pub(super) fn table(entries: &[CompareEntry]) -> String {
    let mut rows =
        vec![[String::new()].into_iter().chain(entries.iter().map(|e| e.deployment.clone())).collect()];
    for (name, measure) in measures(entries) {
        let cell = |entry: &CompareEntry| match &entry.outcome {
            Ok(compared) => measure(compared),
            Err(_) => NOTHING.to_owned(),
        };
        rows.push(std::iter::once(name).chain(entries.iter().map(cell)).collect());
    }
    let mut text = aligned(&rows, 1);
    for entry in entries {
        for remark in remarks(entry) {
            text += &format!("{}: {remark}\n", entry.deployment);
        }
    }
    text
}

fn measures(entries: &[CompareEntry]) -> Vec<(String, Measure)> {
    let mut measures: Vec<(String, Measure)> = vec![("total".to_owned(), Box::new(|c| seconds(total(c))))];
    for stage in stages(entries) {
        let of_stage =
            move |compared: &Compared| timing(compared, stage).map_or(NOTHING.to_owned(), stage_time);
        measures.push((stage.to_string(), Box::new(of_stage)));
    }
    let mut add = |name: &str, measure: Measure| measures.push((name.to_owned(), measure));
    add("weights", Box::new(|c| bytes(Some(c.memory.weight_bytes))));
    add("peak resident", Box::new(|c| bytes(c.memory.peak_resident_bytes)));
    add("latents max |Δ|", Box::new(|c| latents(c).map_or(NOTHING.to_owned(), |l| format!("{:.2e}", l.max))));
    add(
        "latents mean |Δ|",
        Box::new(|c| latents(c).map_or(NOTHING.to_owned(), |l| format!("{:.2e}", l.mean))),
    );
    add("latents part at step", Box::new(|c| latents(c).map_or(NOTHING.to_owned(), parting)));
    add("pixels max |Δ|", Box::new(|c| pixels(c).map_or(NOTHING.to_owned(), |p| p.max.to_string())));
    add("pixels mean |Δ|", Box::new(|c| pixels(c).map_or(NOTHING.to_owned(), |p| format!("{:.3}", p.mean))));
    add("PSNR", Box::new(|c| pixels(c).map_or(NOTHING.to_owned(), |p| decibels(p.psnr))));
    add(
        "SSIM",
        Box::new(|c| pixels(c).and_then(|p| p.ssim).map_or(NOTHING.to_owned(), |ssim| format!("{ssim:.4}"))),
    );
    measures
}

/// The stages of all edits, in the order in which they first ran.
fn stages(entries: &[CompareEntry]) -> Vec<Stage> {
    let mut stages = Vec::new();
    let timings = entries.iter().filter_map(|entry| entry.outcome.as_ref().ok());
    for timing in timings.flat_map(|compared| &compared.edited.timings.stages) {
        if !stages.contains(&timing.stage) {
            stages.push(timing.stage);
        }
    }
    stages
}

/// The time of an edit without waiting.
fn total(compared: &Compared) -> Duration {
    compared.edited.timings.total.saturating_sub(compared.edited.timings.queued)
}

fn timing(compared: &Compared, stage: Stage) -> Option<&StageTiming> {
    compared.edited.timings.stages.iter().find(|timing| timing.stage == stage)
}

/// How long a stage took, unless its result was kept from an earlier edit.
fn stage_time(timing: &StageTiming) -> String {
    if timing.cached { "kept".to_owned() } else { seconds(timing.duration) }
}

fn latents(compared: &Compared) -> Option<&LatentDifference> {
    compared.difference.as_ref()?.latents.as_ref().ok()
}

fn pixels(compared: &Compared) -> Option<&PixelDifference> {
    compared.difference.as_ref()?.pixels.as_ref().ok()
}

fn parting(latents: &LatentDifference) -> String {
    latents.parting_step.map_or("never".to_owned(), |step| step.to_string())
}

fn seconds(duration: Duration) -> String {
    format!("{:.3} s", duration.as_secs_f64())
}

fn bytes(bytes: Option<u64>) -> String {
    bytes.map_or(NOTHING.to_owned(), |bytes| format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20)))
}

/// A ratio in dB; equal pictures have none.
pub(super) fn decibels(psnr: f64) -> String {
    if psnr.is_infinite() { "equal".to_owned() } else { format!("{psnr:.1} dB") }
}

/// Why a deployment failed, and what cannot be compared.
fn remarks(entry: &CompareEntry) -> Vec<String> {
    match &entry.outcome {
        Err(failure) => vec![format!("failed: {failure}")],
        Ok(Compared { difference: None, .. }) => Vec::new(),
        Ok(Compared { difference: Some(Difference { latents, pixels }), .. }) => {
            let latents = latents.as_ref().err().map(|why| format!("latents cannot be compared: {why}"));
            let pixels = pixels.as_ref().err().map(|why| format!("pictures cannot be compared: {why}"));
            latents.into_iter().chain(pixels).collect()
        }
    }
}

/// Everything that was measured. An infinite ratio is `"Infinity"`, as in the JSON form of the protocol.
pub(super) fn json(seed: u64, entries: &[CompareEntry]) -> Value {
    json!({ "seed": seed, "deployments": entries.iter().map(json_entry).collect::<Vec<_>>() })
}

fn json_entry(entry: &CompareEntry) -> Value {
    match &entry.outcome {
        Err(failure) => json!({
            "deployment": entry.deployment,
            "failure": { "code": i32::from(failure.code), "reason": failure.reason, "message": failure.message },
        }),
        Ok(compared) => {
            let edited = &compared.edited;
            let stages: serde_json::Map<_, _> = edited
                .timings
                .stages
                .iter()
                .map(|timing| (timing.stage.to_string(), timing.duration.as_secs_f64().into()))
                .collect();
            let kept = edited.timings.stages.iter().filter(|timing| timing.cached);
            let cached: Vec<_> = kept.map(|timing| timing.stage.to_string()).collect();
            json!({
                "deployment": entry.deployment,
                "width": edited.width,
                "height": edited.height,
                "reply": edited.reply,
                "seconds": {
                    "total": edited.timings.total.as_secs_f64(),
                    "queued": edited.timings.queued.as_secs_f64(),
                    "stages": stages,
                },
                "cached": cached,
                "memory": {
                    "weight_bytes": compared.memory.weight_bytes,
                    "resident_bytes": compared.memory.resident_bytes,
                    "peak_resident_bytes": compared.memory.peak_resident_bytes,
                },
                "difference": compared.difference.as_ref().map(json_difference),
            })
        }
    }
}

fn json_difference(difference: &Difference) -> Value {
    let latents = match &difference.latents {
        Ok(LatentDifference { max, mean, step_max, parting_step }) => {
            json!({ "max": max, "mean": mean, "step_max": step_max, "parting_step": parting_step })
        }
        Err(why) => json!({ "incomparable": why }),
    };
    let pixels = match &difference.pixels {
        Ok(PixelDifference { max, mean, psnr, ssim }) => {
            let psnr = if psnr.is_infinite() { json!("Infinity") } else { json!(psnr) };
            json!({ "max": max, "mean": mean, "psnr": psnr, "ssim": ssim })
        }
        Err(why) => json!({ "incomparable": why }),
    };
    json!({ "latents": latents, "pixels": pixels })
}
