"""What commands read and write: JSON, and files of it."""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import datetime
import enum
import errno
import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence, Set
from pathlib import Path
from typing import IO, Any

import click

from mpflow.cli.refusal import Refused, one_line
from mpflow.cli.sink import open_file


def write(path: str, data: bytes) -> None:
    try:
        Path(path).write_bytes(data)
    except OSError as error:
        raise Refused(f"cannot write {path}: {error.strerror}") from error


def check_output(path: str) -> None:
    """Refuse a file that could not be written, before the work for it is done."""
    if path == "-":
        return
    held = Path(path) if os.path.lexists(path) else Path(path).parent
    reason = 0
    if not held.exists():
        reason = errno.ENOENT
    elif os.path.isdir(path):
        reason = errno.EISDIR
    elif not os.access(held, os.W_OK):
        reason = errno.EACCES
    if reason:
        raise Refused(f"cannot write {path}: {os.strerror(reason)}")


def read_json(option: str, given: str) -> Any:
    if given == "-":
        return parse_json("stdin", sys.stdin.read())
    # A document is never a file's name, and asking for one as long as a document is an error.
    if given.lstrip()[:1] not in ("{", "[", '"') and os.path.isfile(given):
        return parse_json(given, _read_text(given))
    return parse_json(option, given, hint=" (and no such file)")


def _read_text(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeError) as error:
        raise Refused(f"cannot read {path}: {one_line(error)}") from error


def parse_json(where: str, text: str, hint: str = "") -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise Refused(f"{where}: not JSON{hint}: {one_line(error)}") from error


@contextlib.contextmanager
def open_output(path: str) -> Iterator[IO[str]]:
    if path == "-":
        yield sys.stdout
        return
    try:
        file = open_file(path)
    except OSError as error:
        raise Refused(f"cannot write {path}: {error.strerror}") from error
    with file:
        yield file


def print_json(value: Any, indent: int | None = 2) -> None:
    click.echo(json.dumps(to_json(value), indent=indent))


def to_json(value: Any) -> Any:
    """`value` in terms of JSON: models and dataclasses as objects, sets sorted, bytes in base64, the unknown by repr."""
    if value is None or isinstance(value, (str, bool, int, float)):
        return value.value if isinstance(value, enum.Enum) else value
    if isinstance(value, Mapping):
        return {key if isinstance(key, str) else str(key): to_json(item) for key, item in value.items()}
    if isinstance(value, (bytes, bytearray)):
        return base64.b64encode(value).decode()
    if isinstance(value, (datetime.date, datetime.time)):
        return value.isoformat()
    if isinstance(value, enum.Enum):
        return to_json(value.value)
    if isinstance(value, Set):
        return sorted(map(to_json, value), key=lambda item: (str(type(item)), repr(item)))
    if isinstance(value, Sequence):
        return to_json(value._asdict()) if hasattr(value, "_asdict") else [to_json(item) for item in value]
    if isinstance(value, type):
        return repr(value)
    if hasattr(value, "model_dump"):
        return value.model_dump(mode="json")
    if dataclasses.is_dataclass(value):
        return {field.name: to_json(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if hasattr(value, "tolist"):
        return to_json(value.tolist())
    return repr(value)
