//! The tables of PS3.15 Annex E as data: what the standard says, and nothing that we decided.
//!
//! Four files in `tables/` are compiled in and parsed once: Table E.1-1 (an action per attribute and option), Table E.3.10-1 (private
//! attributes that vendors call safe), Table E.3.4-1 (concept names of structured content) and the attribute Types per IOD that
//! decide between the letters of a compound code. Each file carries its provenance; the tests compare a digest of Table E.1-1 with
//! one computed from the reference copy by another program.

use std::collections::{BTreeMap, HashMap};
use std::sync::OnceLock;

use dicom_core::{Tag, VR};
use serde::Deserialize;

use crate::error::{Error, Kind, Result};

/// The ten options, in the order of the table's columns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Choice {
    SafePrivate,
    Uids,
    Device,
    Institution,
    Patient,
    FullDates,
    ModifiedDates,
    Descriptors,
    Structured,
    Graphics,
}

impl Choice {
    pub(crate) const ALL: [Choice; 10] = [
        Choice::SafePrivate,
        Choice::Uids,
        Choice::Device,
        Choice::Institution,
        Choice::Patient,
        Choice::FullDates,
        Choice::ModifiedDates,
        Choice::Descriptors,
        Choice::Structured,
        Choice::Graphics,
    ];

    /// The name that configuration, tables and CID 7050 entries share.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Choice::SafePrivate => "retain_safe_private",
            Choice::Uids => "retain_uids",
            Choice::Device => "retain_device_identity",
            Choice::Institution => "retain_institution_identity",
            Choice::Patient => "retain_patient_characteristics",
            Choice::FullDates => "retain_longitudinal_full_dates",
            Choice::ModifiedDates => "retain_longitudinal_modified_dates",
            Choice::Descriptors => "clean_descriptors",
            Choice::Structured => "clean_structured_content",
            Choice::Graphics => "clean_graphics",
        }
    }

    pub(crate) fn from_name(name: &str) -> Option<Choice> {
        Choice::ALL.into_iter().find(|choice| choice.name() == name)
    }
}

/// A code of the Basic Profile column (PS3.15 E.1.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Code {
    /// Dummy of the same VR.
    D,
    /// Zero length.
    Z,
    /// Remove.
    X,
    /// New UID.
    U,
    /// Z unless the Type demands D.
    Zd,
    /// X unless the Type demands Z.
    Xz,
    /// X unless the Type demands D.
    Xd,
    /// X unless the Type demands Z or D.
    Xzd,
    /// X unless the Type demands Z, or the sequence with new UIDs inside.
    Xzu,
}

impl Code {
    fn parse(text: &str) -> Option<Code> {
        Some(match text {
            "D" => Code::D,
            "Z" => Code::Z,
            "X" => Code::X,
            "U" => Code::U,
            "Z/D" => Code::Zd,
            "X/Z" => Code::Xz,
            "X/D" => Code::Xd,
            "X/Z/D" => Code::Xzd,
            "X/Z/U*" => Code::Xzu,
            _ => return None,
        })
    }
}

/// What an option makes of an attribute.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Relief {
    /// K: the value stays; sequences are still cleaned inside.
    Keep,
    /// C: the value is cleaned.
    Clean,
}

/// One row of Table E.1-1.
pub(crate) struct Row {
    /// Eight hexadecimal digits, or a pattern with `x`, or `PRIVATE`.
    pub(crate) id: String,
    pub(crate) name: String,
    /// The VR of the table's own dictionary, for tags that ours may be too old to know.
    pub(crate) vr: Option<VR>,
    pub(crate) basic: Code,
    reliefs: [Option<Relief>; 10],
}

impl Row {
    pub(crate) fn relief(&self, choice: Choice) -> Option<Relief> {
        self.reliefs.get(choice as usize).copied().flatten()
    }
}

/// Attribute Type, PS3.5 7.4, with the conditional ones counted as their strict kin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Type {
    One,
    Two,
    Three,
}

/// The Types of one IOD's top-level attributes, as far as Table E.1-1 has a compound code for them.
pub(crate) struct Iod {
    pub(crate) name: String,
    types: HashMap<Tag, Type>,
}

impl Iod {
    /// An attribute that the IOD does not define belongs to a Standard Extended SOP Class and is Type 3 there (PS3.2 7.3).
    pub(crate) fn kind(&self, tag: Tag) -> Type {
        self.types.get(&tag).copied().unwrap_or(Type::Three)
    }
}

