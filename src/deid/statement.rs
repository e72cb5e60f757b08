//! The conformance statement (PS3.15 E.1, PS3.2 F): what this module does, written out of the same tables that it works from.
//!
//! A statement that is typed by hand drifts from the code; this one is generated, and a test compares it with
//! `docs/de-identification.md`. `SMP_BLESS=1 cargo test` writes the file anew.

use std::fmt::Write;

use dicom_core::Tag;
use dicom_core::dictionary::{DataDictionary, DataDictionaryEntry};
use dicom_dictionary_std::StandardDataDictionary;

use super::burned_in::{CLASSES, MODALITIES};
use super::device_rules::DeviceRules;
use super::iod::EVERYWHERE;
use super::lists::{LOOKUP_TABLES, PUBLIC_SCHEMES, TECHNICAL_TEXTS, VOCABULARY_TEXTS};
use super::quarantine::WITHOUT_RULE;
use super::table::{Choice, Code, Relief, Row, Tables, tables};
use crate::error::Result;

/// The de-identification conformance statement, in Markdown.
pub fn conformance_statement() -> Result<String> {
    let tables = tables()?;
    let mut text = String::new();
    // Writing to a String cannot fail.
    let _ = write_statement(&mut text, tables);
    Ok(text)
}

fn write_statement(out: &mut String, tables: &Tables) -> std::fmt::Result {
    writeln!(out, "{}", INTRODUCTION.replace("{edition}", &tables.edition).trim_end())?;
    writeln!(out, "\n## Options\n\n`deid.options` takes any of these names. Each is declared in (0012,0064) by its code of CID 7050.\n")?;
    writeln!(out, "| Name | Code | Option | Rows kept | Rows cleaned |\n|---|---|---|---|---|")?;
    for key in std::iter::once("basic").chain(Choice::ALL.map(Choice::name)) {
        let Some(code) = tables.code(key) else { continue };
        let count = |relief| {
            Choice::from_name(key)
                .map_or("".to_owned(), |choice| tables.rows.iter().filter(|row| row.relief(choice) == Some(relief)).count().to_string())
        };
        let name = if key == "basic" { "always" } else { key };
        writeln!(out, "| {name} | {} | {} | {} | {} |", code.value, code.meaning, count(Relief::Keep), count(Relief::Clean))?;
    }
    writeln!(out, "\n{}", CLEANING.trim())?;
    writeln!(out, "\n## What is refused\n\nStorage SOP classes beneath 1.2.840.10008.5.1.4.1.1, and everything outside it:\n")?;
    for (number, what) in WITHOUT_RULE {
        writeln!(out, "- `.{number}`: {what}")?;
    }
    writeln!(
        out,
        "- directories, and every private or unnamed SOP class\n\n## Text in pixels\n\nPixels are not looked at. Text is suspected in them for:\n"
    )?;
    for (number, what) in CLASSES {
        writeln!(out, "- SOP classes `.{number}`: {what}")?;
    }
    writeln!(out, "- Modality {}", MODALITIES.join(", "))?;
    writeln!(out, "- Image Type or Frame Type with SECONDARY, SCREEN or SAVE, and Burned In Annotation (0028,0301) YES, at any depth")?;
    let (rules, refusals) = DeviceRules::built_in().map(DeviceRules::counts).unwrap_or_default();
    writeln!(out, "\n{}", PIXELS.replace("{rules}", &rules.to_string()).replace("{refusals}", &refusals.to_string()).trim())?;
    writeln!(out, "\n{}\n", UNLISTED.trim())?;
    writeln!(out, "Kept as they are, when they hold no identifier of the study (else they get a dummy):\n")?;
    list(out, TECHNICAL_TEXTS.iter())?;
    writeln!(out, "\nKept word by word, as far as the vocabulary knows the words:\n")?;
    list(out, VOCABULARY_TEXTS.iter().map(|(tag, _)| tag))?;
    writeln!(out, "\nBinary tables that are kept:\n")?;
    list(out, LOOKUP_TABLES.iter())?;
    writeln!(out, "\nCoding schemes whose codes and meanings are kept: {}.", PUBLIC_SCHEMES.join(", "))?;
    writeln!(
        out,
        "\n## Strictness\n\nAttributes that stay under `strict` in any object, since stored values or places would mean something else without them:\n"
    )?;
    list(out, EVERYWHERE.iter())?;
    writeln!(out, "\n{}", MAPPING.trim())?;
    writeln!(out, "\n{}", RESIDUAL.trim())?;
    write_table(out, tables)
}

fn list<'a>(out: &mut String, tags: impl Iterator<Item = &'a (u16, u16)>) -> std::fmt::Result {
    for (group, element) in tags {
        let tag = Tag(*group, *element);
        writeln!(out, "- {tag} {}", StandardDataDictionary.by_tag(tag).map_or("", |entry| entry.alias()))?;
    }
    Ok(())
}

