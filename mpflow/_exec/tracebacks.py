"""How much of an interrupt's traceback is shown: where of the user's it came, not where of ours.

Ctrl-C is no failure of anybody's, and what was running when it came is chance. Errors keep their tracebacks whole.
"""

from __future__ import annotations

import sys
from typing import Final

_OURS: Final = sys.stdlib_module_names | {"mpflow", "cloudpickle", "loky", "msgpack", "psutil"}
"""The packages that we call, the standard library's among them, which also call the user's code for us."""


def leave_us_out(interrupt: BaseException) -> None:
    """Cut the traceback of `interrupt`, which the caller has caught and raises again by a bare ``raise``.

    What stays is the part from the first frame on that is the user's own: in which node, saver or handler it came, and
    nothing if it came in none. The caller's frame goes too, but on Python 3.10, where a bare ``raise`` keeps the head.
    """
    head = tail = interrupt.__traceback__
    while tail is not None and tail.tb_frame.f_globals.get("__name__", "").partition(".")[0] in _OURS:
        tail = tail.tb_next
    if head is not None and head is not tail:
        head.tb_next = tail
    interrupt.__traceback__ = tail
    interrupt.__suppress_context__ = True
