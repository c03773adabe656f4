"""pandas values as they matter to a move: what a frame's columns are made of, and what two frames may share.

Must not import pandas: whoever has such a value has it loaded.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mpflow._exec.placement.values import Survey

_SCALARS = ("Timestamp", "Timedelta", "NaTType", "NAType", "Period", "Interval")
_PLAIN = frozenset({type(None), bool, int, float, complex, str, bytes})
_ENTRY_BYTES = 48
"""About what an object in a column takes."""


def is_known(item: Any) -> bool:
    """Whether it is a value of pandas' own that a copy cannot be told from, a frame or a series."""
    pandas = sys.modules["pandas"]
    return type(item) in (pandas.DataFrame, pandas.Series) or type(item).__name__ in _SCALARS


def open_table(table: Any, path: str, found: Survey, todo: list[tuple[Any, str]]) -> None:
    """Look at all arrays of a frame or series. An index cannot change, so two frames may share it."""
    if table.attrs:
        todo.append((table.attrs, f"{path}.attrs"))
    # From pandas 3 on frames that share arrays are copied before one is changed: nobody sees that they do.
    may_share = int(sys.modules["pandas"].__version__.partition(".")[0]) >= 3
    for block in table._mgr.blocks:
        for array in _arrays_of(block.values):
            if array is None:
                found.odd = f"{path} has a column of {type(block.values).__name__}, which is not looked into"
            elif not may_share:
                todo.append((array, path))
            elif array.dtype.kind == "O":
                open_objects(array, path, found)
            else:
                found.size_bytes += array.nbytes
                found.arrays.append(array)
        _open_index(getattr(block.values, "categories", None), path, found)
    for axis in table.axes:
        for level in getattr(axis, "levels", (axis,)):
            _open_index(level, path, found)


def _open_index(index: Any, path: str, found: Survey) -> None:
    if index is None or type(index).__name__ == "RangeIndex":
        return
    for array in _arrays_of(index._values):
        if array is None:
            found.odd = f"{path} has an index of {type(index._values).__name__}, which is not looked into"
        elif array.dtype.kind == "O":
            open_objects(array, path, found)
        else:
            found.size_bytes += array.nbytes


def _arrays_of(values: Any) -> Iterator[Any]:
    """The numpy arrays of a column; None for one that keeps its values in another way."""
    if type(values).__name__ == "ndarray":
        yield values
    elif hasattr(values, "_pa_array"):  # Arrow's buffers never change
        return
    elif hasattr(values, "_mask"):
        yield values._data
        yield values._mask
    else:
        yield getattr(values, "_ndarray", None)


def open_objects(array: Any, path: str, found: Survey) -> None:
    """Look at what an array of objects holds: plain data alone."""
    found.size_bytes += _ENTRY_BYTES * array.size
    other = next((kind for kind in set(map(type, array.ravel().tolist())) if kind not in _PLAIN), None)
    if other is not None:
        found.odd = f"{path} holds objects, one of them a {other.__name__}"
