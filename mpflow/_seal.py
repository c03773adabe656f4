"""Values kept in memory apart from their makers: what was put in is what comes out, whatever is done to either since."""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable
from copy import deepcopy
from typing import Any

_ATOMS = frozenset({type(None), bool, int, float, complex, str, bytes})


class _Pickler(pickle.Pickler):
    """Notes whether anything but plain data went in."""

    plain = True

    def reducer_override(self, obj: Any) -> Any:
        self.plain = False
        return NotImplemented


def seal(value: Any) -> Callable[[], Any]:
    """Return a function that returns `value` as it is now, each time a copy of its own, where it can be copied.

    Bytes where possible: quicker than `deepcopy`, both ways. Objects are read back once, since some pickle and do
    not unpickle. What can be copied in no way is kept as it is. Nothing of this leaves the process.
    """
    if type(value) in _ATOMS:
        return lambda: value
    out = io.BytesIO()
    pickler = _Pickler(out, protocol=5)
    try:
        pickler.dump(value)
        data = out.getvalue()
        if not pickler.plain:
            pickle.loads(data)
    except Exception:
        kept = copied(value)
        return lambda: copied(kept)
    return lambda: pickle.loads(data)


def copied(value: Any) -> Any:
    """A deep copy, or `value` itself where that fails."""
    try:
        return deepcopy(value)
    except Exception:
        return value
