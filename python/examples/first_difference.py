#!/usr/bin/env python3
"""The first instruction at which two runs of a guest differ.

    first_difference.py one.stepwell other.stepwell
    first_difference.py --boot vmlinuz initramfs.gz --steps 100000
"""

import argparse
import pathlib
import tempfile

import stepwell


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--boot", action="store_true", help="KERNEL and INITRD: boots them twice")
    parser.add_argument("one")
    parser.add_argument("other")
    parser.add_argument("--append", default="console=ttyAMA0")
    parser.add_argument("--steps", type=int, default=100_000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        files = [options.one, options.other]
        if options.boot:
            files = [str(pathlib.Path(folder, name)) for name in ("one", "other")]
            for file in files:
                record(options, file)
        one, other = (stepwell.Recording(file) for file in files)
        found = stepwell.first_difference(one, other)
        if found is None:
            print("no difference")
            return
        position, left, right = found
        names = [r.name(i.pc) if i else "(its end)" for r, i in ((one, left), (other, right))]
        print(f"after {position} equal instructions: {names[0]} here, {names[1]} there")


def record(options: argparse.Namespace, file: str) -> None:
    with stepwell.Machine(options.one, options.other, append=options.append) as machine:
        machine.set_time("per-step=10")
        with machine.record(file):
            machine.step(options.steps)


if __name__ == "__main__":
    main()
