//! The words that a description may keep: anatomy, technique, planes, contrast, makers of equipment.
//!
//! Cleaning a text that people typed means keeping what is known to be harmless, not removing what is known to be harmful
//! (PS3.15 E.3.6 leaves the method open). A description keeps the words of two lists, and measures such as `T2w`, `3D`, `b1000` or
//! `1.5mm`; everything else, bare numbers included, goes. The short list (`tables/vocabulary.txt`) is imaging's own and was written by hand; it also says which words are
//! too common to search for afterwards: a patient called Head must not stop every head scan. The long one (`tables/clinical-words.txt`) has the words
//! of ICD-10-CM's clinical chapters (NCHS, public domain) and of the code meanings of PS3.16, from four letters, without those that are a surname or given name in the
//! lists of the United States census of 1990, and without words that are written with a capital inside a sentence.

use std::collections::HashSet;
use std::sync::OnceLock;

/// Whether a word is on the list, in any case.
pub(crate) fn is_common(word: &str) -> bool {
    static WORDS: OnceLock<HashSet<&'static str>> = OnceLock::new();
    let words = WORDS.get_or_init(|| include_str!("tables/vocabulary.txt").split_ascii_whitespace().collect());
    words.contains(word.to_lowercase().as_str())
}

/// Whether a word may stay in a description, in any case.
fn is_clinical(word: &str) -> bool {
    static WORDS: OnceLock<HashSet<&'static str>> = OnceLock::new();
    let words = WORDS.get_or_init(|| include_str!("tables/clinical-words.txt").split_ascii_whitespace().collect());
    is_common(word) || words.contains(word.to_lowercase().as_str())
}

/// Whether a text holds nothing but words that may stay, measures, and scraps of up to two characters.
pub(crate) fn is_generic(text: &str) -> bool {
    words(text).all(|word| word.chars().count() <= 2 || is_clinical(word) || is_measure(word))
}

/// Whether a text holds nothing but words that may stay and scraps of up to two characters. `T1234` may be a measure or an identifier: not here.
pub(crate) fn is_clinical_only(text: &str) -> bool {
    words(text).all(|word| word.chars().count() <= 2 || is_clinical(word))
}

/// Whether a name holds nothing but common words of imaging and scraps of up to two characters. People are called by many a clinical word: those count here.
pub(crate) fn is_common_only(name: &str) -> bool {
    words(name).all(|word| word.chars().count() <= 2 || is_common(word))
}

/// The words of a text that may stay, joined by spaces; `None` when none may. `refused` holds lower-case words that must not.
pub(crate) fn clean(text: &str, refused: &HashSet<String>) -> Option<String> {
    let stays = |word: &&str| (is_clinical(word) || is_measure(word)) && !refused.contains(&word.to_lowercase());
    let kept: Vec<&str> = words(text).filter(stays).collect();
    (!kept.is_empty()).then(|| kept.join(" "))
}

/// Words: runs of letters and digits, with a decimal point between digits.
fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|letter: char| !(letter.is_alphanumeric() || letter == '.'))
        .map(|word| word.trim_matches('.'))
        .filter(|word| !word.is_empty())
}

/// `T1`, `T2w`, `b1000`, `3D`, `1.5mm`: a letter of MR physics with a number, or a number with a unit.
fn is_measure(word: &str) -> bool {
    let lower = word.to_ascii_lowercase();
    let is_number = |text: &str| !text.is_empty() && text.len() <= 5 && text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    let weighting = lower
        .strip_prefix(['t', 'b'])
        .is_some_and(|rest| is_number(rest.strip_suffix('w').unwrap_or(rest)) && rest.len() <= 5 && !rest.contains('.'));
    let unit = ["mm", "cm", "ms", "hz", "khz", "kv", "kvp", "mas", "ml", "deg", "d", "t", "s", "x"]
        .iter()
        .any(|unit| lower.strip_suffix(unit).is_some_and(is_number));
    weighting || unit
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, cleaned: Option<&str>) {
        let refused = HashSet::from(["head".to_owned()]);
        assert_eq!(clean(text, &refused).as_deref(), cleaned, "{text}");
    }

    #[test]
    fn a_description_keeps_its_known_words_only() {
        check("T1 AX BRAIN John Smith", Some("T1 AX BRAIN"));
        check("t2w_tse sag 3D 1.5mm b1000", Some("t2w tse sag 3D 1.5mm b1000"));
        check("Smith^John", None);
        check("MRN 1234567, born 1961", None);
        check("headache since 3 years, seen by Dr Asperger", Some("headache since"));
        check("CT chest/abdomen 45.123.7", Some("CT chest abdomen"));
        // A word of the patient's name goes even if it is a common one.
        check("HEAD NECK", Some("NECK"));
    }

    #[test]
    fn the_list_has_lower_case_words_without_digits_runs() {
        for word in include_str!("tables/clinical-words.txt").split_ascii_whitespace() {
            assert!(word.len() >= 4 && word.bytes().all(|byte| byte.is_ascii_lowercase()) && !is_common(word), "{word}");
        }
        for word in include_str!("tables/vocabulary.txt").split_ascii_whitespace() {
            assert!(word.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit()), "{word}");
            assert!(word.len() >= 2 && word.bytes().filter(u8::is_ascii_digit).count() <= 1, "{word}");
        }
    }

    #[test]
    fn generic_texts_are_recognised() {
        for (text, generic) in [("HEAD", true), ("Helical Chest", true), ("MR", true), ("1", true), ("Schmidt", false), ("12345", false)] {
            assert_eq!(is_generic(text), generic, "{text}");
        }
        assert!(is_generic("T1234") && !is_clinical_only("T1234"));
        assert!(is_clinical_only("Oncology Department") && !is_common_only("Oncology"));
    }
}
