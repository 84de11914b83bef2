"""drgn on a stopped guest: its memory and registers, by drgn's own call-backs.

    import stepwell, stepwell.drgn
    with stepwell.Machine(kernel="vmlinuz", ...) as m:
        m.run_to("do_sys_openat2")
        prog = stepwell.drgn.program(m, debug_info=["vmlinux"])
        prog.read_u64(prog.symbol("jiffies").address)

drgn takes types and symbols from debug information (a ``vmlinux`` with DWARF); without, memory,
registers and Stepwell's own symbols are there, and types can be had from :meth:`Machine.value`.

What drgn has read it does not keep: after the guest went on, it reads anew.
"""

from __future__ import annotations

from typing import Iterable, Optional

import drgn

from ._machine import Machine
from ._stepwell import StepwellError

_HALF = 1 << 63


def program(machine: Machine, debug_info: Optional[Iterable[str]] = None) -> "drgn.Program":
    """Makes a program of drgn's over a guest, which is stopped whenever drgn asks."""
    platform = drgn.Platform(
        drgn.Architecture.AARCH64,
        drgn.PlatformFlags.IS_64_BIT | drgn.PlatformFlags.IS_LITTLE_ENDIAN,
    )
    prog = drgn.Program(platform)

    def read(address: int, count: int, offset: int, physical: bool) -> bytes:
        try:
            return machine.read(address, count, physical=physical)
        except StepwellError as error:
            raise drgn.FaultError(str(error), address) from error

    for start in (0, _HALF):
        prog.add_memory_segment(start, _HALF, read, False)
    prog.add_memory_segment(0, _HALF, read, True)
    if debug_info is not None:
        prog.load_debug_info(list(debug_info))
    return prog


def registers(machine: Machine, vcpu: Optional[int] = None) -> "dict[str, int]":
    """The registers of a vCPU under the names that drgn's stack frames have them."""
    return machine.registers(vcpu).as_dict()
