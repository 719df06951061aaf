//! Who is worked on next: a state machine without I/O, threads or a clock of its own.
//!
//! Edits wait in a [fair line](mod@line) until there is a place among those at work. Those at work need units of work: a
//! denoising step, or some unit of another stage. Denoising steps of latents of one size and with one adapter share
//! a run of the denoiser, and who shares it is decided anew before every run. Among those at work the oldest comes first, so that an edit that
//! was begun is soon done and makes room; interactive ones come before those of batches, but for one run in nine.
//!
//! What an edit really is does not matter here: `T` is handed in, handed out, and put back.

mod line;
mod pace;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use smartedit_core::cache::Key;
use tokio::time::Instant;

use self::line::{Entry, Line};
use self::pace::{Pace, Steps};

/// Runs led by interactive edits before one is led by an edit of a batch that could have been done instead.
const INTERACTIVE_RUNS: usize = 8;

/// How urgent an edit is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum Priority {
    /// Somebody waits for it.
    #[default]
    Interactive,
    /// It is done with what others leave, a ninth at least.
    Batch,
}

impl Priority {
    const ALL: [Self; 2] = [Self::Interactive, Self::Batch];

    const fn index(self) -> usize {
        self as usize
    }
}

/// Who is to have a fair share; cloning shares the name.
pub type Caller = Arc<str>;

/// What an edit asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Demand {
    /// On whose account.
    pub caller: Caller,
    /// How urgent it is.
    pub priority: Priority,
    /// Denoising steps.
    pub steps: usize,
    /// Width times height at which the picture is edited.
    pub pixels: usize,
    /// Bytes of memory that the waiting request holds.
    pub bytes: usize,
}

impl Demand {
    /// What its service counts for. The factor keeps parts of a cost from vanishing.
    fn cost(&self) -> u128 {
        (self.steps as u128 * self.pixels as u128).max(1) << 20
    }
}

/// What bounds the work of a deployment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rules {
    /// Edits that may be ahead of one that has to wait, those at work included.
    pub max_queue: usize,
    /// Bytes of the edits that wait.
    pub max_queue_bytes: usize,
    /// Edits at work: begun and not done.
    pub concurrency: usize,
    /// Edits that share a run of the denoiser.
    pub max_batch: usize,
    /// Width times height of all edits that share a run; a larger one has a run for itself.
    pub max_batch_pixels: usize,
    /// How long a step may wait for edits that will soon be able to share its run.
    pub max_wait: Duration,
    /// Units of work at the same time.
    pub workers: usize,
}

impl Rules {
    /// Edits of this size that share a run.
    fn max_batch(&self, pixels: usize) -> usize {
        let fit = self.max_batch_pixels / pixels.max(1);
        fit.clamp(1, self.max_batch.max(1))
    }
}

/// An edit is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// As many edits are ahead, or as many bytes of them wait, as may.
    Full {
        /// When there should be room.
        retry_after: Duration,
    },
    /// Its deadline passes before it can be done.
    Late {
        /// How long it should take at least.
        needed: Duration,
        /// How long it may take.
        allowed: Duration,
    },
}

/// What an edit that is put back needs next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Need {
    /// Some unit of work but a denoising step.
    Unit,
    /// A denoising step.
    Step {
        /// Whose runs the step can share; `None`: nobody's.
        group: Option<Group>,
    },
}

/// What steps that share a run have in common.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Group {
    /// Height and width of the latents.
    pub(super) size: (usize, usize),
    /// What updates the denoiser's layers.
    pub(super) adapter: Option<Key>,
}

/// An edit at work.
#[derive(Debug)]
pub(super) struct Working<T> {
    /// Smaller for those begun before.
    number: u64,
    priority: Priority,
    pixels: usize,
    pub(super) item: T,
}

/// What a worker is to do.
#[derive(Debug)]
pub(super) enum Task<T> {
    /// One unit of an edit.
    Unit(Working<T>),
    /// One denoising step of each of these edits, in one run if they are several.
    Run {
        /// Who can share the run; `None`: nobody.
        group: Option<Group>,
        /// The edits.
        edits: Vec<Working<T>>,
    },
}