fn write_table(out: &mut String, tables: &Tables) -> std::fmt::Result {
    writeln!(
        out,
        "\n## Every attribute of Table E.1-1\n\n{} rows of edition {}, in the order of the standard.",
        tables.rows.len(),
        tables.edition
    )?;
    writeln!(
        out,
        "Basic Profile, then the options that keep (K) or clean (C).\n\n| Tag | Attribute | Basic | Options |\n|---|---|---|---|"
    )?;
    for row in &tables.rows {
        writeln!(out, "| {} | {} | {} | {} |", id(row), row.name, code(row.basic), options(row))?;
    }
    Ok(())
}

fn id(row: &Row) -> String {
    match row.id.split_at_checked(4) {
        Some((group, element)) if row.id.len() == 8 => format!("({group},{element})"),
        _ => "(odd group)".to_owned(),
    }
}

fn code(code: Code) -> &'static str {
    match code {
        Code::D => "D",
        Code::Z => "Z",
        Code::X => "X",
        Code::U => "U",
        Code::Zd => "Z/D",
        Code::Xz => "X/Z",
        Code::Xd => "X/D",
        Code::Xzd => "X/Z/D",
        Code::Xzu => "X/Z/U*",
    }
}

fn options(row: &Row) -> String {
    let letter = |relief| if relief == Relief::Keep { "K" } else { "C" };
    let each = Choice::ALL.into_iter().filter_map(|choice| Some(format!("{} {}", choice.name(), letter(row.relief(choice)?))));
    each.collect::<Vec<_>>().join(", ")
}

const INTRODUCTION: &str = "\
# De-identification: conformance statement

<!-- Generated from the tables of src/deid by `SMP_BLESS=1 cargo test --lib deid::statement`. Edit src/deid/statement.rs instead. -->

Implements the Basic Application Level Confidentiality Profile of DICOM PS3.15 Annex E, edition {edition}, with the options below, over the
headers of image storage instances: every element, every item, every depth, file meta information and preamble.

**What it does not do.** The face that can be reconstructed from a head scan stays in the voxels: Clean Recognizable Visual Features
(113102) is not implemented and never declared, so deface head scans before they go further than a face may. Pixels are not searched for text: images that may carry
it are refused by their header, or regions that rules name are blacked out (Clean Pixel Data, 113101, declared in the instances where that was done).

## Order of the rules

1. Objects without a rule, and images that may carry burned-in text, are refused as a whole.
2. Group lengths, groups 0000, 0002 and 0004 inside a data set, and what this library writes itself are dropped.
3. A row of Table E.1-1 decides, with the options applied. Where one chosen option keeps and another cleans, the value is cleaned.
4. Private elements go. With `retain_safe_private`, those that Table E.3.10-1 lists for their private creator stay, creators included;
   their UIDs are remapped and their sequences cleaned inside.
5. Any other attribute stays only when the public dictionary knows it and its VR cannot carry free text or an identity.
6. With `deid.strictness` `strict`, what is left stays only if PS3.3 defines it for the object's IOD at the top level, or beneath it
   (`src/deid/tables/iod-attributes.json`); private elements that an option keeps and the attributes listed under Strictness are spared. An object of
   a SOP class whose IOD is not known is refused.

A value stays only if it is valid for its VR; otherwise the Basic Profile's action applies to it.

**Compound codes** follow the Type of the attribute in the instance's IOD: 1 and 1C mean D, 2 and 2C mean Z, 3 means X. Inside sequences, and
for an IOD that is not known, the strictest action that keeps the object valid is taken.

**D** gives `ANONYMIZED` to words, 19000101 and 000000 to dates and times, 0 to numbers. A sequence keeps one item, with remapped
references and dummies only; a code becomes (ANON, 99SMP, ANONYMIZED).

**U**: a UID becomes `2.25.` and the decimal value of a version 8 UUID made of HMAC-SHA-256(project key, UID). UIDs beneath
1.2.840.10008 are the standard's own and stay. This holds for every UID in every attribute, the same in all studies of a project.

**Patient ID and Patient's Name** become one pseudonym: 100 bits of HMAC-SHA-256(project key, issuer 1F id) in base32. An
instance without a Patient ID is refused.

**Dates and times** get the Basic Profile's actions unless an option keeps them. With `retain_longitudinal_modified_dates` each
patient's dates move 52 to 520 whole weeks into the past, the number following from the project key (or all by `deid.date_shift`
`weeks:N`); intervals, weekdays and times of day stay. Full and modified dates exclude each other. The birth date is always emptied.

**Ages** above 89 years are released as 090Y where an option keeps them.

Every released instance says (0012,0062) YES, its method in (0012,0063) and codes in (0012,0064), the state of its dates in (0028,0303), and is
written in Unicode with a preamble of zeros and file meta information of this library.
";

const CLEANING: &str = "\
What C means here, by VR:

