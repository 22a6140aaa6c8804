//! What may be seen of one path, given everything that was done to it.
//!
//! A PUT takes effect when what is there is not newer; a DELETE removes what is not newer. Versions
//! are never used twice. An operation acts at some moment between the beginning of a try and its
//! acknowledgement; a try without an answer may act at any later time, also once more.

use std::time::Instant;

use super::stamp::Stamp;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Deed {
    Put { content: usize },
    Delete,
}

/// An operation with all its tries.
pub struct Operation {
    pub stamp: Stamp,
    pub deed: Deed,
    began: Instant,
    /// When the try that was acknowledged began and ended.
    pub acknowledged: Option<(Instant, Instant)>,
    /// A try ended without an answer.
    pub may_still_act: bool,
}

/// What somebody was told who asked at `from` and got the answer at `until`.
pub struct Sight {
    pub seen: Option<Stamp>,
    pub from: Instant,
    pub until: Instant,
}

impl Operation {
    pub fn new(stamp: Stamp, deed: Deed, began: Instant) -> Self {
        Self { stamp, deed, began, acknowledged: None, may_still_act: false }
    }

    fn is_put(&self) -> bool {
        matches!(self.deed, Deed::Put { .. })
    }

    fn may_act_after(&self, moment: Instant) -> bool {
        self.may_still_act || self.acknowledged.is_some_and(|(_, ended)| ended > moment)
    }

    /// When the acknowledged try began, if it was acknowledged before `moment`.
    fn acknowledged_before(&self, moment: Instant) -> Option<Instant> {
        self.acknowledged.filter(|(_, ended)| *ended < moment).map(|(began, _)| began)
    }

    /// Whether it may have acted in this time.
    pub fn concerns(&self, from: Instant, until: Instant) -> bool {
        self.began < until && self.may_act_after(from)
    }

    /// For people: times in milliseconds before (negative) or after `zero`.
    pub fn told(&self, zero: Instant) -> String {
        let since = |moment: Instant| match moment.checked_duration_since(zero) {
            Some(after) => format!("{}", after.as_millis()),
            None => format!("-{}", (zero - moment).as_millis()),
        };
        let ended = self.acknowledged.map_or("none".into(), |(from, to)| format!("{}..{}", since(from), since(to)));
        let lost = if self.may_still_act { ", a try without answer" } else { "" };
        format!("{:?} {} began {}, acknowledged {ended}{lost}", self.deed, self.stamp, since(self.began))
    }
}

impl Sight {
    pub fn told(&self) -> String {
        let seen = self.seen.map_or("absence".into(), |stamp| format!("version {stamp}"));
        format!("{seen} seen within {} ms", (self.until - self.from).as_millis())
    }
}

