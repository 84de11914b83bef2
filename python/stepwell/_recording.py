"""Recordings: see :class:`Recording`."""

from __future__ import annotations

import os
from itertools import zip_longest
from typing import Iterator, NamedTuple, Optional, Tuple, Union

from ._stepwell import Reader

PathLike = Union[str, "os.PathLike[str]"]


class Run(NamedTuple):
    """Instructions that executed one after another, 4 bytes apart."""

    vcpu: int
    start: int
    length: int

    @property
    def end(self) -> int:
        """The address behind the last one."""
        return self.start + 4 * self.length


class Instruction(NamedTuple):
    """One executed instruction."""

    vcpu: int
    pc: int


class Recording:
    """A file of ``stepwell trace``, of GDB's ``monitor trace`` or of :meth:`Machine.record`.

    Iterating gives each executed :class:`Instruction`, in order; :meth:`runs` the same by runs.
    """

    def __init__(self, path: PathLike) -> None:
        self.path = os.fspath(path)
        header = Reader(self.path).header()
        self.cpu, self.command_line, self.interrupts, self.time, self.vcpus = header
        self._names: Optional[Reader] = None

    def runs(self) -> Iterator[Run]:
        """The runs, in order."""
        reader = Reader(self.path)
        while (run := reader.next_run()) is not None:
            yield Run(*run)

    def __iter__(self) -> Iterator[Instruction]:
        for run in self.runs():
            for pc in range(run.start, run.end, 4):
                yield Instruction(run.vcpu, pc)

    def lookup(self, address: int) -> Optional[Tuple[str, int]]:
        """The symbol at an address, and how far behind it that is."""
        self._names = self._names or Reader(self.path)
        return self._names.lookup(address)

    def name(self, address: int) -> str:
        """``symbol+0xoffset``, or the address."""
        found = self.lookup(address)
        if found is None:
            return f"{address:#x}"
        symbol, offset = found
        return f"{symbol}+{offset:#x}" if offset else symbol

    def address_of(self, symbol: str) -> Optional[int]:
        """The address of a symbol."""
        self._names = self._names or Reader(self.path)
        return self._names.address_of(symbol)


def first_difference(
    one: Recording, other: Recording
) -> Optional[Tuple[int, Optional[Instruction], Optional[Instruction]]]:
    """Where two recordings part: how many instructions they share, and the next of each.

    Nothing where they are equal.
    """
    for position, (left, right) in enumerate(zip_longest(one, other)):
        if left != right:
            return position, left, right
    return None