/// What has been done since the beginning.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counters {
    /// Edits begun.
    pub begun: u64,
    /// How long these have waited, together.
    pub queued: Duration,
    /// Edits that left the line before they were begun.
    pub left: u64,
    /// Edits refused because the line was full.
    pub refused_full: u64,
    /// Edits refused because of their deadline.
    pub refused_late: u64,
    /// Runs of the denoiser, by the number of edits that shared them.
    pub runs: BTreeMap<usize, u64>,
}

/// Edits waiting and edits at work.
pub(super) struct Schedule<T> {
    rules: Rules,
    line: Line<(Instant, T)>,
    begun: u64,
    /// Everything at work, whether or not a worker has it.
    at_work: BTreeMap<u64, AtWork>,
    units: BTreeMap<u64, Working<T>>,
    steps: BTreeMap<u64, Ready<T>>,
    /// Units that workers have.
    units_under_way: usize,
    /// The groups of runs that workers have.
    runs_under_way: Vec<Option<Group>>,
    /// Units handed out since a run was.
    units_since_run: usize,
    /// Runs led by interactive edits while one of a batch was ready.
    passed: usize,
    pace: Pace,
    counters: Counters,
}

struct AtWork {
    steps: Steps,
    /// Whether it has come to its first step.
    denoises: bool,
}

struct Ready<T> {
    working: Working<T>,
    group: Option<Group>,
    since: Instant,
}

/// What could be done next.
enum Choice {
    Begin,
    Unit(u64),
    Steps(Vec<u64>),
}

impl<T> Schedule<T> {
    pub(super) fn new(rules: Rules) -> Self {
        Self {
            rules,
            line: Line::new(),
            begun: 0,
            at_work: BTreeMap::new(),
            units: BTreeMap::new(),
            steps: BTreeMap::new(),
            units_under_way: 0,
            runs_under_way: Vec::new(),
            units_since_run: 0,
            passed: 0,
            pace: Pace::default(),
            counters: Counters::default(),
        }
    }

    /// Edits waiting, and edits at work.
    pub(super) fn load(&self) -> (usize, usize) {
        (self.line.len(), self.at_work.len())
    }

    /// Bytes of all edits waiting.
    pub(super) fn bytes(&self) -> usize {
        self.line.bytes()
    }

    pub(super) fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Whether one more edit of so many bytes may come.
    pub(super) fn has_room(&self, bytes: usize) -> bool {
        let (waiting, at_work) = self.load();
        // Those at work share what is computed, so that each of them is as far from its end as one that waits: whoever
        // is taken is done after the time of `max_queue` edits.
        let ahead = waiting + at_work;
        (ahead < self.rules.concurrency || ahead <= self.rules.max_queue)
            && self.line.bytes().saturating_add(bytes) <= self.rules.max_queue_bytes
    }

    /// Whether an edit put in line now would be begun as soon as a worker looks.
    pub(super) fn is_free(&self) -> bool {
        self.line.len() == 0 && self.at_work.len() < self.rules.concurrency
    }

    /// Puts an edit in line. `allowed` is the time until its deadline.
    ///
    /// # Errors
    ///
    /// The edit is refused, and handed back.
    pub(super) fn push(
        &mut self,
        demand: Demand,
        allowed: Option<Duration>,
        now: Instant,
        item: T,
    ) -> Result<(), (Refusal, T)> {
        if !self.has_room(demand.bytes) {
            self.counters.refused_full += 1;
            return Err((Refusal::Full { retry_after: self.retry_after() }, item));
        }
        if let Some(allowed) = allowed {
            let needed = self.needed(&demand);
            if needed > allowed {
                self.counters.refused_late += 1;
                self.pace.fade(demand.pixels);
                return Err((Refusal::Late { needed, allowed }, item));
            }
        }
        self.line.push(demand, (now, item));
        Ok(())
    }

    /// When there should be room.
    fn retry_after(&self) -> Duration {
        let at_work: Vec<Steps> = self.at_work.values().map(|at_work| at_work.steps).collect();
        let expected = self.pace.first_done(&at_work, &self.rules);
        expected.unwrap_or(Duration::from_secs(1)).max(Duration::from_millis(50))
    }

