//! The rules carried out: one worker walks one instance, every item at every depth, and builds a new data set from what may stay.
//!
//! The output is built up from nothing rather than cut down from the input: an element gets into it by a decision, never by being
//! overlooked. What does not pass is remembered for the residual check while it is taken apart.

use std::collections::{HashMap, HashSet};

use dicom_core::header::{Header, Length};
use dicom_core::value::{DataSetSequence, PrimitiveValue, Value};
use dicom_core::{DataElement, Tag, VR};
use dicom_object::InMemDicomObject;
use dicom_object::mem::InMemElement;

use super::dates::Shift;
use super::mapping::Mapping;
use super::pseudonym::{Patient, ae_title};
use super::report::{Done, Report};
use super::residual::Harvest;
use super::rules::{Action, Decision, Place, Reason, Rules, overlay_bit};
use super::structured::{Verdict, judge, scheme_of};
use super::table::{Choice, Relief};
use super::value::{self, ElementValue, conform, is_empty, is_text, is_valid, text_value, texts};
use super::{dates, private, uids, vocabulary};
use crate::error::{Error, Kind, Result, Stage};

/// Depth of sequences that the walk follows. The scan of the input has a limit of its own; this one also covers what UN hides.
const MAX_DEPTH: usize = 64;

/// What one study has in common.
pub(crate) struct Study<'a> {
    pub(crate) rules: &'a Rules,
    pub(crate) key: &'a [u8; 32],
    pub(crate) pseudonym: &'a str,
    pub(crate) shift: Shift,
    /// Lower-case components of every name in the study: words that a cleaned text must not keep.
    pub(crate) names: &'a HashSet<String>,
    pub(crate) keeps_mapping: bool,
}

/// Walks instances, one after the other.
pub(crate) struct Worker<'a> {
    pub(crate) study: &'a Study<'a>,
    pub(crate) report: Report,
    pub(crate) harvest: Harvest,
    pub(crate) mapping: Option<Mapping>,
}

