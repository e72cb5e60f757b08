//! The rules of the house that a machine can check.

#[path = "support/sources.rs"]
mod source_files;

use source_files::{files_on_disk, is_test, root, rust_files, sources};
use syn::visit::{self, Visit};

const MOST_LINES: usize = 600;

/// Finds what may stand in tests only.
#[derive(Default)]
struct Shortcuts {
    found: Vec<String>,
}

impl<'ast> Visit<'ast> for Shortcuts {
    fn visit_item_mod(&mut self, item: &'ast syn::ItemMod) {
        if !is_test(&item.attrs) {
            visit::visit_item_mod(self, item);
        }
    }

    fn visit_item_fn(&mut self, item: &'ast syn::ItemFn) {
        if !is_test(&item.attrs) {
            visit::visit_item_fn(self, item);
        }
    }

    fn visit_impl_item_fn(&mut self, item: &'ast syn::ImplItemFn) {
        if !is_test(&item.attrs) {
            visit::visit_impl_item_fn(self, item);
        }
    }

    fn visit_expr_method_call(&mut self, call: &'ast syn::ExprMethodCall) {
        // With an argument it is somebody's own `unwrap`, of a key for example.
        if (call.method == "unwrap" || call.method == "unwrap_err") && call.args.is_empty() {
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

/// Name and contents of every file of Rust: the crate's, the tests', the examples', the benchmarks' and the fuzz targets'.
fn texts() -> Vec<(String, String)> {
    let folders = ["tests", "examples", "benches/compare/src", "fuzz/fuzz_targets"];
    let names = files_on_disk().into_iter().chain(folders.into_iter().flat_map(rust_files));
    names.map(|name| (name.clone(), std::fs::read_to_string(root().join(&name)).unwrap())).collect()
}

#[test]
fn a_file_is_short_enough_to_be_read_at_once() {
    let long: Vec<String> = texts()
        .into_iter()
        .filter(|(_, text)| text.lines().count() > MOST_LINES)
        .map(|(name, text)| format!("{name}: {} lines", text.lines().count()))
        .collect();
    assert_eq!(long, Vec::<String>::new(), "split by noun what is longer than {MOST_LINES} lines");
}

#[test]
fn a_file_begins_by_saying_what_it_is() {
    let silent: Vec<String> = texts().into_iter().filter(|(_, text)| !text.starts_with("//! ")).map(|(name, _)| name).collect();
    assert_eq!(silent, Vec::<String>::new());
}

#[test]
fn every_file_belongs_to_the_library() {
    let compiled: Vec<String> = sources().into_iter().map(|source| source.name).collect();
    let forgotten: Vec<String> = files_on_disk().into_iter().filter(|name| !compiled.contains(name)).collect();
    assert_eq!(forgotten, Vec::<String>::new());
}

#[test]
fn the_library_takes_no_shortcuts() {
    let mut found = Vec::new();
    for source in sources().into_iter().filter(|source| !source.is_test) {
        found.extend(shortcuts(&source.text).into_iter().map(|what| format!("{}: {what}", source.name)));
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
        "impl X { #[cfg(test)] fn f() { g().unwrap(); } }",
        "fn f() { g().unwrap_or_default(); g().unwrap_or_else(h); keys.unwrap(&der); }",
        "/// `x.unwrap()`\nfn f() {}",
    ] {
        assert_eq!(shortcuts(source).len(), 0, "{source}");
    }
}
