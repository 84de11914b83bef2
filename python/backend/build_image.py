"""Maturin's build hooks, with the hypervisor's image built before: the module embeds it."""

import os
import pathlib
import subprocess

import maturin
from maturin import (  # noqa: F401  (the hooks that need nothing more)
    build_sdist,
    get_requires_for_build_editable,
    get_requires_for_build_sdist,
    get_requires_for_build_wheel,
    prepare_metadata_for_build_editable,
    prepare_metadata_for_build_wheel,
)

ROOT = pathlib.Path(__file__).resolve().parents[2]
IMAGE = "STEPWELL_HYPERVISOR_IMAGE"


def _image():
    """Builds the image, unless somebody names one, and has the module embed it."""
    if os.environ.get(IMAGE):
        return
    subprocess.run(["cargo", "xtask", "build", "--image-only"], cwd=ROOT, check=True)
    target = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
    os.environ[IMAGE] = str(ROOT / target / "el2" / "stepwell-hypervisor.bin")


def build_wheel(*arguments, **options):
    _image()
    return maturin.build_wheel(*arguments, **options)


def build_editable(*arguments, **options):
    _image()
    return maturin.build_editable(*arguments, **options)
