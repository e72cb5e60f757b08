//! The headers: generated from `src/capi`, up to date, documented down to every parameter; `smp.h` is loadable by MATLAB.
//!
//! `SMP_BLESS=1 cargo test --test header` (or `make header`) writes `include/smp.h` and `include/smp_callbacks.h`.

#[path = "support/c_header.rs"]
mod c_header;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use c_header::{Function, Header};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The `//!` comment that opens a source file.
fn essay(source: &str) -> Vec<&str> {
    source.lines().map_while(|line| line.strip_prefix("//!")).map(|line| line.strip_prefix(' ').unwrap_or(line)).collect()
}

fn comment(lines: &[&str]) -> String {
    let body: String = lines.iter().map(|line| format!(" * {line}").trim_end().to_owned() + "\n").collect();
    format!("/*\n{body} */\n")
}

/// Nouns of `smp_callbacks.h`.
const CALLBACKS: [&str; 2] = ["case", "callbacks"];

/// Files of the nouns of a header, in the order of `mod.rs`, which is the order of the header.
fn nouns(folder: &Path, is_callbacks: bool) -> Vec<PathBuf> {
    let index = fs::read_to_string(folder.join("mod.rs")).unwrap();
    index
        .lines()
        .filter_map(|line| line.strip_prefix("pub mod ")?.strip_suffix(';'))
        .filter(|noun| CALLBACKS.contains(noun) == is_callbacks)
        .map(|noun| folder.join(format!("{noun}.rs")))
        .collect()
}

/// Types and sections of the nouns of a header.
fn declarations(folder: &Path, is_callbacks: bool) -> (String, String) {
    let (mut types, mut sections) = (String::new(), String::new());
    for file in nouns(folder, is_callbacks) {
        let config = cbindgen::Config::from_file(root().join("cbindgen.toml")).unwrap();
        let bindings = cbindgen::Builder::new().with_config(config).with_src(&file).generate().unwrap();
        let mut section = Vec::new();
        bindings.write(&mut section);
        let source = fs::read_to_string(&file).unwrap();
        sections.push_str(&comment(&essay(&source)));
        sections.push('\n');
        for declaration in String::from_utf8(section).unwrap().trim().split("\n\n") {
            // C wants a type before its use, and nouns use each other's types: types come first.
            let is_type = declaration.contains("\ntypedef struct ");
            let declaration = if is_type { declaration.to_owned() } else { declaration.replace("struct smp_", "smp_") };
            let part = if is_type { &mut types } else { &mut sections };
            part.push_str(&declaration);
            part.push_str("\n\n");
        }
    }
    (types, sections)
}

/// A header of its parts.
fn put_together(opening: &str, guard: &str, include: &str, types: &str, sections: &str) -> String {
    let mut header = opening.to_owned();
    header
        .push_str(&format!("\n#ifndef {guard}\n#define {guard}\n\n#include {include}\n\n#ifdef __cplusplus\nextern \"C\" {{\n#endif\n\n"));
    header.push_str("/*\n * Types: all are opaque, and are handles.\n */\n\n");
    header.push_str(types);
    header.push_str(sections);
    header.push_str("#ifdef __cplusplus\n}\n#endif\n\n#endif\n");
    header.lines().map(|line| line.trim_end().to_owned() + "\n").collect()
}

/// What `include/smp.h` must hold.
fn generate() -> String {
    let folder = root().join("src/capi");
    let conventions = fs::read_to_string(folder.join("mod.rs")).unwrap();
    let (types, sections) = declarations(&folder, false);
    put_together(&comment(&essay(&conventions)), "SMP_H", "<stdint.h>", &types, &sections)
}

/// What `include/smp_callbacks.h` must hold.
fn generate_callbacks() -> String {
    let (types, sections) = declarations(&root().join("src/capi"), true);
    let opening = comment(&[
        "smp_callbacks: functions of a C or C++ program that take part in the work. Everything else, and the conventions, are in smp.h,",
        "which MATLAB can load; this header it cannot.",
    ]);
    put_together(&opening, "SMP_CALLBACKS_H", "\"smp.h\"", &types, &sections)
}

