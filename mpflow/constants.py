"""The public constants of LangGraph's `constants` module; private names live in `mpflow._names`."""

from __future__ import annotations

from typing import Final

from mpflow._names import CONF, TASKS

START: Final = "__start__"
"""The first node, virtual: edges from it say where a run begins."""
END: Final = "__end__"
"""The last node, virtual: an edge to it says that a path is over."""
TAG_HIDDEN: Final = "langsmith:hidden"
"""A node or edge so tagged is left out of drawings and streams."""
TAG_NOSTREAM: Final = "nostream"
"""A chat model so tagged stays out of the "messages" stream."""

__all__ = ("CONF", "END", "START", "TAG_HIDDEN", "TAG_NOSTREAM", "TASKS")
