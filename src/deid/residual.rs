//! The last look before anything is released: is there an identifier of the input left in the bytes of the output?
//!
//! Everything that was removed or replaced is remembered while the rules work. Technical texts that hold one of these values lose theirs
//! ([`scrub`]): somebody typed a name where the make of a coil belongs. Then the serialized result, preamble and file meta
//! included, is searched for it in UTF-8, Latin-1 and UTF-16 of both byte orders, without regard to ASCII case. One hit stops the study
//! ([`Kind::ResidualIdentifier`]); the error names the tag that the identifier came from and the tag where it was found, never the value.
//!
//! What counts as an identifier, so that the check does not cry wolf:
//! - **Names**: each value of PN and each of its components of three characters or more.
//! - **Identifiers**: text that Table E.1-1 treats as identity (ids, accession numbers, addresses, institutions, telephone numbers):
//!   four characters with a letter among them, or five digits.
//! - **Dates**: eight digits between 1850 and 2099, and the same date as people write it (`2014-03-10`, `10.03.2014`, `03/10/2014`, ...).
//! - **UIDs** of eight characters or more.
//! - **Other text** that was removed (descriptions, device names, private text): six characters with a letter. It is not searched when
//!   the input carries the same value in an attribute that is kept.
//!
//! Not searched at all: values made of common words only (`HEAD`, `MR`, see `vocabulary`), our own dummies and shifted dates, numbers.
//! A hit must stand alone, between characters that are no letters or digits, unless it is so long (eight characters with a letter, or
//! nine digits) that chance does not produce it. Numbers of up to eight digits are not searched in DS and IS, whose values are numbers,
//! nor in UI; fewer than six bytes are not searched in binary values.

use std::collections::{HashMap, HashSet};

use aho_corasick::{AhoCorasick, MatchKind};
use dicom_core::value::{PrimitiveValue, Value};
use dicom_core::{Tag, VR};
use dicom_object::InMemDicomObject;
use zeroize::Zeroize;

use super::lists::TECHNICAL_TEXTS;
use super::{dates, uids, value, vocabulary};
use crate::error::{Error, Kind, Result, Stage};

/// Gives a dummy to technical texts (see `rules`) that hold an identifier, at every depth; says how many.
///
/// Other kept values are not touched here: an identifier in a coded value or a number is a mistake that somebody should look at.
pub(crate) fn scrub(item: &mut InMemDicomObject, searcher: &Searcher) -> u64 {
    let tags: Vec<Tag> = item.tags().collect();
    let holds_identifier = |primitive: &PrimitiveValue| value::texts(primitive).iter().any(|text| searcher.finds(text));
    let mut count = 0;
    for tag in tags {
        item.update_value(tag, |value| match value {
            Value::Sequence(sequence) => count += sequence.items_mut().iter_mut().map(|item| scrub(item, searcher)).sum::<u64>(),
            Value::Primitive(primitive) if TECHNICAL_TEXTS.contains(&(tag.0, tag.1)) && holds_identifier(primitive) => {
                *primitive = PrimitiveValue::from(value::DUMMY_TEXT);
                count += 1;
            }
            _ => {}
        });
    }
    count
}

/// What sort of identifier a needle is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Sort {
    Name,
    Identifier,
    Date,
    Uid,
    Text,
}

/// Identifiers found on the way in. Overwritten when dropped.
#[derive(Default)]
pub(crate) struct Harvest {
    needles: HashMap<String, (Sort, Tag)>,
    /// Lower-case text values of kept attributes.
    kept: HashSet<String>,
    /// Values that this library made: they prove nothing when they turn up.
    made: HashSet<String>,
}

impl Drop for Harvest {
    fn drop(&mut self) {
        for (mut text, _) in self.needles.drain() {
            text.zeroize();
        }
        for mut text in self.kept.drain() {
            text.zeroize();
        }
    }
}

