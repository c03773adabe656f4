"""State schemas: from a TypedDict, dataclass, pydantic model or bare type to channels, inputs and updates.

It reads classes and never imports the libraries that made them: a pydantic model can only be met where pydantic is.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Collection
from dataclasses import MISSING as NO_DEFAULT
from dataclasses import fields as dataclass_fields
from dataclasses import is_dataclass
from typing import Annotated, Any, get_args, get_origin, get_type_hints

from mpflow._names import ROOT
from mpflow.channels.base import BaseChannel
from mpflow.channels.binop import BinaryOperatorAggregate
from mpflow.channels.last_value import LastValue
from mpflow.managed.base import ManagedValue


class Schema:
    """What one schema class says: its channels, its managed values, and how an instance of it is made.

    ``keys`` has both in the order they were declared. ``root`` schemas have the one channel ``__root__``.
    """

    __slots__ = ("channels", "keys", "managed", "root", "source")

    def __init__(self, source: Any) -> None:
        self.source = source
        self.channels: dict[str, BaseChannel[Any, Any, Any]] = {}
        self.managed: dict[str, Any] = {}
        hints = hints_of(source)
        self.root = hints is None
        for key, hint in ({ROOT: source} if hints is None else hints).items():
            if hints is not None and (manager := _managed_of(hint)) is not None:
                self.managed[key] = manager
            else:
                self.channels[key] = channel_of(hint, key)
        self.keys: tuple[str, ...] = tuple(hints) if hints is not None else (ROOT,)

    @property
    def coerce(self) -> Callable[[Any], Any] | None:
        """What turns a dict of values into what a node with this schema is given; None for the dict itself."""
        source = self.source
        if self.root or is_typed_dict(source) or (isinstance(source, type) and issubclass(source, dict)):
            return None
        return Builder(source)

    @property
    def typed(self) -> Callable[[Any], Any] | None:
        """As `coerce`, for pydantic models and dataclasses alone."""
        return self.coerce if is_dataclass(self.source) or is_pydantic(self.source) else None

    @property
    def reads(self) -> tuple[str, ...] | str:
        return ROOT if self.root else self.keys


class Builder:
    """Builds a schema's instance from a dict of values; what is an instance already, and what is no dict, passes."""

    __slots__ = ("schema",)

    def __init__(self, schema: Any) -> None:
        self.schema = schema

    def __call__(self, values: Any) -> Any:
        return self.schema(**values) if isinstance(values, dict) else values


def is_typed_dict(source: Any) -> bool:
    return isinstance(source, type) and issubclass(source, dict) and hasattr(source, "__total__")


def is_pydantic(source: Any) -> bool:
    """Whether a class, or an object's class, is a pydantic model, of version 1 or 2."""
    cls = source if isinstance(source, type) else type(source)
    return hasattr(cls, "model_fields") or hasattr(cls, "__fields__")


def hints_of(source: Any) -> dict[str, Any] | None:
    """The annotations of a state schema, or None if it is no class with keys and so is a root state's type.

    Raises ValueError for a schema whose annotations cannot be resolved.
    """
    if not isinstance(source, type) or source in (dict, list, set, tuple, int, str, float, bool, bytes, object):
        return None
    if not (
        is_typed_dict(source) or is_dataclass(source) or is_pydantic(source) or getattr(source, "__annotations__", None)
    ):
        return None
    try:
        hints = get_type_hints(source, include_extras=True)
    except Exception as error:
        raise ValueError(
            f"The annotations of the state schema '{source.__name__}' cannot be read: {error}. Types used in it must "
            f"be defined in its module, where annotations are resolved"
        ) from error
    if is_pydantic(source):
        fields = getattr(source, "model_fields", None) or getattr(source, "__fields__", {})
        hints = {name: hint for name, hint in hints.items() if name in fields}
    return {name: _strip_required(hint) for name, hint in hints.items()}


def _strip_required(hint: Any) -> Any:
    while getattr(get_origin(hint), "_name", None) in ("Required", "NotRequired", "ReadOnly"):
        hint = get_args(hint)[0]
    return hint


def channel_of(hint: Any, key: str) -> BaseChannel[Any, Any, Any]:
    """The channel that an annotation asks for (ST-2)."""
    channel = _annotated_channel(hint)
    if channel is None and (reducer := _reducer_of(hint)) is not None:
        channel = BinaryOperatorAggregate(get_args(hint)[0], reducer)
    if channel is None:
        channel = LastValue(hint)
    channel.key = key
    return channel