/// One row of Table E.3.4-1: what happens to a content item with this concept name.
pub(crate) struct Concept {
    pub(crate) basic: Code,
    pub(crate) reliefs: Vec<(Choice, Relief)>,
}

/// A code of CID 7050, De-identification Method.
pub(crate) struct MethodCode {
    pub(crate) key: String,
    pub(crate) value: String,
    pub(crate) meaning: String,
}

/// Creators and VRs by group and low byte of the element.
type SafePrivate = HashMap<(u16, u8), Vec<(String, Option<VR>)>>;

/// All tables.
pub(crate) struct Tables {
    /// Edition of the standard, e.g. `2026d`.
    pub(crate) edition: String,
    pub(crate) rows: Vec<Row>,
    by_tag: HashMap<Tag, usize>,
    curves: usize,
    overlay_data: usize,
    overlay_comments: usize,
    pub(crate) codes: Vec<MethodCode>,
    safe_private: SafePrivate,
    concepts: HashMap<(String, String), Concept>,
    iods: Vec<Iod>,
    sop_classes: HashMap<String, usize>,
}

impl Tables {
    /// The row of Table E.1-1 that covers a tag; repeating groups 50xx and 60xx have three rows between them.
    pub(crate) fn row(&self, tag: Tag) -> Option<&Row> {
        let index = match (tag.group(), tag.element()) {
            (0x5000..=0x50FF, _) if tag.group().is_multiple_of(2) => self.curves,
            (0x6000..=0x60FF, 0x3000) if tag.group().is_multiple_of(2) => self.overlay_data,
            (0x6000..=0x60FF, 0x4000) if tag.group().is_multiple_of(2) => self.overlay_comments,
            _ => *self.by_tag.get(&tag)?,
        };
        self.rows.get(index)
    }

    /// Whether Table E.3.10-1 lists a private attribute, and with which VR. `Some(None)`: listed without VR.
    pub(crate) fn safe_private(&self, tag: Tag, creator: &str) -> Option<Option<VR>> {
        // The low byte of the element names the attribute, the high byte is the block that the creator happened to reserve.
        let key = (tag.group(), (tag.element() & 0xFF) as u8);
        self.safe_private.get(&key)?.iter().find(|(name, _)| name == creator).map(|(_, vr)| *vr)
    }

    /// The row of Table E.3.4-1 for a concept name.
    pub(crate) fn concept(&self, scheme: &str, code: &str) -> Option<&Concept> {
        self.concepts.get(&(scheme.to_owned(), code.to_owned()))
    }

    /// The IOD of a SOP class, when its Types are known.
    pub(crate) fn iod(&self, sop_class: &str) -> Option<&Iod> {
        self.iods.get(*self.sop_classes.get(sop_class)?)
    }

    /// The code of CID 7050 for `basic` or for an option's name.
    pub(crate) fn code(&self, key: &str) -> Option<&MethodCode> {
        self.codes.iter().find(|code| code.key == key)
    }
}

/// The tables, parsed on first use.
pub(crate) fn tables() -> Result<&'static Tables> {
    static TABLES: OnceLock<Option<Tables>> = OnceLock::new();
    TABLES.get_or_init(parse).as_ref().ok_or_else(|| Error::new(Kind::Internal, "the tables of PS3.15 Annex E do not parse"))
}

/// Eight hexadecimal digits to a tag.
pub(crate) fn tag_of(id: &str) -> Option<Tag> {
    if id.len() != 8 {
        return None;
    }
    let number = u32::from_str_radix(id, 16).ok()?;
    Some(Tag((number >> 16) as u16, (number & 0xFFFF) as u16))
}

#[derive(Deserialize)]
struct Provenance {
    edition: String,
}
/// Id, keyword, name, VR, Basic Profile code, letters by option.
type AttributeRow = (String, String, String, String, String, BTreeMap<String, String>);
#[derive(Deserialize)]
struct AttributeFile {
    provenance: Provenance,
    options: Vec<String>,
    cid_7050: Vec<(String, String, String)>,
    rows: Vec<AttributeRow>,
}
#[derive(Deserialize)]
struct PrivateFile {
    rows: Vec<(String, String, String)>,
}
#[derive(Deserialize)]
struct ConceptFile {
    rows: Vec<(String, String, String, BTreeMap<String, String>)>,
}
#[derive(Deserialize)]
struct IodFile {
    sop_classes: Vec<(String, String)>,
    rows: Vec<(String, String, String)>,
}

