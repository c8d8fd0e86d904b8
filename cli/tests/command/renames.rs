//! Functions found again in another build of a real guest, of which the truth is known: the names that the build has, or
//! had before they were taken away from it. They tell whether two functions are the same one, whatever `flamewalk diff`
//! thinks.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use flamewalk_guests::{cpp_builds, rust_builds, sqlite, sqlite_with_functions_inserted};
use serde_json::Value;

use crate::comparing::diff;
use crate::finish;
use crate::precompiled::without_custom_sections;
use crate::support::{Folder, flamewalk_run};

/// What has to be matched right, as a share of the weight by self of what is in both profiles.
const ENOUGH: f64 = 0.95;

/// A build of a guest.
struct Build {
    path: PathBuf,
    /// The true names of functions, by what a profile calls them; others are called what they are called.
    true_names: BTreeMap<String, String>,
}

impl Build {
    fn named(path: PathBuf) -> Self {
        Self { path, true_names: BTreeMap::new() }
    }

    /// The build without names and DWARF: what its functions are called is taken from those that it had.
    fn stripped(folder: &Folder, path: &Path) -> Self {
        let binary = std::fs::read(path).unwrap();
        let name = format!("stripped_{}", path.file_name().unwrap().to_str().unwrap());
        let true_names = names(&binary)
            .into_iter()
            .map(|(index, name)| (format!("wasm-function[{index}]"), name))
            .collect();
        let path = folder.path(&name);
        std::fs::write(&path, without_custom_sections(&binary)).unwrap();
        Self { path, true_names }
    }

    fn true_name(&self, shown: &str) -> String {
        self.true_names.get(shown).map_or(shown, String::as_str).to_owned()
    }
}

/// What the name section calls functions, by their index.
fn names(binary: &[u8]) -> BTreeMap<u32, String> {
    let mut names = BTreeMap::new();
    for payload in wasmparser::Parser::new(0).parse_all(binary) {
        let wasmparser::Payload::CustomSection(section) = payload.unwrap() else { continue };
        let wasmparser::KnownCustom::Name(section) = section.as_known() else { continue };
        for part in section {
            if let wasmparser::Name::Function(functions) = part.unwrap() {
                names.extend(
                    functions
                        .into_iter()
                        .map(|name| name.unwrap())
                        .map(|name| (name.index, name.name.to_owned())),
                );
            }
        }
    }
    assert!(!names.is_empty());
    names
}

fn profile(folder: &Folder, build: &Build, arguments: &[&str]) -> PathBuf {
    let path = folder.path(&format!("{}.flamewalk", build.path.file_name().unwrap().to_str().unwrap()));
    let mut command = flamewalk_run();
    command.args(["-q", "--freq", "1999", "-o"]).arg(&path).arg(&build.path).args(arguments);
    assert_eq!(finish(&mut command).status, Some(0));
    path
}

/// Runs two builds of a guest and compares them. `renamed` says what the new build calls a function of the base, where
/// that is known to be something else.
fn matched(sides: [&Build; 2], arguments: &[&str], renamed: impl Fn(&str) -> String) {
    let folder = Folder::new();
    let [base, new] = sides.map(|build| profile(&folder, build, arguments));
    let comparison: Value = serde_json::from_str(&diff(&base, &new, &["--format", "json"]).stdout).unwrap();
    let functions: Vec<(f64, Option<String>, Option<String>)> = comparison["functions"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|function| function["kind"] == "guest")
        .map(|function| {
            let share = |side: &str| function["self"][side]["share"].as_f64().unwrap();
            let base = function["base_name"].as_str().map(|name| renamed(&sides[0].true_name(name)));
            let new = function["new_name"].as_str().map(|name| sides[1].true_name(name));
            (share("base") + share("new"), base, new)
        })
        .collect();
    let of_base: BTreeSet<&str> = functions.iter().filter_map(|(_, base, _)| base.as_deref()).collect();
    let of_new: BTreeSet<&str> = functions.iter().filter_map(|(_, _, new)| new.as_deref()).collect();
    let (mut right, mut all, mut wrong) = (0.0, 0.0, Vec::new());
    for (share, base, new) in &functions {
        // What has no counterpart in the other profile cannot be matched right, only wrong.
        let has_counterpart = base.as_deref().is_some_and(|name| of_new.contains(name))
            || new.as_deref().is_some_and(|name| of_base.contains(name));
        let is_matched = base.is_some() && new.is_some();
        if !has_counterpart && !is_matched {
            continue;
        }
        all += share;
        if base == new {
            right += share;
        } else {
            wrong.push((share, base, new));
        }
    }
    wrong.sort_by(|(a, ..), (b, ..)| b.total_cmp(a));
    wrong.truncate(10);
    eprintln!("{:.1} % of {} functions matched right", 100.0 * right / all, functions.len());
    assert!(functions.len() > 10 && all > 1.5, "{} functions, {all}", functions.len());
    assert!(right >= ENOUGH * all, "{right} of {all}; not right: {wrong:#?}");
}

fn the_same(name: &str) -> String {
    name.to_owned()
}

#[test]
fn sqlite_with_and_without_names() {
    let folder = Folder::new();
    let path = sqlite().unwrap();
    matched([&Build::named(path.clone()), &Build::stripped(&folder, &path)], &["4"], the_same);
}

/// Without names on either side, and with functions inserted between the driver and SQLite. Only 64.5 % were matched when
/// a function that takes the address of another one could not be found again once the table of functions had shifted.
#[test]
fn sqlite_with_functions_inserted_in_the_middle() {
    let folder = Folder::new();
    let [base, new] =
        [sqlite(), sqlite_with_functions_inserted()].map(|path| Build::stripped(&folder, &path.unwrap()));
    let index = |build: &Build, name: &str| {
        build.true_names.iter().find(|(_, truth)| *truth == name).unwrap().0.clone()
    };
    assert_ne!(index(&base, "sqlite3VdbeExec"), index(&new, "sqlite3VdbeExec"), "indices move");
    matched([&base, &new], &["4"], the_same);
}

/// Templates, lambdas and virtual calls, without names on one side and on both.
#[test]
fn cpp_in_another_order() {
    let folder = Folder::new();
    let [base, new] = cpp_builds().unwrap();
    let [stripped, reordered] = [&base, &new].map(|path| Build::stripped(&folder, path));
    matched([&stripped, &reordered], &[], the_same);
}

/// The guest's own crate has another hash, and there is more code in the middle of it.
#[test]
fn rust_with_other_hashes() {
    let [base, new] = rust_builds("legacy").map(Build::named);
    let hashes = [&base, &new].map(|build| {
        let names = names(&std::fs::read(&build.path).unwrap());
        names.into_values().find(|name| name.contains("edit_distance")).unwrap()
    });
    assert_ne!(hashes[0], hashes[1], "hashes differ");
    matched([&base, &new], &[], the_same);
}

/// The same with names that say which closure it is, by its number: one was inserted before all but the first.
#[test]
fn rust_with_other_hashes_and_numbers_of_closures() {
    let renamed = |name: &str| {
        let mut parts = name.split("renamed::round::{closure#");
        let mut renamed = parts.next().unwrap_or_default().to_owned();
        for part in parts {
            let (number, rest) = part.split_once('}').unwrap();
            let number: u32 = number.parse().unwrap();
            let number = number + u32::from(number > 0);
            renamed += &format!("renamed::round::{{closure#{number}}}{rest}");
        }
        renamed
    };
    let [base, new] = rust_builds("v0").map(Build::named);
    matched([&base, &new], &[], renamed);
}