impl<'a> Worker<'a> {
    pub(crate) fn new(study: &'a Study<'a>) -> Worker<'a> {
        Worker { study, report: Report::default(), harvest: Harvest::default(), mapping: study.keeps_mapping.then(Mapping::default) }
    }

    /// The de-identified data set of an instance.
    pub(crate) fn instance(&mut self, dataset: InMemDicomObject, place: Place<'_>) -> Result<InMemDicomObject> {
        self.item(dataset, place, Inside::default(), MAX_DEPTH)
    }

    fn item(&mut self, item: InMemDicomObject, mut place: Place<'_>, inside: Inside, depth: usize) -> Result<InMemDicomObject> {
        let depth = depth.checked_sub(1).ok_or_else(too_deep)?;
        let creators: HashMap<Tag, String> = item
            .iter()
            .filter(|element| private::is_creator(element.tag()))
            .filter_map(|element| Some((element.tag(), texts(element.value().primitive()?).first()?.trim().to_owned())))
            .collect();
        place.scheme = scheme_of(&item);
        place.overlays = self.overlays_of_interest(&item);
        let issuer = item.get(Tag(0x0010, 0x0021)).and_then(|element| texts(element.value().primitive()?).into_iter().next());
        let issuer = issuer.unwrap_or_default();
        let (mut output, mut used) = (InMemDicomObject::new_empty(), HashSet::new());
        for element in item {
            let tag = element.tag();
            if private::is_creator(tag) {
                // A creator is no value of its own: it is put back below if anything in its block stays.
                continue;
            }
            let creator = private::creator_of(tag).filter(|_| tag.group() % 2 == 1);
            if let Some(kept) = self.element(element, &place, inside, creator.and_then(|tag| creators.get(&tag)), &issuer, depth)? {
                used.extend(creator);
                output.put(kept);
            }
        }
        for (tag, name) in creators {
            if used.contains(&tag) {
                output.put(DataElement::new(tag, VR::LO, PrimitiveValue::from(name.as_str())));
            } else {
                self.report.count(Done::Removed, Reason::Private);
            }
        }
        Ok(output)
    }

    fn element(
        &mut self,
        element: InMemElement,
        place: &Place<'_>,
        inside: Inside,
        creator: Option<&String>,
        issuer: &str,
        depth: usize,
    ) -> Result<Option<InMemElement>> {
        let rules = self.study.rules;
        let (tag, found) = (element.tag(), element.vr());
        let (mut decision, ought) = if tag.group() % 2 == 1 {
            private::decide(rules, tag, found, creator.map(String::as_str))
        } else {
            let ought = rules.vr(tag, found);
            (rules.decide(tag, ought, place), ought)
        };
        if let (Some(relief), Tag(0x0040, 0xA160)) = (inside.text, tag) {
            let action = if relief == Relief::Keep { Action::Keep } else { Action::Clean };
            decision = Decision { action, otherwise: Action::Remove, reason: Reason::Content };
        }
        let value = element.into_value();
        let reason = decision.reason;
        if decision.action == Action::Remove {
            self.lose(tag, ought, &value, place, depth)?;
            self.report.count(Done::Removed, reason);
            return Ok(None);
        }
        if is_text(found) && !is_text(ought) {
            self.lose(tag, found, &value, place, depth)?;
        }
        let Some((vr, value)) = conform(ought, found, value) else {
            // It is not what its tag promises, so the tag's rule says nothing about it.
            self.report.count(Done::Removed, Reason::Invalid);
            return Ok(None);
        };
        if is_empty(&value) {
            self.report.count(Done::Kept, reason);
            return Ok(Some(DataElement::new(tag, vr, empty(vr))));
        }
        let mut at = At { tag, vr, place, inside, issuer, depth, reason };
        if let Some(kept) = self.apply(decision.action, &at, &value)? {
            return Ok(Some(DataElement::new(tag, vr, kept)));
        }
        // The value was not what the action needs: the action beneath holds, and that one needs nothing.
        at.reason = Reason::Invalid;
        let otherwise = if decision.otherwise == decision.action { Action::Remove } else { decision.otherwise };
        match self.apply(otherwise, &at, &value)? {
            Some(kept) => Ok(Some(DataElement::new(tag, vr, kept))),
            None => {
                self.lose(tag, vr, &value, place, depth)?;
                self.report.count(Done::Removed, at.reason);
                Ok(None)
            }
        }
    }

    /// The value after an action; `None` when the action cannot be carried out on it, or is to remove.
    fn apply(&mut self, action: Action, at: &At<'_>, value: &ElementValue) -> Result<Option<ElementValue>> {
        let At { tag, vr, place, inside, issuer, depth, reason } = *at;
        let kept = match (action, value) {
            (Action::Remove, _) => return Ok(None),
            (Action::Empty, _) => {
                self.lose(tag, vr, value, place, depth)?;
                self.report.count(Done::Emptied, reason);
                return Ok(Some(empty(vr)));
            }
            (Action::Dummy, Value::Sequence(sequence)) => {
                self.lose(tag, vr, value, place, depth)?;
                self.report.count(Done::Replaced, reason);
                return Ok(Some(self.dummy_sequence(sequence.items(), place, depth)?));
            }
            (Action::Dummy, _) => {
                self.lose(tag, vr, value, place, depth)?;
                self.report.count(Done::Replaced, reason);
                return Ok(Some(Value::Primitive(value::dummy(vr))));
            }
            (Action::Keep | Action::Clean | Action::Remap, Value::Sequence(sequence)) => {
                // PS3.15 E.1.1: K and C of a sequence clean what is inside. Table E.3.4-1 speaks where its option has marked the sequence.
                let marked = self.study.rules.choices.has(Choice::Structured)
                    && self.study.rules.tables.row(tag).is_some_and(|row| row.relief(Choice::Structured).is_some());
                let structured = inside.structured || marked;
                Some(self.sequence(sequence.items(), place, structured, depth)?)
            }
            // Compressed frames are no part of a data set that is written uncompressed.
            (_, Value::PixelSequence(_)) => None,
            (Action::Keep, Value::Primitive(primitive)) => self.keep(vr, primitive),
            (Action::Remap, Value::Primitive(primitive)) => return Ok(self.remap(at, primitive)),
            (Action::Pseudonym, Value::Primitive(primitive)) => {
                let text = match (place.top, texts(primitive).first()) {
                    (true, _) => self.study.pseudonym.to_owned(),
                    (false, Some(id)) => Patient::new(issuer, id)?.pseudonym(self.study.key),
                    (false, None) => return Ok(None),
                };
                self.harvest.lost(tag, vr, &texts(primitive), true);
                self.harvest.made(&text);
                if let (Some(mapping), Tag(0x0010, 0x0020), Some(id)) = (&mut self.mapping, tag, texts(primitive).first()) {
                    mapping.patient(id, &text);
                }
                self.report.count(Done::Replaced, reason);
                return Ok(Some(text_value(vr, vec![text])));
            }
            (Action::Clean, Value::Primitive(primitive)) => return Ok(self.clean(at, primitive)),
            (Action::Pseudonym, Value::Sequence(_)) => None,
        };
        if kept.is_some() {
            self.report.count(Done::Kept, reason);
        }
        Ok(kept)
    }

    fn keep(&mut self, vr: VR, primitive: &PrimitiveValue) -> Option<ElementValue> {
        if !is_text(vr) {
            return Some(Value::Primitive(primitive.clone()));
        }
        let mut texts = texts(primitive);
        if !is_valid(vr, &texts) {
            return None;
        }
        if vr == VR::AS {
            texts = texts.iter().map(|text| dates::release_age(text)).collect::<Option<_>>()?;
        }
        self.harvest.kept(&texts);
        // Padding inside a value is the writer's business; the values themselves are those of the input.
        Some(text_value(vr, texts))
    }

    fn remap(&mut self, at: &At<'_>, primitive: &PrimitiveValue) -> Option<ElementValue> {
        let At { tag, vr, reason, .. } = *at;
        if vr != VR::UI {
            return None;
        }
        let old = texts(primitive);
        let new: Vec<String> = old.iter().map(|uid| uids::remap(self.study.key, uid)).collect();
        for (old, new) in old.iter().zip(&new) {
            if old != new {
                self.harvest.lost(tag, vr, std::slice::from_ref(old), true);
                self.harvest.made(new);
                if let Some(mapping) = &mut self.mapping {
                    mapping.uid(old, new);
                }
                self.report.count(Done::Remapped, reason);
            }
        }
        Some(text_value(vr, new))
    }

    /// C: what can be recognised as harmless. `None` when there is nothing of that kind.
    fn clean(&mut self, at: &At<'_>, primitive: &PrimitiveValue) -> Option<ElementValue> {
        let At { tag, vr, reason, .. } = *at;
        let old = texts(primitive);
        let new: Vec<String> = match vr {
            VR::DA | VR::DT | VR::TM => old.iter().map(|text| self.study.shift.apply(vr, text)).collect::<Option<_>>()?,
            // An AE title names a machine: another one stands for it, the same one each time.
            VR::AE => old.iter().map(|title| ae_title(self.study.key, title)).collect(),
            // Timezone Offset From UTC: a date moved by whole weeks needs the zone it had.
            VR::SH if tag == Tag(0x0008, 0x0201) => old.iter().map(|zone| is_zone(zone).then(|| zone.clone())).collect::<Option<_>>()?,
            // Reason for the Attribute Modification has two defined terms (PS3.3 C.12.1.1.9).
            VR::CS => old.iter().map(|term| matches!(term.as_str(), "COERCE" | "CORRECT").then(|| term.clone())).collect::<Option<_>>()?,
            VR::OW | VR::OB if tag.element() == 0x3000 && matches!(tag.group(), 0x6000..=0x60FF) => {
                // Only the bitmap of a region of interest gets this far (see `overlays_of_interest`).
                self.report.count(Done::Kept, reason);
                return Some(Value::Primitive(primitive.clone()));
            }
            _ if is_text(vr) && vr != VR::PN && vr != VR::UI => {
                let cleaned: Vec<String> = old.iter().filter_map(|text| vocabulary::clean(text, self.study.names)).collect();
                if cleaned.is_empty() {
                    return None;
                }
                cleaned
            }
            _ => return None,
        };
        if new == old {
            self.harvest.kept(&new);
        } else {
            self.harvest.lost(tag, vr, &old, false);
            new.iter().for_each(|text| self.harvest.made(text));
        }
        self.report.count(if matches!(vr, VR::DA | VR::DT | VR::TM) { Done::Shifted } else { Done::Cleaned }, reason);
        Some(text_value(vr, new))
    }

    fn sequence(&mut self, items: &[InMemDicomObject], place: &Place<'_>, structured: bool, depth: usize) -> Result<ElementValue> {
        let mut kept = Vec::with_capacity(items.len());
        for item in items {
            let verdict = if structured { judge(self.study.rules, item) } else { Verdict::Admit };
            let text = match verdict {
                Verdict::Drop => {
                    self.lose_item(item, place, depth)?;
                    self.report.count(Done::Removed, Reason::Content);
                    continue;
                }
                Verdict::Admit => None,
                Verdict::AdmitText(relief) => Some(relief),
            };
            kept.push(self.item(item.clone(), nested(place, place.bare), Inside { structured, text }, depth)?);
        }
        Ok(Value::Sequence(DataSetSequence::new(kept, Length::UNDEFINED)))
    }

    /// D of a sequence: one item. A code becomes a code that says so; anything else keeps its skeleton of references and dummies.
    fn dummy_sequence(&mut self, items: &[InMemDicomObject], place: &Place<'_>, depth: usize) -> Result<ElementValue> {
        let is_code = |item: &InMemDicomObject| scheme_of(item) != super::rules::Scheme::None;
        let item = match items.first() {
            Some(item) if !is_code(item) => self.item(item.clone(), nested(place, true), Inside::default(), depth)?,
            _ => InMemDicomObject::from_element_iter(
                [(0x0100, VR::SH, "ANON"), (0x0102, VR::SH, "99SMP"), (0x0104, VR::LO, value::DUMMY_TEXT)]
                    .map(|(element, vr, text)| DataElement::new(Tag(0x0008, element), vr, PrimitiveValue::from(text))),
            ),
        };
        Ok(Value::Sequence(DataSetSequence::new(vec![item], Length::UNDEFINED)))
    }

    /// Overlays that are regions of interest (PS3.3 C.9.2.1: Type R) and may stay under Clean Graphics; the others can be handwriting.
    fn overlays_of_interest(&self, item: &InMemDicomObject) -> u128 {
        if !self.study.rules.choices.has(Choice::Graphics) {
            return 0;
        }
        let is_region = |group: &u16| {
            item.get(Tag(*group, 0x0040)).and_then(|element| element.value().primitive()).is_some_and(|value| texts(value) == ["R"])
        };
        (0x6000..=0x60FE).step_by(2).filter(is_region).fold(0, |mask, group| mask | overlay_bit(group))
    }

    /// Remembers what a value held that does not pass.
    fn lose(&mut self, tag: Tag, vr: VR, value: &ElementValue, place: &Place<'_>, depth: usize) -> Result<()> {
        match value {
            Value::Primitive(primitive) if is_text(vr) => self.harvest.lost(tag, vr, &texts(primitive), self.is_identity(tag)),
            Value::Sequence(sequence) => {
                for item in sequence.items() {
                    self.lose_item(item, place, depth)?;
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// Remembers the values in a removed item that would not have passed either. What would have passed is no identifier.
    fn lose_item(&mut self, item: &InMemDicomObject, place: &Place<'_>, depth: usize) -> Result<()> {
        let depth = depth.checked_sub(1).ok_or_else(too_deep)?;
        let mut place = nested(place, false);
        place.scheme = scheme_of(item);
        for element in item {
            let (tag, vr) = (element.tag(), self.study.rules.vr(element.tag(), element.vr()));
            let is_sequence = matches!(element.value(), Value::Sequence(_));
            if private::is_creator(tag) {
                continue;
            }
            if is_sequence || self.study.rules.decide(tag, vr, &place).action != Action::Keep {
                self.lose(tag, vr, element.value(), &place, depth)?;
            }
        }
        Ok(())
    }

    /// Whether the table treats a text as identity: it has a row, and neither descriptors nor devices are what the row is about.
    fn is_identity(&self, tag: Tag) -> bool {
        let row = self.study.rules.tables.row(tag);
        tag.group().is_multiple_of(2)
            && row.is_some_and(|row| row.relief(Choice::Descriptors).is_none() && row.relief(Choice::Device).is_none())
    }
}

/// An element that is decided on: what it is, where it stands, and why something is done to it.
#[derive(Clone, Copy)]
struct At<'a> {
    tag: Tag,
    vr: VR,
    place: &'a Place<'a>,
    inside: Inside,
    issuer: &'a str,
    depth: usize,
    reason: Reason,
}

/// What an item inherits from the cleaned sequence around it.
#[derive(Clone, Copy, Default)]
struct Inside {
    /// Items are judged by concept name.
    structured: bool,
    /// What an option makes of the text value of this content item.
    text: Option<Relief>,
}

fn nested<'a>(place: &Place<'a>, bare: bool) -> Place<'a> {
    Place { iod: None, top: false, bare, ..*place }
}

fn too_deep() -> Error {
    Error::new(Kind::DicomHostile, format!("sequences nested deeper than {MAX_DEPTH}")).at(Stage::Deidentification)
}

fn empty(vr: VR) -> ElementValue {
    if vr == VR::SQ {
        Value::Sequence(DataSetSequence::new(Vec::new(), Length::UNDEFINED))
    } else {
        Value::Primitive(PrimitiveValue::Empty)
    }
}

/// `+0100` (PS3.3 C.12.1.1.8).
fn is_zone(text: &str) -> bool {
    text.len() == 5 && text.starts_with(['+', '-']) && text.bytes().skip(1).all(|byte| byte.is_ascii_digit())
}
