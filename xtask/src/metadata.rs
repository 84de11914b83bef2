//! What cargo knows about the workspace, as JSON.
//!
//! A missing field reads as empty: the answers are looked through, never trusted to be complete.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::process;

/// What `cargo metadata` tells, with `options`.
///
/// # Errors
/// When cargo fails or its answer is not JSON.
pub fn read(options: &[&str]) -> Result<Value> {
    let mut cargo = process::host_cargo();
    cargo.args(["metadata", "--format-version", "1"]).args(options);
    let output = process::capture(&mut cargo)?;
    if !output.status.success() {
        bail!("cargo metadata: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    serde_json::from_slice(&output.stdout).context("reading the answer of cargo metadata")
}

/// The list in the field `name`; empty where it is missing or null.
pub fn list<'a>(value: &'a Value, name: &str) -> &'a [Value] {
    value.get(name).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// The text in the field `name`; empty where it is missing or null.
pub fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value.get(name).and_then(Value::as_str).unwrap_or_default()
}

/// The manifest of `package`, relative to `root` where it lies there.
pub fn manifest_path(package: &Value, root: &Path) -> PathBuf {
    let path = Path::new(text(package, "manifest_path"));
    path.strip_prefix(root).unwrap_or(path).to_owned()
}

/// The names of the programs of `package`.
///
/// # Errors
/// As [`read`].
pub fn programs(package: &str) -> Result<Vec<String>> {
    let metadata = read(&["--no-deps"])?;
    let packages = list(&metadata, "packages").iter();
    let targets = packages.filter(|found| text(found, "name") == package).flat_map(|found| {
        list(found, "targets").iter().filter(|target| list(target, "kind").contains(&"bin".into()))
    });
    Ok(targets.map(|target| text(target, "name").to_owned()).collect())
}