- DA, DT: moved as above. TM: stays, if valid. Timezone Offset From UTC: stays, if valid.
- Text: the words of a fixed vocabulary (imaging's own and clinical words, none of which is a name in the census lists) and measures such as `T2w` or `1.5mm` stay, unless they
  are part of a name in the study; without such a word the Basic Profile's action applies.
- AE: a substitute made of the project key, the same for the same title.
- CS: COERCE and CORRECT stay; other terms get the Basic Profile's action.
- SQ: stays and is cleaned inside. With `clean_structured_content`, content items are judged by concept name (Table E.3.4-1) and value
  type: measurements and codes stay, text and names go unless an option speaks for them.
- OB and OW: the Basic Profile's action; bytes cannot be judged. Overlays of Type R (regions of interest) stay under `clean_graphics`; other overlays
  and all curves are removed even then, since they can be handwriting.

Clean Pixel Data (113101) is asked for by `deid.burned_in`, below; Clean Recognizable Visual Features (113102) is no option of this library.";

const PIXELS: &str = "\
Also for images of a device that a rule with regions knows. What happens then is said by `deid.burned_in`:

- `quarantine` (the default): the study is refused with SMP_ERR_BURNED_IN_TEXT.
- `blackout`: the regions that rules name are overwritten in the stored values of every frame, before the volume is made and in DICOM that is written; an image
  that is suspected and that no rule knows is refused. Gray pixels get the darkest value of their frame, pixels in colour black. Compressed
  frames are then written without compression. The instance says (0028,0301) NO and 113101. Rules hide what they know of; look at the results of a new device.
- `allow`: the study passes unchanged, and the audit log says why (`deid.burned_in_reason`).

Where text stands is known from {rules} built-in rules of devices (published by the CTP project, Stanford and pydicom/deid; `src/deid/tables/device-rules.json`), and for
ultrasound without such a rule from the image itself: everything outside its Sequence of Ultrasound Regions (0018,6011). Under {refusals} further conditions the whole
image may be text (dose reports, patient protocols, scanned films, pages of forms), and it is refused unless `allow` says otherwise.

`deid.device_rules` names a JSON file with rules of your own, which come before the built-in ones:

```json
{\"rules\": [{\"name\": \"our scanner\", \"when\": {\"Manufacturer\": \"ACME*\", \"ManufacturerModelName\": [\"X1\", \"X2*\"], \"Rows\": 768},
            \"black\": [[0, 0, 1024, 60]]}],
 \"refuse\": [{\"name\": \"report pages\", \"when\": {\"SeriesDescription\": \"*report*\"}}]}
```

`when` has DICOM keywords of the top level with a number, a pattern (`*` stands for anything, case does not matter), or a list of which one must
hold; all must hold. `black` has left, top, width and height in stored pixels; an empty list says that the device writes no text. The regions of all rules that
hold are united.";

const UNLISTED: &str = "\
## Attributes outside Table E.1-1

Sequences are cleaned inside. CS, DS, IS, FD, FL, US, SS, UL, SL, UV, SV and AT stay when valid. UI is remapped unless `retain_uids` is
chosen. DA, DT and TM follow the option for dates. PN and all other text and bytes go, with these exceptions.";

const MAPPING: &str = "\
## The list of old and new identifiers

None is kept: whoever has the project key (`deid.project_key`, or the one in the key store) gets the same pseudonyms, shifts and UIDs for the same
patient in any study, batch or machine, and nobody gets them without it. Where a project needs the way back, `deid.mapping` `sealed` writes `<study_id>_mapping/` to
`output_path`: a package sealed for the identities of the key store, never in clear on a disk. It holds `patient_id_mapping.csv` and `uid_mapping.csv`
(`id_old,id_new`, the form that the MIDI-B benchmark reads), and with modified dates `date_shift_mapping.csv` (`id_old,days_earlier`). It opens like any package:

```sh
smp unseal <study_id>_mapping lists --set cloud.provider=local --set cloud.bucket=OUTPUT_PATH
```

The result's `deidentification` has what was done, never values: elements removed, emptied, replaced, remapped, kept, cleaned and shifted, in all and by
the rule that asked for it (`by_rule`), instances blacked out, and the codes.";

const RESIDUAL: &str = "\
## Residual check

The serialized output is searched for every identifier that was removed or replaced (names and their parts, ids, institutions, addresses, telephone
numbers, dates in seven notations, UIDs, free text) in UTF-8, Latin-1 and UTF-16 of both byte orders, without regard to case. A hit refuses the
study and names the two tags, never the value. Too short to be searched: name parts under three characters, identifiers under four characters with a
letter or five digits, other text under six characters. Words of the vocabulary and plain numbers inside numeric values are not searched.";

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    #[test]
    fn the_statement_in_docs_is_the_generated_one() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/de-identification.md");
        let statement = conformance_statement().unwrap();
        if std::env::var_os("SMP_BLESS").is_some() {
            std::fs::write(&path, &statement).unwrap();
        }
        let found = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(found == statement, "docs/de-identification.md has drifted: run SMP_BLESS=1 cargo test --lib deid::statement");
    }

    #[test]
    fn every_row_is_stated_once() {
        let statement = conformance_statement().unwrap();
        assert_eq!(statement.lines().filter(|line| line.starts_with("| (")).count(), 657);
        assert!(statement.contains("| (0010,0010) | Patient's Name | Z |  |"));
        assert!(statement.contains("| (0008,103E) | Series Description | X | clean_descriptors C |"));
        assert!(statement.contains("The face that can be reconstructed from a head scan stays"));
    }
}
