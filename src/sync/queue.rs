//! Items that wait for a slot.
//!
//! This file owns their order. It must not know the limits of concurrency.
//!
//! The items of one workspace and one destination wait for the same slots, so they form a lane. The first item that has a slot
//! is the head of a lane, and finding it takes no longer with ten thousand items than with ten.

use std::collections::{BTreeMap, VecDeque};

use jiff::Timestamp;

use crate::plan::Item;

/// What an item needs slots of.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Lane {
    pub(super) workspace: String,
    /// Name of the destination.
    pub(super) destination: String,
}

/// The queue. Items have numbers, which grow from its front to its back.
#[derive(Debug, Default)]
pub(super) struct Queue {
    /// Without empty ones.
    lanes: BTreeMap<Lane, VecDeque<(i64, Item)>>,
    /// The lowest number so far.
    front: i64,
    /// The number of the next item at the back.
    back: i64,
}

impl Queue {
    pub(super) fn len(&self) -> usize {
        self.lanes.values().map(VecDeque::len).sum()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.lanes.is_empty()
    }

    pub(super) fn push(&mut self, lane: Lane, item: Item) {
        self.lanes.entry(lane).or_default().push_back((self.back, item));
        self.back += 1;
    }

    /// Puts an item before all others.
    pub(super) fn push_front(&mut self, lane: Lane, item: Item) {
        self.front -= 1;
        self.lanes.entry(lane).or_default().push_front((self.front, item));
    }

    /// Takes the first item of those lanes that have a slot.
    pub(super) fn take_first(&mut self, has_slot: impl Fn(&Lane) -> bool) -> Option<Item> {
        let heads = self.lanes.iter().filter(|(lane, _)| has_slot(lane));
        let (_, lane) = heads.filter_map(|(lane, items)| Some((items.front()?.0, lane))).min()?;
        let lane = lane.clone();
        self.take(&lane, 0)
    }

    /// Takes the item with the oldest last attempt, or none, of those lanes that have a slot. Looks at all their items.
    pub(super) fn take_oldest(&mut self, has_slot: impl Fn(&Lane) -> bool) -> Option<Item> {
        let lanes = self.lanes.iter().filter(|(lane, _)| has_slot(lane));
        let attempted = |(_, item): &(i64, Item)| -> Option<Timestamp> { item.entry.last_attempt_at };
        let items = lanes.flat_map(|(lane, items)| {
            items.iter().enumerate().map(move |(at, queued)| ((attempted(queued), queued.0), at, lane))
        });
        let (_, at, lane) = items.min_by_key(|(order, ..)| *order)?;
        let lane = lane.clone();
        self.take(&lane, at)
    }

    /// Takes the items of a workspace, in order.
    pub(super) fn take_workspace(&mut self, workspace: &str) -> Vec<Item> {
        self.take_lanes(|lane| lane.workspace == workspace)
    }

    /// Takes all items, in order.
    pub(super) fn take_all(&mut self) -> Vec<Item> {
        self.take_lanes(|_| true)
    }

    fn take_lanes(&mut self, is_meant: impl Fn(&Lane) -> bool) -> Vec<Item> {
        let mut items: Vec<_> =
            self.lanes.extract_if(.., |lane, _| is_meant(lane)).flat_map(|(_, items)| items).collect();
        items.sort_unstable_by_key(|(number, _)| *number);
        items.into_iter().map(|(_, item)| item).collect()
    }

    fn take(&mut self, lane: &Lane, at: usize) -> Option<Item> {
        let items = self.lanes.get_mut(lane)?;
        let taken = items.remove(at);
        if items.is_empty() {
            self.lanes.remove(lane);
        }
        taken.map(|(_, item)| item)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        config::SourceKind,
        partition::Entry,
        plan::Decision,
        report::{Partition, PartitionId, ReportId},
    };

    /// A queue of one item a letter, in the lane of that letter, attempted last at this second.
    fn queue(items: &[(&str, i64)]) -> Queue {
        let mut queue = Queue::default();
        for (lane, attempted_at) in items {
            queue.push(Lane { workspace: (*lane).into(), destination: "disk".into() }, item(lane, *attempted_at));
        }
        queue
    }

    fn item(lane: &str, attempted_at: i64) -> Item {
        let id = PartitionId { report: ReportId::new(lane, "daily"), date: jiff::civil::date(2026, 11, 21) };
        let at = Timestamp::from_second(attempted_at).unwrap();
        let partition =
            Partition { id, source: SourceKind::CampaignReport, generated_at: at, due_at: at, expires_at: None };
        let entry = Entry { last_attempt_at: Some(at), ..Entry::new(partition) };
        Item { entry, report: None, decision: Decision::Fetch }
    }

    fn shown(items: impl IntoIterator<Item = Item>) -> Vec<(String, i64)> {
        let shown = |item: Item| {
            let at = item.entry.last_attempt_at.map_or(0, Timestamp::as_second);
            (item.entry.partition.id.workspace().to_owned(), at)
        };
        items.into_iter().map(shown).collect()
    }

    fn named(items: &[(&str, i64)]) -> Vec<(String, i64)> {
        items.iter().map(|(lane, at)| ((*lane).to_owned(), *at)).collect()
    }

    #[test]
    fn items_leave_in_order_past_lanes_without_a_slot() {
        let mut waiting = queue(&[("a", 1), ("b", 2), ("a", 3), ("c", 4)]);
        waiting.push_front(Lane { workspace: "c".into(), destination: "disk".into() }, item("c", 5));
        let taken = shown(std::iter::from_fn(|| waiting.take_first(|lane| lane.workspace != "a")));
        assert_eq!(taken, named(&[("c", 5), ("b", 2), ("c", 4)]));
        assert_eq!((waiting.len(), waiting.is_empty()), (2, false));
        assert_eq!(shown(std::iter::from_fn(|| waiting.take_first(|_| true))), named(&[("a", 1), ("a", 3)]));
        assert!(waiting.is_empty());
    }

    #[test]
    fn the_oldest_attempt_of_all_lanes_with_a_slot_leaves_first() {
        let mut waiting = queue(&[("a", 3), ("b", 2), ("a", 1), ("c", 0)]);
        let taken = shown(std::iter::from_fn(|| waiting.take_oldest(|lane| lane.workspace != "c")));
        assert_eq!(taken, named(&[("a", 1), ("b", 2), ("a", 3)]));
    }

    #[test]
    fn the_items_of_a_workspace_leave_together() {
        let mut waiting = queue(&[("a", 1), ("b", 2), ("a", 3)]);
        assert_eq!(shown(waiting.take_workspace("a")), named(&[("a", 1), ("a", 3)]));
        assert_eq!(shown(waiting.take_all()), named(&[("b", 2)]));
    }
}
