"""Going back in a run: see :class:`Travel`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Callable, List, NamedTuple, Optional, Union

from ._stepwell import Core, StepwellError

if TYPE_CHECKING:
    from ._machine import Stop

# The reason of a stop at a moment, and not for anything in the guest.
_REACHED = "reached"


class Moment(NamedTuple):
    """A moment of a run."""

    #: Instructions that all vCPUs have executed since reset.
    position: int
    #: The guest's counter, in its ticks.
    clock: int


class Snapshot(NamedTuple):
    """A moment that was given a name."""

    name: str
    moment: Moment
    #: It is none of the recorded run's, but of one behind a ``fork``.
    is_of_fork: bool


class Travel:
    """What a machine can do whose run is recorded, or was: ``Machine(..., record=LOG)`` and
    ``Machine.replay(LOG)``.

    The words are those of docs/time-travel.md. A position is one number, the instructions executed
    since reset, and the state there is the same however it was come to. Writes are refused until
    :meth:`fork`.
    """

    if TYPE_CHECKING:

        @property
        def _guest(self) -> Core: ...
        @property
        def stop(self) -> Optional[Stop]: ...
        def _go(
            self, start: Callable[[int], None], timeout: Optional[float], is_back: bool = False
        ) -> Optional[Stop]: ...
        def _index(self, vcpu: Optional[int]) -> int: ...
        def address(self, where: Union[str, int]) -> int: ...
        def breakpoint(self, where: Union[str, int]) -> Any: ...
        def delete(self, point: Any) -> None: ...
        def _find_modules(self) -> None: ...

    def when(self) -> Moment:
        """Where it is."""
        return Moment(*self._guest.moment())

    @property
    def end(self) -> Moment:
        """The last moment of the run; while it is recorded, the last one so far."""
        return Moment(*self._guest.end())

    @property
    def edge(self) -> Optional[str]:
        """``begin`` or ``end`` where the run has no more in that direction."""
        return self._guest.edge()

    def state_hash(self) -> str:
        """A hash of all registers and memory: two moments that a guest cannot tell apart have the
        same."""
        return self._guest.state_hash()

    def goto(self, where: Union[int, str, Moment], timeout: Optional[float] = None) -> Optional[Stop]:
        """Goes to a moment: a position, ``"start"``, ``"end"``, or one of :meth:`when`."""
        end = self.end
        if where == "start":
            moment = Moment(0, 0)
        elif where == "end":
            moment = end
        elif isinstance(where, Moment):
            moment = where
        elif isinstance(where, int):
            moment = Moment(where, 0)
        else:
            raise StepwellError(f'{where}: a position, "start", "end" or a Moment')
        if moment > end:
            raise StepwellError(
                f"the recording ends at position {end.position}, before {moment.position}"
            )
        if moment.position < 0:
            raise StepwellError(f"{moment.position} is before the beginning, which is position 0")
        return self._travelled(lambda: self._guest.go_to(*moment), timeout)

    def reverse_step(
        self, count: int = 1, *, vcpu: Optional[int] = None, timeout: Optional[float] = None
    ) -> Optional[Stop]:
        """Goes back by so many instructions of one vCPU, or to the beginning if there are fewer."""
        index = self._index(vcpu)
        return self._travelled(lambda: self._guest.step_back(index, count), timeout)

    def reverse_cont(self, timeout: Optional[float] = None) -> Optional[Stop]:
        """Goes back to the last stop before this one; nothing where there is none, or after
        ``timeout`` seconds: :attr:`edge` tells the two apart."""
        return self._unless_at_edge(self._travelled(self._guest.continue_back, timeout))

    def run_back_to(
        self, where: Union[str, int], timeout: Optional[float] = None
    ) -> Optional[Stop]:
        """Goes back to where a place was executed last, or to a stop that is nearer."""
        point = self.breakpoint(where)
        try:
            return self.reverse_cont(timeout)
        finally:
            self.delete(point)

    def last(
        self,
        where: Union[str, int],
        length: int = 8,
        access: str = "write",
        timeout: Optional[float] = None,
    ) -> Optional[Stop]:
        """Goes back to the instruction that accessed some bytes last: its :attr:`Stop.task` and
        :meth:`Machine.backtrace` tell how it came there. Nothing where none did."""
        index, address = self._index(None), self.address(where)
        go = lambda: self._guest.last_access(index, address, length, access)  # noqa: E731
        return self._unless_at_edge(self._travelled(go, timeout))

    def snapshot(self, name: str) -> None:
        """Gives this moment a name."""
        self._guest.take_snapshot(name)

    def restore(self, name: str, timeout: Optional[float] = None) -> Optional[Stop]:
        """Goes to a moment with a name."""
        return self._travelled(lambda: self._guest.go_to_snapshot(name), timeout)

    def snapshots(self) -> List[Snapshot]:
        """The moments that have names."""
        return [
            Snapshot(name, Moment(position, clock), is_of_fork)
            for name, position, clock, is_of_fork in self._guest.snapshots()
        ]

    def fork(self) -> None:
        """Leaves the recorded run: from here on writes are taken. Going back leads to it again."""
        self._guest.fork()

    def _travelled(self, go: Callable[[], None], timeout: Optional[float]) -> Optional[Stop]:
        stop = self._go(lambda _: go(), timeout, is_back=True)
        self._find_modules()
        return stop

    def _unless_at_edge(self, stop: Optional[Stop]) -> Optional[Stop]:
        """Nothing, where a run has no more to look at."""
        is_at_edge = stop is not None and stop.reason == _REACHED
        return None if is_at_edge else stop
