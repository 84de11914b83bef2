//! Which of a kernel's modules a guest needs, and in which order they are loaded.
//!
//! Debian's cloud kernel has its disks' and file systems' drivers as modules. Each says
//! itself what it depends on (`modinfo`); `depmod` would want a folder with all of them.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};

/// What the guest's modules are for: a disk and the file system on it.
pub const WANTED: [&str; 4] = ["virtio_mmio", "virtio_blk", "crc32c_generic", "ext4"];

/// The names of the `wanted` modules and of those that they need, each behind what it needs.
///
/// # Errors
/// When one that is needed is not there, and not a part of the kernel either.
pub fn in_order(
    wanted: &[&str],
    modules: &BTreeMap<String, Vec<u8>>,
    builtin: &str,
) -> Result<Vec<String>> {
    let mut order = Vec::new();
    for wanted in wanted {
        add(wanted, modules, builtin, &mut order, 0)?;
    }
    Ok(order)
}

/// Deeper than modules depend on each other.
const DEPTH_MAX: usize = 20;

fn add(
    name: &str,
    modules: &BTreeMap<String, Vec<u8>>,
    builtin: &str,
    order: &mut Vec<String>,
    depth: usize,
) -> Result<()> {
    ensure!(depth < DEPTH_MAX, "the kernel's modules depend on each other in a circle at {name}");
    if order.iter().any(|other| other == name) || is_builtin(name, builtin) {
        return Ok(());
    }
    let module = modules.get(name).with_context(|| format!("the kernel has no module {name}"))?;
    for needed in depends(module) {
        add(&needed, modules, builtin, order, depth + 1)?;
    }
    order.push(name.to_owned());
    Ok(())
}

/// A module's name: its file's, packed or not, with `_` for `-`.
pub fn name_of(path: &str) -> Option<String> {
    let file = path.rsplit('/').next()?;
    let file = file.strip_suffix(".xz").unwrap_or(file);
    Some(file.strip_suffix(".ko")?.replace('-', "_"))
}

fn is_builtin(name: &str, builtin: &str) -> bool {
    builtin.lines().filter_map(name_of).any(|other| other == name)
}

/// The names behind `depends=` in the module's information.
fn depends(module: &[u8]) -> Vec<String> {
    const KEY: &[u8] = b"\0depends=";
    let Some(at) = module.windows(KEY.len()).position(|window| window == KEY) else {
        return Vec::new();
    };
    let value = module[at + KEY.len()..].split(|&byte| byte == 0).next().unwrap_or_default();
    let text = String::from_utf8_lossy(value);
    text.split(',').filter(|name| !name.is_empty()).map(|name| name.replace('-', "_")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_needed_comes_first_and_once() {
        let module = |depends: &str| format!("x\0license=GPL\0depends={depends}\0y").into_bytes();
        let mut modules = BTreeMap::new();
        for (name, depends) in [
            ("virtio_mmio", "virtio,virtio-ring"),
            ("virtio_blk", "virtio_ring"),
            ("virtio_ring", "virtio"),
            ("crc32c_generic", ""),
            ("ext4", "jbd2"),
            ("jbd2", ""),
        ] {
            modules.insert(name.to_owned(), module(depends));
        }
        let order = in_order(&WANTED, &modules, "kernel/drivers/virtio/virtio.ko\n").unwrap();
        let expected =
            ["virtio_ring", "virtio_mmio", "virtio_blk", "crc32c_generic", "jbd2", "ext4"];
        assert_eq!(order, expected);
        modules.remove("jbd2");
        let error = in_order(&WANTED, &modules, "kernel/drivers/virtio/virtio.ko").unwrap_err();
        assert_eq!(error.to_string(), "the kernel has no module jbd2");
        modules.insert("jbd2".to_owned(), module("ext4"));
        let error = in_order(&WANTED, &modules, "virtio.ko").unwrap_err();
        assert!(error.to_string().contains("in a circle"), "{error}");
    }
}