def _annotated_channel(hint: Any) -> BaseChannel[Any, Any, Any] | None:
    if get_origin(hint) is not Annotated:
        return None
    item = hint.__metadata__[-1]
    if isinstance(item, BaseChannel):
        return item.copy()
    if inspect.isclass(item) and issubclass(item, BaseChannel):
        return item(get_args(hint)[0])
    return None


def _reducer_of(hint: Any) -> Callable[[Any, Any], Any] | None:
    if get_origin(hint) is not Annotated:
        return None
    item = hint.__metadata__[-1]
    if not callable(item) or isinstance(item, type):
        return None
    signature = inspect.signature(item)
    kinds = [parameter.kind for parameter in signature.parameters.values()]
    positional = sum(
        kind in (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD) for kind in kinds
    )
    required_keywords = any(
        parameter.kind is parameter.KEYWORD_ONLY and parameter.default is parameter.empty
        for parameter in signature.parameters.values()
    )
    if positional == 2 and not required_keywords:
        reducer: Callable[[Any, Any], Any] = item
        return reducer
    raise ValueError(f"Invalid reducer signature. Expected (a, b) -> c. Got {signature}")


def _managed_of(hint: Any) -> Any:
    if get_origin(hint) is not Annotated:
        return None
    item = hint.__metadata__[-1]
    return item if inspect.isclass(item) and issubclass(item, ManagedValue) else None


def updates_of(result: Any, keys: Collection[str]) -> list[tuple[str, Any]] | None:
    """The writes of an instance of an annotated class (ST-20), or None if it is none.

    A dataclass writes all its fields; a pydantic model all but those that are None by default and were not set.
    """
    cls = type(result)
    if isinstance(result, type) or not (is_dataclass(cls) or is_pydantic(cls) or _has_annotations(cls)):
        return None
    names = _field_defaults(cls)
    set_fields = getattr(result, "model_fields_set", None)
    writes = []
    for name, default in names.items():
        if name not in keys:
            continue
        value = getattr(result, name, NO_DEFAULT)
        if value is NO_DEFAULT:
            continue
        if value is None and default is None and set_fields is not None and name not in set_fields:
            continue
        writes.append((name, value))
    return writes


def _has_annotations(cls: type) -> bool:
    return cls.__module__ != "builtins" and any(base.__dict__.get("__annotations__") for base in cls.__mro__)


def _field_defaults(cls: type) -> dict[str, Any]:
    fields: Any = getattr(cls, "model_fields", None)
    if isinstance(fields, dict):
        return {name: field.default for name, field in fields.items()}
    fields = getattr(cls, "__fields__", None)
    if isinstance(fields, dict):
        return {name: field.default for name, field in fields.items()}
    if is_dataclass(cls):
        return {field.name: field.default for field in dataclass_fields(cls)}
    names: dict[str, Any] = {}
    for base in reversed(cls.__mro__):
        for name in base.__dict__.get("__annotations__", ()):
            names[name] = getattr(cls, name, NO_DEFAULT)
    return names


def input_hint(func: Any, position: int = 0) -> Any:
    """The class that a callable's first parameter is annotated with, if it is a schema of its own; else None (GB-5)."""
    target = func if inspect.isfunction(func) or inspect.ismethod(func) else getattr(type(func), "__call__", None)
    if target is None or isinstance(func, type):
        return None
    hints = callable_hints(target)
    try:
        parameters = list(inspect.signature(func).parameters)
    except (TypeError, ValueError):
        return None
    if len(parameters) <= position:
        return None
    hint = hints.get(parameters[position])
    if isinstance(hint, type) and hints_of_quietly(hint):
        return hint
    return None


def callable_hints(func: Any) -> dict[str, Any]:
    """The resolved annotations of a callable; those that cannot be resolved are left out."""
    try:
        return get_type_hints(func, include_extras=True)
    except Exception:
        found = {}
        for name, hint in getattr(func, "__annotations__", {}).items():
            if isinstance(hint, str):
                module = sys.modules.get(getattr(func, "__module__", ""), None)
                try:
                    hint = eval(hint, dict(vars(module)) if module else {})  # the author's own annotation
                except Exception:
                    continue
            found[name] = hint
        return found


def hints_of_quietly(source: Any) -> dict[str, Any] | None:
    try:
        return hints_of(source)
    except ValueError:
        return None