impl Harvest {
    /// Remembers the values of an element that does not pass as it is. `identity`: Table E.1-1 treats the attribute as identity.
    pub(crate) fn lost(&mut self, tag: Tag, vr: VR, texts: &[String], identity: bool) {
        for text in texts.iter().map(|text| text.trim()).filter(|text| !text.is_empty()) {
            match vr {
                VR::PN => self.lost_name(tag, text),
                VR::UI => self.add(Sort::Uid, tag, text),
                VR::DA | VR::DT => self.lost_date(tag, text, vr),
                // Codes, ages, times and numbers say nothing alone.
                VR::CS | VR::AS | VR::TM | VR::DS | VR::IS => {}
                _ => {
                    for line in text.split(['\r', '\n']) {
                        self.add(if identity { Sort::Identifier } else { Sort::Text }, tag, line.trim());
                    }
                }
            }
        }
    }

    /// Remembers the values of a text element that passes as it is.
    pub(crate) fn kept(&mut self, texts: &[String]) {
        for text in texts {
            let text = text.trim().to_lowercase();
            if !self.kept.contains(&text) {
                self.kept.insert(text);
            }
        }
    }

    /// Remembers a value that this library made.
    pub(crate) fn made(&mut self, text: &str) {
        if !self.made.contains(text) {
            self.made.insert(text.to_owned());
        }
    }

    /// Takes over what another worker found. The lowest tag stands for a value found under several, whatever the order of merging.
    pub(crate) fn merge(&mut self, mut other: Harvest) {
        for (text, found) in other.needles.drain() {
            self.insert(text, found);
        }
        self.kept.extend(other.kept.drain());
        self.made.extend(other.made.drain());
    }

    fn lost_name(&mut self, tag: Tag, name: &str) {
        self.add(Sort::Name, tag, name);
        for component in name.split(['^', '=', ' ', ',']) {
            self.add(Sort::Name, tag, component);
        }
    }

    fn lost_date(&mut self, tag: Tag, text: &str, vr: VR) {
        if dates::is_valid(vr, text) != Some(true) {
            // Whatever stands in a date field without being a date was put there by somebody.
            return self.add(Sort::Identifier, tag, text);
        }
        let local = text.split(['+', '-']).next().unwrap_or_default();
        let plain: String = local.chars().filter(char::is_ascii_digit).collect();
        let (Some(year), Some(month), Some(day)) = (plain.get(..4), plain.get(4..6), plain.get(6..8)) else { return };
        if !("1850".."2100").contains(&year) {
            return;
        }
        for form in [
            format!("{year}{month}{day}"),
            format!("{year}-{month}-{day}"),
            format!("{year}.{month}.{day}"),
            format!("{year}/{month}/{day}"),
            format!("{day}.{month}.{year}"),
            format!("{day}/{month}/{year}"),
            format!("{month}/{day}/{year}"),
        ] {
            self.add(Sort::Date, tag, &form);
        }
    }

    fn add(&mut self, sort: Sort, tag: Tag, text: &str) {
        let (length, digits) = (text.chars().count(), text.bytes().filter(u8::is_ascii_digit).count());
        let letter = text.chars().any(char::is_alphabetic);
        let worth_it = match sort {
            Sort::Name => length >= 3 && (letter || digits >= 5),
            Sort::Identifier => (length >= 4 && letter) || digits >= 5,
            Sort::Date => true,
            Sort::Uid => length >= 8 && !uids::is_registered(text),
            Sort::Text => length >= 6 && letter,
        };
        let generic = match sort {
            Sort::Name => vocabulary::is_common_only(text),
            Sort::Identifier => vocabulary::is_clinical_only(text),
            Sort::Date | Sort::Uid => false,
            Sort::Text => vocabulary::is_generic(text),
        };
        if worth_it && !generic && !is_dummy(text) {
            match self.needles.get_mut(text) {
                Some(known) => *known = (*known).min((sort, tag)),
                None => self.insert(text.to_owned(), (sort, tag)),
            }
        }
    }

    fn insert(&mut self, text: String, found: (Sort, Tag)) {
        let entry = self.needles.entry(text).or_insert(found);
        *entry = (*entry).min(found);
    }
}

fn is_dummy(text: &str) -> bool {
    matches!(text, value::DUMMY_TEXT | value::DUMMY_DATE | value::DUMMY_DATE_TIME)
}

/// One identifier in one encoding.
struct Pattern {
    tag: Tag,
    digits_only: bool,
    /// Long enough to count inside a longer word.
    anywhere: bool,
    is_uid: bool,
    /// Bytes per character unit, and where the ASCII byte of a unit is.
    unit: usize,
    ascii_at: usize,
}

