"""Machines: see :class:`Machine`."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from typing import BinaryIO, Callable, List, NamedTuple, Optional, Sequence, Tuple, Union

from ._stepwell import Core, NotLinux, Refused, StepwellError
from ._travel import Travel

PathLike = Union[str, "os.PathLike[str]"]
Place = Union[str, int]

# How long one call into the machine waits: Ctrl-C is noticed between two.
_POLL = 0.02
# How long a machine may take to do what it always does at once.
_SOON = 60.0
# Bytes that a string is read by, none across a page's border.
_STRING_STEP = 64
_PAGE = 4096
_FOR_EVER = (1 << 64) - 1
# The reason of a stop that nobody is told of.
_RING_FULL = "trace ring full"


class Task(NamedTuple):
    """A task of a Linux guest's."""

    pid: int
    tgid: int
    comm: str
    #: As in ``ps``: ``R``, ``S``, ``D``, ...
    state: str
    cpu: int
    #: Whether a CPU executes it.
    on_cpu: bool
    #: Of its ``task_struct``.
    address: int


class Module(NamedTuple):
    """A kernel module of a Linux guest's."""

    name: str
    base: int
    size: int
    users: int
    #: ``live``, ``coming``, ``going`` or ``unformed``.
    state: str


class Mapping(NamedTuple):
    """A range of a process's addresses."""

    start: int
    end: int
    #: As in ``/proc/PID/maps``: ``r-xp``.
    rights: str
    offset: int
    file: Optional[str]


class Registers:
    """The core registers of a vCPU: ``x0`` to ``x30``, ``lr``, ``sp``, ``pc``, ``pstate``.

    They are what they were when they were read. :meth:`Machine.set_register` writes one.
    """

    __slots__ = ("_values",)
    _NAMES = {f"x{n}": n for n in range(31)}
    _NAMES.update(lr=30, sp=31, pc=32, pstate=33)

    def __init__(self, values: List[int]) -> None:
        self._values = tuple(values)

    def __getattr__(self, name: str) -> int:
        try:
            return self._values[self._NAMES[name]]
        except KeyError:
            raise AttributeError(f"no register {name}: x0 to x30, lr, sp, pc, pstate") from None

    def __getitem__(self, name: str) -> int:
        value: int = getattr(self, name)
        return value

    def as_dict(self) -> "dict[str, int]":
        """All of them by name."""
        return {name: self._values[n] for name, n in self._NAMES.items() if name != "lr"}

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Registers) and self._values == other._values

    def __hash__(self) -> int:
        return hash(self._values)

    def __repr__(self) -> str:
        return f"Registers(pc={self.pc:#x}, sp={self.sp:#x}, x0={self.x0:#x}, lr={self.lr:#x})"


class Breakpoint:
    """A breakpoint that stays: see :meth:`Machine.breakpoint`."""

    def __init__(self, where: str, pid: Optional[int], comm: Optional[str]) -> None:
        self.where, self.pid, self.comm = where, pid, comm
        #: How often it has stopped the guest.
        self.hits = 0
        #: Its address; nothing while its module is not loaded.
        self.address: Optional[int] = None
        self._place: Optional[Tuple[int, bool]] = None

    def _is_meant(self, task: Task) -> bool:
        pid = self.pid is None or self.pid in (task.pid, task.tgid)
        return pid and self.comm in (None, task.comm)

    def __repr__(self) -> str:
        at = "not loaded" if self.address is None else f"{self.address:#x}"
        return f"Breakpoint({self.where!r}, {at}, hits={self.hits})"


