//! What was promised to programs that were compiled earlier: functions, constants, configuration keys.
//!
//! `tests/abi/promised.txt` lists every promise. A promise that is broken fails here. A new function or key fails too, until
//! `SMP_BLESS=1 cargo test --test abi` has added it; blessing never takes a line away. Whoever must break a promise edits the list by hand and
//! raises `SMP_ABI_VERSION`.

#[path = "support/c_header.rs"]
mod c_header;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use smp::Kind;
use smp::config::schema::KEYS;

const PROMISES: &str = "tests/abi/promised.txt";
const MARK: &str = "--test abi` writes them; the same test fails when they differ from the table in `error.rs`.\n";

fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

fn is_blessing() -> bool {
    std::env::var_os("SMP_BLESS").is_some()
}

fn header() -> c_header::Header {
    c_header::parse(&fs::read_to_string(path("include/smp.h")).unwrap()).unwrap()
}

/// Both headers in one.
fn headers() -> c_header::Header {
    let mut all = header();
    let callbacks = c_header::parse_callbacks(&fs::read_to_string(path("include/smp_callbacks.h")).unwrap(), &all).unwrap();
    all.functions.extend(callbacks.functions);
    all.constants.extend(callbacks.constants);
    all.opaques.extend(callbacks.opaques);
    all.callbacks.extend(callbacks.callbacks);
    all
}

/// What this version offers, one line each.
fn offered() -> BTreeSet<String> {
    let header = headers();
    let mut lines = BTreeSet::new();
    for function in &header.functions {
        // Names of parameters are no promise.
        let kinds: Vec<&str> = function.parameters.iter().map(|(kind, _)| kind.as_str()).collect();
        let kinds = if kinds.is_empty() { "void".to_owned() } else { kinds.join(", ") };
        lines.insert(format!("function {} {}({kinds})", function.result, function.name));
    }
    lines.extend(header.constants.iter().map(|constant| format!("constant {} {}", constant.name, constant.value)));
    lines.extend(header.opaques.iter().map(|opaque| format!("type {}", opaque.name)));
    lines.extend(header.callbacks.iter().map(|callback| format!("callback {} {}", callback.name, callback.signature)));
    lines.extend(KEYS.iter().map(|key| format!("key {} {:?}", key.name, key.kind).to_lowercase()));
    lines
}

fn promised() -> BTreeSet<String> {
    let text = fs::read_to_string(path(PROMISES)).unwrap_or_default();
    text.lines().filter(|line| !line.starts_with('#') && !line.is_empty()).map(str::to_owned).collect()
}

/// (promises that are broken, offers that were not promised yet)
fn compare(promised: &BTreeSet<String>, offered: &BTreeSet<String>) -> (Vec<String>, Vec<String>) {
    (promised.difference(offered).cloned().collect(), offered.difference(promised).cloned().collect())
}

#[test]
fn what_was_promised_is_kept() {
    let (promised, offered) = (promised(), offered());
    let (broken, new) = compare(&promised, &offered);
    assert_eq!(broken, Vec::<String>::new(), "programs that use these would break; see the top of this file");
    if is_blessing() {
        let mut text =
            "# Promised to compiled programs. Lines are added by `SMP_BLESS=1 cargo test --test abi` and never taken away.\n".to_owned();
        offered.iter().for_each(|line| text.push_str(&format!("{line}\n")));
        fs::write(path(PROMISES), text).unwrap();
    } else {
        assert_eq!(new, Vec::<String>::new(), "promise these with SMP_BLESS=1 cargo test --test abi");
    }
}

#[test]
fn a_changed_signature_is_a_broken_promise() {
    let set = |lines: &[&str]| lines.iter().map(|line| line.to_string()).collect::<BTreeSet<_>>();
    let before = set(&["function int32_t smp_f(double)", "constant SMP_OK 0"]);
    for (after, broken, new) in [
        (set(&["function int32_t smp_f(double)", "constant SMP_OK 0"]), 0, 0),
        (set(&["function int32_t smp_f(double)", "constant SMP_OK 0", "type smp_x"]), 0, 1),
        (set(&["function int64_t smp_f(double)", "constant SMP_OK 0"]), 1, 1),
        (set(&["function int32_t smp_f(double)", "constant SMP_OK 1"]), 1, 1),
        (set(&["constant SMP_OK 0"]), 1, 0),
    ] {
        let (is_broken, is_new) = compare(&before, &after);
        assert_eq!((is_broken.len(), is_new.len()), (broken, new), "{after:?}");
    }
}

/// The constants of every error kind, as `src/capi/status.rs` must hold them.
fn status_constants() -> String {
    let sentence = |text: &str| {
        let mut letters = text.chars();
        letters.next().map(|first| first.to_uppercase().chain(letters).collect::<String>()).unwrap_or_default() + "."
    };
    Kind::ALL.iter().map(|kind| format!("\n/// {}\npub const {}: i32 = {};\n", sentence(kind.text()), kind.name(), kind.code())).collect()
}

#[test]
fn the_status_constants_are_the_table_of_kinds() {
    let file = path("src/capi/status.rs");
    let source = fs::read_to_string(&file).unwrap();
    let (head, tail) = source.split_once(MARK).expect("the mark before the constants");
    let expected = status_constants();
    if is_blessing() && tail != expected {
        fs::write(&file, format!("{head}{MARK}{expected}")).unwrap();
        panic!("src/capi/status.rs was written; bless the header next (make header), then this test again");
    }
    assert_eq!(tail, expected, "bless with SMP_BLESS=1 cargo test --test abi");
}

#[test]
fn the_header_names_every_kind_by_its_number() {
    let constants = header().constants;
    let errors: Vec<(String, i32)> = constants
        .iter()
        .filter(|constant| constant.name.starts_with("SMP_ERR_"))
        .map(|constant| (constant.name.clone(), constant.value.parse().unwrap()))
        .collect();
    let kinds: Vec<(String, i32)> = Kind::ALL.iter().map(|kind| (kind.name().to_owned(), kind.code())).collect();
    assert_eq!(errors, kinds);
}

#[test]
fn a_kind_lies_in_the_group_of_its_stage() {
    for kind in Kind::ALL {
        let group = match kind.stage().name() {
            "call" => -99..=-1,
            "configuration" => -199..=-100,
            "keys" | "package" => -299..=-200,
            "transfer" => -399..=-300,
            "dicom" => -499..=-400,
            "deidentification" => -599..=-500,
            "imaging" => -699..=-600,
            "inference" => -799..=-700,
            "audit" => -899..=-800,
            "erasure" => -999..=-900,
            "report" => -1099..=-1000,
            other => panic!("the stage {other} has no group"),
        };
        assert!(group.contains(&kind.code()), "{} {}", kind.name(), kind.code());
    }
}
