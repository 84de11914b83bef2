//! Embeds the hypervisor's image, where the build names one.
//!
//! `STEPWELL_HYPERVISOR_IMAGE` is set by `cargo xtask build`, which builds the image first: a
//! build script must not call cargo itself. Without it the command is whole but for the image,
//! and says at run time how to get one.

use std::path::PathBuf;
use std::{env, fs};

const VARIABLE: &str = "STEPWELL_HYPERVISOR_IMAGE";

fn main() {
    println!("cargo:rerun-if-env-changed={VARIABLE}");
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    let image = match env::var_os(VARIABLE).filter(|path| !path.is_empty()) {
        None => Vec::new(),
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
