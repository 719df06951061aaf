//! Bounds, order, fairness and estimates of the schedule, driven without threads and with a clock that stands still.

use std::collections::VecDeque;

use proptest::prelude::*;

use super::*;

/// An edit as the schedule sees it: units before its steps, steps, units after them.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Fake {
    id: usize,
    before: usize,
    steps: usize,
    after: usize,
    group: Option<Group>,
}

fn of_size(size: (usize, usize)) -> Group {
    Group { size, adapter: None }
}

impl Fake {
    fn new(id: usize, steps: usize) -> Self {
        Self { id, before: 1, steps, after: 1, group: Some(of_size((8, 8))) }
    }

    fn need(&self) -> Option<Need> {
        match (self.before, self.steps, self.after) {
            (0, 0, 0) => None,
            (0, 1.., _) => Some(Need::Step { group: self.group }),
            _ => Some(Need::Unit),
        }
    }
}

fn demand(caller: &str, priority: Priority, steps: usize) -> Demand {
    Demand { caller: caller.into(), priority, steps, pixels: 64 * 64, bytes: 10 }
}

fn interactive(caller: &str, steps: usize) -> Demand {
    demand(caller, Priority::Interactive, steps)
}

fn rules() -> Rules {
    Rules {
        max_queue: 1000,
        max_queue_bytes: usize::MAX,
        concurrency: 1,
        max_batch: 4,
        max_batch_pixels: usize::MAX,
        max_wait: Duration::ZERO,
        workers: 1,
    }
}

/// A schedule with what its workers have.
struct Bench {
    schedule: Schedule<Fake>,
    now: Instant,
    /// How long a run and a unit take.
    pace: [Duration; 2],
    under_way: VecDeque<Task<Fake>>,
    /// In the order in which they began, and in which they ended.
    begun: Vec<usize>,
    ended: Vec<usize>,
    /// Edits of each run.
    runs: Vec<Vec<usize>>,
}

impl Bench {
    fn new(rules: Rules) -> Self {
        Self {
            schedule: Schedule::new(rules),
            now: Instant::now(),
            pace: [Duration::from_millis(100), Duration::from_millis(30)],
            under_way: VecDeque::new(),
            begun: Vec::new(),
            ended: Vec::new(),
            runs: Vec::new(),
        }
    }

    fn push(&mut self, demand: Demand, fake: Fake) -> Result<(), Refusal> {
        self.schedule.push(demand, None, self.now, fake).map_err(|(refusal, _)| refusal)
    }

    /// Gives a worker something to do, if there is something.
    fn take(&mut self) -> bool {
        if self.under_way.len() >= self.schedule.rules.workers {
            return false;
        }
        let Ok((task, queued)) = self.schedule.next(self.now) else { return false };
        match &task {
            Task::Unit(working) if queued.is_some() => self.begun.push(working.item.id),
            Task::Unit(_) => {}
            Task::Run { group, edits } => {
                let rules = self.schedule.rules;
                let pixels = edits.iter().map(|edit| edit.pixels).sum::<usize>();
                assert!((1..=rules.max_batch).contains(&edits.len()));
                assert!(edits.len() == 1 || (group.is_some() && pixels <= rules.max_batch_pixels));
                assert!(edits.iter().all(|edit| edit.item.group == *group));
                self.runs.push(edits.iter().map(|edit| edit.item.id).collect());
            }
        }
        self.under_way.push_back(task);
        true
    }

    /// Lets the worker that has worked longest be done.
    fn finish(&mut self) -> bool {
        match self.under_way.pop_front() {
            None => return false,
            Some(Task::Unit(mut working)) => {
                self.now += self.pace[1];
                let fake = &mut working.item;
                let left = if fake.before > 0 { &mut fake.before } else { &mut fake.after };
                *left -= 1;
                self.schedule.unit_done();
                self.back(working);
            }
            Some(Task::Run { group, mut edits }) => {
                self.now += self.pace[0];
                self.schedule.run_done(group, &edits, Some(self.pace[0]));
                edits.iter_mut().for_each(|edit| edit.item.steps -= 1);
                edits.into_iter().for_each(|edit| self.back(edit));
            }
        }
        true
    }

    fn back(&mut self, working: Working<Fake>) {
        match working.item.need() {
            Some(need) => self.schedule.put_back(working, need, self.now),
            None => {
                let rest = self.pace[1] * 2;
                self.ended.push(self.schedule.finished(working, Some(rest)).id);
            }
        }
    }