/// All identifiers of a study, ready to be looked for.
pub(crate) struct Searcher {
    automaton: Option<AhoCorasick>,
    patterns: Vec<Pattern>,
}

impl Searcher {
    pub(crate) fn new(harvest: &Harvest) -> Result<Searcher> {
        let mut needles: Vec<(&str, Sort, Tag)> = harvest
            .needles
            .iter()
            .filter(|(text, (sort, _))| {
                !(harvest.made.contains(*text) || *sort == Sort::Text && harvest.kept.contains(&text.to_lowercase()))
            })
            .map(|(text, (sort, tag))| (text.as_str(), *sort, *tag))
            .collect();
        needles.sort_unstable();
        let (mut bytes, mut patterns) = (Vec::new(), Vec::new());
        for (text, sort, tag) in needles {
            let digits_only = text.bytes().all(|byte| byte.is_ascii_digit());
            let length = text.chars().count();
            let anywhere = if digits_only { length >= 9 } else { length >= 8 && sort != Sort::Date && sort != Sort::Uid };
            for (form, unit, ascii_at) in forms(text) {
                bytes.push(form);
                patterns.push(Pattern { tag, digits_only, anywhere, is_uid: sort == Sort::Uid, unit, ascii_at });
            }
        }
        if bytes.is_empty() {
            return Ok(Searcher { automaton: None, patterns });
        }
        let automaton = AhoCorasick::builder().ascii_case_insensitive(true).match_kind(MatchKind::Standard).build(&bytes);
        bytes.iter_mut().for_each(Zeroize::zeroize);
        let automaton =
            automaton.map_err(|_| Error::new(Kind::LimitExceeded, "too many identifiers to search for").at(Stage::Deidentification))?;
        Ok(Searcher { automaton: Some(automaton), patterns })
    }

    /// Whether a text holds an identifier.
    pub(crate) fn finds(&self, text: &str) -> bool {
        let Some(automaton) = &self.automaton else { return false };
        let stands =
            |pattern: &Pattern, hit: aho_corasick::Match| pattern.anywhere || pattern.stands_alone(text.as_bytes(), hit.start(), hit.end());
        automaton
            .find_overlapping_iter(text)
            .any(|hit| self.patterns.get(hit.pattern().as_usize()).is_some_and(|pattern| stands(pattern, hit)))
    }

    /// Searches one serialized instance. `number` is its place in the study.
    pub(crate) fn check(&self, number: usize, file: &[u8]) -> Result<()> {
        let Some(automaton) = &self.automaton else { return Ok(()) };
        let mut spans: Option<Vec<Span>> = None;
        for hit in automaton.find_overlapping_iter(file) {
            let Some(pattern) = self.patterns.get(hit.pattern().as_usize()) else { continue };
            if !pattern.anywhere && !pattern.stands_alone(file, hit.start(), hit.end()) {
                continue;
            }
            // Where the values lie is worked out only once something was found: most instances never need it.
            let spans = spans.get_or_insert_with(|| value_spans(file));
            let span = spans.get(spans.partition_point(|span| span.end <= hit.start())).filter(|span| span.start <= hit.start());
            if pattern.is_explained(hit.end() - hit.start(), span.map(|span| span.vr)) {
                continue;
            }
            let place = span.map_or("the file's structure".to_owned(), |span| span.tag.to_string());
            return Err(Error::new(
                Kind::ResidualIdentifier,
                format!("a value of {} of the input stands in {place} of instance {number}", pattern.tag),
            ));
        }
        Ok(())
    }
}

impl Pattern {
    fn stands_alone(&self, file: &[u8], start: usize, end: usize) -> bool {
        let part_of_word = |at: Option<usize>| {
            let Some(unit) = at.and_then(|at| file.get(at..at + self.unit)) else { return false };
            let byte = unit.get(self.ascii_at).copied().unwrap_or(0);
            let is_ascii = self.unit == 1 || unit.get(1 - self.ascii_at) == Some(&0);
            is_ascii && (byte.is_ascii_alphanumeric() || (self.unit == 1 && byte >= 0x80) || (self.is_uid && byte == b'.'))
        };
        !part_of_word(start.checked_sub(self.unit)) && !part_of_word(Some(end))
    }

