//! What was measured, for people and for programs.

use std::fmt::Write as _;
use std::num::NonZeroUsize;
use std::time::Duration;

use serde::Serialize;
use smartedit_core::engine::Precision;

use crate::memory;

/// A part of the work and how long it took.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Part {
    name: &'static str,
    seconds: f64,
}

impl Part {
    pub(super) fn new(name: &'static str, time: Duration) -> Self {
        Self { name, seconds: time.as_secs_f64() }
    }
}

/// One repetition.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Iteration {
    seconds: f64,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    parts: Vec<Part>,
    peak_resident_bytes: Option<u64>,
}

impl Iteration {
    pub(super) fn new(time: Duration, parts: Vec<Part>) -> Self {
        Self { seconds: time.as_secs_f64(), parts, peak_resident_bytes: memory::peak_resident() }
    }
}

/// What is measured.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Setting {
    pub(super) preset: &'static str,
    pub(super) stage: &'static str,
    pub(super) engine: String,
    pub(super) device: String,
    pub(super) precision: Precision,
    pub(super) threads: Option<NonZeroUsize>,
    /// Height and width.
    pub(super) latents: (usize, usize),
    pub(super) weight_bytes: u64,
    /// Making the weights included.
    pub(super) load_seconds: f64,
}

/// All repetitions of one piece of work.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Report {
    #[serde(flatten)]
    setting: Setting,
    seconds: Times,
    /// Medians.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    parts: Vec<Part>,
    /// Of the process, up to the end of this work.
    peak_resident_bytes: Option<u64>,
}

#[derive(Debug, Clone, Serialize)]
struct Times {
    median: f64,
    min: f64,
    max: f64,
    all: Vec<f64>,
}

impl Report {
    pub(super) fn new(setting: Setting, iterations: &[Iteration]) -> Self {
        let all: Vec<f64> = iterations.iter().map(|iteration| iteration.seconds).collect();
        let sorted = sorted(&all);
        let parts = iterations.first().map_or(&[][..], |iteration| &iteration.parts);
        let parts = parts
            .iter()
            .map(|part| {
                let times: Vec<f64> = iterations
                    .iter()
                    .flat_map(|iteration| &iteration.parts)
                    .filter(|other| other.name == part.name)
                    .map(|other| other.seconds)
                    .collect();
                Part { name: part.name, seconds: median(&self::sorted(&times)) }
            })
            .collect();
        let seconds = Times {
            median: median(&sorted),
            min: sorted.first().copied().unwrap_or(f64::NAN),
            max: sorted.last().copied().unwrap_or(f64::NAN),
            all,
        };
        Self { setting, seconds, parts, peak_resident_bytes: memory::peak_resident() }
    }
}

fn sorted(values: &[f64]) -> Vec<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted
}

/// The middle of sorted values.
fn median(sorted: &[f64]) -> f64 {
    let middle = sorted.len() / 2;
    match sorted {
        [] => f64::NAN,
        _ if sorted.len() % 2 == 1 => sorted[middle],
        _ => (sorted[middle - 1] + sorted[middle]) / 2.0,
    }
}

/// A row per piece of work, then its parts.
pub(super) fn table(reports: &[Report]) -> String {
    let mut text = String::new();
    for (index, report) in reports.iter().enumerate() {
        let setting = &report.setting;
        if index == 0 {
            let (height, width) = setting.latents;
            let threads = setting.threads.map_or("default".to_owned(), |threads| threads.to_string());
            let _ = writeln!(
                text,
                "{} on {}, {}, {}, threads: {threads}, latents {height}×{width}",
                setting.preset, setting.engine, setting.device, setting.precision
            );
            let _ = writeln!(
                text,
                "{:<16} {:>10} {:>10} {:>7} {:>10} {:>10} {:>10}",
                "", "median", "min", "spread", "load", "weights", "peak RSS"
            );
        }
        let times = &report.seconds;
        let _ = writeln!(
            text,
            "{:<16} {:>10} {:>10} {:>6.1}% {:>10} {:>10} {:>10}",
            setting.stage,
            seconds(times.median),
            seconds(times.min),
            100.0 * (times.max - times.min) / times.median,
            seconds(setting.load_seconds),
            bytes(setting.weight_bytes),
            report.peak_resident_bytes.map_or("unknown".to_owned(), bytes),
        );
        for part in &report.parts {
            let _ = writeln!(text, "  {:<14} {:>10}", part.name, seconds(part.seconds));
        }
    }
    text
}

fn seconds(seconds: f64) -> String {
    if seconds < 1.0 { format!("{:.1} ms", 1e3 * seconds) } else { format!("{seconds:.2} s") }
}

/// Bytes as people read them.
pub(super) fn bytes(bytes: u64) -> String {
    const GIBIBYTE: f64 = (1_u64 << 30) as f64;
    let gibibytes = bytes as f64 / GIBIBYTE;
    if gibibytes < 1.0 { format!("{:.1} MiB", 1024.0 * gibibytes) } else { format!("{gibibytes:.2} GiB") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle_or_between_the_two() {
        assert_eq!(median(&sorted(&[3.0, 1.0, 2.0])), 2.0);
        assert_eq!(median(&sorted(&[4.0, 1.0, 2.0, 3.0])), 2.5);
    }

    #[test]
    fn sizes_are_readable() {
        assert_eq!(bytes(3 << 20), "3.0 MiB");
        assert_eq!(bytes(13_476_831_232), "12.55 GiB");
    }
}