fn header() -> Header {
    c_header::parse(&generate()).unwrap()
}

fn callbacks() -> Header {
    c_header::parse_callbacks(&generate_callbacks(), &header()).unwrap()
}

#[test]
fn the_committed_headers_are_the_generated_ones() {
    for (name, generated) in [("smp.h", generate()), ("smp_callbacks.h", generate_callbacks())] {
        let path = root().join("include").join(name);
        if std::env::var_os("SMP_BLESS").is_some() {
            fs::create_dir_all(root().join("include")).unwrap();
            fs::write(&path, &generated).unwrap();
        }
        let committed = fs::read_to_string(&path).unwrap_or_default();
        let first = generated.lines().zip(committed.lines()).position(|(new, old)| new != old);
        assert!(
            generated == committed,
            "include/{name} is out of date from line {}: run `make header`",
            first.unwrap_or_else(|| generated.lines().count().min(committed.lines().count())) + 1
        );
    }
}

/// What MATLAB's loadlibrary takes: a pointer level of at most one, and these types behind it.
fn is_matlab_type(kind: &str, header: &Header, is_result: bool) -> bool {
    let plain = kind.strip_prefix("const ").unwrap_or(kind);
    match plain.strip_suffix('*') {
        None => matches!(plain, "int32_t" | "int64_t" | "double") || (is_result && plain == "void"),
        Some("char") => kind.starts_with("const "),
        Some(pointee) => {
            matches!(pointee, "uint8_t" | "int64_t" | "float" | "double") || header.opaques.iter().any(|opaque| opaque.name == pointee)
        }
    }
}

/// Everything about a header that MATLAB would stumble over.
fn matlab_complaints(text: &str) -> Vec<String> {
    let header = match c_header::parse(text) {
        Ok(header) => header,
        Err(complaint) => return vec![complaint],
    };
    let mut complaints = Vec::new();
    let mut names = BTreeSet::new();
    for function in &header.functions {
        let name = &function.name;
        // MATLAB's namelengthmax is 63, and it finds functions without regard to case when a name is misspelt.
        if !name.starts_with("smp_") || name.len() > 63 || !names.insert(name.to_ascii_lowercase()) {
            complaints.push(format!("{name}: not a name for MATLAB"));
        }
        if !is_matlab_type(&function.result, &header, true) {
            complaints.push(format!("{name} returns {}", function.result));
        }
        for (kind, parameter) in &function.parameters {
            if !is_matlab_type(kind, &header, false) {
                complaints.push(format!("{name} takes {kind} {parameter}"));
            }
        }
    }
    complaints
}

#[test]
fn matlab_can_load_the_header() {
    assert_eq!(matlab_complaints(&generate()), Vec::<String>::new());
    assert!(header().functions.len() > 70, "the header is empty, so the test shows nothing");
}

#[test]
fn what_matlab_cannot_load_is_noticed() {
    let wrap = |declaration: &str| format!("#ifndef X_H\n#define X_H\ntypedef struct smp_x smp_x;\n{declaration}\n#endif\n");
    assert_eq!(matlab_complaints(&wrap("int32_t smp_f(struct smp_x *x, const char *text, double *out);")), Vec::<String>::new());
    for declaration in [
        "size_t smp_f(void);",
        "bool smp_f(void);",
        "long smp_f(void);",
        "void smp_f(char *text);",
        "void smp_f(const char **texts);",
        "void smp_f(void (*callback)(int32_t));",
        "void smp_f(const char *format, ...);",
        "void smp_f(smp_x x);",
        "void smp_f(unknown *x);",
        "void smp_f(smp_later *x);\ntypedef struct smp_later smp_later;",
        "void smp_f();",
        "void smp_f(int32_t);",
        "void other_f(void);",
        "void smp_f(void);\nvoid smp_F(void);",
        "static inline int32_t smp_f(void) { return 0; }",
        "__attribute__((nonnull)) void smp_f(void);",
        "enum smp_e { A, B };",
        "typedef enum { A, B } smp_e;",
        "typedef struct smp_y { int32_t a; } smp_y;",
        "typedef union smp_y smp_y;",
        "typedef struct smp_y smp_z;",
        "typedef int32_t smp_status;",
        "#pragma once",
        "#include <stdbool.h>",
        "extern \"C\" {",
    ] {
        assert!(!matlab_complaints(&wrap(declaration)).is_empty(), "not noticed: {declaration}");
    }
}

