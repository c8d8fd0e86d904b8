//! Runs a scenario, a script for Node, against a page in Chromium.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use serde::Serialize;

/// Opens `page` in the browser and does what the script `scenario` says. The script gets `expected` as JSON, and a
/// folder for its pictures.
///
/// # Panics
/// If the scenario fails, with what it says, or if a tool is missing.
pub(crate) fn run(scenario: &str, page: &[u8], expected: &impl Serialize) {
    let node = tool(&["node", "nodejs"], "nodejs");
    let chromium = tool(&["chromium", "chromium-browser", "google-chrome"], "chromium");
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("report").join(scenario);
    fs::create_dir_all(&folder).unwrap();
    let (page_path, expected_path) = (folder.join("page.html"), folder.join("expected.json"));
    fs::write(&page_path, page).unwrap();
    fs::write(&expected_path, serde_json::to_vec(expected).unwrap()).unwrap();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/report").join(format!("{scenario}.mjs"));
    let output = Command::new(node)
        .arg(script)
        .args([&chromium, &page_path, &expected_path, &folder])
        .output()
        .expect("node starts");
    let (said, complained) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    print!("{said}");
    assert!(output.status.success(), "{scenario}: {complained}");
}

/// The first of some programs that is on the PATH.
fn tool(names: &[&str], package: &str) -> PathBuf {
    let path = env::var_os("PATH").unwrap_or_default();
    names
        .iter()
        .flat_map(|name| env::split_paths(&path).map(move |folder| folder.join(name)))
        .find(|program| program.is_file())
        .unwrap_or_else(|| {
            panic!(
                "{} is not on PATH: install it (Debian's package {package}), this test looks at reports",
                names[0]
            )
        })
}
