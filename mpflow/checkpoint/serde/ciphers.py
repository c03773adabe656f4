"""Ciphers that authenticate, on top of optional packages. Each is imported when its cipher is made."""

from __future__ import annotations

import os
from hashlib import blake2b
from typing import Any, Final

from mpflow.checkpoint.serde.base import CipherProtocol

_GCM_NONCE_BYTES: Final = 12
_EAX_NONCE_BYTES: Final = 16
_TAG_BYTES: Final = 16


def _checked(key: bytes) -> bytes:
    if len(key) not in (16, 24, 32):
        raise ValueError(f"an AES key has 16, 24 or 32 bytes, this one has {len(key)}")
    return key


def _row_key(key: bytes) -> bytes:
    return blake2b(key, digest_size=32, person=b"mpflow rows").digest()


def _missing(package: str) -> ImportError:
    return ImportError(f'encryption needs {package}: pip install "mpflow-engine[{package}]"')


class PycryptodomeAes(CipherProtocol):
    """AES of pycryptodome in a mode that authenticates. Ciphertexts are nonce, tag, data, as LangGraph lays them out."""

    travels = True

    def __init__(self, key: bytes, mode: int | None = None, **options: Any) -> None:
        try:
            from Crypto.Cipher import AES
        except ImportError:
            raise _missing("pycryptodome") from None
        authenticated = {"EAX": AES.MODE_EAX, "GCM": AES.MODE_GCM, "CCM": AES.MODE_CCM, "OCB": AES.MODE_OCB}
        mode = AES.MODE_EAX if mode is None else mode
        if mode not in authenticated.values():
            raise ValueError(f"the mode must be one that authenticates: {', '.join(authenticated)}")
        # A nonce used twice would give the plaintexts away.
        if "nonce" in options:
            raise ValueError("nonces are made anew for each value")
        self._options = {"key": _checked(key), "mode": mode, **options}
        self.row_key = _row_key(key)
        self._nonce_bytes = 15 if mode == AES.MODE_OCB else 11 if mode == AES.MODE_CCM else _EAX_NONCE_BYTES
        self._new = AES.new

    def encrypt(self, plaintext: bytes) -> tuple[str, bytes]:
        nonce = os.urandom(self._nonce_bytes)
        ciphertext, tag = self._new(**self._options, nonce=nonce).encrypt_and_digest(plaintext)
        return "aes", nonce + tag + ciphertext

    def decrypt(self, ciphername: str, ciphertext: bytes) -> bytes:
        if ciphername != "aes":
            raise ValueError(f"expected the cipher 'aes', got {ciphername!r}")
        start = self._nonce_bytes + _TAG_BYTES
        nonce, tag = ciphertext[: self._nonce_bytes], ciphertext[self._nonce_bytes : start]
        cipher = self._new(**self._options, nonce=nonce)
        plaintext: bytes = cipher.decrypt_and_verify(ciphertext[start:], tag)
        return plaintext


class CryptographyAesGcm(CipherProtocol):
    """AES-GCM of the package cryptography. Ciphertexts are nonce, data, tag."""

    travels = True

    def __init__(self, key: bytes) -> None:
        try:
            from cryptography.hazmat.primitives.ciphers.aead import AESGCM
        except ImportError:
            raise _missing("cryptography") from None
        self._key = _checked(key)
        self.row_key = _row_key(key)
        self._cipher = AESGCM(key)

    def __reduce__(self) -> tuple[type, tuple[bytes]]:
        return CryptographyAesGcm, (self._key,)

    def encrypt(self, plaintext: bytes) -> tuple[str, bytes]:
        nonce = os.urandom(_GCM_NONCE_BYTES)
        return "aes-gcm", nonce + self._cipher.encrypt(nonce, plaintext, b"aes-gcm")

    def decrypt(self, ciphername: str, ciphertext: bytes) -> bytes:
        if ciphername != "aes-gcm":
            raise ValueError(f"expected the cipher 'aes-gcm', got {ciphername!r}")
        nonce, rest = ciphertext[:_GCM_NONCE_BYTES], ciphertext[_GCM_NONCE_BYTES:]
        return self._cipher.decrypt(nonce, rest, b"aes-gcm")
