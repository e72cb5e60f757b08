//! What happens to an element, and why: the order of rules of the default-deny policy, decided from tag, VR and place alone.
//!
//! 1. Elements that belong to a message, a file header or a directory, and those that this library writes itself, go.
//! 2. A row of Table E.1-1 decides, with the chosen options applied and compound codes resolved by the Type in the IOD.
//! 3. A private element goes, unless Retain Safe Private is chosen and Table E.3.10-1 lists it (see `private`).
//! 4. Any other public element stays only if its VR cannot carry free text or an identity, or if it is on the short list of technical
//!    texts below. Names go, dates follow the option for dates, UIDs are remapped. What the dictionary does not know goes.
//! 5. Where only the attributes of an object's IOD may stay, all others go (see `iod`).
//!
//! Nothing here looks at a value, so a decision can be printed, counted and tested; `actions` carries it out and falls back on
//! [`Decision::otherwise`] when a value turns out not to be what its VR promises.

use dicom_core::dictionary::{DataDictionary, DataDictionaryEntry, VirtualVr};
use dicom_core::{Tag, VR};
use dicom_dictionary_std::StandardDataDictionary;

use super::iod::Attributes;
use super::lists::{LOOKUP_TABLES, TECHNICAL_TEXTS, VOCABULARY_TEXTS};
use super::table::{Choice, Code, Iod, Relief, Row, Tables, Type};
use super::value::is_text;

/// What is done to an element.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// Stays, if it is valid for its VR; sequences are cleaned inside.
    Keep,
    /// Goes.
    Remove,
    /// Stays without a value.
    Empty,
    /// Gets a dummy value of its VR.
    Dummy,
    /// Its UIDs are replaced.
    Remap,
    /// What can be recognised as harmless stays; how depends on the VR.
    Clean,
    /// Gets the patient's pseudonym.
    Pseudonym,
}

/// The rule that led to an action.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reason {
    /// Belongs to no data set, or is written anew by this library.
    Structure,
    /// A row of Table E.1-1.
    Table,
    /// Private, and not known to be safe.
    Private,
    /// Private, listed in Table E.3.10-1.
    SafePrivate,
    /// Public, with a VR that carries no text.
    HarmlessVr,
    /// Public text on our list, or part of a code of a public coding scheme.
    TechnicalText,
    /// Public, with a VR that may carry text or an identity.
    Text,
    /// A date, time or UID that the table does not list.
    DateOrUid,
    /// Not in the public dictionary.
    Unknown,
    /// Not an attribute of the object's IOD, where only those may stay.
    Foreign,
    /// A content item, judged by its concept name (Table E.3.4-1).
    Content,
    /// The value is not what its VR or the first choice of action needs.
    Invalid,
    /// A kept text that holds an identifier found elsewhere.
    Residual,
}

impl Reason {
    /// The name in reports.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Reason::Structure => "structure",
            Reason::Table => "table_e1_1",
            Reason::Private => "private",
            Reason::SafePrivate => "safe_private",
            Reason::HarmlessVr => "harmless_vr",
            Reason::TechnicalText => "technical_text",
            Reason::Text => "text",
            Reason::DateOrUid => "date_or_uid",
            Reason::Unknown => "unknown",
            Reason::Foreign => "not_in_iod",
            Reason::Content => "content_item",
            Reason::Invalid => "invalid_value",
            Reason::Residual => "residual",
        }
    }
}

/// An action, why, and what to do when the action cannot be carried out on the value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Decision {
    pub(crate) action: Action,
    pub(crate) otherwise: Action,
    pub(crate) reason: Reason,
}

impl Decision {
    fn new(action: Action, otherwise: Action, reason: Reason) -> Decision {
        Decision { action, otherwise, reason }
    }
    pub(crate) fn remove(reason: Reason) -> Decision {
        Decision::new(Action::Remove, Action::Remove, reason)
    }
}

/// The options chosen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Choices(u16);

impl Choices {
    pub(crate) fn with(self, choice: Choice) -> Choices {
        Choices(self.0 | 1 << choice as u16)
    }
    pub(crate) fn has(self, choice: Choice) -> bool {
        self.0 & 1 << choice as u16 != 0
    }
    pub(crate) fn iter(self) -> impl Iterator<Item = Choice> {
        Choice::ALL.into_iter().filter(move |choice| self.has(*choice))
    }
}

/// What the code triplet of an item, if it has one, can be trusted with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scheme {
    /// No code in this item.
    None,
    /// A coding scheme that is published: its codes and meanings are words of a book.
    Public,
    /// A local scheme: anything may be written there.
    Local,
}

