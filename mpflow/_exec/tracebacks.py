"""How much of an interrupt's traceback is shown: where of the user's it came, not where of ours.

Ctrl-C is no failure of anybody's, and what was running when it came is chance. Errors keep their tracebacks whole.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Final, TypeVar

if TYPE_CHECKING:
    from types import TracebackType

_E = TypeVar("_E", bound=BaseException)
_OURS: Final = sys.stdlib_module_names | {"mpflow", "cloudpickle", "loky", "msgpack", "psutil"}
"""The packages that we call, the standard library's among them, which also call the user's code for us."""


def from_outside(interrupt: _E) -> _E:
    """`interrupt` with its traceback from the first frame on that is the user's own. To be raised ``from None``.

    For the public methods, each of which so shows one frame of ours, whatever ran below it: in which node, saver or
    handler it came is shown, and nothing if it came in none.
    """
    traceback: TracebackType | None = interrupt.__traceback__
    while traceback is not None and traceback.tb_frame.f_globals.get("__name__", "").partition(".")[0] in _OURS:
        traceback = traceback.tb_next
    return interrupt.with_traceback(traceback)
