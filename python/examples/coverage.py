#!/usr/bin/env python3
"""Which instructions of a module, or of the kernel, a recording executed: as drcov and as lcov.

    coverage.py run.stepwell --module hello --drcov hello.drcov --lcov hello.info
    coverage.py run.stepwell --range 0xffff800008000000-0xffff800009000000 --lcov kernel.info

drcov is what Lighthouse, Dragon Dance and bncov load; each run of instructions is a block. The lcov
file has functions, since a stripped kernel knows no lines (`stepwell show --format lcov` with
`--symbols` has those).
"""

import argparse
import struct
from collections import Counter

import stepwell


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("recording")
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--module", help="of a module's functions, as the recording names them")
    which.add_argument("--range", help="START-END, hexadecimal")
    parser.add_argument("--drcov")
    parser.add_argument("--lcov")
    options = parser.parse_args()
    recording = stepwell.Recording(options.recording)
    blocks: "Counter[tuple[int, int]]" = Counter()
    calls: "Counter[str]" = Counter()
    for run in recording.runs():
        if not is_wanted(recording, run.start, options):
            continue
        blocks[run.start, run.length] += 1
        symbol = recording.lookup(run.start)
        if symbol is not None:
            calls[symbol[0]] += symbol[1] == 0
    if not blocks:
        raise SystemExit("nothing of it was executed: is it named as in the recording?")
    start = min(at for at, _ in blocks)
    end = max(at + 4 * length for at, length in blocks)
    name = options.module or "kernel"
    if options.drcov:
        write_drcov(options.drcov, name, start, end, list(blocks))
    if options.lcov:
        write_lcov(options.lcov, name, recording, calls)
    executed = len({pc for at, length in blocks for pc in range(at, at + 4 * length, 4)})
    print(f"{name}: {executed} instructions in {len(blocks)} blocks, {len(calls)} functions")


def is_wanted(recording: stepwell.Recording, at: int, options: argparse.Namespace) -> bool:
    if options.range:
        first, last = (int(word, 16) for word in options.range.split("-"))
        return first <= at < last
    found = recording.lookup(at)
    return found is not None and found[0].startswith(options.module + ":")


def write_drcov(path: str, name: str, start: int, end: int, blocks: "list[tuple[int, int]]") -> None:
    head = (
        "DRCOV VERSION: 2\nDRCOV FLAVOR: stepwell\nModule Table: version 2, count 1\n"
        "Columns: id, base, end, entry, checksum, timestamp, path\n"
        f" 0, {start:#018x}, {end:#018x}, {start:#018x}, 0x00000000, 0x00000000, {name}\n"
        f"BB Table: {len(blocks)} bbs\n"
    )
    with open(path, "wb") as file:
        file.write(head.encode())
        for at, length in blocks:
            file.write(struct.pack("<IHH", at - start, min(4 * length, 0xFFFF), 0))


def write_lcov(path: str, name: str, recording: stepwell.Recording, calls: "Counter[str]") -> None:
    lines = [f"TN:{name}", f"SF:{name}"]
    for number, (symbol, count) in enumerate(sorted(calls.items()), 1):
        lines += [f"FN:{number},{symbol}", f"FNDA:{max(count, 1)},{symbol}", f"DA:{number},{max(count, 1)}"]
    lines += [f"FNF:{len(calls)}", f"FNH:{len(calls)}", "end_of_record", ""]
    with open(path, "w", encoding="utf-8") as file:
        file.write("\n".join(lines))


if __name__ == "__main__":
    main()