/// Where an element stands.
#[derive(Clone, Copy)]
pub(crate) struct Place<'a> {
    /// The IOD, at the top level of an instance whose IOD is known. Everywhere else Types are unknown.
    pub(crate) iod: Option<&'a Iod>,
    pub(crate) top: bool,
    /// Inside a sequence that stands in for a dummy: only structure and what the table itself replaces.
    pub(crate) bare: bool,
    pub(crate) scheme: Scheme,
    /// What the object's IOD defines, where nothing else may stay.
    pub(crate) defined: Option<&'a Attributes>,
    /// Overlay groups (bit per even group from 6000) that are regions of interest and may be kept.
    pub(crate) overlays: u128,
}

/// The rules in force.
pub(crate) struct Rules {
    pub(crate) tables: &'static Tables,
    pub(crate) choices: Choices,
}

impl Rules {
    /// The VR that an element ought to have: the dictionary's, or the table's for tags newer than the dictionary, or the one found.
    pub(crate) fn vr(&self, tag: Tag, found: VR) -> VR {
        match StandardDataDictionary.by_tag(tag).map(|entry| entry.vr()) {
            Some(VirtualVr::Exact(vr)) if tag.group().is_multiple_of(2) => vr,
            Some(_) => found,
            None => self.tables.row(tag).and_then(|row| row.vr).unwrap_or(found),
        }
    }

    /// The decision for a public element; `vr` as from [`Rules::vr`].
    pub(crate) fn decide(&self, tag: Tag, vr: VR, place: &Place<'_>) -> Decision {
        if is_structure(tag) {
            return Decision::remove(Reason::Structure);
        }
        if tag.group() % 2 == 1 {
            return Decision::remove(Reason::Private);
        }
        if matches!(tag.group(), 0x6000..=0x60FF) && place.overlays & overlay_bit(tag.group()) == 0 {
            // Rows, columns and origin of an overlay mean nothing without its data, and its data can be handwriting.
            return Decision::remove(Reason::Table);
        }
        let decision = match self.tables.row(tag) {
            Some(row) => self.by_row(row, tag, vr, place),
            None => self.by_nature(tag, vr, place),
        };
        match place.defined {
            Some(defined) if decision.action != Action::Remove && !defined.has(tag, place.top) => Decision::remove(Reason::Foreign),
            _ => decision,
        }
    }

    /// Rule 4, and what of it holds in a sequence that stands in for a dummy.
    fn by_nature(&self, tag: Tag, vr: VR, place: &Place<'_>) -> Decision {
        let decision = self.by_vr(tag, vr, place);
        let structural = matches!(vr, VR::UI | VR::SQ | VR::CS) || place.scheme != Scheme::None;
        if place.bare && decision.action != Action::Remove && !structural { Decision::remove(decision.reason) } else { decision }
    }

    /// Rule 2.
    fn by_row(&self, row: &Row, tag: Tag, vr: VR, place: &Place<'_>) -> Decision {
        let kind = if place.top { place.iod.map(|iod| iod.kind(tag)) } else { None };
        let basic = match resolve(row.basic, kind) {
            Action::Dummy if vr == VR::UI => Action::Remap,
            Action::Empty | Action::Dummy if tag == Tag(0x0010, 0x0020) => Action::Pseudonym,
            Action::Empty | Action::Dummy if tag == Tag(0x0010, 0x0010) && place.top => Action::Pseudonym,
            action => action,
        };
        let reliefs = || self.choices.iter().filter_map(|choice| row.relief(choice));
        // Where one chosen option would keep and another clean, cleaning releases less and is done.
        let action = if reliefs().any(|relief| relief == Relief::Clean) {
            Action::Clean
        } else if reliefs().any(|relief| relief == Relief::Keep) {
            Action::Keep
        } else {
            basic
        };
        Decision::new(action, basic, Reason::Table)
    }

