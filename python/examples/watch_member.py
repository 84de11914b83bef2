#!/usr/bin/env python3
"""Who changes a member of a kernel's structure, from what to what.

    watch_member.py vmlinuz initramfs.gz --at do_sys_openat2 '&current->comm' --bytes 16
"""

import argparse

import stepwell


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("kernel")
    parser.add_argument("initrd")
    parser.add_argument("member", help="its address, as the stepper's p has it: &current->comm")
    parser.add_argument("--at", required=True, help="where to begin: the member is known there")
    parser.add_argument("--bytes", type=int, default=8)
    parser.add_argument("--append", default="console=ttyAMA0")
    parser.add_argument("--count", type=int, default=5)
    options = parser.parse_args()
    with stepwell.Machine(options.kernel, options.initrd, append=options.append) as machine:
        if machine.run_to(options.at) is None:
            raise SystemExit(f"{options.at} is never met")
        address = machine.value(options.member)
        if not isinstance(address, int):
            raise SystemExit(f"{options.member} is {address}: an address begins with &")
        print(f"{options.member} is at {address:#x}")
        machine.watchpoint(address, options.bytes)
        for _ in range(options.count):
            stop = machine.cont()
            if stop is None:
                break
            before = machine.read(address, options.bytes)
            task, place = stop.task, stop.symbol
            # A stop comes before the access: the next step has it.
            machine.step()
            after = machine.read(address, options.bytes)
            print(f"{task.pid:>6} {task.comm:16} {place}: {before.hex()} -> {after.hex()}", flush=True)


if __name__ == "__main__":
    main()
