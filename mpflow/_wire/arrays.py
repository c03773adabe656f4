"""numpy arrays, scalars and dtypes as plain data. The only module of `_wire` that imports numpy, when it is first needed.

A dtype travels as its array-protocol string, or for a structured one as a dict of its parts. What such a description
does not say in full (dtypes of other packages, subclasses of ndarray, metadata) is left to pickle or refused.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np

from mpflow._wire import tags
from mpflow._wire.scalars import MARKS, Encoder

if TYPE_CHECKING:
    from mpflow._wire.encoding import Encoding

# Items of no size (dtype "S0") cost no bytes in a message, but may once they are an array.
_MOST_EMPTY: Final = 1_000_000
_SIMPLE_KINDS: Final = frozenset("biufcmMSUV")


def encoder_of(kind: type, encoding: Encoding) -> Encoder | None:
    """The encoder of a numpy type, or None if the codec has none of its own."""
    if kind is np.ndarray:
        return lambda value: encode_array(value, encoding) or encoding.encode_unknown(value)
    if issubclass(kind, np.dtype):
        return lambda value: _encode_dtype(value) or encoding.encode_unknown(value)
    if issubclass(kind, np.generic) and kind.__module__ == "numpy":
        return lambda value: _encode_scalar(value, encoding)
    return None


def describe(dtype: np.dtype[Any]) -> Any:
    """A dtype as plain data, or None if `parse` would not give the same one back."""
    if dtype.isbuiltin == 1 and dtype.metadata is None and dtype.kind in "biufc":
        return dtype.str
    try:
        description = _describe(dtype)
        return description if description is not None and parse(description) == dtype else None
    except (TypeError, ValueError):
        return None


def _describe(dtype: np.dtype[Any]) -> Any:
    if dtype.metadata is not None or (dtype.kind not in _SIMPLE_KINDS and dtype.names is None):
        return None
    if dtype.subdtype is not None:
        base, shape = dtype.subdtype
        inner = _describe(base)
        return None if inner is None else {"base": inner, "shape": list(shape)}
    if dtype.names is None:
        # A dtype of another package may call itself raw bytes.
        return dtype.str if type(dtype) is type(np.dtype(dtype.str)) else None
    fields = dtype.fields
    assert fields is not None
    formats = [_describe(fields[name][0]) for name in dtype.names]
    if any(part is None for part in formats):
        return None
    description = {
        "names": list(dtype.names),
        "formats": formats,
        "offsets": [fields[name][1] for name in dtype.names],
        "itemsize": dtype.itemsize,
    }
    titles = [field[2] if len(field) == 3 else None for field in map(fields.__getitem__, dtype.names)]
    if any(title is not None for title in titles):
        description["titles"] = titles
    if dtype.isalignedstruct:
        description["aligned"] = True
    return description


def parse(description: Any) -> np.dtype[Any]:
    """The dtype that `describe` described. Takes nothing else: no names of types, no objects."""
    if type(description) is str:
        if not 2 <= len(description) <= 40 or description[0] not in "<>|=" or description[1] not in _SIMPLE_KINDS:
            raise ValueError(f"{description!r} is not a dtype that this codec writes")
        return np.dtype(description)
    if type(description) is not dict:
        raise TypeError(f"expected a dtype, got {type(description).__name__}")
    if "base" in description:
        return np.dtype((parse(description["base"]), tuple(description["shape"])))
    spec = {
        "names": description["names"],
        "formats": [parse(part) for part in description["formats"]],
        "offsets": description["offsets"],
        "itemsize": description["itemsize"],
    }
    if "titles" in description:
        spec["titles"] = description["titles"]
    return np.dtype(spec, align=bool(description.get("aligned", False)))  # type: ignore[call-overload,no-any-return]


def encode_array(array: np.ndarray[Any, Any], encoding: Encoding) -> list[Any] | None:
    dtype = array.dtype
    order: Literal["C", "F"] = "F" if array.flags.f_contiguous and not array.flags.c_contiguous else "C"
    shape = list(array.shape)
    if dtype.kind == "O" and dtype.names is None and dtype.metadata is None:
        return [MARKS[tags.NDARRAY_OBJECT], shape, order, array.ravel(order).tolist()]
    description = describe(dtype)
    if description is None:
        return None
    return [MARKS[tags.NDARRAY], description, shape, order, encoding.buffer(_bytes_of(array, order), array)]


def _bytes_of(array: np.ndarray[Any, Any], order: str) -> memoryview:
    """The array's bytes in the given order, without a copy if they lie so."""
    flat = array.T if order == "F" else array
    if not flat.flags.c_contiguous:
        flat = np.ascontiguousarray(flat)
    if not flat.nbytes:
        return memoryview(b"")
    # Through uint8: the buffer protocol knows neither datetimes nor half of the structured dtypes. A view of a
    # subclass or of a dtype with padding must be of the plain array.
    plain: Any = flat.reshape(-1).view(np.uint8)
    return memoryview(plain)


