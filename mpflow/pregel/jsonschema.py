"""What goes into a graph and comes out of it, as pydantic models and JSON schemas (DR-4). Needs pydantic, loaded here."""

from __future__ import annotations

from dataclasses import MISSING, fields, is_dataclass
from typing import TYPE_CHECKING, Any, cast
from uuid import UUID

from mpflow.schema import hints_of, is_pydantic, is_typed_dict

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pydantic import BaseModel


def _pydantic() -> Any:
    try:
        import pydantic
    except ImportError as missing:
        raise ImportError("schemas as JSON need pydantic, which is not installed: pip install pydantic") from missing
    return pydantic


def model_of_root(name: str, kind: Any) -> type[BaseModel]:
    """A model of a bare value of some type; the type itself if it is a model."""
    pydantic = _pydantic()
    if isinstance(kind, type) and is_pydantic(kind):
        return cast("type[BaseModel]", kind)
    return cast("type[BaseModel]", pydantic.create_model(name, __base__=pydantic.RootModel[kind]))


def model_of_fields(name: str, hints: Mapping[str, Any]) -> type[BaseModel]:
    """A model of a dict with these keys, none of which is required."""
    return cast("type[BaseModel]", _pydantic().create_model(name, **{key: (hint, None) for key, hint in hints.items()}))


def model_of_config(name: str, context_schema: Any, include: Sequence[str]) -> type[BaseModel]:
    """A model of a run's config: the context, if there is one, and those of its keys that `include` names."""
    hints = {} if context_schema is None else {"configurable": context_schema}
    hints.update((key, hint) for key, hint in _CONFIG_HINTS.items() if key in include)
    return model_of_fields(name, hints)


_CONFIG_HINTS: dict[str, Any] = {
    "tags": list[str],
    "metadata": dict[str, Any],
    "callbacks": Any,
    "run_name": str,
    "max_concurrency": int | None,
    "recursion_limit": int,
    "run_id": UUID | None,
}
"""A `RunnableConfig` for pydantic, which before Python 3.12 does not take the standard library's TypedDict."""


def model_of(source: Any, name: str) -> type[BaseModel]:
    """A model of a state schema: itself if it is one."""
    if isinstance(source, type) and is_pydantic(source):
        return cast("type[BaseModel]", source)
    try:
        return model_of_root(name, source)
    except _pydantic().PydanticUserError:  # before Python 3.12 it takes typing_extensions' TypedDict only
        return _model_of_keys(source, name)


def _model_of_keys(source: Any, name: str) -> type[BaseModel]:
    hints = hints_of(source)
    assert hints is not None
    return cast("type[BaseModel]", _pydantic().create_model(name, **_fields(source, hints)))


def json_schema_of(source: Any, channels: Mapping[str, Any], name: str) -> dict[str, Any]:
    """The JSON schema of a state schema; what a channel takes is not always what its annotation says."""
    pydantic = _pydantic()
    if isinstance(source, type) and is_pydantic(source):
        return cast("dict[str, Any]", cast(Any, source).model_json_schema())
    if is_typed_dict(source):
        try:
            return cast("dict[str, Any]", pydantic.TypeAdapter(source).json_schema())
        except pydantic.PydanticUserError:
            return _model_of_keys(source, source.__name__).model_json_schema()
    hints = hints_of(source)
    if hints is None:
        return {"default": None, **model_of_root(name, source).model_json_schema()}
    known = {key: channels[key].UpdateType for key in hints if key in channels}
    return cast("dict[str, Any]", pydantic.create_model(name, **_fields(source, known)).model_json_schema())


def context_schema_of(source: Any) -> dict[str, Any] | None:
    """The JSON schema of a context schema, None if there is none. Raises ValueError for one of another kind."""
    if source is None:
        return None
    if not (is_typed_dict(source) or is_dataclass(source) or is_pydantic(source)):
        raise ValueError(
            f"Invalid context schema type: {source}. Must be a BaseModel, TypedDict or dataclass: a class with fields"
        )
    return cast("dict[str, Any]", _pydantic().TypeAdapter(source).json_schema())


def _fields(source: Any, hints: Mapping[str, Any]) -> dict[str, Any]:
    defaults: dict[str, Any] = {}
    if is_typed_dict(source):
        defaults = dict.fromkeys(source.__required_keys__, ...)
    elif is_dataclass(source):
        for item in fields(source):
            if item.default_factory is not MISSING:
                defaults[item.name] = item.default_factory()
            else:
                defaults[item.name] = ... if item.default is MISSING else item.default
    return {key: (hint, defaults.get(key)) for key, hint in hints.items()}