class Stop:
    """Why a guest is stopped, and where. Asks the machine, so it is of use while that is stopped."""

    def __init__(self, machine: "Machine", vcpu: int, reason: str, pc: int, steps: int, address: int):
        self._machine = machine
        self.vcpu, self.reason, self.pc, self.steps = vcpu, reason, pc, steps
        #: The watched address that is about to be accessed.
        self.address: Optional[int] = address if reason == "watchpoint" else None
        #: The breakpoint that was met.
        self.breakpoint: Optional[Breakpoint] = None
        self._regs: Optional[Registers] = None
        self._task: Optional[Task] = None

    @property
    def regs(self) -> Registers:
        """The core registers of the vCPU that stopped."""
        if self._regs is None:
            self._regs = self._machine.registers(self.vcpu)
        return self._regs

    @property
    def task(self) -> Task:
        """The task that the vCPU executes."""
        if self._task is None:
            self._task = self._machine.current_task(self.vcpu)
        return self._task

    @property
    def symbol(self) -> str:
        """Where it is: ``symbol+0xoffset``, or the address."""
        return self._machine.name(self.pc)

    def __repr__(self) -> str:
        return f"<vcpu{self.vcpu} {self.symbol}: {self.reason}>"


def _options(
    files: "dict[str, Union[PathLike, None]]", disks: Sequence[PathLike], **flags: bool
) -> List[str]:
    """The words of the commands' options."""
    words = [f"--{name}={os.fspath(path)}" for name, path in files.items() if path is not None]
    words += [f"--disk={os.fspath(disk)}" for disk in disks]
    return words + [f"--{name}" for name, is_set in flags.items() if is_set]