/// Everything that is missing in the text of a function.
fn doc_complaints(function: &Function) -> Vec<String> {
    let Function { name, doc, .. } = function;
    let lines: Vec<&str> = doc.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let tags = |tag: &str| -> Vec<&str> { lines.iter().filter_map(|line| line.strip_prefix(tag)).map(str::trim).collect() };
    let mut complaints = Vec::new();
    let mut complain = |what: String| complaints.push(format!("{name}: {what}"));
    if lines.first().is_none_or(|line| line.starts_with('@') || !(line.contains(". ") || line.ends_with('.') || line.ends_with(','))) {
        complain("the text does not begin with a sentence".to_owned());
    }
    let documented: Vec<&str> = tags("@param").iter().map(|text| text.split_whitespace().next().unwrap_or_default()).collect();
    let declared: Vec<&str> = function.parameters.iter().map(|(_, parameter)| parameter.as_str()).collect();
    if documented != declared {
        complain(format!("documents {documented:?} and takes {declared:?}"));
    }
    if tags("@param").iter().any(|text| text.split_whitespace().count() < 2) {
        complain("a @param says nothing".to_owned());
    }
    let returns = tags("@return");
    if (function.result == "void") != returns.is_empty() || returns.len() > 1 || returns.iter().any(|text| text.is_empty()) {
        complain("@return does not fit".to_owned());
    }
    let since = tags("@since");
    if since.len() != 1
        || !since.iter().all(|version| version.split('.').count() == 2 && version.split('.').all(|part| part.parse::<u32>().is_ok()))
    {
        complain("@since is missing".to_owned());
    }
    complaints
}

#[test]
fn every_parameter_and_every_result_is_documented() {
    let (header, callbacks) = (header(), callbacks());
    let complaints: Vec<String> = header.functions.iter().chain(&callbacks.functions).flat_map(doc_complaints).collect();
    assert_eq!(complaints, Vec::<String>::new());
    assert!(callbacks.functions.len() > 15 && callbacks.callbacks.len() == 4, "the second header is empty, so the test shows nothing");
    for callback in &callbacks.callbacks {
        assert!(callback.doc.trim().ends_with('.'), "{} has no sentence", callback.name);
    }
    for constant in &header.constants {
        assert!(constant.doc.trim().ends_with(['.', ')']), "{} has no sentence", constant.name);
    }
    for opaque in header.opaques.iter().chain(&callbacks.opaques) {
        assert!(
            opaque.doc.contains("Lives from") && opaque.doc.contains("Threads may share"),
            "{} says nothing of life and threads",
            opaque.name
        );
    }
}

#[test]
fn a_parameter_without_a_text_is_noticed() {
    let text = "/**\n * Does it.\n *\n * @param x  What.\n * @return Outcome.\n * @since 0.1\n */\nint32_t smp_f(double x);\n";
    let complaints = |text: &str| c_header::parse(text).unwrap().functions.iter().flat_map(doc_complaints).count();
    assert_eq!(complaints(text), 0);
    for (from, to) in [
        (" * @param x  What.\n", ""),
        ("@param x  What.", "@param y  What."),
        ("@param x  What.", "@param x"),
        (" * @return Outcome.\n", ""),
        (" * @since 0.1\n", ""),
        ("@since 0.1", "@since now"),
        (" * Does it.\n", ""),
        ("double x", "double x, double z"),
    ] {
        assert_eq!(complaints(&text.replace(from, to)), 1, "{from} -> {to}");
    }
}

#[test]
fn every_type_can_be_ended() {
    let header = header();
    for opaque in &header.opaques {
        let free = format!("{}_free", opaque.name);
        let function = header.functions.iter().find(|function| function.name == free).unwrap_or_else(|| panic!("no {free}"));
        assert_eq!(function.result, "void");
    }
}
