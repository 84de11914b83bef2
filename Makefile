# Thin names for `cargo xtask`, which knows how everything is built: see `make help`.

COMMANDS = demo test bench build tidy setup

.PHONY: all $(COMMANDS) help clean cargo

all: build

$(COMMANDS): cargo
	@cargo xtask $@

help: cargo
	@cargo xtask help

clean: cargo
	@cargo clean

# The one thing that the build tool cannot install, since it is built with it.
cargo:
	@command -v cargo >/dev/null 2>&1 || { \
	  echo "cargo is missing. Either of these provides it:"; \
	  echo "  rustup:  see https://rustup.rs"; \
	  echo "  Debian:  apt-get install rustc-web cargo-web   (as root)"; \
	  exit 1; } >&2
	@cargo --version | awk -F'[ .]' '$$2 * 1000 + $$3 < 1095 { exit 1 }' || { \
	  echo "$$(cargo --version) is too old, at least 1.95 is needed. Either of these provides it:"; \
	  echo "  rustup:  rustup update stable"; \
	  echo "  Debian:  apt-get install rustc-web cargo-web   (as root)"; \
	  exit 1; } >&2
