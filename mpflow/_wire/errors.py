"""What goes wrong on the wire and on the disk. Owns the error types alone; every one survives pickling with its fields."""

from __future__ import annotations

from typing import Any


class WireError(Exception):
    """Bytes could not be made of a value, or a value of bytes."""


class EncodeError(WireError):
    """A value cannot be carried. ``path`` leads to the culprit, ``type_name`` is its type, ``reason`` says why."""

    def __init__(self, message: str, *, path: str = "", type_name: str = "", reason: str = "") -> None:
        super().__init__(message)
        self.path = path
        self.type_name = type_name
        self.reason = reason

    def __reduce__(self) -> tuple[Any, ...]:
        return (type(self), self.args, self.__dict__)


class DecodeError(WireError):
    """Bytes are not a value: damaged, hostile, of another version, or naming a type that is not known here."""


class DecodeLimitError(DecodeError):
    """Bytes would make a value larger, deeper or of more containers than the limits allow."""


class ProtocolError(WireError):
    """The byte stream between two processes is not what the peer's mpflow would write."""