    /// Does all there is to do.
    fn drain(&mut self) {
        loop {
            while self.take() {}
            if !self.finish() {
                return;
            }
        }
    }
}

#[test]
fn edits_of_one_size_share_runs_and_join_between_any_two() {
    let mut bench = Bench::new(Rules { concurrency: 4, ..rules() });
    bench.push(interactive("a", 3), Fake::new(0, 3)).unwrap();
    while bench.runs.is_empty() {
        bench.take();
        bench.finish();
    }
    bench.push(interactive("a", 5), Fake::new(1, 5)).unwrap();
    bench.push(interactive("a", 5), Fake { group: Some(of_size((8, 16))), ..Fake::new(2, 5) }).unwrap();
    bench.drain();
    assert!(bench.runs.contains(&vec![0, 1]), "{:?}", bench.runs);
    assert!(bench.runs.iter().all(|run| !run.contains(&2) || run.len() == 1));
    assert_eq!(bench.runs.iter().map(Vec::len).sum::<usize>(), 13);
}

#[test]
fn edits_with_different_adapters_do_not_share_runs() {
    let adapter = |number| smartedit_core::cache::KeyBuilder::new("test").number(number).finish();
    let of = |adapter| Some(Group { adapter, ..of_size((8, 8)) });
    let mut bench = Bench::new(Rules { concurrency: 4, ..rules() });
    for (id, adapter) in [None, Some(adapter(1)), Some(adapter(2)), Some(adapter(1))].into_iter().enumerate()
    {
        bench.push(interactive("a", 5), Fake { group: of(adapter), ..Fake::new(id, 5) }).unwrap();
    }
    bench.drain();
    assert!(bench.runs.contains(&vec![1, 3]), "{:?}", bench.runs);
    assert!(bench.runs.iter().all(|run| run.len() == 1 || *run == [1, 3]), "{:?}", bench.runs);
}

#[test]
fn the_edit_that_was_begun_first_is_done_first_where_runs_cannot_be_shared() {
    for (rules, group) in [
        (Rules { max_batch: 1, ..rules() }, Some(of_size((8, 8)))),
        (Rules { max_batch_pixels: 64 * 64 + 1, ..rules() }, Some(of_size((8, 8)))),
        (rules(), None),
    ] {
        let mut bench = Bench::new(Rules { concurrency: 4, ..rules });
        for id in 0..4 {
            bench.push(interactive("a", 5), Fake { group, ..Fake::new(id, 5) }).unwrap();
        }
        bench.drain();
        assert!(bench.runs.iter().all(|run| run.len() == 1));
        assert_eq!(bench.ended, [0, 1, 2, 3]);
    }
}

#[test]
fn stages_and_steps_of_different_edits_are_done_at_the_same_time() {
    let mut bench = Bench::new(Rules { concurrency: 4, workers: 2, ..rules() });
    for id in 0..2 {
        bench.push(interactive("a", 3), Fake { before: 3, ..Fake::new(id, 3) }).unwrap();
    }
    let mut both = false;
    loop {
        while bench.take() {}
        let runs = bench.under_way.iter().filter(|task| matches!(task, Task::Run { .. })).count();
        assert!(runs < 2, "edits that could share a run do not have one each");
        both |= runs == 1 && bench.under_way.len() == 2;
        if !bench.finish() {
            break;
        }
    }
    assert!(both);
}

#[test]
fn a_step_waits_for_others_only_while_others_come() {
    let max_wait = Duration::from_millis(5);
    let mut bench = Bench::new(Rules { concurrency: 2, workers: 2, max_wait, ..rules() });
    bench.push(interactive("a", 1), Fake::new(0, 1)).unwrap();
    bench.take();
    bench.finish();
    bench.push(interactive("a", 1), Fake::new(1, 1)).unwrap();
    assert!(bench.take(), "the other one is begun");
    let until = bench.schedule.next(bench.now).unwrap_err();
    assert_eq!(until, Some(bench.now + max_wait));
    let Ok((Task::Run { edits, .. }, _)) = bench.schedule.next(bench.now + max_wait) else { panic!() };
    assert_eq!(edits.len(), 1, "patience has an end");
    bench.under_way.push_back(Task::Run { group: Some(of_size((8, 8))), edits });
    bench.drain();
    assert_eq!(bench.ended.len(), 2, "who is alone does not wait");
}