    /// Whether a hit in a value of this VR is what numbers look like.
    fn is_explained(&self, length: usize, vr: Option<VR>) -> bool {
        let short_number = self.digits_only && length <= 8;
        match vr {
            Some(VR::DS | VR::IS) => short_number,
            Some(VR::UI) => self.digits_only,
            Some(vr) if !value::is_text(vr) => length < 6,
            _ => false,
        }
    }
}

/// The encodings of a text, each once: bytes, bytes per unit, index of the ASCII byte in a unit.
fn forms(text: &str) -> Vec<(Vec<u8>, usize, usize)> {
    let mut forms = vec![(text.as_bytes().to_vec(), 1, 0)];
    if !text.is_ascii() {
        // Case folding of the search is ASCII's; the two usual cases of other letters are searched separately.
        for variant in [text.to_uppercase(), text.to_lowercase()] {
            if variant != text {
                forms.push((variant.into_bytes(), 1, 0));
            }
        }
        let latin: Option<Vec<u8>> = text.chars().map(|letter| u8::try_from(u32::from(letter)).ok()).collect();
        forms.extend(latin.map(|bytes| (bytes, 1, 0)));
    }
    forms.push((text.encode_utf16().flat_map(u16::to_le_bytes).collect(), 2, 0));
    forms.push((text.encode_utf16().flat_map(u16::to_be_bytes).collect(), 2, 1));
    forms
}

/// Where the value of an element lies in a file.
struct Span {
    start: usize,
    end: usize,
    tag: Tag,
    vr: VR,
}

