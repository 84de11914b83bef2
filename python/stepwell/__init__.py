"""Boots, steps, records and asks arm64 virtual machines, exactly.

    with stepwell.Machine(kernel="vmlinuz", initrd="i.gz", append="console=ttyAMA0") as m:
        m.breakpoint("do_sys_openat2")
        while stop := m.cont(timeout=10):
            print(stop.vcpu, stop.task.comm, m.string(stop.regs.x1), m.backtrace()[:3])

The words are those of the commands (see the project's README.md and docs/): what a *stop* is, the
policies for interrupts, other vCPUs and time, and how places are written.
"""

from ._machine import Breakpoint, Machine, Mapping, Module, Registers, Stop, Task
from ._recording import Instruction, Recording, Run, first_difference
from ._stepwell import NotLinux, Refused, StepwellError, __version__
from ._travel import Moment, Snapshot, Travel

__all__ = [
    "Breakpoint",
    "Instruction",
    "Machine",
    "Mapping",
    "Module",
    "Moment",
    "NotLinux",
    "Recording",
    "Refused",
    "Registers",
    "Run",
    "Snapshot",
    "StepwellError",
    "Stop",
    "Task",
    "Travel",
    "__version__",
    "first_difference",
]
