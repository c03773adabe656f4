"""What goes into a graph and comes out of it, as pydantic models and JSON schemas (DR-4). Needs pydantic, loaded here."""

from __future__ import annotations

from dataclasses import MISSING, fields, is_dataclass
from typing import TYPE_CHECKING, Any, cast

from mpflow.schema import hints_of, is_pydantic, is_typed_dict

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pydantic import BaseModel


def _pydantic() -> Any:
    try:
        import pydantic
    except ImportError as missing:
        raise ImportError("schemas as JSON need pydantic, which is not installed: pip install pydantic") from missing
    return pydantic


def model_of(source: Any, name: str) -> type[BaseModel]:
    """A model of whatever a schema is: itself if it is one."""
    if isinstance(source, type) and is_pydantic(source):
        return cast("type[BaseModel]", source)
    pydantic = _pydantic()
    hints = hints_of(source)
    if hints is None:
        return cast("type[BaseModel]", pydantic.create_model(name, root=(source, None)))
    return cast("type[BaseModel]", pydantic.create_model(name, **_fields(source, hints)))


def json_schema_of(source: Any, channels: Mapping[str, Any], name: str) -> dict[str, Any]:
    """The JSON schema of a state schema; what a channel takes is not always what its annotation says."""
    pydantic = _pydantic()
    if isinstance(source, type) and is_pydantic(source):
        return cast("dict[str, Any]", cast(Any, source).model_json_schema())
    if is_typed_dict(source):
        try:
            return cast("dict[str, Any]", pydantic.TypeAdapter(source).json_schema())
        except pydantic.PydanticUserError:  # before Python 3.12 it takes typing_extensions' TypedDict only
            return model_of(source, source.__name__).model_json_schema()
    hints = hints_of(source)
    if hints is None:
        return model_of(source, name).model_json_schema()
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
        pydantic = _pydantic()
        for item in fields(source):
            if item.default_factory is not MISSING:
                defaults[item.name] = pydantic.Field(default_factory=item.default_factory)
            else:
                defaults[item.name] = ... if item.default is MISSING else item.default
    return {key: (hint, defaults.get(key)) for key, hint in hints.items()}
