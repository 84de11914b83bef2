#!/usr/bin/env python3
"""Who calls a function of the kernel's, and with what.

    who_calls.py vmlinuz initramfs.gz kmem_cache_alloc --count 20
"""

import argparse

import stepwell


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("kernel")
    parser.add_argument("initrd")
    parser.add_argument("function")
    parser.add_argument("--append", default="console=ttyAMA0")
    parser.add_argument("--smp", type=int, default=1)
    parser.add_argument("--comm", help="of tasks called so only")
    parser.add_argument("--count", type=int, default=10)
    options = parser.parse_args()
    with stepwell.Machine(
        options.kernel, options.initrd, append=options.append, smp=options.smp
    ) as machine:
        machine.breakpoint(options.function, comm=options.comm)
        for _ in range(options.count):
            stop = machine.cont()
            if stop is None:
                print(f"the guest {machine.ended}")
                break
            regs = stop.regs
            arguments = ", ".join(f"{regs[f'x{n}']:#x}" for n in range(4))
            try:
                task = f"{stop.task.pid} {stop.task.comm}"
                callers = " < ".join(machine.backtrace()[1:4])
            except stepwell.NotLinux:
                # The kernel has no tasks yet.
                task, callers = "-", machine.name(regs.lr - 4)
            print(f"{task:24} {options.function}({arguments})  from {callers}")


if __name__ == "__main__":
    main()
