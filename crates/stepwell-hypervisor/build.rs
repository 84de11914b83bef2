//! Hands the linker script to the EL2 image's link.

fn main() {
    println!("cargo:rerun-if-changed=src/boot/image.ld");
    println!("cargo:rerun-if-changed=build.rs");
    if std::env::var_os("CARGO_FEATURE_EL2").is_some() {
        let folder = std::env::var("CARGO_MANIFEST_DIR").unwrap_or_default();
        println!("cargo:rustc-link-arg-bins=-T{folder}/src/boot/image.ld");
        // Runs anywhere: `start.S` applies the relocations that the linker leaves. There are some
        // in constants, which the linker takes for a mistake unless it is told ("notext"); that
        // none is in code, and all are of the one kind, `cargo xtask build` checks.
        for argument in ["-pie", "--no-dynamic-linker", "-z", "notext", "-z", "norelro"] {
            println!("cargo:rustc-link-arg-bins={argument}");
        }
    }
}