fn parse() -> Option<Tables> {
    let file: AttributeFile = serde_json::from_str(include_str!("tables/e1-1.json")).ok()?;
    if !file.options.iter().map(String::as_str).eq(Choice::ALL.map(Choice::name)) {
        return None;
    }
    let (mut rows, mut by_tag) = (Vec::with_capacity(file.rows.len()), HashMap::new());
    for (id, _keyword, name, vr, basic, options) in file.rows {
        let mut reliefs = [None; 10];
        for (option, letter) in options {
            *reliefs.get_mut(Choice::from_name(&option)? as usize)? = Some(relief(&letter)?);
        }
        if let Some(tag) = tag_of(&id) {
            by_tag.insert(tag, rows.len());
        }
        rows.push(Row { id, name, vr: vr.parse().ok(), basic: Code::parse(&basic)?, reliefs });
    }
    let find = |id: &str| rows.iter().position(|row: &Row| row.id == id);
    let (curves, overlay_data, overlay_comments) = (find("50xxxxxx")?, find("60xx3000")?, find("60xx4000")?);
    let codes = file.cid_7050.into_iter().map(|(key, value, meaning)| MethodCode { key, value, meaning }).collect();
    let (iods, sop_classes) = parse_iods()?;
    let edition = file.provenance.edition;
    let (safe_private, concepts) = (parse_private()?, parse_concepts()?);
    Some(Tables { edition, rows, by_tag, curves, overlay_data, overlay_comments, codes, safe_private, concepts, iods, sop_classes })
}

fn relief(letter: &str) -> Option<Relief> {
    match letter {
        "K" => Some(Relief::Keep),
        "C" => Some(Relief::Clean),
        _ => None,
    }
}

fn parse_private() -> Option<SafePrivate> {
    let file: PrivateFile = serde_json::from_str(include_str!("tables/e3-10-1.json")).ok()?;
    let mut safe = SafePrivate::new();
    for (tag, creator, vr) in file.rows {
        // "(7053,xx09)"
        let group = u16::from_str_radix(tag.get(1..5)?, 16).ok()?;
        let element = u8::from_str_radix(tag.get(8..10)?, 16).ok()?;
        // "OW/OB" leaves the choice to the transfer syntax; both are bytes to us.
        let vr = vr.split('/').next().and_then(|vr| vr.parse().ok());
        safe.entry((group, element)).or_default().push((creator, vr));
    }
    Some(safe)
}

fn parse_concepts() -> Option<HashMap<(String, String), Concept>> {
    let file: ConceptFile = serde_json::from_str(include_str!("tables/e3-4-1.json")).ok()?;
    let mut concepts = HashMap::new();
    for (scheme, code, basic, options) in file.rows {
        let reliefs: Option<Vec<_>> = options.iter().map(|(option, letter)| Some((Choice::from_name(option)?, relief(letter)?))).collect();
        concepts.insert((scheme, code), Concept { basic: Code::parse(&basic)?, reliefs: reliefs? });
    }
    Some(concepts)
}