    fn by_vr(&self, tag: Tag, vr: VR, place: &Place<'_>) -> Decision {
        let Some(entry) = StandardDataDictionary.by_tag(tag) else { return Decision::remove(Reason::Unknown) };
        let keep = |reason| Decision::new(Action::Keep, Action::Remove, reason);
        if matches!(entry.vr(), VirtualVr::Px) || matches!(tag, Tag(0x7FE0, 0x0001 | 0x0002 | 0x0008 | 0x0009)) {
            return if place.top && !is_text(vr) { keep(Reason::HarmlessVr) } else { Decision::remove(Reason::Text) };
        }
        if is_code_text(tag) {
            return match place.scheme {
                Scheme::Public => keep(Reason::TechnicalText),
                Scheme::Local if tag != Tag(0x0008, 0x0103) => Decision::new(Action::Dummy, Action::Dummy, Reason::Text),
                _ => Decision::remove(Reason::Text),
            };
        }
        match vr {
            VR::SQ | VR::CS | VR::DS | VR::IS | VR::FD | VR::FL | VR::US | VR::SS | VR::UL | VR::SL | VR::UV | VR::SV | VR::AT => {
                keep(Reason::HarmlessVr)
            }
            VR::UI if self.choices.has(Choice::Uids) => Decision::new(Action::Keep, Action::Remap, Reason::DateOrUid),
            VR::UI => Decision::new(Action::Remap, Action::Remap, Reason::DateOrUid),
            VR::DA | VR::DT | VR::TM if self.choices.has(Choice::ModifiedDates) => {
                Decision::new(Action::Clean, Action::Remove, Reason::DateOrUid)
            }
            VR::DA | VR::DT | VR::TM if self.choices.has(Choice::FullDates) => keep(Reason::DateOrUid),
            VR::DA | VR::DT | VR::TM => Decision::remove(Reason::DateOrUid),
            _ if TECHNICAL_TEXTS.contains(&(tag.0, tag.1)) => keep(Reason::TechnicalText),
            _ if LOOKUP_TABLES.contains(&(tag.0, tag.1)) && !is_text(vr) => keep(Reason::HarmlessVr),
            _ => match VOCABULARY_TEXTS.iter().find(|(listed, _)| *listed == (tag.0, tag.1)) {
                Some((_, otherwise)) => Decision::new(Action::Clean, *otherwise, Reason::TechnicalText),
                None => Decision::remove(Reason::Text),
            },
        }
    }
}

/// A compound code by Type: 1 and 1C need a value, 2 and 2C the element, 3 nothing. Without a Type the strictest that is valid holds.
pub(crate) fn resolve(code: Code, kind: Option<Type>) -> Action {
    match (code, kind) {
        (Code::D, _) => Action::Dummy,
        (Code::Z, _) => Action::Empty,
        (Code::X, _) => Action::Remove,
        (Code::U, _) => Action::Remap,
        (Code::Zd, Some(Type::Two | Type::Three)) => Action::Empty,
        (Code::Zd, _) => Action::Dummy,
        (Code::Xz | Code::Xd | Code::Xzd | Code::Xzu, Some(Type::Three)) => Action::Remove,
        (Code::Xz | Code::Xd | Code::Xzd | Code::Xzu, Some(Type::Two)) => Action::Empty,
        (Code::Xz, Some(Type::One)) | (Code::Xd | Code::Xzd, _) => Action::Dummy,
        (Code::Xz, None) => Action::Empty,
        // U*: the sequence stays and its UIDs are remapped, as everything inside it is judged anyway.
        (Code::Xzu, _) => Action::Remap,
    }
}

/// Bit of an overlay group in [`Place::overlays`].
pub(crate) fn overlay_bit(group: u16) -> u128 {
    1 << ((group & 0xFF) >> 1)
}

/// Rule 1: group lengths, command, file meta and directory elements, and what `attributes` writes.
fn is_structure(tag: Tag) -> bool {
    tag.element() == 0
        || matches!(tag.group(), 0x0000 | 0x0002 | 0x0004)
        || matches!(tag, Tag(0x0008, 0x0005) | Tag(0x0012, 0x0062..=0x0064) | Tag(0x0028, 0x0303))
}

