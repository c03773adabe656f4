"""pandas and pyarrow values as plain data. Must not import either unless a value or a message of it is at hand.

A pandas object is taken apart into one-dimensional arrays, each either a numpy array or PANDAS_ARRAY with a code and
its parts; what has no code here is left to pickle or refused. Arrow values are IPC streams of one table.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from mpflow._wire import tags
from mpflow._wire.scalars import MARKS, Encoder

if TYPE_CHECKING:
    from mpflow._wire.encoding import Encoding

# Codes of PANDAS_ARRAY, with their parts.
_DATETIME: Final = 0  # datetime64 array in UTC, time zone or None
_TIMEDELTA: Final = 1  # timedelta64 array
_PERIOD: Final = 2  # int64 ordinals, frequency
_MASKED: Final = 3  # values, mask
_CATEGORICAL: Final = 4  # codes, categories, is it ordered
_STRING: Final = 5  # storage, is missing NaN (else NA), Arrow array or object array
_ARROW_BACKED: Final = 6  # Arrow array
_INTERVAL: Final = 7  # left, right, closed
_SPARSE: Final = 8  # values, indices, length, fill value

# Codes of PANDAS_INDEX.
_RANGE: Final = 0  # start, stop, step, name
_FLAT: Final = 1  # array, name, frequency or None
_MULTI: Final = 2  # levels, codes, names

_INDEXES: Final = ("Index", "DatetimeIndex", "TimedeltaIndex", "PeriodIndex", "CategoricalIndex", "IntervalIndex")

# Codes of PANDAS_SCALAR.
_TIMESTAMP: Final = 0  # integer, unit, time zone or None, fold
_TIMEDELTA_SCALAR: Final = 1  # integer, unit
_NOT_A_TIME: Final = 2
_NA: Final = 3

_ARROW_KINDS: Final = {0: "Table", 1: "RecordBatch", 2: "Array", 3: "ChunkedArray"}


class _NoWay(Exception):
    """A pandas array of a kind that has no code here."""


def encoder_of(kind: type, encoding: Encoding) -> Encoder | None:
    """The encoder of a type of pandas or pyarrow, or None if the codec has none of its own."""
    if str(kind.__module__).startswith("pyarrow"):
        return _arrow_encoder(kind, encoding)
    pd = sys.modules["pandas"]
    scalars: dict[type, Callable[[Any], list[Any]]] = {
        pd.Timestamp: lambda v: [
            MARKS[tags.PANDAS_SCALAR], _TIMESTAMP, int(v.asm8.view("i8")), v.unit, v.tz, v.fold,
        ],
        pd.Timedelta: lambda v: [MARKS[tags.PANDAS_SCALAR], _TIMEDELTA_SCALAR, int(v.asm8.view("i8")), v.unit],
        type(pd.NaT): lambda v: [MARKS[tags.PANDAS_SCALAR], _NOT_A_TIME],
        type(pd.NA): lambda v: [MARKS[tags.PANDAS_SCALAR], _NA],
    }  # fmt: skip
    if kind in scalars:
        return scalars[kind]
    take: Callable[[Any], list[Any]]
    if kind is pd.Series:
        take = _take_series
    elif kind is pd.DataFrame:
        take = _take_frame
    elif issubclass(kind, pd.Index):
        take = _take_index
    elif issubclass(kind, pd.api.extensions.ExtensionArray):
        take = _take_extension
    else:
        return None

    def encode(value: Any) -> list[Any]:
        try:
            return take(value)
        except _NoWay:
            return encoding.encode_unknown(value)

    return encode


def _take_series(series: Any) -> list[Any]:
    if not series.flags.allows_duplicate_labels:
        raise _NoWay
    return [MARKS[tags.PANDAS_SERIES], _take_array(series.array), _take_index(series.index), series.name, series.attrs]


def _take_frame(frame: Any) -> list[Any]:
    if not frame.flags.allows_duplicate_labels:
        raise _NoWay
    dtypes = set(frame.dtypes)
    if len(dtypes) == 1 and type(next(iter(dtypes))).__module__.startswith("numpy"):
        columns: Any = frame.to_numpy()  # one block: no copy
    else:
        columns = [_take_array(frame.iloc[:, at].array) for at in range(frame.shape[1])]
    mark = MARKS[tags.PANDAS_FRAME]
    return [mark, columns, _take_index(frame.columns), _take_index(frame.index), frame.attrs]


def _take_index(index: Any) -> list[Any]:
    pd, kind, mark = sys.modules["pandas"], type(index), MARKS[tags.PANDAS_INDEX]
    if kind is pd.RangeIndex:
        return [mark, _RANGE, index.start, index.stop, index.step, index.name]
    if kind is pd.MultiIndex:
        levels = [_take_index(level) for level in index.levels]
        return [mark, _MULTI, levels, [codes.copy() for codes in index.codes], list(index.names)]
    if kind.__name__ not in _INDEXES or getattr(pd, kind.__name__) is not kind:
        raise _NoWay
    return [mark, _FLAT, _take_array(index.array), index.name, getattr(index, "freqstr", None)]


def _take_array(array: Any) -> Any:
    """A one-dimensional array as a numpy array or as the list that is packed for it."""
    if type(array).__module__ == "numpy":
        return array
    return _take_extension(array)


def _take_extension(array: Any) -> Any:
    kind, mark = type(array).__name__, MARKS[tags.PANDAS_ARRAY]
    if not type(array).__module__.startswith("pandas"):
        raise _NoWay
    if kind in ("NumpyExtensionArray", "PandasArray"):
        return array.to_numpy()
    if kind == "DatetimeArray":
        return [mark, _DATETIME, array.asi8.view(f"M8[{array.unit}]"), array.tz]
    if kind == "TimedeltaArray":
        return [mark, _TIMEDELTA, array.asi8.view(f"m8[{array.unit}]")]
    if kind == "PeriodArray":
        return [mark, _PERIOD, array.asi8, array.freqstr]
    if kind in ("IntegerArray", "FloatingArray", "BooleanArray"):
        return [mark, _MASKED, array._data, array._mask]
    if kind == "Categorical":
        return [mark, _CATEGORICAL, array.codes, _take_index(array.categories), bool(array.ordered)]
    if kind in ("ArrowStringArray", "ArrowStringArrayNumpySemantics", "StringArray", "StringArrayNumpySemantics"):
        import numpy as np

        is_arrow = array.dtype.storage.startswith("pyarrow")
        data = array._pa_array if is_arrow else np.asarray(array, object)
        return [mark, _STRING, "pyarrow" if is_arrow else "python", array.dtype.na_value is not _na(), data]
    if kind == "ArrowExtensionArray":
        return [mark, _ARROW_BACKED, array._pa_array]
    if kind == "IntervalArray":
        return [mark, _INTERVAL, _take_index(array.left), _take_index(array.right), array.closed]
    if kind == "SparseArray":
        return [mark, _SPARSE, array.sp_values, array.sp_index.indices, len(array), array.fill_value]
    raise _NoWay


def _na() -> Any:
    return sys.modules["pandas"].NA


def _arrow_encoder(kind: type, encoding: Encoding) -> Encoder | None:
    pa = sys.modules["pyarrow"]
    for code, name in _ARROW_KINDS.items():
        if issubclass(kind, getattr(pa, name)):
            return lambda value: _encode_arrow(value, code, encoding)
    return None


def _encode_arrow(value: Any, code: int, encoding: Encoding) -> list[Any]:
    pa = sys.modules["pyarrow"]
    table = value if code < 2 else pa.table([value], names=[""])
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write(table)
    stream = sink.getvalue()
    return [MARKS[tags.ARROW], code, encoding.buffer(memoryview(stream), value)]


# -- builders: items and whether the peer is trusted ------------------------------------------------------------------


def _build_series(items: list[Any], trust: bool) -> Any:
    import pandas as pd

    (_, array, index, name, attrs) = items
    _check_length(array, len(index))
    series = pd.Series(array, index=index, name=name, copy=False)
    series.attrs = attrs
    return series


def _build_frame(items: list[Any], trust: bool) -> Any:
    import pandas as pd

    (_, columns, names, index, attrs) = items
    if type(columns) is list:
        for column in columns:
            _check_length(column, len(index))
        frame = pd.DataFrame(dict(enumerate(columns)), index=index, copy=False)
        frame.columns = names
    else:
        _check_length(columns, len(index))
        frame = pd.DataFrame(columns, index=index, columns=names, copy=False)
    frame.attrs = attrs
    return frame


def _check_length(array: Any, length: int) -> None:
    """A scalar would be spread over the index, and a range as an index may be as long as it likes."""
    import numpy as np
    import pandas as pd

    if not isinstance(array, (np.ndarray, pd.api.extensions.ExtensionArray)) or len(array) != length:
        raise ValueError(f"expected an array of {length} items, as its index has")


def _build_index(items: list[Any], trust: bool) -> Any:
    import pandas as pd

    if items[1] == _RANGE:
        (_, _, start, stop, step, name) = items
        return pd.RangeIndex(start, stop, step, name=name)
    if items[1] == _FLAT:
        (_, _, array, name, frequency) = items
        dtype: Any = getattr(array, "dtype", None)
        index = pd.Index(array, dtype=dtype, name=name, copy=False)
        if frequency is not None and hasattr(index, "freq") and not isinstance(index, pd.PeriodIndex):
            index.freq = frequency
        return index
    if items[1] == _MULTI:
        (_, _, levels, codes, names) = items
        return pd.MultiIndex(levels=levels, codes=codes, names=names, verify_integrity=True)
    raise ValueError(f"unknown kind {items[1]!r} of pandas index")


def _build_array(items: list[Any], trust: bool) -> Any:
    import numpy as np
    import pandas as pd

    code, parts = items[1], items[2:]
    if code == _DATETIME:
        (values, zone) = parts
        if zone is None:
            return pd.array(values, dtype=values.dtype, copy=False)
        (unit, _) = np.datetime_data(values.dtype)
        utc = pd.Series(values, copy=False).dt.tz_localize("UTC")
        return utc.dt.tz_convert(zone).array.as_unit(unit)
    if code == _TIMEDELTA:
        (values,) = parts
        return pd.array(values, dtype=values.dtype, copy=False)
    if code == _PERIOD:
        (ordinals, frequency) = parts
        return pd.arrays.PeriodArray(ordinals, dtype=pd.PeriodDtype(frequency))
    if code == _MASKED:
        (values, mask) = parts
        kind: Any = {"b": pd.arrays.BooleanArray, "f": pd.arrays.FloatingArray}.get(
            values.dtype.kind, pd.arrays.IntegerArray
        )
        return kind(values, mask)
    if code == _CATEGORICAL:
        (codes, categories, ordered) = parts
        return pd.Categorical.from_codes(codes, categories=categories, ordered=ordered)
    if code == _STRING:
        (storage, is_nan, values) = parts
        dtype = pd.StringDtype(storage, na_value=np.nan if is_nan else pd.NA)
        return dtype.construct_array_type()._from_sequence(values, dtype=dtype)
    if code == _ARROW_BACKED:
        (values,) = parts
        return pd.arrays.ArrowExtensionArray(values)
    if code == _INTERVAL:
        (left, right, closed) = parts
        return pd.arrays.IntervalArray.from_arrays(left, right, closed=closed)
    if code == _SPARSE:
        (values, indices, length, fill_value) = parts
        if type(length) is not int or length < len(indices):
            raise ValueError("a sparse array is not shorter than its values")
        dtype = pd.SparseDtype(values.dtype, fill_value)
        if hasattr(pd.arrays.SparseArray, "from_indices"):  # pandas 3
            return pd.arrays.SparseArray.from_indices(values, indices, length, fill_value=fill_value)
        from pandas._libs.sparse import IntIndex

        return pd.arrays.SparseArray(values, sparse_index=IntIndex(length, indices), dtype=dtype)
    raise ValueError(f"unknown kind {code!r} of pandas array")


def _build_scalar(items: list[Any], trust: bool) -> Any:
    import numpy as np
    import pandas as pd

    code, parts = items[1], items[2:]
    if code == _TIMESTAMP:
        (value, unit, zone, fold) = parts
        stamp = pd.Timestamp(np.datetime64(value, unit))
        stamp = stamp if zone is None else stamp.tz_localize("UTC").tz_convert(zone)
        return stamp.replace(fold=fold) if fold != stamp.fold else stamp
    if code == _TIMEDELTA_SCALAR:
        (value, unit) = parts
        return pd.Timedelta(np.timedelta64(value, unit))
    if code == _NOT_A_TIME:
        return pd.NaT
    if code == _NA:
        return pd.NA
    raise ValueError(f"unknown kind {code!r} of pandas scalar")


def _build_arrow(items: list[Any], trust: bool) -> Any:
    import pyarrow as pa

    (_, code, data) = items
    if code not in _ARROW_KINDS:
        raise ValueError(f"unknown kind {code!r} of Arrow value")
    table = pa.ipc.open_stream(pa.py_buffer(data)).read_all()
    if not trust:
        table.validate(full=True)
    if code == 0:
        return table
    if code == 1:
        batches = table.combine_chunks().to_batches()
        return batches[0] if batches else pa.RecordBatch.from_pylist([], schema=table.schema)
    (column,) = table.columns
    return column if code == 3 else column.combine_chunks() if column.num_chunks != 1 else column.chunk(0)


BUILDERS: Final[dict[int, Callable[[list[Any], bool], Any]]] = {
    tags.PANDAS_SERIES: _build_series,
    tags.PANDAS_FRAME: _build_frame,
    tags.PANDAS_INDEX: _build_index,
    tags.PANDAS_ARRAY: _build_array,
    tags.PANDAS_SCALAR: _build_scalar,
    tags.ARROW: _build_arrow,
}
