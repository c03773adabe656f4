"""Type variables of LangGraph's `typing` module, and what schemas and commands ask of annotated objects.

It must not import typing_extensions at run time: defaults of type variables exist for type checkers only.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, cast
from weakref import WeakKeyDictionary

if TYPE_CHECKING:
    from typing_extensions import TypeVar

    StateT = TypeVar("StateT", bound=Any)
    StateT_co = TypeVar("StateT_co", bound=Any, covariant=True)
    StateT_contra = TypeVar("StateT_contra", bound=Any, contravariant=True)
    ContextT = TypeVar("ContextT", bound=Any, default=None)
    ContextT_contra = TypeVar("ContextT_contra", bound=Any, contravariant=True, default=None)
    InputT = TypeVar("InputT", bound=Any, default=StateT)
    OutputT = TypeVar("OutputT", bound=Any, default=StateT)
    NodeInputT = TypeVar("NodeInputT", bound=Any)
    NodeInputT_contra = TypeVar("NodeInputT_contra", bound=Any, contravariant=True)
else:
    from typing import TypeVar

    StateT = TypeVar("StateT")
    StateT_co = TypeVar("StateT_co", covariant=True)
    StateT_contra = TypeVar("StateT_contra", contravariant=True)
    ContextT = TypeVar("ContextT")
    ContextT_contra = TypeVar("ContextT_contra", contravariant=True)
    InputT = TypeVar("InputT")
    OutputT = TypeVar("OutputT")
    NodeInputT = TypeVar("NodeInputT")
    NodeInputT_contra = TypeVar("NodeInputT_contra", contravariant=True)

StateLike = Any
"""A TypedDict, dataclass or pydantic model: whatever `StateGraph` takes as a state schema."""

__all__ = ("ContextT", "InputT", "OutputT", "StateT", "StateT_co", "StateT_contra")

_keys_of: WeakKeyDictionary[type, tuple[str, ...]] = WeakKeyDictionary()


def annotated_keys(cls: type) -> tuple[str, ...]:
    """The annotated names of `cls` and its bases, the nearest class's first."""
    keys = _keys_of.get(cls)
    if keys is None:
        found: dict[str, None] = {}
        for base in cls.__mro__:
            found.update(dict.fromkeys(_annotations(base)))
        keys = _keys_of[cls] = tuple(found)
    return keys


def _annotations(cls: type) -> Iterable[str]:
    try:
        # A class without annotations does not show its base's here; builtin types have no such attribute.
        return getattr(cls, "__annotations__", ())
    except NameError:  # from Python 3.14 on, names that only type checkers can see turn up here
        from annotationlib import Format, get_annotations  # type: ignore[import-not-found, unused-ignore]

        return cast("Iterable[str]", get_annotations(cls, format=Format.FORWARDREF))


def object_writes(value: Any) -> list[tuple[str, Any]]:
    """What an instance of an annotated class writes as an update: ``(field, value)`` pairs (ST-20).

    Every field that has a value is written, class defaults too. A pydantic model leaves out fields that are None by
    default and were not set by its maker.
    """
    cls = type(value)
    chosen = getattr(value, "model_fields_set", None)
    fields = getattr(cls, "model_fields", None)
    absent = object()
    writes: list[tuple[str, Any]] = []
    for key in annotated_keys(cls):
        item = getattr(value, key, absent)
        if item is absent:
            continue
        if item is None and chosen is not None and key not in chosen:
            field = None if fields is None else fields.get(key)
            if field is not None and field.default is None:
                continue
        if fields is not None and key not in fields:
            continue
        writes.append((key, item))
    return writes