#[test]
fn a_caller_with_one_edit_does_not_wait_behind_all_of_another_caller() {
    let mut bench = Bench::new(rules());
    for id in 0..20 {
        bench.push(interactive("many", 4), Fake::new(id, 4)).unwrap();
    }
    bench.take();
    bench.push(interactive("one", 4), Fake::new(100, 4)).unwrap();
    assert_eq!(bench.schedule.waiting().position(|fake| fake.id == 100), Some(1));
    bench.drain();
    assert!(bench.begun.iter().position(|id| *id == 100).unwrap() <= 2, "{:?}", bench.begun);
}

#[test]
fn newcomers_do_not_keep_an_edit_waiting_for_ever() {
    let mut bench = Bench::new(rules());
    bench.push(interactive("old", 4), Fake::new(0, 4)).unwrap();
    bench.push(interactive("old", 4), Fake::new(1, 4)).unwrap();
    let mut newcomers = 2..;
    while !bench.begun.contains(&1) {
        let id = newcomers.next().unwrap();
        bench.push(interactive(&format!("new {id}"), 4), Fake::new(id, 4)).unwrap();
        let begun = bench.begun.len();
        while bench.begun.len() == begun {
            bench.take();
            bench.finish();
        }
        assert!(bench.begun.len() < 10, "{:?}", bench.begun);
    }
}

#[test]
fn batches_get_a_ninth_and_interactive_edits_the_rest() {
    let mut bench = Bench::new(rules());
    for id in 0..180 {
        let priority = if id % 2 == 0 { Priority::Interactive } else { Priority::Batch };
        bench.push(demand(&format!("{}", id % 6), priority, 4), Fake::new(id, 4)).unwrap();
    }
    while bench.begun.len() < 90 {
        bench.take();
        bench.finish();
    }
    let batch = bench.begun.iter().filter(|id| **id % 2 == 1).count();
    assert!((9..=11).contains(&batch), "{batch} of 90");
}

#[test]
fn an_edit_of_a_batch_that_is_at_work_is_not_starved() {
    let mut bench = Bench::new(Rules { concurrency: 2, max_batch: 1, ..rules() });
    bench.push(demand("b", Priority::Batch, 3), Fake::new(0, 3)).unwrap();
    bench.take();
    bench.finish();
    for id in 1..50 {
        bench.push(interactive("a", 10), Fake::new(id, 10)).unwrap();
    }
    while !bench.ended.contains(&0) {
        bench.take();
        bench.finish();
        assert!(bench.runs.len() <= 3 * (INTERACTIVE_RUNS + 1), "{:?}", bench.runs);
    }
    assert!(bench.runs.len() > INTERACTIVE_RUNS, "interactive edits come first");
}

/// What a schedule is told of a deadline this far away.
fn refusal(bench: &mut Bench, allowed: Duration) -> Option<Refusal> {
    let (demand, now) = (interactive("late", 4), bench.now);
    match bench.schedule.push(demand, Some(allowed), now, Fake::new(1000, 4)) {
        Ok(()) => None,
        Err((refusal, _)) => Some(refusal),
    }
}

#[test]
fn what_was_measured_tells_which_deadlines_can_be_met() {
    let mut bench = Bench::new(rules());
    let alone = Duration::from_millis(4 * 100 + 2 * 30);
    assert_eq!(refusal(&mut bench, Duration::ZERO), None, "nothing is known");
    bench.drain();
    let short = alone - Duration::from_millis(1);
    assert_eq!(
        refusal(&mut bench, short),
        Some(Refusal::Late { needed: alone, allowed: short }),
        "as long as the last one"
    );
    assert_eq!(bench.schedule.counters().refused_late, 1);
    assert_eq!(refusal(&mut bench, alone), None);
    bench.take();
    let Some(Refusal::Late { needed, .. }) = refusal(&mut bench, alone) else { panic!("one is at work") };
    // The refusal before has made what is expected a little less.
    assert!(needed > alone.mul_f64(1.7) && needed < alone * 2, "{needed:?}");
}