fn parse_iods() -> Option<(Vec<Iod>, HashMap<String, usize>)> {
    let file: IodFile = serde_json::from_str(include_str!("tables/iod-types.json")).ok()?;
    let mut iods = Vec::with_capacity(file.rows.len());
    for (name, ones, twos) in file.rows {
        let mut types = HashMap::new();
        for (tags, kind) in [(ones, Type::One), (twos, Type::Two)] {
            for id in tags.split_ascii_whitespace() {
                types.insert(tag_of(id)?, kind);
            }
        }
        iods.push(Iod { name, types });
    }
    let index: HashMap<&str, usize> = iods.iter().enumerate().map(|(index, iod)| (iod.name.as_str(), index)).collect();
    let classes = file.sop_classes.iter().filter_map(|(uid, name)| Some((uid.clone(), *index.get(name.as_str())?))).collect();
    Some((iods, classes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use sha2::{Digest, Sha256};

    /// The digest comes from the reference copy of the table, not from the file that is compiled in:
    /// ```text
    /// python3 -c "import json,hashlib; t=json.load(open('ps3-15-table-e1-1.json')); print(hashlib.sha256(''.join('|'.join(
    ///   [r['id'],r['basic']]+[r[k] for k in t['option_keys']])+'\n' for r in sorted(t['rows'],key=lambda r:r['id'])).encode()).hexdigest())"
    /// ```
    #[test]
    fn the_compiled_table_is_the_reference_table() {
        let file: serde_json::Value = serde_json::from_str(include_str!("tables/e1-1.json")).unwrap();
        let mut lines: Vec<String> = file["rows"]
            .as_array()
            .unwrap()
            .iter()
            .map(|row| {
                let options: Vec<&str> =
                    Choice::ALL.iter().map(|choice| row[5].get(choice.name()).and_then(|v| v.as_str()).unwrap_or("")).collect();
                format!("{}|{}|{}\n", row[0].as_str().unwrap(), row[4].as_str().unwrap(), options.join("|"))
            })
            .collect();
        lines.sort();
        assert_eq!(lines.len(), 657);
        let digest: String = Sha256::digest(lines.concat().as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(digest, "bcbeacd059bbafc9262640d4918c2e4ac7456e4b4f2112cd9667073753d4947b");
    }

    /// Counts by `collections.Counter(r['basic'] for r in rows)` and per option over the reference copy.
    #[test]
    fn the_parsed_table_has_the_reference_counts() {
        let tables = tables().unwrap();
        let basic = |code| tables.rows.iter().filter(|row| row.basic == code).count();
        let counts = [Code::X, Code::D, Code::U, Code::Z, Code::Xd, Code::Xz, Code::Xzd, Code::Zd, Code::Xzu].map(basic);
        assert_eq!(counts, [417, 93, 55, 42, 23, 11, 8, 6, 2]);
        let option = |choice, relief| tables.rows.iter().filter(|row| row.relief(choice) == Some(relief)).count();
        for (choice, kept, cleaned) in [
            (Choice::SafePrivate, 0, 1),
            (Choice::Uids, 60, 0),
            (Choice::Device, 48, 11),
            (Choice::Institution, 10, 0),
            (Choice::Patient, 14, 5),
            (Choice::FullDates, 169, 0),
            (Choice::ModifiedDates, 0, 169),
            (Choice::Descriptors, 0, 141),
            (Choice::Structured, 0, 4),
            (Choice::Graphics, 0, 4),
        ] {
            assert_eq!((option(choice, Relief::Keep), option(choice, Relief::Clean)), (kept, cleaned), "{}", choice.name());
        }
        assert_eq!(tables.safe_private.values().map(Vec::len).sum::<usize>(), 479);
        assert_eq!(tables.codes.len(), 13);
        assert_eq!(tables.edition, "2026d");
    }

    #[test]
    fn types_come_from_the_iod() {
        let tables = tables().unwrap();
        let kind = |class: &str, tag| tables.iod(class).unwrap().kind(tag);
        // PS3.3: Device Serial Number is Type 3 in MR (C.7.5.1) and Type 1 in Enhanced MR (C.7.5.2).
        assert_eq!(kind("1.2.840.10008.5.1.4.1.1.4", Tag(0x0018, 0x1000)), Type::Three);
        assert_eq!(kind("1.2.840.10008.5.1.4.1.1.4.1", Tag(0x0018, 0x1000)), Type::One);
        assert_eq!(kind("1.2.840.10008.5.1.4.1.1.4", Tag(0x0018, 0x0010)), Type::Two);
        assert!(tables.iod("1.2.3").is_none());
    }

    #[test]
    fn a_safe_private_attribute_is_known_by_group_creator_and_low_byte() {
        let tables = tables().unwrap();
        assert_eq!(tables.safe_private(Tag(0x2005, 0x100E), "Philips MR Imaging DD 001"), Some(Some(VR::FL)));
        assert_eq!(tables.safe_private(Tag(0x2005, 0x220E), "Philips MR Imaging DD 001"), Some(Some(VR::FL)));
        assert_eq!(tables.safe_private(Tag(0x2005, 0x100E), "Somebody else"), None);
        assert_eq!(tables.safe_private(Tag(0x0009, 0x1002), "GEMS_IDEN_01"), None);
    }

    #[test]
    fn repeating_groups_have_rows() {
        let tables = tables().unwrap();
        for (tag, id) in [
            (Tag(0x5004, 0x3000), "50xxxxxx"),
            (Tag(0x6002, 0x3000), "60xx3000"),
            (Tag(0x60FE, 0x4000), "60xx4000"),
            (Tag(0x0010, 0x0010), "00100010"),
        ] {
            assert_eq!(tables.row(tag).unwrap().id, id);
        }
        assert!(tables.row(Tag(0x6001, 0x3000)).is_none());
        assert!(tables.row(Tag(0x0028, 0x0010)).is_none());
    }
}
