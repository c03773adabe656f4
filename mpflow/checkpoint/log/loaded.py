"""Langchain's messages and documents: classes that need not be given to be built, once the program has loaded them.

It imports nothing of theirs.
"""

from __future__ import annotations

import sys

_MESSAGES = "langchain_core.messages"
_DOCUMENTS = "langchain_core.documents"


def loaded_langchain_classes() -> frozenset[type]:
    """Messages, their chunks and documents, if the program has imported them: no value of theirs exists otherwise."""
    found: set[type] = set()
    messages = sys.modules.get(_MESSAGES)
    if messages is not None:
        base = messages.BaseMessage
        found.update(
            cls
            for cls in (getattr(messages, name, None) for name in messages.__all__)
            if isinstance(cls, type) and issubclass(cls, base)
        )
    documents = sys.modules.get(_DOCUMENTS)
    if documents is not None:
        found.add(documents.Document)
    return frozenset(found)


def langchain_is_loaded() -> tuple[bool, bool]:
    """Changes when `loaded_langchain_classes` may."""
    return _MESSAGES in sys.modules, _DOCUMENTS in sys.modules
