//! What was done to a study, in numbers: by action, and by the rule that asked for it. Never values.

use std::collections::BTreeMap;

use super::rules::Reason;

/// What happened to an element.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Done {
    Removed,
    Emptied,
    Replaced,
    Remapped,
    Kept,
    Cleaned,
    Shifted,
}

/// Elements by what happened to them, over all instances and depths.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Elements removed.
    pub removed: u64,
    /// Elements emptied.
    pub emptied: u64,
    /// Elements given a dummy, or the pseudonym.
    pub replaced: u64,
    /// UIDs remapped.
    pub uids: u64,
    /// Elements kept.
    pub kept: u64,
    /// Elements cleaned: the harmless part of the value stayed.
    pub cleaned: u64,
    /// Dates and times carried over to the patient's shifted calendar.
    pub shifted: u64,
}

impl Counts {
    /// The numbers by name, in one order everywhere.
    pub fn named(&self) -> [(&'static str, u64); 7] {
        let Counts { removed, emptied, replaced, uids, kept, cleaned, shifted } = *self;
        [
            ("removed", removed),
            ("emptied", emptied),
            ("replaced", replaced),
            ("uids", uids),
            ("kept", kept),
            ("cleaned", cleaned),
            ("shifted", shifted),
        ]
    }

    fn count(&mut self, done: Done) {
        let number = match done {
            Done::Removed => &mut self.removed,
            Done::Emptied => &mut self.emptied,
            Done::Replaced => &mut self.replaced,
            Done::Remapped => &mut self.uids,
            Done::Kept => &mut self.kept,
            Done::Cleaned => &mut self.cleaned,
            Done::Shifted => &mut self.shifted,
        };
        *number += 1;
    }

    fn add(&mut self, other: &Counts) {
        self.removed += other.removed;
        self.emptied += other.emptied;
        self.replaced += other.replaced;
        self.uids += other.uids;
        self.kept += other.kept;
        self.cleaned += other.cleaned;
        self.shifted += other.shifted;
    }
}

/// What was done to a study; never values.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Whether the study was de-identified (false only after `release_identified`).
    pub deidentified: bool,
    /// Elements by action.
    pub total: Counts,
    /// The same by the rule that asked for it, by the rule's name: `table_e1_1`, `private`, `safe_private`, `harmless_vr`, `technical_text`, `text`,
    /// `date_or_uid`, `unknown`, `not_in_iod`, `content_item`, `invalid_value`, `residual`, `structure`.
    pub by_rule: BTreeMap<&'static str, Counts>,
    /// Instances in whose pixels regions were blacked out.
    pub blacked_out: u64,
    /// CID 7050 codes of what was done, `113100` first.
    pub codes: Vec<String>,
    /// Pseudonym of the patient (also the new Patient ID).
    pub pseudonym: String,
}

impl Report {
    pub(crate) fn count(&mut self, done: Done, reason: Reason) {
        self.total.count(done);
        self.by_rule.entry(reason.name()).or_default().count(done);
    }

    /// Adds the numbers of a part of the study.
    pub(crate) fn add(&mut self, part: &Report) {
        self.total.add(&part.total);
        for (rule, counts) in &part.by_rule {
            self.by_rule.entry(rule).or_default().add(counts);
        }
        self.blacked_out += part.blacked_out;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_add_up_to_the_total() {
        let (mut whole, mut part) = (Report::default(), Report::default());
        part.count(Done::Removed, Reason::Private);
        part.count(Done::Removed, Reason::Table);
        part.count(Done::Shifted, Reason::Table);
        whole.add(&part);
        whole.add(&part);
        assert_eq!((whole.total.removed, whole.total.shifted), (4, 2));
        assert_eq!(whole.by_rule["table_e1_1"], Counts { removed: 2, shifted: 2, ..Counts::default() });
        assert_eq!(whole.total.named().iter().map(|(_, number)| number).sum::<u64>(), 6);
    }
}