/// The values of a file in explicit VR, little endian, in order. Stops where it cannot go on: what is not covered counts as text.
fn value_spans(file: &[u8]) -> Vec<Span> {
    let mut spans = Vec::new();
    // Preamble and magic (PS3.10 7.1).
    let mut at = 132;
    while let Some(head) = file.get(at..at + 8) {
        let half = |index: usize| u16::from_le_bytes([head[index], head[index + 1]]);
        let tag = Tag(half(0), half(2));
        if tag.group() == 0xFFFE {
            at += 8;
            continue;
        }
        let Some(vr) = VR::from_binary([head[4], head[5]]) else { break };
        // PS3.5 7.1.2: these VRs have two reserved bytes and a length of four.
        let long = matches!(
            vr,
            VR::OB | VR::OD | VR::OF | VR::OL | VR::OV | VR::OW | VR::SQ | VR::SV | VR::UC | VR::UN | VR::UR | VR::UT | VR::UV
        );
        let (start, length) = if long {
            let Some(length) = file.get(at + 8..at + 12) else { break };
            (at + 12, u32::from_le_bytes([length[0], length[1], length[2], length[3]]))
        } else {
            (at + 8, u32::from(half(6)))
        };
        at = start;
        if vr != VR::SQ && length != u32::MAX {
            let Some(end) = usize::try_from(length).ok().and_then(|length| start.checked_add(length)) else { break };
            spans.push(Span { start, end, tag, vr });
            at = end;
        }
    }
    spans
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAME: Tag = Tag(0x0010, 0x0010);

    /// A file with one element, by PS3.10 7.1 and PS3.5 7.1.2.
    fn file(tag: (u16, u16), vr: &str, value: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0; 128];
        bytes.extend(b"DICM");
        for half in [tag.0, tag.1] {
            bytes.extend(half.to_le_bytes());
        }
        bytes.extend(vr.as_bytes());
        if ["OB", "UT", "UN"].contains(&vr) {
            bytes.extend([0, 0]);
            bytes.extend((value.len() as u32).to_le_bytes());
        } else {
            bytes.extend((value.len() as u16).to_le_bytes());
        }
        bytes.extend(value);
        bytes
    }

    fn check(vr: VR, lost: &str, identity: bool, file: &[u8], hit: bool) {
        let mut harvest = Harvest::default();
        harvest.lost(NAME, vr, &[lost.to_owned()], identity);
        let result = Searcher::new(&harvest).unwrap().check(3, file);
        assert_eq!(result.is_err(), hit, "{lost}");
        if let Err(error) = result {
            assert_eq!(error.kind(), Kind::ResidualIdentifier);
            assert!(error.to_string().contains("(0010,0010)"), "{error}");
            assert!(!error.to_string().to_lowercase().contains(&lost.to_lowercase()), "{error}");
        }
    }

    #[test]
    fn a_name_is_found_in_every_encoding() {
        let utf16 = |text: &str, little: bool| -> Vec<u8> {
            text.encode_utf16().flat_map(|unit| if little { unit.to_le_bytes() } else { unit.to_be_bytes() }).collect()
        };
        check(VR::PN, "Müller^Änne", true, &file((0x0008, 0x0070), "LO", "by Müller".as_bytes()), true);
        check(VR::PN, "Müller^Änne", true, &file((0x0008, 0x0070), "LO", "MÜLLER".as_bytes()), true);
        check(VR::PN, "Müller^Änne", true, &file((0x0008, 0x0070), "LO", b"by M\xFCller"), true);
        check(VR::PN, "Smith^John", true, &file((0x0009, 0x1001), "OB", &utf16("John", true)), true);
        check(VR::PN, "Smith^John", true, &file((0x0009, 0x1001), "OB", &utf16("x John", false)), true);
        check(VR::PN, "Smith^John", true, &file((0x0008, 0x0070), "LO", b"JOHN-1"), true);
        check(VR::PN, "Smith^John", true, &file((0x0008, 0x0070), "LO", b"Johnson"), false);
        check(VR::PN, "Smith^Li", true, &file((0x0008, 0x0070), "LO", b"Li"), false);
    }

    #[test]
    fn identifiers_dates_and_uids_are_found() {
        let text = |value: &[u8]| file((0x0008, 0x0070), "LO", value);
        check(VR::LO, "MRN12345", true, &text(b"xMRN12345y"), true);
        check(VR::LO, "12345", true, &text(b"id 12345"), true);
        check(VR::LO, "12345", true, &text(b"id 123456"), false);
        check(VR::LO, "1234", true, &text(b"id 1234"), false);
        check(VR::DA, "20140310", true, &text(b"of 20140310"), true);
        check(VR::DA, "20140310", true, &text(b"of 2014-03-10"), true);
        check(VR::DA, "20140310", true, &text(b"of 10.03.2014"), true);
        check(VR::DT, "20140310101530", true, &text(b"of 03/10/2014"), true);
        check(VR::DA, "not a date", true, &text(b"not a date"), true);
        check(VR::UI, "1.2.3.4.5", true, &text(b"1.2.3.4.5"), true);
        check(VR::UI, "1.2.3.4.5", true, &text(b"1.2.3.4.5.6"), false);
        check(VR::UI, "1.2.840.10008.1.2", true, &text(b"1.2.840.10008.1.2"), false);
    }

    #[test]
    fn a_hit_in_preamble_or_header_counts() {
        let mut bytes = file((0x0008, 0x0070), "LO", b"x ");
        bytes[10..15].copy_from_slice(b"SMITH");
        check(VR::PN, "Smith^John", true, &bytes, true);
    }

    #[test]
    fn numbers_and_common_words_are_no_identifiers() {
        check(VR::LO, "12345", true, &file((0x0018, 0x0080), "DS", b"12345 "), false);
        check(VR::LO, "123456789", true, &file((0x0018, 0x0080), "DS", b"123456789 "), true);
        check(VR::LO, "12345", true, &file((0x0009, 0x1001), "OB", b"x12345x "), false);
        check(VR::LO, "AB12", true, &file((0x0009, 0x1001), "OB", b" AB12 "), false);
        check(VR::PN, "Brain^Head", true, &file((0x0018, 0x0015), "CS", b"BRAIN "), false);
        check(VR::LO, "ANONYMIZED", true, &file((0x0008, 0x0080), "LO", b"ANONYMIZED"), false);
    }

    #[test]
    fn a_description_that_is_kept_elsewhere_proves_nothing() {
        let bytes = file((0x0018, 0x0024), "SH", b"zz_xyzzy");
        let search = |kept: &[&str]| {
            let mut harvest = Harvest::default();
            harvest.lost(Tag(0x0018, 0x1030), VR::LO, &["ZZ_Xyzzy".to_owned()], false);
            harvest.kept(&kept.iter().map(|text| text.to_string()).collect::<Vec<_>>());
            Searcher::new(&harvest).unwrap().check(0, &bytes)
        };
        assert!(search(&[]).is_err());
        assert!(search(&["zz_XYZZY "]).is_ok());
    }
}
