"""One value into one message: type dispatch, the classes named so far, and where large buffers go.

An `Encoding` serves one message at a time and is used again for the next. It must not know what a message is for, and
must not word errors for users: `explain` does, once an encoding has failed.
"""

from __future__ import annotations

import gc
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable
from itertools import chain
from operator import attrgetter
from typing import Any, Final, Protocol

from msgpack import ExtType, Packer

from mpflow._wire import classes, pickling, scalars, tags
from mpflow._wire.scalars import MARKS, Encoder

_CHUNK_BYTES: Final = 1 << 31
_KEPT_BYTES: Final = 1 << 20


class Sharer(Protocol):
    """Where large buffers go instead of into the message: `shm.Arena`."""

    threshold_bytes: int

    def put(self, data: memoryview, owner: Any) -> tuple[int, int, int, int] | None:
        """File, offset, size and generation of a copy of `data`, or None to have it inline."""
        ...


class Unencodable(Exception):
    """No way to carry this object; the reason for users is worded by `explain`."""


class _Raw:
    """Bytes of ours among the user's values, in `Encoding._pack_carefully`."""

    __slots__ = ("view",)

    def __init__(self, view: Any) -> None:
        self.view = view


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

    def __init__(self, registry: classes.Registry, trust: bool, arena: Sharer | None, open_exceptions: int = 0) -> None:
        self.registry = registry
        self.trust = trust
        self.arena = arena
        self.flags = 0
        self._open_exceptions = open_exceptions
        self._careful = False
        self._refs: dict[type, int] = {}
        self.table = table = _Table(self._resolve)
        table[defaultdict] = self._encode_defaultdict
        table[memoryview] = self._encode_memoryview
        table[bytearray] = self._encode_bytearray
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
        self.flags = 0
        self._refs.clear()
        self._careful = False
        if type(value) in _SPECIAL or (self.arena is not None and self._is_large_at_a_glance(value)):
            return self._pack_carefully(value)
        try:
            data: bytes = self._packer.pack(value)
        except UnicodeEncodeError:
            # Lone surrogates. Not the default: it makes all strings slower by half.
            self._begin_again()
            data = self._loose_packer.pack(value)
        except BaseException:
            self._packer.reset()
            raise
        if len(data) > _KEPT_BYTES:  # or the packer would keep a buffer of that size for as long as the codec lives
            self._packer = Packer(default=self._default, strict_types=True)
        # The packer takes bytearray, memoryview and msgpack's own ExtType by itself, which would lose the first two's
        # type and forge our markers. bin headers give them away, and only then is it worth looking.
        if (b"\xc4" in data or b"\xc5" in data or b"\xc6" in data) and self._needs_care(value, len(data)):
            self._begin_again()
            return self._pack_carefully(value)
        return data

    def _begin_again(self) -> None:
        self._packer.reset()
        self._loose_packer.reset()
        self._refs.clear()
        self.flags = 0

    # -- bytes-like values ---------------------------------------------------------------------------------------------

    def _is_large_at_a_glance(self, value: Any) -> bool:
        """Whether large bytes are near the top, as in a diff or a state: sparing the packer a copy of them."""
        threshold = self.arena.threshold_bytes if self.arena is not None else 0
        level = [value]
        for _ in range(4):
            below: list[Any] = []
            for item in level:
                kind = type(item)
                if kind is bytes or kind is bytearray:
                    if len(item) >= threshold:
                        return True
                elif kind is dict:
                    if len(item) <= 64:
                        below.extend(item.values())
                elif (kind is list or kind is tuple) and len(item) <= 64:
                    below.extend(item)
            level = below[:256]
        return False

    def _needs_care(self, value: Any, size_bytes: int) -> bool:
        """Whether bytearray, memoryview, ExtType or bytes for the arena are anywhere in a value that can be packed.

        Level by level, with C doing the looking: some ten nanoseconds an item.
        """
        threshold = self.arena.threshold_bytes if self.arena is not None else 0
        find_bytes = threshold and size_bytes >= threshold
        level = [value]
        while level:
            kinds = set(map(type, level))
            if not kinds.isdisjoint(_SPECIAL):
                return True
            if find_bytes and bytes in kinds and any(type(x) is bytes and len(x) >= threshold for x in level):
                return True
            kinds -= _ATOMS
            if not kinds:
                return False
            natives = [x for x in level if type(x) in _NATIVE] if kinds - _NATIVE else level
            below = gc.get_referents(*natives)
            for kind in kinds - _NATIVE:
                children = self._children_of(kind)
                if children is not None:
                    below.extend(chain.from_iterable(children(x) for x in level if type(x) is kind))
            level = below
        return False

    def _children_of(self, kind: type) -> Callable[[Any], Any] | None:
        """How to list what a typed object holds; None if its encoder packs nothing of the user's as it is."""
        if kind is defaultdict:
            return lambda value: [*value.keys(), *value.values()]
        root = kind.__module__.partition(".")[0]
        if root in ("numpy", "pandas"):
            return self._taken_apart
        if kind.__module__ == "mpflow.types" and kind.__name__ == "Send":
            return lambda value: (value.arg,)
        what = classes.kind_of(kind)
        if what == classes.NAMEDTUPLE:
            return iter
        if what == classes.MODEL:
            return lambda value: (value.__dict__, value.__pydantic_extra__, value.__pydantic_private__)
        if what in (classes.DATACLASS, classes.PLAIN):
            slots = classes.slots_of(kind)
            return lambda value: classes.state_of(value, slots).values()
        return None

    def _taken_apart(self, value: Any) -> list[Any]:
        """What the encoder makes of a value, less what is ours in it; nothing goes to the arena meanwhile."""
        arena, self.arena, self._careful = self.arena, None, True
        try:
            return [item for item in self.table[type(value)](value) if type(item) is not ExtType]
        finally:
            self.arena, self._careful = arena, False

    def _pack_carefully(self, value: Any) -> bytes:
        """Pack without letting the packer choose: containers are opened here, one stack of iterators deep."""
        self._careful = True
        packer = Packer(default=self._default, strict_types=True, autoreset=False, unicode_errors="surrogatepass")
        pack, default, threshold = packer.pack, self._default, self.arena.threshold_bytes if self.arena else 1 << 62
        stack = [iter((value,))]
        while stack:
            if len(stack) > _MAX_OPEN:
                raise ValueError("recursion limit exceeded.")
            for item in stack[-1]:
                kind = type(item)
                if kind in _PLAIN_ATOMS:
                    pack(item)
                    continue
                if kind is _Raw:
                    pack(item.view)
                    continue
                if kind is bytes and len(item) < threshold:
                    pack(item)
                    continue
                if kind is dict:
                    packer.pack_map_header(len(item))
                    stack.append(chain.from_iterable(item.items()))
                    break
                if kind is ExtType:
                    if MARKS.get(item.code) is not item:
                        raise Unencodable("msgpack.ExtType would be taken for one of the codec's own markers")
                    pack(item)
                    continue
                if kind is bytes:
                    item = self._encode_bytes(item)
                elif kind is not list:
                    item = default(item)
                packer.pack_array_header(len(item))
                stack.append(iter(item))
                break
            else:
                stack.pop()
        packed: bytes = packer.bytes()
        return packed

    def buffer(self, view: memoryview, owner: Any = None) -> Any:
        """What stands for these contiguous bytes in the message; `owner` is the object that holds them."""
        size_bytes = view.nbytes
        if self.arena is not None and size_bytes >= self.arena.threshold_bytes:
            place = self.arena.put(view, owner)
            if place is not None:
                self.flags |= tags.REFERS
                return [MARKS[tags.SHARED], *place]
        if size_bytes > _CHUNK_BYTES:
            parts: list[Any] = [view[at : at + _CHUNK_BYTES] for at in range(0, size_bytes, _CHUNK_BYTES)]
            return [MARKS[tags.CHUNKS], *(map(_Raw, parts) if self._careful else parts)]
        return _Raw(view) if self._careful else view

    def _encode_bytes(self, value: bytes) -> list[Any]:
        data = self.buffer(memoryview(value), value)
        return data if type(data) is list else [MARKS[tags.CHUNKS], data]

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
        return self.encode_unknown

    def _library_encoder(self, kind: type) -> Encoder | None:
        root = str(kind.__module__).partition(".")[0]
        if root == "zoneinfo":
            return lambda value: scalars.encode_zone(value) or self.encode_unknown(value)
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
        names = list(classes.field_names(cls))
        name = self.registry.name(cls)
        if name is None:
            if not self.trust:
                raise Unencodable(f"{classes.name_of(cls)} is not among the types that this codec may name")
            if not pickling.is_importable(cls):
                self.flags |= tags.PICKLED
                class_id, data = pickling.pickle_class(cls)
                return [MARKS[tags.CLASS_BY_VALUE], class_id, _Raw(data) if self._careful else data, names]
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

            return encode_slots

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
            raise Unencodable(f"{classes.name_of(type(value))} is no type that can be saved")
        self.flags |= tags.PICKLED
        buffers: list[Any] = []
        data = pickling.dumps(value, buffers)
        views = [(buffer.raw() if hasattr(buffer, "raw") else memoryview(buffer)) for buffer in buffers]
        head = self.buffer(memoryview(data), data)
        return [MARKS[tags.PICKLE], head, *(self.buffer(view, None) for view in views)]


def _encode_send(value: Any) -> list[Any]:
    return [MARKS[tags.SEND], value.node, value.arg, value.timeout]


_PLAIN_ATOMS: Final = frozenset({int, str, float, bool, type(None)})
_ATOMS: Final = _PLAIN_ATOMS | {bytes, complex, range, slice, type(...)}
_SPECIAL: Final = frozenset({bytearray, memoryview, ExtType})
_NATIVE: Final = frozenset({list, dict, tuple, set, frozenset, deque, OrderedDict, Counter})
_MAX_OPEN: Final = 1024