class Machine(Travel):
    """A machine with a guest, from reset to the end of the ``with`` block.

    Each argument is the option of the same name of the command: see ``stepwell gdb --help``. ``disks``
    are images, with ``,readonly`` or ``,snapshot`` behind them as there; ``options`` are further ones
    as they are written there: ``["--entropy", "seed=1"]``. ``console`` takes what the guest writes: a
    binary file such as ``sys.stdout.buffer``; nothing keeps it in :attr:`console` only.

    ``record`` names a log of the whole run. The machine counts instructions then, and the run can be
    gone back in: see :class:`Travel`. :meth:`replay` has it again later.
    """

    def __init__(
        self,
        kernel: Optional[PathLike] = None,
        initrd: Optional[PathLike] = None,
        *,
        append: str = "",
        smp: int = 1,
        memory: str = "512M",
        cpu: str = "cortex-a57",
        disks: Sequence[PathLike] = (),
        symbols: Optional[PathLike] = None,
        sysroot: Optional[PathLike] = None,
        record: Optional[PathLike] = None,
        schedule: Optional[str] = None,
        options: Sequence[str] = (),
        qemu: Optional[PathLike] = None,
        hypervisor: Optional[PathLike] = None,
        raw: bool = False,
        verbose: bool = False,
        console: Optional[BinaryIO] = None,
    ) -> None:
        words = [f"--append={append}", f"--smp={smp}", f"--memory={memory}", f"--cpu={cpu}"]
        files = {
            "kernel": kernel,
            "initrd": initrd,
            "symbols": symbols,
            "sysroot": sysroot,
            "record": record,
            "schedule": schedule,
            "qemu": qemu,
            "hypervisor": hypervisor,
        }
        words += _options(files, disks, raw=raw, verbose=verbose)
        self._start(words + list(options), console)

    @classmethod
    def replay(
        cls,
        log: PathLike,
        *,
        at: Union[int, str] = "start",
        kernel: Optional[PathLike] = None,
        initrd: Optional[PathLike] = None,
        disks: Sequence[PathLike] = (),
        symbols: Optional[PathLike] = None,
        sysroot: Optional[PathLike] = None,
        options: Sequence[str] = (),
        qemu: Optional[PathLike] = None,
        hypervisor: Optional[PathLike] = None,
        verbose: bool = False,
        console: Optional[BinaryIO] = None,
    ) -> "Machine":
        """A run that was recorded, by ``record`` or the command ``stepwell record``, once more.

        Its files are looked for where they were, unless they are named here, and have to be the same.
        ``at`` is where it is at first: a position, ``"start"`` or ``"end"``.
        """
        files = {
            "replay": log,
            "kernel": kernel,
            "initrd": initrd,
            "symbols": symbols,
            "sysroot": sysroot,
            "qemu": qemu,
            "hypervisor": hypervisor,
        }
        machine = cls.__new__(cls)
        machine._start(_options(files, disks, verbose=verbose) + list(options), console)
        if at != "start":
            machine.goto(at)
        return machine

    def _start(self, words: List[str], console: Optional[BinaryIO]) -> None:
        self._console = bytearray()
        self._typed = bytearray()
        self._show = console
        self._core: Optional[Core] = None
        self._stop: Optional[Stop] = None
        self._breakpoints: List[Breakpoint] = []
        self._landmarks: List[Breakpoint] = []
        self._is_recording = False
        #: How the guest ended: ``powered off``, ``reset`` or what it crashed of.
        self.ended: Optional[str] = None
        self._core = Core(words)
        if self._wait(_SOON) is None:
            raise StepwellError("the machine does not start: try verbose=True")

    # Life.

    def __enter__(self) -> "Machine":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends the machine, whatever its guest is doing, and completes the log of ``record``."""
        core, self._core = self._core, None
        if core is not None:
            core.finish()

    @property
    def _guest(self) -> Core:
        if self._core is None:
            raise StepwellError("the machine was closed: start another")
        return self._core

    @property
    def console(self) -> str:
        """What the guest has written on its console so far."""
        return self._console.decode(errors="replace")

    @property
    def stop(self) -> Optional[Stop]:
        """The last stop, while the guest is stopped."""
        return self._stop

    def type(self, text: str) -> None:
        """Types on the guest's console: what does not fit at once, while the guest goes on."""
        self._typed += text.encode()
        self._type()

    def _type(self) -> None:
        if self._typed and self.ended is None:
            del self._typed[: self._guest.type_bytes(bytes(self._typed))]

    # Going.

    def cont(self, timeout: Optional[float] = None) -> Optional[Stop]:
        """Lets the guest go on until it stops; nothing where it ends, or after ``timeout`` seconds.

        After the time-out it is stopped, too: :attr:`ended` tells the two apart. A replay ends where
        its recording does (:attr:`edge`); so does, for once, what was gone back in while it is
        recorded: the next call goes on into what is new.
        """
        if self._is_recording:
            # Whoever goes on is not seen: it is stepped.
            stop = self.step(_FOR_EVER, timeout=timeout)
        else:
            stop = self._go(lambda _: self._guest.resume(), timeout)
        return self._unless_at_edge(stop)

    def step(
        self,
        count: int = 1,
        *,
        vcpu: Optional[int] = None,
        until: Optional[Place] = None,
        timeout: Optional[float] = None,
    ) -> Optional[Stop]:
        """Steps one vCPU so many instructions, or until a place is next."""
        index = self._index(vcpu)
        address = None if until is None else self.address(until)
        return self._go(lambda done: self._guest.step(index, count - done, address), timeout)

    def pause(self) -> Optional[Stop]:
        """Stops a guest that goes on, such as one that another thread's ``cont`` was broken off."""
        if self._stop is None and self.ended is None:
            self._guest.pause()
            self._wait(_SOON)
        return self._stop

    def run_to(self, where: Place, timeout: Optional[float] = None) -> Optional[Stop]:
        """Lets the guest go on to a place."""
        point = self.breakpoint(where)
        try:
            return self.cont(timeout)
        finally:
            if self.ended is None:
                self.delete(point)

    def _go(
        self, start: Callable[[int], None], timeout: Optional[float], is_back: bool = False
    ) -> Optional[Stop]:
        if self.ended is not None:
            return None
        end = None if timeout is None else time.monotonic() + timeout
        done = 0
        while True:
            start(done)
            self._stop = None
            stop = self._wait(None if end is None else max(0.0, end - time.monotonic()))
            if stop is None:
                if self.ended is None:
                    self.pause()
                return None
            if stop.reason == _RING_FULL:
                # What was recorded has been taken.
                done += stop.steps
            elif self._counts(stop, is_back):
                stop.steps += done
                return stop

    def _wait(self, seconds: Optional[float]) -> Optional[Stop]:
        end = None if seconds is None else time.monotonic() + seconds
        try:
            while self._stop is None and self.ended is None:
                self._take(_POLL)
                if end is not None and time.monotonic() > end and self._stop is None:
                    break
        except KeyboardInterrupt:
            # Whoever catches it finds a guest that is stopped.
            if self._stop is None and self.ended is None:
                self._guest.pause()
                while self._stop is None and self.ended is None:
                    self._take(_POLL)
            raise
        return self._stop

    def _take(self, seconds: float) -> None:
        self._type()
        happened = self._guest.wait(seconds)
        if happened is None:
            return
        kind, vcpu, text, pc, steps, data = happened
        if kind == "console":
            self._console += bytes(data)
            if self._show is not None:
                self._show.write(bytes(data))
                self._show.flush()
        elif kind == "ended":
            self.ended = text
        else:
            address = int.from_bytes(bytes(data), "little")
            self._stop = Stop(self, vcpu, text, pc, steps, address)

    def _index(self, vcpu: Optional[int]) -> int:
        if vcpu is not None:
            return vcpu
        return 0 if self._stop is None else self._stop.vcpu

    # Breakpoints.

    def breakpoint(
        self, where: Place, *, pid: Optional[int] = None, comm: Optional[str] = None
    ) -> Breakpoint:
        """Sets a breakpoint at a symbol, ``symbol+0x10``, ``module:symbol`` or an address.

        One in a module that is not loaded is set when it is, each time. ``pid`` (a task's or a
        process's) and ``comm`` pass over other tasks.
        """
        word = where if isinstance(where, str) else f"{where:#x}"
        point = Breakpoint(word, pid, comm)
        if ":" in word:
            if not self._landmarks:
                landmarks = [Breakpoint(name, None, None) for name in Core.module_landmarks()]
                for landmark in landmarks:
                    self._set(landmark)
                self._landmarks = landmarks
            try:
                self.modules()
            except StepwellError:
                pass  # The kernel does not run yet: no module is loaded.
        self._set(point)
        self._breakpoints.append(point)
        return point

    def breakpoints(self) -> List[Breakpoint]:
        """Those that are set."""
        return list(self._breakpoints)

    def delete(self, point: Breakpoint) -> None:
        """Takes a breakpoint away."""
        self._breakpoints.remove(point)
        self._clear(point)

    def watchpoint(
        self, where: Place, length: int = 8, access: str = "write", vcpu: Optional[int] = None
    ) -> None:
        """Stops before accesses (``read``, ``write`` or ``access``) of so many bytes."""
        self._guest.watch(self._index(vcpu), self.address(where), length, access, True)

    def unwatch(self, where: Place, length: int = 8, access: str = "write") -> None:
        """Ends a watch, named as it was set."""
        self._guest.watch(0, self.address(where), length, access, False)

    def _set(self, point: Breakpoint) -> None:
        found = self._guest.resolve(point.where)
        if found is None:
            return
        place, physical, point.address = found
        point._place = (place, physical)
        if not any(other._place == point._place for other in self._others(point)):
            self._guest.set_breakpoint(place, physical)

    def _clear(self, point: Breakpoint) -> None:
        place, point._place, point.address = point._place, None, None
        if place is None or any(other._place == place for other in self._others(point)):
            return
        try:
            self._guest.clear_breakpoint(*place)
        except Refused:
            pass  # The guest has ended, and everything with it.

    def _others(self, point: Breakpoint) -> List[Breakpoint]:
        return [one for one in self._breakpoints + self._landmarks if one is not point]

    def _counts(self, stop: Stop, is_back: bool) -> bool:
        """Whether a stop is one to be told of."""
        if stop.reason != "breakpoint":
            return True
        if any(self._is_at(landmark, stop) for landmark in self._landmarks):
            self._module_changed(stop, is_back)
            if not any(self._is_at(point, stop) for point in self._breakpoints):
                return False
        here = [point for point in self._breakpoints if self._is_at(point, stop)]
        if not here:
            return True
        for point in here:
            is_for_all = point.pid is None and point.comm is None
            if is_for_all or point._is_meant(stop.task):
                point.hits += 1
                stop.breakpoint = point
                return True
        return False

    def _is_at(self, point: Breakpoint, stop: Stop) -> bool:
        if point._place is None:
            return False
        # The kernel may have moved since it was set.
        found = self._guest.resolve(point.where)
        if found is not None:
            point.address = found[2]
        return point.address == stop.pc

    def _module_changed(self, stop: Stop, is_back: bool) -> None:
        changed = self._guest.module_changes(stop.vcpu, stop.pc)
        if changed is None:
            return
        name, comes = changed
        # Going back, it is there before it goes.
        comes = comes != is_back
        for point in self._breakpoints:
            if point.where.split(":")[0].replace("-", "_") != name or ":" not in point.where:
                continue
            if not comes:
                self._clear(point)
            elif point._place is None:
                self._set(point)

    def _find_modules(self) -> None:
        points = [point for point in self._breakpoints if ":" in point.where]
        if not points or self._stop is None:
            return
        try:
            self.modules()
            is_running = True
        except NotLinux:
            # The kernel does not run yet: no module is loaded.
            is_running = False
        for point in points:
            found = self._guest.resolve(point.where) if is_running else None
            if found is None or found[:2] != point._place:
                self._clear(point)
            if found is not None and point._place is None:
                self._set(point)

    # Registers and memory.

    def registers(self, vcpu: Optional[int] = None) -> Registers:
        """The core registers of a stopped vCPU."""
        return Registers(self._guest.registers(self._index(vcpu)))

    @property
    def regs(self) -> Registers:
        """The core registers of the vCPU that stopped."""
        return self.registers()

    def set_register(self, name: str, value: int, vcpu: Optional[int] = None) -> None:
        """Writes a core register."""
        index = self._index(vcpu)
        values = self._guest.registers(index)
        if name not in Registers._NAMES:
            raise StepwellError(f"no register {name}: x0 to x30, lr, sp, pc, pstate")
        values[Registers._NAMES[name]] = value & 0xFFFF_FFFF_FFFF_FFFF
        self._guest.write_registers(index, values)
        if self._stop is not None:
            self._stop._regs = None

    def system_register(self, encoding: int, vcpu: Optional[int] = None) -> int:
        """A system register, by ``op0:op1:CRn:CRm:op2`` as in bits 20:5 of MRS."""
        return self._guest.system_register(self._index(vcpu), encoding)

    def read(
        self, where: Place, length: int, *, physical: bool = False, vcpu: Optional[int] = None
    ) -> bytes:
        """Bytes of memory, by virtual address as the vCPU sees it, or physical."""
        return bytes(self._guest.read(self._index(vcpu), self.address(where), length, physical))

    def write(
        self, where: Place, data: bytes, *, physical: bool = False, vcpu: Optional[int] = None
    ) -> None:
        """Writes memory."""
        self._guest.write(self._index(vcpu), self.address(where), list(data), physical)

    def u64(self, where: Place) -> int:
        """The doubleword at an address."""
        return int.from_bytes(self.read(where, 8), "little")

    def u32(self, where: Place) -> int:
        """The word at an address."""
        return int.from_bytes(self.read(where, 4), "little")

    def string(self, where: Place, limit: int = 4096) -> str:
        """The string at an address, up to its 0 or ``limit`` bytes."""
        at, found = self.address(where), bytearray()
        while len(found) < limit:
            length = min(_STRING_STEP - at % _STRING_STEP, limit - len(found), _PAGE - at % _PAGE)
            piece = self.read(at, length)
            end = piece.find(0)
            found += piece if end < 0 else piece[:end]
            if end >= 0:
                break
            at += length
        return found.decode(errors="replace")

    def translate(self, where: Place, vcpu: Optional[int] = None) -> int:
        """The guest-physical address that an address leads to."""
        return self._guest.translate(self._index(vcpu), self.address(where))

    # Names.

    def address(self, where: Place) -> int:
        """The address of a place."""
        if isinstance(where, int):
            return where
        found = self._guest.resolve(where)
        if found is None:
            raise StepwellError(f"the module of {where} is not loaded: modules() tells which are")
        return found[2]

    def name(self, address: int) -> str:
        """``symbol+0xoffset`` for an address, or the address."""
        return self._guest.describe(address) or f"{address:#x}"

    # Linux.

    def current_task(self, vcpu: Optional[int] = None) -> Task:
        """The task that a vCPU executes."""
        return Task(*self._guest.current_task(self._index(vcpu)))

    @property
    def task(self) -> Task:
        """The task of the vCPU that stopped."""
        return self.current_task()

    def tasks(self) -> List[Task]:
        """All tasks."""
        return [Task(*one) for one in self._guest.tasks(self._index(None))]

    def modules(self) -> List[Module]:
        """The modules that are loaded, the newest first."""
        return [Module(*one) for one in self._guest.modules(self._index(None))]

    def mappings(self, pid: Optional[int] = None) -> List[Mapping]:
        """What a process has mapped; that of the vCPU that stopped, if none is named."""
        return [Mapping(*one) for one in self._guest.mappings(self._index(None), pid)]

    def backtrace(self, pid: Optional[int] = None) -> List[str]:
        """How a task came to where it is, the innermost function first."""
        frames, program = self._guest.stack(self._index(None), pid)
        # A caller is shown by its call, which is before where it goes on.
        names = [self.name(at if n == 0 else at - 4) for n, at in enumerate(frames)]
        return names if program is None else names + [f"{program:#x} (program)"]

    def value(self, expression: str) -> Union[int, str]:
        """A value by the kernel's own types: ``current->comm``, ``task(1)->mm``, ``*current``.

        A number is one, and so is a pointer; strings are strings; structures and arrays are text as
        the stepper's ``p`` shows them.
        """
        text = self._guest.value(self._index(None), expression)
        if len(text) >= 2 and text[0] == text[-1] == '"' and "\n" not in text:
            return text[1:-1]
        try:
            return int(text.split()[0], 0)
        except (ValueError, IndexError):
            return text

    # Policies.

    def set_interrupts(self, policy: str) -> None:
        """What becomes of interrupts under a step: ``hold``, ``over`` or ``into``."""
        self._guest.set_policy("interrupts", policy)

    def set_others(self, policy: str) -> None:
        """What the other vCPUs do meanwhile: ``stop``, ``run``, ``step[=N]`` or ``freeze``."""
        self._guest.set_policy("others", policy)

    def set_time(self, policy: str) -> None:
        """How the guest's clock goes: ``stopped``, ``real`` or ``per-step=NS``."""
        self._guest.set_policy("time", policy)

    # Recordings.

    def record(self, path: PathLike) -> "_Recording":
        """Records all steps of a ``with`` block into a new file, for :class:`Recording`, and the
        commands ``show`` and ``report``."""
        return _Recording(self, os.fspath(path))


@dataclass
class _Recording:
    _machine: Machine
    path: str
    #: Instructions that are in it, once it is complete.
    instructions: int = 0

    def __enter__(self) -> "_Recording":
        self._machine._guest.start_recording(self.path)
        self._machine._is_recording = True
        return self

    def __exit__(self, *_: object) -> None:
        self._machine._is_recording = False
        self.instructions = self._machine._guest.finish_recording()