    /// How long an edit takes from now on, at least.
    fn needed(&self, demand: &Demand) -> Duration {
        let at_work: Vec<Steps> = self.at_work.values().map(|at_work| at_work.steps).collect();
        let ahead = self.line.ahead_of(demand).map(|entry| Steps::of(&entry.demand));
        self.pace.until_done(&at_work, ahead, Steps::of(demand), &self.rules)
    }

    /// What waits, in the order in which it would be begun if nothing else came.
    pub(super) fn waiting(&self) -> impl Iterator<Item = &T> {
        self.line.in_order().map(|entry| &entry.item.1)
    }

    /// Takes out what is not wanted any more, unless a worker has it: what waited, and what was at work.
    pub(super) fn remove_if(&mut self, unwanted: impl Fn(&T) -> bool) -> (Vec<T>, Vec<T>) {
        let waited = self.line.remove_if(|(_, item)| unwanted(item));
        self.counters.left += waited.len() as u64;
        let units = self.units.extract_if(.., |_, working| unwanted(&working.item));
        let mut begun: Vec<Working<T>> = units.map(|(_, working)| working).collect();
        let steps = self.steps.extract_if(.., |_, ready| unwanted(&ready.working.item));
        begun.extend(steps.map(|(_, ready)| ready.working));
        for working in &begun {
            self.at_work.remove(&working.number);
        }
        let waited = waited.into_iter().map(|Entry { item: (_, item), .. }| item);
        (waited.collect(), begun.into_iter().map(|working| working.item).collect())
    }

    /// Whether a worker could be given something.
    pub(super) fn has_task(&self, now: Instant) -> bool {
        self.choose(now).is_ok()
    }

    /// Hands out what is to be done next. An edit that is begun comes with how long it has waited.
    ///
    /// # Errors
    ///
    /// There is nothing to do, until this time if nothing changes before.
    pub(super) fn next(&mut self, now: Instant) -> Result<(Task<T>, Option<Duration>), Option<Instant>> {
        let choice = self.choose(now)?;
        self.units_since_run = match choice {
            Choice::Steps(_) => 0,
            Choice::Begin | Choice::Unit(_) => self.units_since_run.saturating_add(1),
        };
        match choice {
            Choice::Begin => {
                let Entry { demand, item: (since, item) } = self.line.pop().ok_or(None)?;
                let queued = now.duration_since(since);
                self.counters.begun += 1;
                self.counters.queued += queued;
                self.begun += 1;
                self.at_work.insert(self.begun, AtWork { steps: Steps::of(&demand), denoises: false });
                self.units_under_way += 1;
                let Demand { priority, pixels, .. } = demand;
                let working = Working { number: self.begun, priority, pixels, item };
                Ok((Task::Unit(working), Some(queued)))
            }
            Choice::Unit(number) => {
                let working = self.units.remove(&number).ok_or(None)?;
                self.units_under_way += 1;
                Ok((Task::Unit(working), None))
            }
            Choice::Steps(mut numbers) => {
                let is_batch = |ready: &Ready<T>| ready.working.priority == Priority::Batch;
                let led_by_batch =
                    numbers.first().and_then(|leader| self.steps.get(leader)).is_some_and(is_batch);
                let passes = !led_by_batch && self.steps.values().any(is_batch);
                self.passed = if passes { self.passed + 1 } else { 0 };
                // The same edits are always joined in the same order.
                numbers.sort_unstable();
                let ready: Vec<_> = numbers.iter().filter_map(|number| self.steps.remove(number)).collect();
                let group = ready.first().and_then(|ready| ready.group);
                self.runs_under_way.push(group);
                *self.counters.runs.entry(ready.len()).or_default() += 1;
                let edits = ready.into_iter().map(|ready| ready.working).collect();
                Ok((Task::Run { group, edits }, None))
            }
        }
    }

    /// A worker has done a unit of an edit, which then is put back or [finished](Schedule::finished).
    pub(super) fn unit_done(&mut self) {
        self.units_under_way -= 1;
    }

    /// A worker has done a run for edits of this group, all of which then are put back or finished. With how long it
    /// took, if it went well.
    pub(super) fn run_done(&mut self, group: Option<Group>, edits: &[Working<T>], took: Option<Duration>) {
        if let Some(place) = self.runs_under_way.iter().position(|under_way| *under_way == group) {
            self.runs_under_way.swap_remove(place);
        }
        for working in edits {
            if let Some(at_work) = self.at_work.get_mut(&working.number) {
                at_work.steps.left = at_work.steps.left.saturating_sub(1);
            }
        }
        if let (Some(took), Some(first)) = (took, edits.first()) {
            self.pace.ran(first.pixels, edits.len(), took);
        }
    }

