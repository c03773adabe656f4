"""What of a class's namespace Python, its metaclass or its decorator put there, and what its author wrote."""

from __future__ import annotations

import enum
import types
from collections.abc import Iterator
from typing import Any

METACLASSES = frozenset(
    {"type", "ABCMeta", "EnumMeta", "EnumType", "_TypedDictMeta", "NamedTupleMeta", "ModelMetaclass"}
)
_CLASS_EXTRAS = frozenset(
    [
        "__module__",
        "__doc__",
        "__dict__",
        "__weakref__",
        "__annotations__",
        "__annotate__",
        "__annotate_func__",
        "__annotations_cache__",
        "__qualname__",
        "__slots__",
        "__dataclass_fields__",
        "__dataclass_params__",
        "__match_args__",
        "__firstlineno__",
        "__static_attributes__",
        "__type_params__",
        "__orig_bases__",
        "__parameters__",
        "__abstractmethods__",
        "_abc_impl",
        "__required_keys__",
        "__optional_keys__",
        "__readonly_keys__",
        "__mutable_keys__",
        "__total__",
        "__hash__",
        "__signature__",
        "_fields",
        "_field_defaults",
        "_field_types",
        "__extra_items__",
        "__closed__",
        "__replace__",
        "__classcell__",
    ]
)
_MODEL_EXTRAS = ("__pydantic_", "model_", "__private_attributes__", "__class_vars__", "_abc_")
_ENUM_EXTRAS = (
    "_member",
    "_value",
    "_unhashable",
    "_hashable",
    "_use_args",
    "_new_member",
    "_generate",
    "_flag",
    "_singles",
    "_all_bits",
    "_boundary",
    "_inverted",
    "__new__",
)


def bases_of(kind: type) -> Iterator[type]:
    """The bases that are classes of somebody's."""
    for base in kind.__bases__:
        if base is not object and base.__module__ not in ("pydantic.main", "typing", "enum", "abc"):
            yield base


def is_compiled(kind: type) -> bool:
    """Whether methods of a class are no functions of Python: nobody can read them."""
    return any(isinstance(value, _COMPILED) and value.__objclass__ is kind for value in kind.__dict__.values())


_COMPILED = (types.MethodDescriptorType, types.WrapperDescriptorType, types.ClassMethodDescriptorType)


def members_of(kind: type) -> Iterator[tuple[str, Any]]:
    """What the author of a class wrote into it, by name."""
    skipped = _ENUM_EXTRAS if issubclass(kind, enum.Enum) else _MODEL_EXTRAS
    namespace = kind.__dict__
    is_dataclass = "__dataclass_params__" in namespace
    for name, value in list(namespace.items()):
        if name in _CLASS_EXTRAS or name.startswith(skipped) or isinstance(value, kind):
            continue
        if not (is_dataclass and _is_generated(value)):
            yield name, value


def _is_generated(value: Any) -> bool:
    """Whether the dataclass decorator wrote this method."""
    value = getattr(value, "__wrapped__", value)
    return isinstance(value, types.FunctionType) and value.__code__.co_filename == "<string>"
