"""Sealing: rows of the ledger, for a backup, under the secrets of those whom they are about (law 8).

A row's key is HKDF of a key of the project and of the secrets of every leaf that it is about: when one of
them is destroyed the row is unreadable, in every backup that was ever made. What is about nobody is sealed
under the project's key alone.
"""

from __future__ import annotations

from collections.abc import Collection

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from hetki.events.event import LeafId
from hetki.store.ports import Chance
from hetki.store.secrets import Secrets

NONCE_BYTES = 12
LEAF_BYTES = 16
CIPHERS_MAX = 10_000
#: The project's secret that every key is made of.
KEY = "backup"

_encode = msgspec.msgpack.Encoder().encode


class Sealer:
    """Seals and opens rows with the secrets as they are now."""

    def __init__(self, secrets: Secrets, chance: Chance) -> None:
        self._secrets = secrets
        self._chance = chance
        self._key = secrets.key(KEY)
        self._number = secrets.number()
        self._ciphers: dict[bytes, AESGCM] = {}

    def seal(
        self, table: str, owners: Collection[LeafId], row: tuple[object, ...]
    ) -> tuple[str, bytes, bytes] | None:
        """A row of a table, sealed: (table, owners, ciphertext); None if an owner has no secret any more."""
        named = b"".join(sorted(owners))
        cipher = self._cipher(named)
        if cipher is None:
            return None
        nonce = self._chance.bytes(NONCE_BYTES)
        return table, named, nonce + cipher.encrypt(nonce, _encode(row), table.encode() + named)

    def open(self, table: str, owners: bytes, sealed: bytes) -> list[object] | None:
        """A row again; None if it is about someone who was erased since."""
        cipher = self._cipher(owners)
        if cipher is None:
            return None
        try:
            data = cipher.decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], table.encode() + owners)
        except InvalidTag:  # the part it lies in has the right hash: an owner has another secret by now
            return None
        row: list[object] = msgspec.msgpack.decode(data)
        return row

    def _cipher(self, owners: bytes) -> AESGCM | None:
        number = self._secrets.number()
        if number != self._number:
            self._ciphers.clear()
            self._number = number
        cipher = self._ciphers.get(owners)
        if cipher is None:
            secret = self._key
            for start in range(0, len(owners), LEAF_BYTES):
                leaf_secret = self._secrets.leaf(LeafId(owners[start : start + LEAF_BYTES]))
                if leaf_secret is None:
                    return None
                secret += leaf_secret
            if len(self._ciphers) >= CIPHERS_MAX:
                self._ciphers.clear()
            derived = HKDF(hashes.SHA256(), 32, salt=None, info=b"hetki backup").derive(secret)
            cipher = self._ciphers[owners] = AESGCM(derived)
        return cipher
