#!/usr/bin/env python3
"""A log of the programs that are executed and the files that are opened.

    log_execs.py vmlinuz initramfs.gz --append 'console=ttyAMA0'
"""

import argparse

import stepwell


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("kernel")
    parser.add_argument("initrd")
    parser.add_argument("--append", default="console=ttyAMA0")
    parser.add_argument("--smp", type=int, default=1)
    parser.add_argument("--count", type=int, default=100)
    options = parser.parse_args()
    with stepwell.Machine(
        options.kernel, options.initrd, append=options.append, smp=options.smp
    ) as machine:
        opens = machine.breakpoint("do_sys_openat2")
        # Its argument is a file whose name has been resolved.
        execs = machine.breakpoint("bprm_execve")
        for _ in range(options.count):
            stop = machine.cont()
            if stop is None:
                break
            task = stop.task
            if stop.breakpoint is opens:
                what = f"open {read(machine, stop.regs.x1)}"
            elif stop.breakpoint is execs:
                # struct linux_binprm, by the kernel's own types.
                name = machine.value(f"*(char **)&((struct linux_binprm *){stop.regs.x0:#x})->filename")
                what = f"exec {name}"
            print(f"{task.pid:>6} {task.comm:16} {what}", flush=True)


def read(machine: stepwell.Machine, address: int) -> str:
    """A string of the program's, which may not be in memory yet."""
    try:
        return machine.string(address)
    except stepwell.Refused:
        return f"(not mapped yet, at {address:#x})"


if __name__ == "__main__":
    main()
