//! The source files of the crate, found as the compiler finds them: from the roots along `mod` declarations.

#![allow(dead_code)]

use std::fs;
use std::path::{Path, PathBuf};

/// One source file.
pub struct Source {
    /// Path from the root of the package.
    pub name: String,
    /// Contents.
    pub text: String,
    /// Whether it is compiled for tests only.
    pub is_test: bool,
}

/// Root of the package.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every file of the library and of the binary.
pub fn sources() -> Vec<Source> {
    let mut found = Vec::new();
    for start in ["src/lib.rs", "src/bin/smp/main.rs"] {
        follow(&root().join(start), false, &mut found);
    }
    assert!(found.len() > 50, "the sources were not found, so the tests show nothing");
    found
}

/// Every file below `src`, whether the compiler sees it or not.
pub fn files_on_disk() -> Vec<String> {
    rust_files("src")
}

/// Every file of Rust below a folder of the package.
pub fn rust_files(folder: &str) -> Vec<String> {
    let mut names = Vec::new();
    let mut folders = vec![root().join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                names.push(name(&path));
            }
        }
    }
    names.sort();
    names
}

/// Whether attributes say "in tests only".
pub fn is_test(attributes: &[syn::Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        let condition = match &attribute.meta {
            syn::Meta::List(list) => list.tokens.to_string(),
            _ => String::new(),
        };
        let words = || condition.split(|c: char| !(c.is_alphanumeric() || c == '_'));
        attribute.path().is_ident("test")
            || (attribute.path().is_ident("cfg") && words().any(|word| word == "test") && words().all(|word| word != "not"))
    })
}

fn name(path: &Path) -> String {
    path.strip_prefix(root()).unwrap().to_str().unwrap().to_owned()
}

fn follow(path: &Path, is_test_only: bool, found: &mut Vec<Source>) {
    let text = fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let file = syn::parse_file(&text).unwrap();
    found.push(Source { name: name(path), text, is_test: is_test_only });
    // A file's modules lie beside it if it is the root of its folder, otherwise in the folder of its name.
    let stem = path.file_stem().unwrap().to_str().unwrap();
    let parent = path.parent().unwrap();
    let folder = if ["lib", "main", "mod"].contains(&stem) { parent.to_path_buf() } else { parent.join(stem) };
    follow_items(&file.items, &folder, is_test_only, found);
}

fn follow_items(items: &[syn::Item], folder: &Path, is_test_only: bool, found: &mut Vec<Source>) {
    for item in items {
        let syn::Item::Mod(module) = item else { continue };
        let is_test_only = is_test_only || is_test(&module.attrs);
        let below = folder.join(module.ident.to_string());
        match &module.content {
            Some((_, items)) => follow_items(items, &below, is_test_only, found),
            None => {
                let file: PathBuf = [below.with_extension("rs"), below.join("mod.rs")].into_iter().find(|path| path.is_file()).unwrap();
                follow(&file, is_test_only, found);
            }
        }
    }
}
