//! Which of a kernel's modules a guest needs, and in which order they are loaded.
//!
//! Debian's cloud kernel has its disks' and file systems' drivers as modules. Each says
//! itself what it depends on (`modinfo`); `depmod` would want a folder with all of them.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use liblzma::read::XzDecoder;

/// What the guest's modules are for: a disk and the file system on it, a network, and a shared folder.
pub const WANTED: [&str; 6] =
    ["virtio_mmio", "virtio_blk", "crc32c_generic", "ext4", "virtio_net", "virtiofs"];

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

/// All modules below a folder, by their names, unpacked.
///
/// # Errors
/// When one cannot be read.
pub fn in_folder(folder: &Path) -> Result<BTreeMap<String, Vec<u8>>> {
    let mut modules = BTreeMap::new();
    for entry in fs::read_dir(folder).with_context(|| format!("reading {}", folder.display()))? {
        let path = entry.context("looking for modules")?.path();
        if path.is_symlink() {
            continue;
        }
        if path.is_dir() {
            modules.extend(in_folder(&path)?);
        } else if let Some(name) = name_of(&path.to_string_lossy()) {
            modules.insert(name, read(&path)?);
        }
    }
    Ok(modules)
}

fn read(path: &Path) -> Result<Vec<u8>> {
    let packed = fs::read(path).context("reading a module")?;
    if path.extension().is_none_or(|end| end != "xz") {
        return Ok(packed);
    }
    let mut module = Vec::new();
    XzDecoder::new(packed.as_slice()).read_to_end(&mut module).context("unpacking a module")?;
    Ok(module)
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
    fn modules_are_found_packed_or_not() {
        let folder = std::env::temp_dir().join(format!("modules-{}", std::process::id()));
        fs::create_dir_all(folder.join("net")).unwrap();
        fs::write(folder.join("a-b.ko"), b"plain").unwrap();
        let mut packed = Vec::new();
        liblzma::read::XzEncoder::new(&b"packed"[..], 0).read_to_end(&mut packed).unwrap();
        fs::write(folder.join("net/c.ko.xz"), packed).unwrap();
        fs::write(folder.join("modules.dep"), b"none").unwrap();
        let found = in_folder(&folder).unwrap();
        fs::remove_dir_all(&folder).unwrap();
        let found: Vec<_> = found.iter().map(|(name, module)| (&name[..], &module[..])).collect();
        assert_eq!(found, [("a_b", &b"plain"[..]), ("c", b"packed")]);
    }

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
        let wanted = ["virtio_mmio", "virtio_blk", "crc32c_generic", "ext4"];
        let order = in_order(&wanted, &modules, "kernel/drivers/virtio/virtio.ko\n").unwrap();
        let expected =
            ["virtio_ring", "virtio_mmio", "virtio_blk", "crc32c_generic", "jbd2", "ext4"];
        assert_eq!(order, expected);
        modules.remove("jbd2");
        let error = in_order(&wanted, &modules, "kernel/drivers/virtio/virtio.ko").unwrap_err();
        assert_eq!(error.to_string(), "the kernel has no module jbd2");
        modules.insert("jbd2".to_owned(), module("ext4"));
        let error = in_order(&wanted, &modules, "virtio.ko").unwrap_err();
        assert!(error.to_string().contains("in a circle"), "{error}");
    }
}
