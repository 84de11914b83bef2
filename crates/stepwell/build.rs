//! Embeds the hypervisor's image: the one that the build names, or else the one that was built last.
//!
//! `STEPWELL_HYPERVISOR_IMAGE` is set by `cargo xtask build`, which builds the image first: a
//! build script must not call cargo itself. `cargo install` finds what that has left. Without any
//! the command is whole but for the image, and says at run time how to get one.

use std::path::{Path, PathBuf};
use std::{env, fs};

const VARIABLE: &str = "STEPWELL_HYPERVISOR_IMAGE";
/// Where `cargo xtask build` leaves it, below the target directory.
const BUILT: &str = "el2/stepwell-hypervisor.bin";

fn main() {
    println!("cargo:rerun-if-env-changed={VARIABLE}");
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    let image = match env::var_os(VARIABLE).filter(|path| !path.is_empty()) {
        None => built_last(&out),
        Some(path) => {
            let path = PathBuf::from(path);
            println!("cargo:rerun-if-changed={}", path.display());
            fs::read(&path).unwrap_or_else(|error| {
                panic!("{VARIABLE} names {}, which cannot be read: {error}", path.display())
            })
        }
    };
    let embedded = out.join("hypervisor.bin");
    fs::write(&embedded, image).expect("OUT_DIR is writable");
}

/// The image in the target directory that this is built in, if there is one.
fn built_last(out: &Path) -> Vec<u8> {
    // A target directory has this file, and `OUT_DIR` is somewhere below it.
    let target = out.ancestors().find(|folder| folder.join("CACHEDIR.TAG").is_file());
    let Some(image) = target.map(|target| target.join(BUILT)) else { return Vec::new() };
    let Ok(bytes) = fs::read(&image) else { return Vec::new() };
    println!("cargo:rerun-if-changed={}", image.display());
    bytes
}
