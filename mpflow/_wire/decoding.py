"""One message into one value: which builder each marker calls, and what must hold of a message as a whole.

A `Decoding` serves one message at a time and is used again for the next. With ``trust`` off it must reach neither
pickle nor any import that the data names.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any, Protocol

import msgpack

from mpflow._wire import batches, classes, limits, scalars, tags
from mpflow._wire.errors import DecodeError, DecodeLimitError, WireError
from mpflow._wire.scalars import Builder


class Opener(Protocol):
    """Where references to shared memory lead: `mappings.Held`."""

    def open(self, file_id: int, offset: int, size_bytes: int, generation: int) -> memoryview: ...

    def check(self) -> None: ...


class Marker:
    """The first element of a typed container while it is unpacked; never a value."""

    __slots__ = ("build",)

    def __init__(self, build: Builder) -> None:
        self.build = build


class Decoding:
    """Decodes messages, one at a time and from one thread at a time."""

    def __init__(self, registry: classes.Registry, trust: bool, caps: limits.Limits, inert: bool = False) -> None:
        self.registry = registry
        self.trust = trust
        self._held: Opener | None = None
        self.caps = caps
        self._inert = inert
        self._plans: list[Any] = []
        self._pending = 0
        self._batched = 0
        self._known_plans: weakref.WeakKeyDictionary[type, classes.Plan] = weakref.WeakKeyDictionary()
        markers = {tag: Marker(build) for tag, build in self._builders().items()}
        self._ext_hook = markers.get if trust else self._counting_hook(markers)
        self._list_hook = _list_hook(markers[tags.TUPLE]) if trust else self._counting_list_hook()

    def decode(self, data: bytes | memoryview, held: Opener | None = None) -> Any:
        self._plans.clear()
        self._pending = 0
        self._batched = 0
        self._held = held
        try:
            if not self.trust:
                limits.check(data, self.caps)
            value = msgpack.unpackb(
                data,
                list_hook=self._list_hook,
                ext_hook=self._ext_hook,
                strict_map_key=False,
                unicode_errors="surrogatepass",
            )
            if held is not None:
                held.check()
        except WireError:
            raise
        except (MemoryError, msgpack.StackError) as error:
            what = "memory" if isinstance(error, MemoryError) else f"depth: {limits.MAX_DEPTH} containers"
            raise DecodeLimitError(f"the message of {len(data)} bytes exceeds the limit of {what}") from error
        # Builders see whatever the bytes say, and unpickling runs code of the user's: both may raise anything.
        except BaseException as error:
            raise DecodeError(
                f"the message of {len(data)} bytes cannot be decoded: {type(error).__name__}: {error}"
            ) from error
        finally:
            self._plans.clear()
            self._held = None
        if self._pending or type(value) is Marker:
            raise DecodeError("the message has a marker or a class where a value should be")
        return value

    # -- hooks ---------------------------------------------------------------------------------------------------------

    def _counting_hook(self, markers: dict[int, Marker]) -> Callable[[int, bytes], Marker]:
        def hook(code: int, payload: bytes) -> Marker:
            marker = markers.get(code)
            if marker is None or payload:
                raise DecodeError(f"tag {code} with {len(payload)} bytes is not one that this version of mpflow knows")
            self._pending += 1
            return marker

        return hook

    def _counting_list_hook(self) -> Callable[[list[Any]], Any]:
        """Every marker must open a container: those that are left over at the end were smuggled in as values."""

        def hook(items: list[Any]) -> Any:
            if items:
                head = items[0]
                if type(head) is Marker:
                    self._pending -= 1
                    return head.build(items)
            return items

        return hook

    # -- builders ------------------------------------------------------------------------------------------------------

    def _builders(self) -> dict[int, Builder]:
        builders = dict(scalars.BUILDERS)
        builders[tags.CLASS] = self._build_class
        builders[tags.OBJECT] = self._build_object
        builders[tags.OBJECTS] = self._build_objects
        builders[tags.BATCH] = lambda items: batches.build(items, self._charge)
        builders[tags.OBJECT_STATE] = self._build_state
        builders[tags.ENUM] = self._build_enum
        builders[tags.NAMEDTUPLE] = self._build_namedtuple
        builders[tags.MODEL] = self._build_model
        builders[tags.EXCEPTION] = self._build_exception
        builders[tags.TYPE] = self._build_type
        builders[tags.SEND] = _build_send
        builders[tags.CHUNKS] = _build_chunks
        for tag in range(tags.NDARRAY, tags.NUMPY_DTYPE + 1):
            builders[tag] = self._later("arrays", tag)
        for tag in range(tags.PANDAS_SERIES, tags.ARROW + 1):
            builders[tag] = self._later("tables", tag)
        if self.trust:
            builders[tags.CLASS_BY_VALUE] = self._build_class_by_value
            builders[tags.PICKLE] = _unpickle
            builders[tags.SHARED] = self._open_shared
        return builders

    def _later(self, module: str, tag: int) -> Builder:
        """A builder that imports its library at the first message that needs it."""

        def build(items: list[Any]) -> Any:
            if module == "arrays":
                from mpflow._wire.arrays import BUILDERS
            else:
                from mpflow._wire.tables import BUILDERS
            return BUILDERS[tag](items, self.trust)

        return build

    def _charge(self, count: int) -> None:
        """Containers in batches take hardly a byte each, so they are counted apart."""
        self._batched += count
        if not self.trust and self._batched * limits.CONTAINER_BYTES > self.caps.memory_bytes:
            raise DecodeLimitError(
                f"{self._batched} containers in batches would take more than {self.caps.memory_bytes} bytes"
            )

    def _build_class(self, items: list[Any]) -> Any:
        (_, name, names) = items
        if type(names) is not list or not all(type(field) is str for field in names):
            raise DecodeError(f"the fields of class {name!r} are not a list of names")
        cls = self.registry.find(name)
        if cls is None and self.trust:
            cls = classes.import_class(name)
        plan: Any
        if cls is not None:
            plan = self._plan_of(cls, names)
        elif self._inert:
            plan = classes.InertPlan(name, names)
        else:
            raise DecodeError(
                f"the message names the class {name}, which is not known here; pass it to compile(types=[...])"
            )
        return self._add_plan(plan)

    def _build_class_by_value(self, items: list[Any]) -> Any:
        from mpflow._wire import pickling

        (_, class_id, data, names) = items
        return self._add_plan(self._plan_of(pickling.load_class(class_id, data), names))

    def _plan_of(self, cls: type, names: list[str]) -> classes.Plan:
        plan = self._known_plans.get(cls)
        if plan is None or plan.names != names:
            plan = self._known_plans[cls] = classes.Plan(cls, names)
        return plan

    def _add_plan(self, plan: Any) -> Any:
        self._plans.append(plan)
        self._pending += 1  # until an object takes it
        return plan

    def _plan(self, ref: Any) -> Any:
        if type(ref) is int:
            return self._plans[ref]
        if type(ref) is not classes.Plan and type(ref) is not classes.InertPlan:
            raise DecodeError(f"expected a class, got {type(ref).__name__}")
        self._pending -= 1
        return ref

    def _build_object(self, items: list[Any]) -> Any:
        ref = items[1]
        plan = self._plans[ref] if type(ref) is int else self._plan(ref)
        del items[:2]
        return plan.build(items)

    def _build_objects(self, items: list[Any]) -> Any:
        plan = self._plan(items[1])
        del items[:2]
        self._charge(len(items) // max(len(plan.names), 1))
        return plan.build_all(items)

    def _build_state(self, items: list[Any]) -> Any:
        (_, ref, state) = items
        return self._plan(ref).build_state(state)

    def _build_enum(self, items: list[Any]) -> Any:
        (_, ref, key) = items
        return self._plan(ref).build_enum(key)

    def _build_namedtuple(self, items: list[Any]) -> Any:
        plan = self._plan(items[1])
        return plan.build_namedtuple(items[2:])

    def _build_model(self, items: list[Any]) -> Any:
        (_, ref, fields, fields_set, extra, private) = items
        return self._plan(ref).build_model(fields, fields_set, extra, private)

    def _build_type(self, items: list[Any]) -> Any:
        (_, ref) = items
        plan = self._plan(ref)
        return plan.cls if type(plan) is classes.Plan else plan.build_state(None)

    def _build_exception(self, items: list[Any]) -> Any:
        from mpflow._wire import failures

        (_, record) = items
        return failures.exception_of(record, failures.Reader(self.registry, self.trust))

    def _open_shared(self, items: list[Any]) -> memoryview:
        (_, file_id, offset, size_bytes, generation) = items
        if self._held is None:
            raise DecodeError(
                "the message refers to shared memory: decode it with what Mappings.hold gave for its ticket"
            )
        return self._held.open(file_id, offset, size_bytes, generation)


def _list_hook(tuple_marker: Marker) -> Callable[[list[Any]], Any]:
    def hook(items: list[Any]) -> Any:
        if items:
            head = items[0]
            if head is tuple_marker:
                del items[0]
                return tuple(items)
            if type(head) is Marker:
                return head.build(items)
        return items

    return hook


def _build_send(items: list[Any]) -> Any:
    from mpflow.types import Send

    (_, node, arg, timeout) = items
    send = object.__new__(Send)
    send.node = node
    send.arg = arg
    send.timeout = timeout
    return send


def _build_chunks(items: list[Any]) -> bytes:
    if not all(type(part) in (bytes, memoryview) for part in items[1:]):
        raise DecodeError("expected chunks of bytes")
    return b"".join(items[1:]) if len(items) != 2 else bytes(items[1])


def _unpickle(items: list[Any]) -> Any:
    from mpflow._wire import pickling

    # Buffers in the message are immutable bytes; what was writable must be so again.
    buffers = [bytearray(part) if type(part) is bytes else part for part in items[2:]]
    return pickling.loads(items[1], buffers)