/// The attributes of a code that carry text (PS3.3 Table 8.8-1).
fn is_code_text(tag: Tag) -> bool {
    matches!(tag, Tag(0x0008, 0x0100 | 0x0102 | 0x0103 | 0x0104 | 0x0119))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::deid::table::tables;

    fn rules(choices: &[Choice]) -> Rules {
        Rules { tables: tables().unwrap(), choices: choices.iter().fold(Choices::default(), |all, choice| all.with(*choice)) }
    }

    fn place<'a>(top: bool) -> Place<'a> {
        Place { iod: None, top, bare: false, scheme: Scheme::None, defined: None, overlays: 0 }
    }

    fn check(rules: &Rules, tag: (u16, u16), top: bool, action: Action, reason: Reason) {
        let tag = Tag(tag.0, tag.1);
        let decision = rules.decide(tag, rules.vr(tag, VR::UN), &place(top));
        assert_eq!((decision.action, decision.reason), (action, reason), "{tag}");
    }

    #[test]
    fn the_order_of_rules_is_that_of_the_policy() {
        let basic = rules(&[]);
        check(&basic, (0x0002, 0x0003), true, Action::Remove, Reason::Structure);
        check(&basic, (0x0028, 0x0000), true, Action::Remove, Reason::Structure);
        check(&basic, (0x0012, 0x0063), false, Action::Remove, Reason::Structure);
        check(&basic, (0x0010, 0x0010), true, Action::Pseudonym, Reason::Table);
        check(&basic, (0x0010, 0x0010), false, Action::Empty, Reason::Table);
        check(&basic, (0x0010, 0x0020), false, Action::Pseudonym, Reason::Table);
        check(&basic, (0x0008, 0x1030), true, Action::Remove, Reason::Table);
        check(&basic, (0x0020, 0x000D), true, Action::Remap, Reason::Table);
        check(&basic, (0x0029, 0x1010), true, Action::Remove, Reason::Private);
        check(&basic, (0x0028, 0x0030), true, Action::Keep, Reason::HarmlessVr);
        check(&basic, (0x5200, 0x9230), true, Action::Keep, Reason::HarmlessVr);
        check(&basic, (0x0008, 0x0070), true, Action::Keep, Reason::TechnicalText);
        check(&basic, (0x0038, 0x0016), true, Action::Remove, Reason::Text);
        check(&basic, (0x0040, 0xA160), true, Action::Remove, Reason::Text);
        check(&basic, (0x0014, 0x0104), true, Action::Remove, Reason::Text);
        check(&basic, (0x0014, 0x0102), true, Action::Remove, Reason::DateOrUid);
        check(&basic, (0x0008, 0x010C), true, Action::Remap, Reason::DateOrUid);
        check(&basic, (0x0008, 0x9998), true, Action::Remove, Reason::Unknown);
        check(&basic, (0x6000, 0x0010), true, Action::Remove, Reason::Table);
        check(&basic, (0x7FE0, 0x0010), true, Action::Keep, Reason::HarmlessVr);
        check(&basic, (0x7FE0, 0x0010), false, Action::Remove, Reason::Text);
    }

    #[test]
    fn options_lift_the_basic_action_and_cleaning_wins() {
        let check = |choices: &[Choice], tag: (u16, u16), action, otherwise| {
            let rules = rules(choices);
            let tag = Tag(tag.0, tag.1);
            let decision = rules.decide(tag, rules.vr(tag, VR::UN), &place(true));
            assert_eq!((decision.action, decision.otherwise), (action, otherwise), "{tag}");
        };
        check(&[Choice::Uids], (0x0020, 0x000D), Action::Keep, Action::Remap);
        check(&[Choice::Uids], (0x0400, 0x0100), Action::Remap, Action::Remap);
        check(&[Choice::Descriptors], (0x0008, 0x1030), Action::Clean, Action::Remove);
        check(&[Choice::FullDates], (0x0008, 0x0020), Action::Keep, Action::Empty);
        check(&[Choice::FullDates], (0x0010, 0x0030), Action::Empty, Action::Empty);
        // Date of Last Calibration: the device option would keep it, the modified dates move it.
        check(&[Choice::Device], (0x0018, 0x1200), Action::Keep, Action::Remove);
        check(&[Choice::Device, Choice::ModifiedDates], (0x0018, 0x1200), Action::Clean, Action::Remove);
    }

    /// PS3.15 E.1.1 with 1/1C = D, 2/2C = Z, 3 = X, and the strictest valid action where the Type is unknown.
    #[test]
    fn compound_codes_follow_the_type() {
        use Action::{Dummy, Empty, Remap, Remove};
        for (code, actions) in [
            (Code::Zd, [Dummy, Empty, Empty, Dummy]),
            (Code::Xz, [Dummy, Empty, Remove, Empty]),
            (Code::Xd, [Dummy, Empty, Remove, Dummy]),
            (Code::Xzd, [Dummy, Empty, Remove, Dummy]),
            (Code::Xzu, [Remap, Empty, Remove, Remap]),
            (Code::X, [Remove; 4]),
            (Code::D, [Dummy; 4]),
        ] {
            let types = [Some(Type::One), Some(Type::Two), Some(Type::Three), None];
            assert_eq!(types.map(|kind| resolve(code, kind)), actions, "{code:?}");
        }
    }

    /// The dictionary leaves the VR of these open, so the one in the file is all there is.
    #[test]
    fn text_under_the_tag_of_pixels_or_tables_goes() {
        let basic = rules(&[]);
        for tag in [Tag(0x7FE0, 0x0010), Tag(0x0028, 0x3006), Tag(0x0028, 0x3002), Tag(0x0028, 0x0106)] {
            for (vr, action) in [(VR::LO, Action::Remove), (VR::OW, Action::Keep)] {
                let vr = if vr == VR::OW && tag.element() != 0x0010 && tag.element() != 0x3006 { VR::US } else { vr };
                assert_eq!(basic.decide(tag, basic.vr(tag, vr), &place(true)).action, action, "{tag} {vr:?}");
            }
        }
    }
}
