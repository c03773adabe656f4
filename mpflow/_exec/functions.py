"""Node programs as bytes: pickled at their first dispatch, named by a number, and again when what they close over is replaced.

Owns the parent's side. A change made in place to what a function holds (a list appended to, a class patched) is not
seen; a name, a cell or a default that is bound to another object is.
"""

from __future__ import annotations

import types
import weakref
from collections.abc import Iterator
from itertools import count
from typing import Any, NamedTuple

from mpflow._exec.appetite import Appetite
from mpflow._exec.bindings import Bindings, global_names, slots_of
from mpflow.errors import NodeNotPicklableError

_numbers = count(1)


class Traffic:
    """What the tasks of a node have moved: bytes through sockets and bytes copied into shared memory, out and back in."""

    __slots__ = ("bytes_in", "bytes_out", "cpu_s", "delayed_s", "run_s", "shared_in", "shared_out", "tasks")

    def __init__(self) -> None:
        self.tasks = 0
        self.run_s = 0.0
        self.cpu_s = 0.0
        """What their workers computed meanwhile..."""
        self.delayed_s = 0.0
        """...and how long they could have, and something else ran in their place."""
        self.bytes_out = 0
        self.bytes_in = 0
        self.shared_out = 0
        self.shared_in = 0

    def add(self, other: Traffic) -> None:
        for name in self.__slots__:
            setattr(self, name, getattr(self, name) + getattr(other, name))

    def as_dict(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in ("tasks", "run_s", "cpu_s", *_MOVED)}


_MOVED = ("bytes_out", "bytes_in", "shared_out", "shared_in")


class Watched:
    """What workers measured of tasks that were moved there: how many, their own CPU time, that of all that was done for
    them, and how long they waited for something. Sums since the beginning."""

    __slots__ = ("calls", "cpu_s", "own_s", "waited_s")

    def __init__(self, calls: int = 0, own_s: float = 0.0, cpu_s: float = 0.0, waited_s: float = 0.0) -> None:
        self.calls = calls
        self.own_s = own_s
        self.cpu_s = cpu_s
        self.waited_s = waited_s

    def add(self, calls: int, own_ns: int, cpu_ns: int, waited_ns: int) -> None:
        self.own_s += own_ns * 1e-9
        self.cpu_s += cpu_ns * 1e-9
        self.waited_s += waited_ns * 1e-9
        self.calls += calls


_MOSTLY = 3
"""A node waits if it does for so many times as long as it computes."""


class Spent(NamedTuple):
    """What the tasks of a program took of a pool's workers: how long they ran, what the workers computed meanwhile, how long
    something else ran in their place; and with how many others they came, at most."""

    tasks: int
    run_s: float
    cpu_s: float
    delayed_s: float
    at_once: int

    @property
    def waited_s(self) -> float:
        """How long they waited for something by themselves."""
        return max(0.0, self.run_s - self.cpu_s - self.delayed_s)

    @property
    def waits(self) -> bool:
        """Whether they did next to nothing else."""
        return self.waited_s > _MOSTLY * self.cpu_s


class Shipment:
    """A program as it travels: its number, its bytes, and how long its tasks take."""

    __slots__ = (
        "appetite",
        "at_once",
        "batches",
        "bindings",
        "called",
        "checked",
        "data",
        "has_plain_inputs",
        "mean_s",
        "number",
        "seen",
        "traffic",
        "watched",
    )

    def __init__(self, memory_bytes: int = 0) -> None:
        self.number = 0
        self.data = b""
        self.seen = 0
        """How many of its tasks were measured."""
        self.mean_s = 0.0
        self.batches = 0
        """In how many batches they travelled."""
        self.at_once = 0
        """So many tasks were with the pool when some of these came, at most."""
        self.traffic = Traffic()
        self.watched = Watched()
        self.appetite = Appetite(memory_bytes)
        self.called = 0
        """How many of its tasks have called others."""
        self.has_plain_inputs = True
        """Its inputs were plain data so far."""
        self.bindings: Bindings | None = None
        """What it was pickled with."""
        self.checked: Any = None
        """The run (by its config) for which `bindings` were last compared."""

    @property
    def calls_often(self) -> bool:
        """Whether what is sent along with a task of it often comes back, because that one waits."""
        return 4 * self.called > self.seen

    def measured(self, count: int, total_s: float) -> None:
        """Move the mean towards what a batch of `count` tasks took; one long task outweighs a history of short ones."""
        mean = total_s / count
        if not self.seen or mean > self.mean_s * 4:
            self.mean_s = mean
        else:
            self.mean_s += (mean - self.mean_s) * 0.3
        self.seen += count
        self.traffic.tasks += count
        self.traffic.run_s += total_s

    def spending(self) -> Spent:
        traffic = self.traffic
        return Spent(traffic.tasks, traffic.run_s, traffic.cpu_s, traffic.delayed_s, self.at_once)

    def spent(self, cpu_ns: int, delayed_ns: int) -> None:
        """Take in what a worker computed for tasks that have ended, and how long it was kept from that."""
        self.traffic.cpu_s += cpu_ns * 1e-9
        self.traffic.delayed_s += delayed_ns * 1e-9


