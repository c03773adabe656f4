"""What of a class's namespace Python, its metaclass or its decorator put there, and what its author wrote."""

from __future__ import annotations

import abc
import dataclasses
import enum
import types
import typing
from collections.abc import Iterator
from typing import Any

from mpflow._exec.placement.trusted import is_known
from mpflow._exec.placement.values import module_of

try:
    from _abc import _get_dump  # type: ignore[import-not-found]
except ImportError:  # not CPython
    _get_dump = None

_METACLASSES = {
    "builtins": ("type",),
    "abc": ("ABCMeta",),
    "enum": ("EnumMeta", "EnumType"),
    "typing": ("_TypedDictMeta", "NamedTupleMeta", "_ProtocolMeta"),
    "typing_extensions": ("_TypedDictMeta", "NamedTupleMeta", "_ProtocolMeta"),
    "pydantic._internal._model_construction": ("ModelMetaclass",),
}
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
_PROTOCOL_EXTRAS = frozenset(
    ["_is_protocol", "_is_runtime_protocol", "__protocol_attrs__", "__non_callable_proto_members__"]
)
_MODEL_EXTRAS = frozenset(
    ["model_config", "model_fields", "model_computed_fields", "__private_attributes__", "__class_vars__"]
)
_ENUM_EXTRAS = frozenset(
    [
        "_member_names_",
        "_member_map_",
        "_member_type_",
        "_value2member_map_",
        "_value_repr_",
        "_unhashable_values_",
        "_unhashable_values_map_",
        "_hashable_values_",
        "_use_args_",
        "_new_member_",
        "_generate_next_value_",
        "_flag_mask_",
        "_singles_mask_",
        "_all_bits_",
        "_boundary_",
        "_inverted_",
        "__new__",
    ]
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


def registered_with(kind: type) -> list[str]:
    """The classes that were registered as subclasses of an abstract one, by their names: in this process, perhaps in no other."""
    if not isinstance(kind, abc.ABCMeta) or _get_dump is None:
        return []
    found = (reference() for reference in _get_dump(kind)[0])
    return sorted(f"{other.__module__}.{other.__qualname__}" for other in found if other is not None)


def members_of(kind: type) -> Iterator[tuple[str, Any]]:
    """What the author of a class wrote into it, by name."""
    namespace = kind.__dict__
    is_enum = issubclass(kind, enum.Enum)
    is_dataclass = "__dataclass_params__" in namespace
    is_model = "__pydantic_core_schema__" in namespace
    is_protocol = "_is_protocol" in namespace
    for name, value in list(namespace.items()):
        if name in _CLASS_EXTRAS or (is_enum and (name in _ENUM_EXTRAS or type(value) is kind)):
            continue
        if is_model and (name in _MODEL_EXTRAS or name.startswith("__pydantic_") or _is_of(value, "pydantic")):
            continue
        if is_protocol and (name in _PROTOCOL_EXTRAS or _is_of(value, "typing", "typing_extensions")):
            continue
        if not (is_dataclass and _is_generated(value)):
            yield name, value


def made_by(kind: type) -> Iterator[tuple[str, Any]]:
    """What is called, or handed out, when an object of a class is made and its namespace does not show: of its fields
    what makes their values and what checks them."""
    namespace = kind.__dict__
    for name, field in namespace.get("__dataclass_fields__", {}).items():
        if field.default_factory is not dataclasses.MISSING:
            yield name, field.default_factory
    for name, field in namespace.get("__private_attributes__", {}).items():
        yield from _made_by_field(name, field)
    fields = namespace.get("__pydantic_fields__") or namespace.get("model_fields")
    for name, field in fields.items() if isinstance(fields, dict) else ():
        yield from _made_by_field(name, field)
        for part in getattr(field, "metadata", ()):
            yield from ((name, inner) for inner in _callables_of(part))
        yield from ((name, part) for part in _classes_in(getattr(field, "annotation", None)))
    post_init = namespace.get("model_post_init")
    if "__pydantic_core_schema__" in namespace and _is_of(post_init, "pydantic"):
        yield from (("model_post_init", cell.cell_contents) for cell in getattr(post_init, "__closure__", None) or ())


def _made_by_field(name: str, field: Any) -> Iterator[tuple[str, Any]]:
    if field.default_factory is not None:
        yield name, field.default_factory
    # What cannot be hashed is copied for each object; what stands for "no default" is pydantic's own.
    if type(field.default).__hash__ is not None and module_of(type(field.default)) != "pydantic_core._pydantic_core":
        yield name, field.default


def _callables_of(metadata: Any) -> Iterator[Any]:
    """The functions in what an annotation says of a field."""
    if module_of(type(metadata)).partition(".")[0] not in ("pydantic", "pydantic_core", "annotated_types"):
        yield metadata
        return
    names = (*getattr(metadata, "__dict__", ()), *getattr(type(metadata), "__slots__", ()))
    yield from (part for name in names if callable(part := getattr(metadata, name, None)))


def _classes_in(annotation: Any) -> Iterator[type]:
    """The classes of somebody's that an annotation names, whose objects are made from what is given."""
    if isinstance(annotation, type) and not typing.get_args(annotation):
        if not is_known(module_of(annotation)) and not module_of(annotation).startswith("pydantic"):
            yield annotation
        return
    for metadata in getattr(annotation, "__metadata__", ()):
        yield from _callables_of(metadata)
    for part in typing.get_args(annotation):
        yield from _classes_in(part)


def is_plainly_made(kind: type) -> bool:
    """Whether a class is made as the standard library's and pydantic's are, and not by a metaclass of somebody's."""
    maker = type(kind)
    return maker.__name__ in _METACLASSES.get(module_of(maker), ())


def _is_of(value: Any, *packages: str) -> bool:
    """Whether a function was written in a package, which put it there."""
    if type(value) is classmethod:
        value = value.__func__
    if type(value) is not types.FunctionType:
        return False
    return str(value.__globals__.get("__name__")).partition(".")[0] in packages


def _is_generated(value: Any) -> bool:
    """Whether the dataclass decorator wrote this method. A program that was given as a text has the same file name."""
    value = getattr(value, "__wrapped__", value)
    if type(value) is not types.FunctionType or value.__code__.co_filename != "<string>":
        return False
    written: str = getattr(value.__code__, "co_qualname", "")
    return written.startswith("__create_fn__") if written else value.__code__.co_firstlineno == 2
