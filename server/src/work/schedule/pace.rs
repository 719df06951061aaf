//! How fast edits were, and how long others will take.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use super::Rules;

/// Sizes of pictures of which measurements are kept.
const SIZES: usize = 64;

/// Weight of a measurement that is less than expected; a high one may have been held up by something else.
const FASTER: f64 = 0.5;

/// Weight of a measurement that is more than expected.
const SLOWER: f64 = 0.1;

/// What is left of an expectation that led to a refusal.
const FADED: f64 = 0.95;

/// What was measured, by the number of pixels that pictures have.
///
/// Expectations are the least that work is likely to take. One that is too long would have every edit refused, and then
/// nothing would be measured that could correct it: so each refusal makes it a little shorter.
#[derive(Debug, Default)]
pub(super) struct Pace(BTreeMap<usize, OfSize>);

/// Seconds.
#[derive(Debug, Default)]
struct OfSize {
    /// A run of the denoiser, by the edits that share it.
    runs: BTreeMap<usize, f64>,
    /// All of an edit but its runs.
    rest: Option<f64>,
}

/// Denoising steps of an edit that are to be done, and the pixels of its picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Steps {
    pub(super) pixels: usize,
    pub(super) left: usize,
}

impl Pace {
    /// A run of the denoiser for so many edits took so long.
    pub(super) fn ran(&mut self, pixels: usize, edits: usize, took: Duration) {
        let runs = &mut self.of(pixels).runs;
        let expected = runs.get(&edits).copied();
        runs.insert(edits, corrected(expected, took));
    }

    /// All of an edit but its runs of the denoiser took so long.
    pub(super) fn rested(&mut self, pixels: usize, took: Duration) {
        let rest = &mut self.of(pixels).rest;
        *rest = Some(corrected(*rest, took));
    }

    /// Makes the expectations for a size a little shorter.
    pub(super) fn fade(&mut self, pixels: usize) {
        if let Some(size) = self.0.get_mut(&pixels) {
            size.runs.values_mut().chain(&mut size.rest).for_each(|seconds| *seconds *= FADED);
        }
    }

    /// How long it takes until the first of these edits at work is done; `None` if nothing is known of them.
    pub(super) fn first_done(&self, at_work: &[Steps], rules: &Rules) -> Option<Duration> {
        let left = at_work.iter().map(|steps| steps.left).min()?;
        let seconds = left as f64 * self.round(at_work, rules) + self.shared_rest(at_work[0].pixels, rules);
        (seconds > 0.0).then(|| duration(seconds))
    }

    /// How long it takes until an edit is done that begins after `ahead` have begun, while others are at work. What is
    /// not known counts for nothing.
    pub(super) fn until_done(
        &self,
        at_work: &[Steps],
        ahead: impl IntoIterator<Item = Steps>,
        own: Steps,
        rules: &Rules,
    ) -> Duration {
        let mut at_work = at_work.to_vec();
        let mut waiting: VecDeque<Steps> = ahead.into_iter().chain([own]).collect();
        let mut seconds = 0.0;
        loop {
            while at_work.len() < rules.concurrency
                && let Some(next) = waiting.pop_front()
            {
                if waiting.is_empty() {
                    seconds += self.0.get(&own.pixels).and_then(|size| size.rest).unwrap_or(0.0);
                } else {
                    seconds += self.shared_rest(next.pixels, rules);
                }
                at_work.push(next);
            }
            let own_left = if waiting.is_empty() { at_work.last().map(|own| own.left) } else { None };
            let Some(left) = at_work.iter().map(|steps| steps.left).min() else { break };
            seconds += left as f64 * self.round(&at_work, rules);
            if own_left == Some(left) {
                break;
            }
            at_work.iter_mut().for_each(|steps| steps.left -= left);
            at_work.retain(|steps| steps.left > 0);
        }
        duration(seconds)
    }

    /// Seconds that it takes to do one step of each edit.
    fn round(&self, at_work: &[Steps], rules: &Rules) -> f64 {
        let mut counts = BTreeMap::<usize, usize>::new();
        for steps in at_work {
            *counts.entry(steps.pixels).or_default() += 1;
        }
        let of_size = |(pixels, count): (usize, usize)| {
            let runs = count.div_ceil(rules.max_batch(pixels));
            (runs, runs as f64 * self.run(pixels, count.div_ceil(runs)))
        };
        let (runs, seconds) = counts.into_iter().map(of_size).fold((0, 0.0), |a, b| (a.0 + b.0, a.1 + b.1));
        seconds / runs.clamp(1, rules.workers.max(1)) as f64
    }

    /// Seconds of a run for so many edits. Where that was not measured: of one for fewer, or a part of one for more.
    fn run(&self, pixels: usize, edits: usize) -> f64 {
        let Some(runs) = self.0.get(&pixels).map(|size| &size.runs) else { return 0.0 };
        let fewer = runs.range(..=edits).next_back().map(|(_, seconds)| *seconds);
        let more = || runs.range(edits..).next().map(|(more, seconds)| seconds * edits as f64 / *more as f64);
        fewer.or_else(more).unwrap_or(0.0)
    }

    /// Seconds that the work beside an edit's runs holds others up.
    fn shared_rest(&self, pixels: usize, rules: &Rules) -> f64 {
        let rest = self.0.get(&pixels).and_then(|size| size.rest).unwrap_or(0.0);
        rest / rules.workers.max(1) as f64
    }

    fn of(&mut self, pixels: usize) -> &mut OfSize {
        if self.0.len() >= SIZES && !self.0.contains_key(&pixels) {
            self.0.pop_first();
        }
        self.0.entry(pixels).or_default()
    }
}

fn corrected(expected: Option<f64>, took: Duration) -> f64 {
    let took = took.as_secs_f64();
    let Some(expected) = expected else { return took };
    let weight = if took < expected { FASTER } else { SLOWER };
    expected + weight * (took - expected)
}

fn duration(seconds: f64) -> Duration {
    Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX)
}