#[test]
fn an_expectation_that_is_too_long_does_not_last() {
    let mut bench = Bench::new(rules());
    bench.pace = [Duration::from_secs(100), Duration::from_secs(1)];
    assert_eq!(refusal(&mut bench, Duration::ZERO), None);
    bench.drain();
    bench.pace = [Duration::from_millis(100), Duration::from_millis(30)];
    let allowed = Duration::from_secs(10);
    let refused = (0..).take_while(|_| refusal(&mut bench, allowed).is_some()).count();
    assert!((10..200).contains(&refused), "{refused}");
    bench.drain();
    bench.drain();
    assert!(bench.schedule.needed(&interactive("a", 4)) < Duration::from_secs(10));
}

#[test]
fn who_is_refused_is_told_when_the_next_edit_will_be_done() {
    let mut bench = Bench::new(Rules { max_queue: 0, ..rules() });
    let full = |bench: &mut Bench| match bench.push(interactive("a", 4), Fake::new(9, 4)) {
        Err(Refusal::Full { retry_after }) => retry_after,
        other => panic!("{other:?}"),
    };
    bench.push(interactive("a", 4), Fake::new(0, 4)).unwrap();
    assert_eq!(full(&mut bench), Duration::from_secs(1), "nothing is known");
    bench.drain();
    bench.push(interactive("a", 4), Fake::new(1, 4)).unwrap();
    bench.take();
    assert_eq!(full(&mut bench), Duration::from_millis(4 * 100 + 2 * 30));
    while bench.runs.len() < 4 + 2 {
        bench.finish();
        bench.take();
    }
    bench.finish();
    assert_eq!(full(&mut bench), Duration::from_millis(2 * 100 + 2 * 30));
}

#[test]
fn one_worker_fills_its_runs_and_keeps_nobody_waiting_for_long() {
    const EDITS: usize = 40;
    let mut bench = Bench::new(Rules { concurrency: 8, max_batch: 8, ..rules() });
    for id in 0..EDITS {
        bench.push(interactive("a", 10), Fake { before: 9, ..Fake::new(id, 10) }).unwrap();
    }
    let (mut units, mut most) = (0, 0);
    while bench.ended.len() < EDITS {
        let (ready, runs) = (bench.schedule.steps.len(), bench.runs.len());
        bench.take();
        bench.finish();
        units = if ready == 0 || bench.runs.len() > runs { 0 } else { units + 1 };
        most = most.max(units);
    }
    assert!(bench.runs.len() * 5 < EDITS * 10 * 2, "{} runs", bench.runs.len());
    assert!((2..8).contains(&most), "{most} units between two steps");
}

#[test]
fn whoever_is_taken_is_done_in_the_time_of_as_many_as_may_be_ahead() {
    let unit = Duration::from_millis(30);
    let lone = 3 * Duration::from_millis(100) + 2 * unit;
    for (max_queue, concurrency) in [(9, 1), (9, 4), (9, 20), (2, 4), (0, 4)] {
        let room = concurrency.max(max_queue + 1);
        // Units of later ones are done between the steps of those at work.
        let longest = lone * room as u32 + unit * (concurrency as u32 - 1);
        let mut bench = Bench::new(Rules { max_queue, concurrency, max_batch: 1, ..rules() });
        let mut came = Vec::new();
        while bench.ended.len() < 100 {
            while bench.push(interactive("a", 3), Fake::new(came.len(), 3)).is_ok() {
                came.push(bench.now);
            }
            assert_eq!(came.len() - bench.ended.len(), room, "{max_queue} and {concurrency}");
            let before = bench.ended.len();
            while bench.ended.len() == before {
                bench.take();
                bench.finish();
            }
            for &id in &bench.ended[before..] {
                assert!(bench.now - came[id] <= longest, "{max_queue} and {concurrency}");
            }
        }
    }
}

#[derive(Debug, Clone)]
enum Op {
    Push { caller: usize, batch: bool, steps: usize, wide: bool, shareable: bool, before: usize },
    Take,
    Finish,
    Remove(usize),
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let push = (0_usize..4, any::<bool>(), 1_usize..6, any::<bool>(), any::<bool>(), 1_usize..4).prop_map(
        |(caller, batch, steps, wide, shareable, before)| Op::Push {
            caller,
            batch,
            steps,
            wide,
            shareable,
            before,
        },
    );
    let op = prop_oneof![3 => push, 4 => Just(Op::Take), 4 => Just(Op::Finish), 1 => (0_usize..40).prop_map(Op::Remove)];
    prop::collection::vec(op, 0..200)
}

