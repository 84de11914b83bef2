#!/usr/bin/env python3
"""Who wrote some bytes last, before the end of a recorded run, or before a place in it.

    stepwell record --kernel vmlinuz --initrd i.gz --append console=ttyAMA0 --until panic -o run.replay
    last_writer.py run.replay 0xffff800009b2bd10 --at end
"""

import argparse

import stepwell


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("log")
    parser.add_argument("where", help="an address or a symbol")
    parser.add_argument("--bytes", type=int, default=8)
    parser.add_argument("--at", default="end", help="before this position")
    parser.add_argument("--symbols", help="ELF with the kernel's symbols")
    parser.add_argument("--count", type=int, default=3, help="writers before that one, too")
    options = parser.parse_args()
    at = int(options.at) if options.at.isdigit() else options.at
    where = int(options.where, 0) if options.where[0].isdigit() else options.where
    with stepwell.Machine.replay(options.log, at=at, symbols=options.symbols) as machine:
        for _ in range(options.count):
            stop = machine.last(where, options.bytes)
            if stop is None:
                print("nothing has written there before")
                break
            # It is about to be executed: what was there is still there.
            before = machine.read(where, options.bytes).hex()
            position = machine.when().position
            try:
                callers = f"{stop.task.comm}: {' < '.join(machine.backtrace()[:4])}"
            except stepwell.NotLinux:
                callers = f"vcpu{stop.vcpu}"
            print(f"position {position}: {stop.symbol}, over {before}  ({callers})")


if __name__ == "__main__":
    main()