class Shipments:
    """All programs a pool has met, by identity, forgotten when they die."""

    def __init__(self) -> None:
        self._by_id: dict[int, tuple[Any, Shipment]] = {}
        self.dropped: list[int] = []
        """Numbers of programs that are gone; workers are to be told."""

    def of(self, program: Any) -> Shipment:
        """The shipment of `program`, not yet packed if it is new."""
        found = self._by_id.get(id(program))
        if found is None:
            key = id(program)
            try:
                holder: Any = weakref.ref(program, lambda _: self._drop(key))
            except TypeError:  # slots without __weakref__: it stays for as long as the pool
                holder = program
            found = self._by_id[key] = (holder, Shipment(getattr(program, "memory_bytes", 0)))
        return found[1]

    def _drop(self, key: int) -> None:
        """A program has died: called anywhere, so it only takes note."""
        found = self._by_id.pop(key, None)
        if found is not None and found[1].number:
            self.dropped.append(found[1].number)

    def traffic(self) -> dict[str, dict[str, Any]]:
        """What was moved for each node, by its name, of the programs that are still there."""
        found: dict[str, Traffic] = {}
        needs: dict[str, int] = {}
        for holder, shipment in list(self._by_id.values()):
            program = holder() if isinstance(holder, weakref.ref) else holder
            if program is not None and shipment.traffic.bytes_out:
                found.setdefault(program.name, Traffic()).add(shipment.traffic)
                needs[program.name] = max(needs.get(program.name, 0), shipment.appetite.need_bytes(False))
        return {name: {**traffic.as_dict(), "memory": needs[name]} for name, traffic in found.items()}

    def packed(self, program: Any, run: Any) -> Shipment:
        """The shipment of `program` for a run, pickled if need be. Raises NodeNotPicklableError."""
        shipment = self.of(program)
        if shipment.checked is run and shipment.number:
            return shipment
        if shipment.bindings is None or not shipment.bindings.stand(program):
            bindings = Bindings(program)
            data = pack(program)
            if data != shipment.data:
                if shipment.number:
                    self.dropped.append(shipment.number)
                shipment.number = next(_numbers)
                shipment.data = data
            shipment.bindings = bindings
        shipment.checked = run
        return shipment


def pack(program: Any) -> bytes:
    """Pickle bytes of a program: by reference where a worker can import it, by value otherwise."""
    try:
        from mpflow._wire import pickling

        return pickling.dumps(program)
    except Exception as error:
        name = getattr(program, "name", type(program).__name__)
        path, detail = _culprit(program, str(name), error)
        raise NodeNotPicklableError(str(name), path, detail) from error


def _parts(item: Any) -> Iterator[tuple[str, Any]]:
    """What an object is made of, each with how to write it down."""
    if isinstance(item, types.FunctionType):
        for name, cell in zip(item.__code__.co_freevars, item.__closure__ or (), strict=False):
            try:
                yield f"the variable '{name}' of {item.__qualname__}", cell.cell_contents
            except ValueError:  # not yet bound
                continue
        for index, value in enumerate(item.__defaults__ or ()):
            yield f"default {index} of {item.__qualname__}", value
        for name, value in (item.__kwdefaults__ or {}).items():
            yield f"the default of '{name}' of {item.__qualname__}", value
        for name in global_names(item.__code__):
            if name in item.__globals__:
                yield f"the global '{name}' used by {item.__qualname__}", item.__globals__[name]
        return
    if isinstance(item, types.MethodType):
        yield "its function", item.__func__
        yield "its self", item.__self__
        return
    if type(item).__module__ == "functools" and hasattr(item, "func"):
        yield ".func", item.func
        yield ".args", item.args
        for name, value in item.keywords.items():
            yield f"the argument '{name}'", value
        return
    if isinstance(item, (list, tuple)):
        for index, value in enumerate(item):
            yield f"[{index}]", value
        return
    if isinstance(item, dict):
        for key, value in item.items():
            yield f"[{key!r}]", value
        return
    for slot in slots_of(item):
        if hasattr(item, slot):
            yield f".{slot}", getattr(item, slot)
    for name, value in getattr(item, "__dict__", {}).items():
        yield f".{name}", value


def _culprit(program: Any, path: str, error: BaseException) -> tuple[str, str]:
    """The way to the innermost part that cannot be pickled, and pickle's word on it."""
    from mpflow._wire import pickling

    item = program
    for _ in range(20):
        for way, part in _parts(item):
            if isinstance(part, (types.ModuleType, str, bytes, int, float, type(None))):
                continue
            try:
                pickling.dumps(part)
            except Exception as inner:
                item, error = part, inner
                path = path + way if way[0] in ".[" else f"{path}: {way}"
                break
        else:
            break
    return path, str(error)