fn any_rules() -> impl Strategy<Value = Rules> {
    (0_usize..8, 1_usize..6, 1_usize..5, 1_usize..4, 1_usize..4).prop_map(
        |(max_queue, concurrency, max_batch, workers, pictures)| Rules {
            max_queue,
            max_queue_bytes: 100,
            concurrency,
            max_batch,
            max_batch_pixels: pictures * 64 * 64,
            max_wait: Duration::ZERO,
            workers,
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever comes in whatever order: bounds hold, and all that was taken and not taken out ends, once.
    #[test]
    fn nothing_is_lost_and_nothing_is_left(ops in ops(), rules in any_rules()) {
        let mut bench = Bench::new(rules);
        let (mut accepted, mut removed) = (Vec::new(), Vec::new());
        for (id, op) in ops.into_iter().enumerate() {
            match op {
                Op::Push { caller, batch, steps, wide, shareable, before } => {
                    let priority = if batch { Priority::Batch } else { Priority::Interactive };
                    let group = shareable.then_some(of_size((8, if wide { 16 } else { 8 })));
                    let fake = Fake { before, group, ..Fake::new(id, steps) };
                    if bench.push(demand(&caller.to_string(), priority, steps), fake).is_ok() {
                        accepted.push(id);
                    }
                }
                Op::Take => drop(bench.take()),
                Op::Finish => drop(bench.finish()),
                Op::Remove(id) => {
                    let (waited, begun) = bench.schedule.remove_if(|fake| fake.id == id);
                    removed.extend(waited.iter().chain(&begun).map(|fake| fake.id));
                }
            }
            let (waiting, at_work) = bench.schedule.load();
            prop_assert!(at_work <= rules.concurrency);
            prop_assert!(waiting + at_work <= rules.concurrency.max(rules.max_queue + 1));
            prop_assert!(bench.schedule.line.bytes() <= rules.max_queue_bytes);
            let order: Vec<usize> = bench.schedule.waiting().map(|fake| fake.id).collect();
            prop_assert_eq!(order.len(), waiting);
            prop_assert_eq!(bench.schedule.line.bytes(), 10 * waiting);
        }
        bench.drain();
        prop_assert_eq!(bench.schedule.load(), (0, 0));
        let mut gone: Vec<usize> = bench.ended.iter().chain(&removed).copied().collect();
        gone.sort_unstable();
        prop_assert_eq!(gone, accepted);
    }

    /// The order that is told is the order that is kept, if nothing else comes.
    #[test]
    fn edits_are_begun_in_the_order_that_was_told(
        pushes in prop::collection::vec((0_usize..4, any::<bool>(), 1_usize..20), 0..30),
        begun in 0_usize..5,
        removed in prop::collection::vec(0_usize..30, 0..5),
    ) {
        let mut line = Line::new();
        for (id, (caller, batch, steps)) in pushes.into_iter().enumerate() {
            let priority = if batch { Priority::Batch } else { Priority::Interactive };
            line.push(demand(&caller.to_string(), priority, steps), id);
            if id < begun {
                line.pop();
            }
        }
        line.remove_if(|id| removed.contains(id));
        let told: Vec<usize> = line.in_order().map(|entry| entry.item).collect();
        let kept: Vec<usize> = std::iter::from_fn(|| line.pop()).map(|entry| entry.item).collect();
        prop_assert_eq!(told, kept);
        prop_assert_eq!((line.len(), line.bytes()), (0, 0));
    }

    /// Of callers who always wait, none gets more than another by more than the costliest edits of both.
    #[test]
    fn callers_have_equal_shares(costs in prop::collection::vec(1_usize..50, 2..5), services in 1_usize..200) {
        let mut line = Line::new();
        let push = |line: &mut Line<usize>, caller: usize| {
            line.push(interactive(&caller.to_string(), costs[caller]), caller);
        };
        for caller in 0..costs.len() {
            for _ in 0..3 {
                push(&mut line, caller);
            }
        }
        let mut served = vec![0; costs.len()];
        for _ in 0..services {
            let caller = line.pop().unwrap().item;
            served[caller] += costs[caller];
            push(&mut line, caller);
        }
        let (most, least) = (served.iter().max().unwrap(), served.iter().min().unwrap());
        prop_assert!(most - least <= 2 * costs.iter().max().unwrap(), "{served:?} for {costs:?}");
    }
}
