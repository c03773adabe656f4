"""`EncryptedSerializer`: what another serializer made, encrypted and authenticated. It knows no cipher and keeps no key."""

from __future__ import annotations

import os
from collections.abc import Iterable
from copy import copy
from typing import Any

from mpflow._wire.errors import DecodeError
from mpflow.checkpoint.serde.base import CipherProtocol, SerializerProtocol
from mpflow.checkpoint.serde.jsonplus import JsonPlusSerializer

__all__ = ("EncryptedSerializer",)

SEALED = "sealed"
KEY_VARIABLES = ("MPFLOW_AES_KEY", "LANGGRAPH_AES_KEY")


class EncryptedSerializer(SerializerProtocol):
    """Encrypts what `serde` makes of values, the name of its format included.

    Reading what the cipher did not authenticate raises DecodeError: damaged data, another key, and values that were
    saved without encryption. Values alone are encrypted: ids of threads and tasks, names of channels, and times are
    not. What LangGraph's serializer of this name encrypted is read too, with the same key.
    """

    def __init__(self, cipher: CipherProtocol, serde: SerializerProtocol | None = None) -> None:
        self.cipher = cipher
        self.serde: SerializerProtocol = JsonPlusSerializer() if serde is None else serde

    @property
    def travels(self) -> bool:
        """Whether its pickle does in another process what it does here."""
        parts = self.serde, self.cipher
        return type(self) is EncryptedSerializer and all(getattr(one, "travels", False) for one in parts)

    @property
    def row_key(self) -> bytes | None:
        """What savers seal their rows with, so that none is changed or moved to another thread; None if the cipher has none."""
        key: bytes | None = getattr(self.cipher, "row_key", None)
        return key

    def dumps_typed(self, obj: Any) -> tuple[str, bytes]:
        """``sealed+`` and the cipher's name, and the ciphertext. Raises what `serde` raises."""
        kind, data = self.serde.dumps_typed(obj)
        name = kind.encode()
        ciphername, ciphertext = self.cipher.encrypt(len(name).to_bytes(1, "big") + name + data)
        return f"{SEALED}+{ciphername}", ciphertext

    def loads_typed(self, data: tuple[str, bytes]) -> Any:
        """What `dumps_typed` was given. Raises DecodeError for what this key did not encrypt."""
        label, ciphertext = data
        kind, plus, ciphername = label.partition("+")
        if not plus:
            raise DecodeError(
                f"expected an encrypted value, got one in the format {label!r}: it was saved without this key, or put there"
            )
        try:
            plaintext = self.cipher.decrypt(ciphername, bytes(ciphertext))
        except Exception as error:
            raise DecodeError(
                f"the value cannot be decrypted with this key ({ciphername}): it is damaged, or another key encrypted it"
            ) from error
        if kind == SEALED:
            end = 1 + plaintext[0] if plaintext else 1
            kind, plaintext = plaintext[1:end].decode(), plaintext[end:]
        return self.serde.loads_typed((kind, plaintext))

    def with_msgpack_allowlist(self, extra_allowlist: Any) -> EncryptedSerializer:
        """Return a serializer of this one's class that builds these classes too; this one if it does already."""
        widen = getattr(self.serde, "with_msgpack_allowlist", None)
        wider = self.serde if widen is None else widen(extra_allowlist)
        if wider is self.serde:
            return self
        knowing = copy(self)
        knowing.serde = wider
        return knowing

    def learn(self, types: Iterable[type]) -> None:
        """Build objects of these classes too, from now on, if the serializer within can learn."""
        learn = getattr(self.serde, "learn", None)
        if learn is not None:
            learn(types)

    @classmethod
    def from_pycryptodome_aes(cls, serde: SerializerProtocol | None = None, **kwargs: Any) -> EncryptedSerializer:
        """Encrypt with AES of pycryptodome (``pip install "mpflow-engine[pycryptodome]"``).

        `key` has 16, 24 or 32 bytes; without it the environment variable MPFLOW_AES_KEY (or LANGGRAPH_AES_KEY) is
        read. `mode` must be one that authenticates, EAX unless given. Raises ValueError, or ImportError.
        """
        from mpflow.checkpoint.serde.ciphers import PycryptodomeAes

        return cls(PycryptodomeAes(kwargs.pop("key", None) or _key_of_environment(), **kwargs), serde)

    @classmethod
    def from_cryptography_aes(
        cls, serde: SerializerProtocol | None = None, *, key: bytes | None = None
    ) -> EncryptedSerializer:
        """Encrypt with AES-GCM of the package cryptography (``pip install "mpflow-engine[cryptography]"``).

        `key` as for `from_pycryptodome_aes`. Raises ValueError, or ImportError.
        """
        from mpflow.checkpoint.serde.ciphers import CryptographyAesGcm

        return cls(CryptographyAesGcm(key or _key_of_environment()), serde)


def _key_of_environment() -> bytes:
    for name in KEY_VARIABLES:
        text = os.environ.get(name)
        if text is not None:
            return text.encode()
    raise ValueError(f"no key to encrypt with: pass key=..., or set {KEY_VARIABLES[0]} to 16, 24 or 32 bytes")
