"""One value into one message: type dispatch, the classes named so far, and where large buffers go.

An `Encoding` serves one message at a time and is used again for the next. It must not know what a message is for, and
must not word errors for users: `explain` does, once an encoding has failed.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Callable
from itertools import chain
from operator import attrgetter
from typing import Any, Final, Protocol

from msgpack import ExtType, Packer

from mpflow._wire import batches, care, classes, pickling, scalars, tags
from mpflow._wire.batches import Batch, Gatherer, RowsOf
from mpflow._wire.limits import CONTAINER_BYTES, DEFAULT_LIMITS, Limits
from mpflow._wire.scalars import MARKS, Encoder

_CHUNK_BYTES: Final = 1 << 31
_KEPT_BYTES: Final = 1 << 20
# What can be saved of a text or a number of a class that the codec may not name, if the class adds no data of its own.
_BARE: Final[dict[type, Callable[[Any], Any]]] = {
    str: str.__str__,
    int: lambda value: scalars.BUILTIN_ENCODERS[int](int.__int__(value)),  # of any size
    float: float.__float__,
    bytes: lambda value: bytes(memoryview(value)),
}


class Sharer(Protocol):
    """Where large buffers go instead of into the message: `shm.Arena`."""

    threshold_bytes: int

    def put(self, data: memoryview, owner: Any) -> tuple[int, int, int, int] | None:
        """File, offset, size and generation of a copy of `data`, or None to have it inline."""
        ...


class _Table(dict[type, Encoder]):
    """Encoders by exact type; a type met for the first time is resolved."""

    def __init__(self, resolve: Callable[[type], Encoder]) -> None:
        super().__init__(scalars.BUILTIN_ENCODERS)
        self._resolve = resolve

    def __missing__(self, kind: type) -> Encoder:
        encoder = self[kind] = self._resolve(kind)
        return encoder


class Encoding:
    """Encodes values, one at a time and from one thread at a time. ``flags`` tells about the last one."""

    def __init__(
        self,
        registry: classes.Registry,
        trust: bool,
        arena: Sharer | None = None,
        caps: Limits = DEFAULT_LIMITS,
        open_exceptions: int = 0,
    ) -> None:
        self.registry = registry
        self.trust = trust
        self.arena = arena
        self._most_batched = sys.maxsize if trust else caps.memory_bytes // CONTAINER_BYTES
        self.flags = 0
        self._open_exceptions = open_exceptions
        self._careful = False
        self._refs: dict[type, int] = {}
        self._known: dict[type, tuple[str | None, list[str]]] = {}
        self.table = table = _Table(self._resolve)
        table[defaultdict] = self._encode_defaultdict
        table[memoryview] = self._encode_memoryview
        table[bytearray] = self._encode_bytearray
        table[Batch] = self._encode_batch
        self._rows: dict[type, RowsOf] = {}
        self._gatherer = Gatherer(self._rows_of, arena.threshold_bytes if arena is not None else None)
        mark = MARKS[tags.TUPLE]

        def default(value: Any) -> list[Any]:
            kind = type(value)
            if kind is tuple:
                return [mark, *value]
            return table[kind](value)

        self._default = default
        self._packer = Packer(default=default, strict_types=True)
        self._loose_packer = Packer(default=default, strict_types=True, unicode_errors="surrogatepass", buf_size=4096)

    def encode(self, value: Any) -> bytes:
        self._begin()
        threshold = self.arena.threshold_bytes if self.arena is not None else None
        if type(value) in batches.OPENED:
            gatherer = self._gatherer
            gatherer.begin(self._most_batched)
            value = gatherer.gather(value)
            if gatherer.has_large:
                return self._pack_carefully(value, threshold)
        elif type(value) in care.SPECIAL:
            return self._pack_carefully(value, threshold)
        try:
            data: bytes = self._packer.pack(value)
        except UnicodeEncodeError:
            # Lone surrogates. Not the default: it makes all strings slower by half.
            self._packer.reset()
            self._begin()
            data = self._loose_packer.pack(value)
        except BufferError:  # a memoryview with gaps
            self._packer.reset()
            self._begin()
            return self._pack_carefully(value, threshold)
        except BaseException:
            self._packer.reset()
            raise
        if len(data) > _KEPT_BYTES:  # or the packer would keep a buffer of that size for as long as the codec lives
            self._packer = Packer(default=self._default, strict_types=True)
        # Bytes-like values show by bin headers, and only then is it worth looking for what needs care.
        if b"\xc4" in data or b"\xc5" in data or b"\xc6" in data:
            large = threshold if threshold is not None and len(data) >= threshold else None
            if care.is_needed(value, large, self._taken_apart):
                self._begin()
                return self._pack_carefully(value, threshold)
        return data

    def _begin(self) -> None:
        self._refs.clear()
        self.flags = 0

    def _pack_carefully(self, value: Any, threshold: int | None) -> bytes:
        self._careful = True
        try:
            return care.pack(value, self._default, self._encode_bytes, threshold)
        finally:
            self._careful = False

    def _taken_apart(self, value: Any) -> list[Any]:
        """What the encoder makes of a value, less what is ours in it; nothing goes to the arena meanwhile."""
        arena, self.arena, self._careful = self.arena, None, True
        try:
            return [item for item in self.table[type(value)](value) if type(item) is not ExtType]
        finally:
            self.arena, self._careful = arena, False

    # -- bytes-like values ---------------------------------------------------------------------------------------------

    def buffer(self, view: memoryview, owner: Any = None) -> Any:
        """What stands for these contiguous bytes in the message; `owner` is the object that holds them."""
        view = view.cast("B")
        size_bytes = view.nbytes
        if self.arena is not None and size_bytes >= self.arena.threshold_bytes:
            place = self.arena.put(view, owner)
            if place is not None:
                self.flags |= tags.REFERS
                return [MARKS[tags.SHARED], *place]
        if size_bytes > _CHUNK_BYTES:
            parts: list[Any] = [view[at : at + _CHUNK_BYTES] for at in range(0, size_bytes, _CHUNK_BYTES)]
            return [MARKS[tags.CHUNKS], *(map(care.Raw, parts) if self._careful else parts)]
        return care.Raw(view) if self._careful else view

    def _encode_bytes(self, value: bytes) -> list[Any]:
        data = self.buffer(memoryview(value), value)
        return data if type(data) is list and data[0] is MARKS[tags.CHUNKS] else [MARKS[tags.CHUNKS], data]

    def _encode_bytearray(self, value: bytearray) -> list[Any]:
        return [MARKS[tags.BYTEARRAY], self.buffer(memoryview(value), value)]

    def _encode_memoryview(self, value: memoryview) -> list[Any]:
        data = value if value.c_contiguous else memoryview(value.tobytes())
        flat = data.cast("B") if data.nbytes else memoryview(b"")
        return [MARKS[tags.MEMORYVIEW], value.format, list(value.shape or ()), self.buffer(flat, value)]

    # -- types met for the first time ----------------------------------------------------------------------------------

    def _resolve(self, kind: type) -> Encoder:
        found = scalars.encoder_of(kind) or self._library_encoder(kind)
        if found is not None:
            return found
        own = self._class_encoder(kind)
        if own is not None:
            return own
        if issubclass(kind, BaseException):
            return self._encode_exception
        if issubclass(kind, type):
            return self._encode_class
        if not self.trust and classes.kind_of(kind) is None and not classes.slots_of(kind):
            for base, bare in _BARE.items():
                if issubclass(kind, base):
                    return self._bare_encoder(bare)
        return self.encode_unknown

    def _bare_encoder(self, bare: Callable[[Any], Any]) -> Encoder:
        return lambda value: self.encode_unknown(value) if getattr(value, "__dict__", None) else bare(value)

    def _library_encoder(self, kind: type) -> Encoder | None:
        root = str(kind.__module__).partition(".")[0]
        if root == "zoneinfo":
            return lambda value: scalars.encode_zone(value) or self.encode_unknown(value)
        if root == "pytz":
            return lambda value: scalars.encode_pytz(value) or self.encode_unknown(value)
        if root == "numpy":
            from mpflow._wire import arrays

            return arrays.encoder_of(kind, self)
        if root in ("pandas", "pyarrow"):
            from mpflow._wire import tables

            return tables.encoder_of(kind, self)
        if kind.__module__ == "mpflow.types" and kind.__name__ == "Send":
            return _encode_send
        return None

    def _class_encoder(self, cls: type) -> Encoder | None:
        kind = classes.kind_of(cls)
        if kind is None:
            return None
        is_known = self.registry.name(cls) is not None
        if not is_known:
            if not self.trust:
                return None
            if kind == classes.PLAIN:
                return None
        if self.trust and kind in (classes.DATACLASS, classes.MODEL, classes.PLAIN) and classes.has_own_pickling(cls):
            return None
        if kind == classes.ENUM:
            return self._enum_encoder(cls)
        if kind == classes.NAMEDTUPLE:
            mark = MARKS[tags.NAMEDTUPLE]
            return lambda value: [mark, self._class_ref(cls), *value]
        if kind == classes.MODEL:
            return self._model_encoder(cls)
        return self._object_encoder(cls, classes.field_names(cls))

    def _class_ref(self, cls: type) -> Any:
        """The class's number in this message, or its definition if this is its first use."""
        number = self._refs.get(cls)
        if number is not None:
            return number
        self._refs[cls] = len(self._refs)
        known = self._known.get(cls)
        if known is None:
            known = self._known[cls] = (self.registry.name(cls), list(classes.field_names(cls)))
        name, names = known
        if name is None:
            if not self.trust:
                raise care.Unencodable(f"{classes.name_of(cls)} is not among the types that this codec may name")
            if not pickling.is_importable(cls):
                self.flags |= tags.PICKLED
                class_id, data = pickling.pickle_class(cls)
                return [MARKS[tags.CLASS_BY_VALUE], class_id, care.Raw(data) if self._careful else data, names]
            self.flags |= tags.NAMES
            name = classes.name_of(cls)
        return [MARKS[tags.CLASS], name, names]

    def _object_encoder(self, cls: type, names: tuple[str, ...]) -> Encoder:
        slots = classes.slots_of(cls)
        refs, class_ref = self._refs, self._class_ref
        mark, state_mark = MARKS[tags.OBJECT], MARKS[tags.OBJECT_STATE]

        def encode_state(value: Any) -> list[Any]:
            return [state_mark, class_ref(cls), classes.state_of(value, slots)]

        if not names:
            return encode_state
        if slots:
            if set(names) != set(slots):
                return encode_state
            get = attrgetter(*names)
            is_single = len(names) == 1
            has_dict = bool(cls.__dictoffset__)  # a base without __slots__

            def encode_slots(value: Any) -> list[Any]:
                try:
                    values = get(value)
                except AttributeError:
                    return encode_state(value)
                if has_dict and value.__dict__:
                    return encode_state(value)
                return [mark, class_ref(cls), values] if is_single else [mark, class_ref(cls), *values]

            def slot_rows(values: list[Any]) -> list[Any] | None:
                try:
                    return list(map(get, values) if is_single else chain.from_iterable(map(get, values)))
                except AttributeError:
                    return None

            if not has_dict:
                self._rows[cls] = slot_rows
            return encode_slots

        def rows(values: list[Any]) -> list[Any] | None:
            dicts = list(map(attrgetter("__dict__"), values))
            return list(chain.from_iterable(map(dict.values, dicts))) if set(map(tuple, dicts)) == {names} else None

        self._rows[cls] = rows

        def encode(value: Any) -> list[Any]:
            attributes = value.__dict__
            if tuple(attributes) != names:
                return encode_state(value)
            if cls in refs:
                return [mark, refs[cls], *attributes.values()]
            return [mark, class_ref(cls), *attributes.values()]

        return encode

    def _model_encoder(self, cls: Any) -> Encoder:
        mark, class_ref = MARKS[tags.MODEL], self._class_ref

        def encode(value: Any) -> list[Any]:
            fields = value.__dict__
            fields_set = value.__pydantic_fields_set__
            # In a fixed order, so that equal models give equal bytes.
            names = None if fields_set == fields.keys() else sorted(fields_set)
            return [mark, class_ref(cls), fields, names, value.__pydantic_extra__, value.__pydantic_private__]

        return encode

    def _enum_encoder(self, cls: Any) -> Encoder:
        mark, class_ref, members = MARKS[tags.ENUM], self._class_ref, cls._member_map_

        def encode(value: Any) -> list[Any]:
            name = value._name_
            return [mark, class_ref(cls), name if name in members else value._value_]

        return encode

    def _rows_of(self, cls: type) -> RowsOf | None:
        """How to lay out objects of this class in a batch, if its encoder is one that knows."""
        self.table[cls]
        return self._rows.get(cls)

    def _encode_batch(self, batch: Batch) -> list[Any]:
        if batch.layout is None:
            return [MARKS[tags.OBJECTS], self._class_ref(batch.cls), *batch.items]
        return [MARKS[tags.BATCH], *batches.parts_of(batch)]

    def _encode_class(self, cls: type) -> list[Any]:
        if self.registry.name(cls) is None and (not self.trust or not pickling.is_importable(cls)):
            return self.encode_unknown(cls)
        return [MARKS[tags.TYPE], self._class_ref(cls)]

    def _encode_defaultdict(self, value: Any) -> list[Any]:
        return scalars.encode_defaultdict(value) or self.encode_unknown(value)

    def _encode_exception(self, value: BaseException) -> list[Any]:
        from mpflow._wire import failures

        recorder = failures.Recorder(self.registry, self.trust, self._open_exceptions)
        record = recorder.record(value)
        self.flags |= recorder.flags
        return [MARKS[tags.EXCEPTION], record]

    def encode_unknown(self, value: Any) -> list[Any]:
        if not self.trust:
            raise care.Unencodable(f"{classes.name_of(type(value))} is no type that can be saved")
        self.flags |= tags.PICKLED
        buffers: list[Any] = []
        data = pickling.dumps(value, buffers)
        views = [(buffer.raw() if hasattr(buffer, "raw") else memoryview(buffer)) for buffer in buffers]
        head = self.buffer(memoryview(data), data)
        return [MARKS[tags.PICKLE], head, *(self.buffer(view, None) for view in views)]


def _encode_send(value: Any) -> list[Any]:
    return [MARKS[tags.SEND], value.node, value.arg, value.timeout]
