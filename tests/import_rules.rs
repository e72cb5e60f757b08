//! Who may import whom: the table in ARCHITECTURE.md, held against every path of every source file.
//!
//! Code under `#[cfg(test)]` is exempt; a test may build what it needs from anywhere.

#[path = "support/sources.rs"]
mod source_files;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use source_files::{is_test, root, sources};
use syn::visit::{self, Visit};

/// Module -> modules that it may import. `None` is "everything below", as ARCHITECTURE.md says of the pipeline.
type Table = BTreeMap<String, Option<BTreeSet<String>>>;

/// Reads the table out of the document: lines of `left, left -> right right` in the block under its heading.
fn table(document: &str) -> Table {
    let section = document.split_once("## Who may import whom\n").expect("the heading").1;
    let block = section.split("```").nth(1).expect("the block");
    let mut table = Table::new();
    for line in block.lines().filter(|line| !line.trim().is_empty()) {
        let (left, right) = line.split_once("->").unwrap_or_else(|| panic!("no arrow in: {line}"));
        let right = right.trim();
        let allowed = match right {
            "everything below" => None,
            "nothing of the crate" => Some(BTreeSet::new()),
            names => Some(names.split_whitespace().map(str::to_owned).collect()),
        };
        for name in left.split(',').map(str::trim) {
            assert!(table.insert(name.to_owned(), allowed.clone()).is_none(), "{name} stands twice in the table");
        }
    }
    table
}

/// Collects the first name after `crate::` of every path outside of tests, with its use trees and macros.
#[derive(Default)]
struct Imports {
    found: BTreeSet<String>,
}

impl Imports {
    fn tree(&mut self, tree: &syn::UseTree) {
        match tree {
            syn::UseTree::Path(path) => _ = self.found.insert(path.ident.to_string()),
            syn::UseTree::Name(name) => _ = self.found.insert(name.ident.to_string()),
            syn::UseTree::Rename(name) => _ = self.found.insert(name.ident.to_string()),
            syn::UseTree::Glob(_) => _ = self.found.insert("*".to_owned()),
            syn::UseTree::Group(group) => group.items.iter().for_each(|tree| self.tree(tree)),
        }
    }
}

impl<'ast> Visit<'ast> for Imports {
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

    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        if is_test(&item.attrs) {
            return;
        }
        if let syn::UseTree::Path(path) = &item.tree
            && path.ident == "crate"
        {
            self.tree(&path.tree);
        }
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let mut segments = path.segments.iter();
        if segments.next().is_some_and(|first| first.ident == "crate")
            && let Some(second) = segments.next()
        {
            self.found.insert(second.ident.to_string());
        }
        visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, call: &'ast syn::Macro) {
        // The contents of a macro are tokens; their text shows the paths.
        let text = call.tokens.to_string().replace(' ', "");
        for (_, rest) in text.match_indices("crate::").map(|(at, found)| text.split_at(at + found.len())) {
            let name: String = rest.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect();
            self.found.insert(name);
        }
        visit::visit_macro(self, call);
    }
}

fn imports(source: &str) -> BTreeSet<String> {
    let mut imports = Imports::default();
    imports.visit_file(&syn::parse_file(source).unwrap());
    imports.found
}

/// The module at the top that a file belongs to: `src/dicom/walk.rs` to `dicom`.
fn module_of(name: &str) -> &str {
    let top = name.trim_start_matches("src/").split('/').next().unwrap_or_default();
    top.strip_suffix(".rs").unwrap_or(top)
}

#[test]
fn modules_import_only_whom_the_table_allows() {
    let table = table(&fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap());
    // `lib.rs` lists the modules; a name there that is no module is a re-export of one.
    let exports = BTreeMap::from([("Error", "error"), ("Kind", "error"), ("Result", "error"), ("Stage", "error")]);
    let mut broken = Vec::new();
    let mut checked = 0;
    for source in sources().into_iter().filter(|source| !source.is_test && source.name != "src/lib.rs") {
        let module = module_of(&source.name);
        let allowed = table.get(module).unwrap_or_else(|| panic!("the module {module} is not in the table of ARCHITECTURE.md"));
        let found = match module {
            // The binary is a crate of its own: `crate::` is itself, and what it takes from the library begins with `smp::`.
            "bin" => imports(&source.text.replace("crate::", "self::").replace("smp::", "crate::")),
            _ => imports(&source.text),
        };
        for import in found {
            let import = exports.get(import.as_str()).map_or(import.clone(), |module| (*module).to_owned());
            checked += 1;
            let is_allowed = import == module
                || match allowed {
                    Some(allowed) => allowed.contains(&import),
                    None => table.contains_key(&import) && import != "bin" && import != "capi",
                };
            if !is_allowed {
                broken.push(format!("{} imports {import}", source.name));
            }
        }
    }
    assert_eq!(broken, Vec::<String>::new());
    assert!(checked > 20, "no imports were found, so the test shows nothing");
}

#[test]
fn every_way_to_name_a_module_is_seen() {
    for source in [
        "use crate::package::open;",
        "use crate::package;",
        "use crate::{error::Error, package as p};",
        "pub use crate::{error, package::{open, verify}};",
        "fn f() { crate::package::open(); }",
        "fn f(x: crate::package::Package) {}",
        "impl From<crate::package::Package> for X {}",
        "fn f() { println!(\"{}\", crate::package::VERSION); }",
        "mod inner { use crate::package::open; }",
        "#[cfg(unix)] fn f() { crate::package::open(); }",
        "#[cfg(not(test))] fn f() { crate::package::open(); }",
    ] {
        assert!(imports(source).contains("package"), "{source}");
    }
    for source in [
        "#[cfg(test)] mod tests { use crate::package::open; }",
        "#[cfg(test)] use crate::package::open;",
        "#[cfg(all(test, unix))] mod tests { use crate::package::open; }",
        "/// [`crate::package`]\nfn f() {}",
        "use package::open;",
    ] {
        assert!(!imports(source).contains("package"), "{source}");
    }
}
