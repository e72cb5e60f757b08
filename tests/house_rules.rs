//! The rules of the house that a machine can check.

use std::fs;
use std::path::{Path, PathBuf};

use syn::visit::{self, Visit};

const MOST_LINES: usize = 600;

fn sources() -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    let mut folders: Vec<PathBuf> = ["src", "tests", "examples"].iter().map(|folder| root.join(folder)).collect();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let name = path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
                files.push((name, fs::read_to_string(&path).unwrap()));
            }
        }
    }
    files.sort();
    assert!(files.len() > 30, "the sources were not found, so the tests show nothing");
    files
}

/// Finds what may stand in tests only.
#[derive(Default)]
struct Shortcuts {
    found: Vec<String>,
}

impl Shortcuts {
    fn is_test(attributes: &[syn::Attribute]) -> bool {
        attributes.iter().any(|attribute| {
            let words = match &attribute.meta {
                syn::Meta::List(list) => list.tokens.to_string(),
                _ => String::new(),
            };
            attribute.path().is_ident("test")
                || (attribute.path().is_ident("cfg") && words.split(|c: char| !c.is_alphanumeric()).any(|word| word == "test"))
        })
    }
}

impl<'ast> Visit<'ast> for Shortcuts {
    fn visit_item_mod(&mut self, item: &'ast syn::ItemMod) {
        if !Shortcuts::is_test(&item.attrs) {
            visit::visit_item_mod(self, item);
        }
    }

    fn visit_item_fn(&mut self, item: &'ast syn::ItemFn) {
        if !Shortcuts::is_test(&item.attrs) {
            visit::visit_item_fn(self, item);
        }
    }

    fn visit_expr_method_call(&mut self, call: &'ast syn::ExprMethodCall) {
        if call.method == "unwrap" || call.method == "unwrap_err" {
            self.found.push(call.method.to_string());
        }
        visit::visit_expr_method_call(self, call);
    }

    fn visit_macro(&mut self, call: &'ast syn::Macro) {
        let name = call.path.segments.last().map(|segment| segment.ident.to_string()).unwrap_or_default();
        if ["todo", "unimplemented", "dbg", "panic"].contains(&name.as_str()) {
            self.found.push(format!("{name}!"));
        }
        if call.tokens.to_string().replace(' ', "").contains(".unwrap()") {
            self.found.push(format!("unwrap in {name}!"));
        }
        visit::visit_macro(self, call);
    }
}

fn shortcuts(source: &str) -> Vec<String> {
    let mut shortcuts = Shortcuts::default();
    shortcuts.visit_file(&syn::parse_file(source).unwrap());
    shortcuts.found
}

#[test]
fn a_file_is_no_longer_than_an_hour_can_read() {
    let long: Vec<String> = sources()
        .into_iter()
        .filter(|(_, source)| source.lines().count() > MOST_LINES)
        .map(|(name, source)| format!("{name}: {} lines", source.lines().count()))
        .collect();
    assert_eq!(long, Vec::<String>::new(), "split by noun what is longer than {MOST_LINES} lines");
}

#[test]
fn a_file_begins_by_saying_what_it_is() {
    let silent: Vec<String> = sources().into_iter().filter(|(_, source)| !source.starts_with("//! ")).map(|(name, _)| name).collect();
    assert_eq!(silent, Vec::<String>::new());
}

#[test]
fn the_library_takes_no_shortcuts() {
    let mut found = Vec::new();
    for (name, source) in sources().into_iter().filter(|(name, _)| name.starts_with("src/")) {
        found.extend(shortcuts(&source).into_iter().map(|what| format!("{name}: {what}")));
    }
    assert_eq!(found, Vec::<String>::new());
}

#[test]
fn shortcuts_are_noticed_outside_of_tests_only() {
    for source in [
        "fn f() { g().unwrap(); }",
        "impl X { fn f(&self) { self.g().unwrap_err(); } }",
        "fn f() { todo!() }",
        "fn f() { unimplemented!(\"later\") }",
        "fn f() { std::dbg!(1); }",
        "fn f() { panic!(\"no\") }",
        "fn f() { format!(\"{}\", g().unwrap()); }",
    ] {
        assert_eq!(shortcuts(source).len(), 1, "{source}");
    }
    for source in [
        "#[cfg(test)] mod tests { fn f() { g().unwrap(); } }",
        "#[test] fn f() { g().unwrap(); }",
        "fn f() { g().unwrap_or_default(); g().unwrap_or_else(h); }",
        "/// `x.unwrap()`\nfn f() {}",
    ] {
        assert_eq!(shortcuts(source).len(), 0, "{source}");
    }
}
