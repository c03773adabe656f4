"""The schema of an answer: how clients are told of it, and how an answer is checked by it (IN-11). Needs pydantic."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mpflow.errors import mark_invalid_resume


def answer_schema(wanted: Any) -> tuple[dict[str, Any], Callable[[Any], Any]]:
    """The JSON schema of a class that answers must fit, and what makes its instance of an answer.

    The latter raises pydantic's ValidationError, marked as that of an answer. Raises ImportError without pydantic.
    """
    try:
        from pydantic import PydanticUserError, TypeAdapter, ValidationError
    except ImportError as missing:
        raise ImportError(
            "interrupt(response_schema=) with a class needs pydantic, which is not installed: pip install pydantic; or "
            "give the JSON schema as a dict, which is told to clients but checks nothing"
        ) from missing
    try:
        adapter: Any = TypeAdapter(wanted)
    except PydanticUserError:  # before Python 3.12 it takes typing_extensions' TypedDict only
        adapter = TypeAdapter(_as_typing_extensions(wanted))

    def check(answer: Any) -> Any:
        try:
            return adapter.validate_python(answer)
        except ValidationError as error:
            mark_invalid_resume(error)
            raise

    return adapter.json_schema(), check


def _as_typing_extensions(wanted: Any) -> Any:
    from typing import get_type_hints

    from typing_extensions import NotRequired, TypedDict

    hints = get_type_hints(wanted, include_extras=True)
    optional = getattr(wanted, "__optional_keys__", ())
    return TypedDict(  # type: ignore[operator]
        wanted.__name__, {key: NotRequired[hint] if key in optional else hint for key, hint in hints.items()}
    )
