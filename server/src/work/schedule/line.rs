//! What waits to be begun, in a fair order.
//!
//! Each class of priority is a line of its own, in which callers are served by start-time fair queueing: an entry's
//! tag is when its caller's entry before it is paid for, and the smallest tag is next. A caller with nothing waiting
//! begins at the class's clock, if that is later. The clock goes on by every service's cost, shared among the callers
//! waiting, so that whoever keeps arriving anew passes nobody for ever. Between the classes, service is shared by weight.

use std::collections::BTreeMap;

use super::{Caller, Demand, Priority};

/// Entries waiting, in a fair order.
pub(super) struct Line<T> {
    classes: [Class<T>; 2],
    arrivals: u64,
    length: usize,
    bytes: usize,
}

/// An entry and what it asks for.
pub(super) struct Entry<T> {
    pub(super) demand: Demand,
    pub(super) item: T,
}

/// The entries of one priority.
struct Class<T> {
    weight: u128,
    /// Cost served, by weight; kept up with the other class's while this one has nothing to serve.
    served: u128,
    clock: u128,
    waiting: BTreeMap<Tag, Entry<T>>,
    /// When each caller's last entry is paid for, and how many it has waiting.
    callers: BTreeMap<Caller, (u128, usize)>,
}

/// The clock's time from which an entry may be served; of equal ones, the first to arrive.
type Tag = (u128, u64);

impl<T> Line<T> {
    pub(super) fn new() -> Self {
        Self { classes: Priority::ALL.map(Class::new), arrivals: 0, length: 0, bytes: 0 }
    }

    pub(super) fn len(&self) -> usize {
        self.length
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn push(&mut self, demand: Demand, item: T) {
        let class = demand.priority.index();
        if self.length == 0 {
            self.classes.iter_mut().for_each(|class| class.served = 0);
        } else if self.classes[class].waiting.is_empty() {
            let other = self.classes[1 - class].served;
            self.classes[class].served = self.classes[class].served.max(other);
        }
        self.length += 1;
        self.bytes += demand.bytes;
        self.arrivals += 1;
        self.classes[class].push(self.arrivals, Entry { demand, item });
    }

    /// Takes the entry whose turn it is.
    pub(super) fn pop(&mut self) -> Option<Entry<T>> {
        let class = next_class(&self.classes.each_ref().map(|class| {
            let cost = class.waiting.first_key_value().map(|(_, entry)| entry.demand.cost());
            (class.served, class.weight, cost)
        }))?;
        let entry = self.classes[class].pop()?;
        self.length -= 1;
        self.bytes -= entry.demand.bytes;
        Some(entry)
    }

    /// Takes out what is not wanted any more.
    pub(super) fn remove_if(&mut self, unwanted: impl Fn(&T) -> bool) -> Vec<Entry<T>> {
        let mut removed = Vec::new();
        for class in &mut self.classes {
            let tags: Vec<Tag> = class
                .waiting
                .iter()
                .filter(|(_, entry)| unwanted(&entry.item))
                .map(|(tag, _)| *tag)
                .collect();
            removed.extend(tags.into_iter().rev().filter_map(|tag| class.remove(tag)));
        }
        self.length -= removed.len();
        self.bytes -= removed.iter().map(|entry| entry.demand.bytes).sum::<usize>();
        removed
    }

    /// All entries, in the order in which they would be served if no other came.
    pub(super) fn in_order(&self) -> impl Iterator<Item = &Entry<T>> {
        let mut classes = self
            .classes
            .each_ref()
            .map(|class| (class.served, class.weight, class.waiting.values().peekable()));
        std::iter::from_fn(move || {
            let heads = classes.each_mut().map(|(served, weight, waiting)| {
                (*served, *weight, waiting.peek().map(|entry| entry.demand.cost()))
            });
            let (served, weight, waiting) = &mut classes[next_class(&heads)?];
            let entry = waiting.next()?;
            *served += entry.demand.cost() / *weight;
            Some(entry)
        })
    }

    /// What would be served before an entry of this demand, of its own class.
    pub(super) fn ahead_of(&self, demand: &Demand) -> impl Iterator<Item = &Entry<T>> {
        let class = &self.classes[demand.priority.index()];
        let tag = class.tag(&demand.caller);
        class.waiting.range(..(tag, u64::MAX)).map(|(_, entry)| entry)
    }
}

/// The class to be served: of those with an entry, given with its cost, the one that has been served least.
fn next_class(classes: &[(u128, u128, Option<u128>); 2]) -> Option<usize> {
    let waiting = (0..classes.len()).filter(|&class| classes[class].2.is_some());
    waiting.min_by_key(|&class| classes[class].0)
}

impl<T> Class<T> {
    fn new(priority: Priority) -> Self {
        let weight = match priority {
            Priority::Interactive => 8,
            Priority::Batch => 1,
        };
        Self { weight, served: 0, clock: 0, waiting: BTreeMap::new(), callers: BTreeMap::new() }
    }

    /// The tag's time of a caller's next entry.
    fn tag(&self, caller: &Caller) -> u128 {
        match self.callers.get(caller) {
            Some((paid, 0)) => self.clock.max(*paid),
            Some((paid, _)) => *paid,
            None => self.clock,
        }
    }

    fn push(&mut self, arrival: u64, entry: Entry<T>) {
        let tag = self.tag(&entry.demand.caller);
        let (paid, waiting) = self.callers.entry(entry.demand.caller.clone()).or_default();
        *paid = tag + entry.demand.cost();
        *waiting += 1;
        self.waiting.insert((tag, arrival), entry);
    }

    fn pop(&mut self) -> Option<Entry<T>> {
        let (_, entry) = self.waiting.pop_first()?;
        let callers = self.callers.values().filter(|(_, waiting)| *waiting > 0).count();
        self.served += entry.demand.cost() / self.weight;
        self.clock += entry.demand.cost() / callers.max(1) as u128;
        if let Some((_, waiting)) = self.callers.get_mut(&entry.demand.caller) {
            *waiting -= 1;
        }
        self.forget();
        Some(entry)
    }

    /// Takes an entry out as if it had never come: what its caller has behind it moves up.
    fn remove(&mut self, removed: Tag) -> Option<Entry<T>> {
        let entry = self.waiting.remove(&removed)?;
        let (caller, cost) = (&entry.demand.caller, entry.demand.cost());
        let later = self.waiting.range(removed..).filter(|(_, other)| other.demand.caller == *caller);
        for tag in later.map(|(tag, _)| *tag).collect::<Vec<_>>() {
            if let Some(other) = self.waiting.remove(&tag) {
                self.waiting.insert((tag.0.saturating_sub(cost).max(removed.0), tag.1), other);
            }
        }
        if let Some((paid, waiting)) = self.callers.get_mut(caller) {
            *paid = paid.saturating_sub(cost).max(removed.0);
            *waiting -= 1;
        }
        self.forget();
        Some(entry)
    }

    /// Forgets callers with nothing waiting and nothing left to pay.
    fn forget(&mut self) {
        let clock = self.clock;
        self.callers.retain(|_, (paid, waiting)| *waiting > 0 || *paid > clock);
    }
}