def _encode_dtype(dtype: np.dtype[Any]) -> list[Any] | None:
    if dtype == np.dtype(object) and dtype.metadata is None:
        return [MARKS[tags.NUMPY_DTYPE], "|O"]
    description = describe(dtype)
    return None if description is None else [MARKS[tags.NUMPY_DTYPE], description]


def _encode_scalar(value: Any, encoding: Encoding) -> list[Any]:
    description = describe(value.dtype)
    if description is None:
        return encoding.encode_unknown(value)
    # numpy gives an empty string one character as soon as it is in an array.
    data = np.asarray(value).tobytes() if value.dtype.itemsize else b""
    return [MARKS[tags.NUMPY_SCALAR], description, data]


# -- builders: items and whether the peer is trusted ------------------------------------------------------------------


def build_array(items: list[Any], trust: bool) -> Any:
    (_, description, shape, order, data) = items
    dtype = parse(description)
    count = _count(shape)
    size_bytes = memoryview(data).nbytes
    if count * dtype.itemsize != size_bytes:
        raise ValueError(f"an array of shape {shape} and dtype {dtype} has not {size_bytes} bytes")
    if order not in ("C", "F"):
        raise ValueError(f"expected order C or F, got {order!r}")
    # Bytes within the message are immutable; a mapping of shared memory is private and writable already.
    buffer = bytearray(data) if type(data) is bytes else data
    if not size_bytes:
        if count > _MOST_EMPTY:
            raise ValueError(f"an array of {count} items without bytes")
        return np.empty(shape, dtype, order)
    return np.ndarray(shape, dtype, buffer, order=order)


def _build_object_array(items: list[Any], trust: bool) -> Any:
    (_, shape, order, values) = items
    if type(values) is not list or _count(shape) != len(values):
        raise ValueError(f"an array of shape {shape} needs another number of objects")
    array = np.empty(len(values), object)
    for index, value in enumerate(values):  # a slice assignment would look into sequences
        array[index] = value
    return array.reshape(shape, order=order)


def _count(shape: Any) -> int:
    if type(shape) is not list or len(shape) > 64 or not all(type(n) is int and n >= 0 for n in shape):
        raise ValueError(f"{shape!r} is not the shape of an array")
    return math.prod(shape)


def _build_scalar(items: list[Any], trust: bool) -> Any:
    (_, description, data) = items
    dtype = parse(description)
    if type(data) is not bytes or len(data) != dtype.itemsize:
        raise ValueError(f"a scalar of dtype {dtype} has {dtype.itemsize} bytes")
    if not data:
        return dtype.type()
    # Out of a writable copy: a scalar of a structured dtype is a view.
    return np.frombuffer(bytearray(data), dtype)[0]


def _build_dtype(items: list[Any], trust: bool) -> Any:
    (_, description) = items
    return np.dtype(object) if description == "|O" else parse(description)


BUILDERS: Final[dict[int, Callable[[list[Any], bool], Any]]] = {
    tags.NDARRAY: build_array,
    tags.NDARRAY_OBJECT: _build_object_array,
    tags.NUMPY_SCALAR: _build_scalar,
    tags.NUMPY_DTYPE: _build_dtype,
}