    /// Puts back an edit that goes on.
    pub(super) fn put_back(&mut self, working: Working<T>, need: Need, now: Instant) {
        let number = working.number;
        match need {
            Need::Unit => {
                self.units.insert(number, working);
            }
            Need::Step { group } => {
                if let Some(at_work) = self.at_work.get_mut(&number) {
                    at_work.denoises = true;
                }
                self.steps.insert(number, Ready { working, group, since: now });
            }
        }
    }

    /// An edit is over: with how long all of it but its denoising steps took, if it went to its end.
    pub(super) fn finished(&mut self, working: Working<T>, rest: Option<Duration>) -> T {
        self.at_work.remove(&working.number);
        if let Some(rest) = rest {
            self.pace.rested(working.pixels, rest);
        }
        working.item
    }

    fn choose(&self, now: Instant) -> Result<Choice, Option<Instant>> {
        let unit = match self.units.first_key_value() {
            Some((&number, _)) => Some(Choice::Unit(number)),
            None if self.line.len() > 0 && self.at_work.len() < self.rules.concurrency => Some(Choice::Begin),
            None => None,
        };
        let steps = self.choose_steps(now);
        // A run waits for as many units as it has places left: what they bring forward will share those to come. Where no
        // other worker does units, it waits for one at least.
        let places = steps.as_ref().map_or(0, |numbers| self.places_left(numbers));
        let units = if self.units_under_way == 0 { places.max(1) } else { places };
        let steps_first = self.runs_under_way.is_empty() && self.units_since_run >= units;
        match (steps, unit) {
            (Ok(numbers), Some(_)) if steps_first => Ok(Choice::Steps(numbers)),
            (_, Some(unit)) => Ok(unit),
            (Ok(numbers), None) => Ok(Choice::Steps(numbers)),
            (Err(until), None) => Err(until),
        }
    }

    /// The edits whose steps share the next run, the one that leads it first.
    fn choose_steps(&self, now: Instant) -> Result<Vec<u64>, Option<Instant>> {
        let mut order: Vec<(&u64, &Ready<T>)> = self.steps.iter().collect();
        let turned = self.passed >= INTERACTIVE_RUNS;
        order.sort_by_key(|(_, ready)| (ready.working.priority == Priority::Batch) != turned);
        let (mut tried, mut until) = (Vec::new(), None::<Instant>);
        for (number, leader) in &order {
            let Some(group) = leader.group else { return Ok(vec![**number]) };
            if tried.contains(&group) {
                continue;
            }
            tried.push(group);
            let limit = self.rules.max_batch(leader.working.pixels);
            let of_group = order.iter().filter(|(_, ready)| ready.group == Some(group)).take(limit);
            let (members, since): (Vec<u64>, Vec<Instant>) =
                of_group.map(|(number, ready)| (**number, ready.since)).unzip();
            let is_full = members.len() == limit;
            if !is_full && self.runs_under_way.contains(&Some(group)) {
                continue;
            }
            let patience = since.iter().min().copied().unwrap_or(now) + self.rules.max_wait;
            if !is_full && now < patience && self.others_come() {
                until = Some(until.map_or(patience, |until| until.min(patience)));
                continue;
            }
            return Ok(members);
        }
        Err(until)
    }

    /// Edits by which a run is less than full.
    fn places_left(&self, numbers: &[u64]) -> usize {
        let leader = numbers.first().and_then(|leader| self.steps.get(leader));
        let shared = leader.filter(|ready| ready.group.is_some());
        shared.map_or(0, |ready| self.rules.max_batch(ready.working.pixels) - numbers.len())
    }

    /// Whether an edit will soon come to its first step.
    fn others_come(&self) -> bool {
        let begins = self.line.len() > 0 && self.at_work.len() < self.rules.concurrency;
        begins || self.at_work.values().any(|at_work| !at_work.denoises)
    }
}

impl Steps {
    fn of(demand: &Demand) -> Self {
        Self { pixels: demand.pixels, left: demand.steps }
    }
}