/// Why this cannot be seen if everything is right; `None` when it can.
pub fn impossible(operations: &[Operation], sight: &Sight) -> Option<String> {
    let written = sight.seen.map(|stamp| operations.iter().find(|one| one.is_put() && one.stamp == stamp));
    let written = match written {
        Some(None) => return Some("nobody ever put it".into()),
        Some(Some(put)) if put.began > sight.until => return Some("it was not yet put".into()),
        Some(put) => put,
        None => None,
    };
    // Whether what is seen may have come to be after this moment; absence always may.
    let came_after = |moment: Instant| written.is_none_or(|put| put.may_act_after(moment));
    for operation in operations {
        let Some(began) = operation.acknowledged_before(sight.from) else { continue };
        if operation.is_put() && sight.seen.is_none_or(|seen| operation.stamp > seen) {
            // From then on something as new is there, until a deletion of it, which what is seen followed.
            let explains = |delete: &Operation| {
                delete.deed == Deed::Delete
                    && delete.stamp >= operation.stamp
                    && delete.may_act_after(began)
                    && delete.began < sight.until
                    && came_after(delete.began)
            };
            if !came_after(began) || !operations.iter().any(explains) {
                return Some(format!("the newer version {} was acknowledged before", operation.stamp));
            }
        }
        let removes_it = operation.deed == Deed::Delete && sight.seen.is_some_and(|seen| operation.stamp >= seen);
        if removes_it && !came_after(began) {
            return Some(format!("its deletion {} was acknowledged before", operation.stamp));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    struct Story {
        zero: Instant,
        operations: Vec<Operation>,
    }

    impl Story {
        fn new() -> Self {
            Self { zero: Instant::now(), operations: Vec::new() }
        }

        fn at(&self, second: u64) -> Instant {
            self.zero + Duration::from_secs(second)
        }

        fn told(mut self, deed: Deed, stamp: Stamp, began: u64, ended: Option<u64>) -> Self {
            let mut operation = Operation::new(stamp, deed, self.at(began));
            operation.acknowledged = ended.map(|ended| (self.at(began), self.at(ended)));
            operation.may_still_act = ended.is_none();
            self.operations.push(operation);
            self
        }

        fn put(self, stamp: Stamp, began: u64, ended: impl Into<Option<u64>>) -> Self {
            self.told(Deed::Put { content: 0 }, stamp, began, ended.into())
        }

        fn delete(self, stamp: Stamp, began: u64, ended: impl Into<Option<u64>>) -> Self {
            self.told(Deed::Delete, stamp, began, ended.into())
        }

        fn allows(&self, seen: impl Into<Option<Stamp>>, from: u64, until: u64) -> bool {
            let sight = Sight { seen: seen.into(), from: self.at(from), until: self.at(until) };
            impossible(&self.operations, &sight).is_none()
        }
    }

    #[test]
    fn an_acknowledged_put_is_seen_until_a_newer_one() {
        let story = Story::new().put(5, 1, 2).put(7, 4, 6);
        assert!(story.allows(None, 0, 3) && !story.allows(None, 3, 9));
        assert!(story.allows(5, 3, 3) && story.allows(5, 5, 9) && !story.allows(5, 7, 9));
        assert!(story.allows(7, 3, 5) && !story.allows(7, 3, 3) && story.allows(7, 7, 9));
        assert!(!story.allows(6, 7, 9));
    }

    #[test]
    fn an_older_put_changes_nothing() {
        let story = Story::new().put(7, 1, 2).put(5, 3, 4);
        assert!(story.allows(7, 5, 6) && !story.allows(5, 5, 6) && !story.allows(None, 5, 6));
    }

    #[test]
    fn a_put_without_answer_may_act_at_any_time() {
        let story = Story::new().put(5, 1, 2).put(7, 3, None);
        assert!(story.allows(5, 9, 9) && story.allows(7, 4, 9) && !story.allows(None, 9, 9));
    }

    #[test]
    fn a_deletion_removes_what_is_not_newer() {
        let story = Story::new().put(5, 1, 2).delete(6, 3, 4);
        assert!(story.allows(None, 5, 6) && !story.allows(5, 5, 6) && story.allows(5, 2, 4));
        let story = Story::new().put(7, 1, 2).delete(6, 3, 4);
        assert!(!story.allows(None, 5, 6) && story.allows(7, 5, 6));
        // It ended before the PUT began.
        let story = Story::new().delete(6, 1, 2).put(5, 3, 4);
        assert!(!story.allows(None, 5, 6) && story.allows(5, 5, 6));
    }

    #[test]
    fn a_deletion_without_answer_may_act_at_any_time() {
        let story = Story::new().delete(6, 1, None).put(5, 3, 4);
        assert!(story.allows(None, 5, 6) && story.allows(5, 5, 6));
    }

    #[test]
    fn an_older_version_comes_back_only_when_it_was_put_after_the_deletion() {
        let story = Story::new().put(3, 1, 2).put(7, 3, 4).delete(8, 5, 6);
        assert!(!story.allows(3, 7, 8), "it was put before the newer one");
        let story = Story::new().put(7, 3, 4).delete(8, 5, 6).put(3, 7, 8);
        assert!(story.allows(3, 9, 9) && !story.allows(7, 9, 9) && !story.allows(None, 9, 9));
        let story = Story::new().put(3, 1, None).put(7, 3, 4).delete(8, 5, 6);
        assert!(story.allows(3, 7, 8) && story.allows(None, 7, 8));
    }
}
