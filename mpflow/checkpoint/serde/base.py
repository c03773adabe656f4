"""The protocols of serializers and ciphers. It knows no format."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

__all__ = (
    "CipherProtocol",
    "SerializerCompat",
    "SerializerProtocol",
    "UntypedSerializerProtocol",
    "maybe_add_typed_methods",
)


class UntypedSerializerProtocol(Protocol):
    """Values to bytes and back, as `json` or `pickle` do it."""

    def dumps(self, obj: Any) -> bytes:
        """`obj` as bytes."""
        ...

    def loads(self, data: bytes) -> Any:
        """What `dumps` made bytes of."""
        ...


@runtime_checkable
class SerializerProtocol(Protocol):
    """Values to bytes and back, with the name of the format beside the bytes."""

    def dumps_typed(self, obj: Any) -> tuple[str, bytes]:
        """The format's name, and `obj` in it."""
        ...

    def loads_typed(self, data: tuple[str, bytes]) -> Any:
        """What `dumps_typed` was given."""
        ...


class CipherProtocol(Protocol):
    """Encrypts and decrypts. A cipher must authenticate: `decrypt` raises for bytes that `encrypt` did not make."""

    def encrypt(self, plaintext: bytes) -> tuple[str, bytes]:
        """The cipher's name, and the ciphertext."""
        ...

    def decrypt(self, ciphername: str, ciphertext: bytes) -> bytes:
        """The plaintext."""
        ...


class SerializerCompat(SerializerProtocol):
    """Gives a serializer without format names the methods that have them; the name is the value's type."""

    def __init__(self, serde: UntypedSerializerProtocol) -> None:
        self.serde = serde

    def dumps_typed(self, obj: Any) -> tuple[str, bytes]:
        return type(obj).__name__, self.serde.dumps(obj)

    def loads_typed(self, data: tuple[str, bytes]) -> Any:
        return self.serde.loads(data[1])


def maybe_add_typed_methods(serde: SerializerProtocol | UntypedSerializerProtocol) -> SerializerProtocol:
    """Return `serde` with the methods that name formats, added where it lacks them."""
    if isinstance(serde, SerializerProtocol):
        return serde
    return SerializerCompat(serde)
