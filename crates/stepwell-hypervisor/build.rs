//! Hands the linker script to the EL2 image's link.

fn main() {
    println!("cargo:rerun-if-changed=src/boot/image.ld");
    println!("cargo:rerun-if-changed=build.rs");
    if std::env::var_os("CARGO_FEATURE_EL2").is_some() {
        let folder = std::env::var("CARGO_MANIFEST_DIR").unwrap_or_default();
        println!("cargo:rustc-link-arg-bins=-T{folder}/src/boot/image.ld");
    }
}
