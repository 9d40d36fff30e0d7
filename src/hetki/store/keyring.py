"""Keyring: the keys of the journal's entries, each made of the secrets of a leaf and of a period.

They are remembered up to a bound, and none that was made before an erasure is used after it.
"""

from __future__ import annotations

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from hetki.events.event import LeafId
from hetki.store.secrets import SECRET_BYTES, Secrets

#: Keys that are remembered, 32 bytes each, and what encrypts with one, 2.7 KB each: for who is busy just now.
KEYS_MAX, CIPHERS_MAX = 50_000, 4_096


class Keyring:
    """Keys by leaf and number of a period."""

    def __init__(self, secrets: Secrets) -> None:
        self._secrets = secrets
        self._number = 0
        self._keys: dict[tuple[LeafId, int], bytes] = {}
        self._ciphers: dict[tuple[LeafId, int], AESGCM] = {}

    def n_remembered(self) -> tuple[int, int]:
        """How many keys, and how many ciphers."""
        return len(self._keys), len(self._ciphers)

    def forget_erased(self) -> None:
        """Drop what is remembered, if an erasure has happened since it was made."""
        number = self._secrets.number()
        if number != self._number:
            self._keys.clear()
            self._ciphers.clear()
            self._number = number

    def cipher(self, leaf: LeafId, period: int) -> AESGCM | None:
        """What encrypts a leaf's entries in a period; None once one of its secrets was destroyed."""
        cipher = self._ciphers.get((leaf, period))
        if cipher is None:
            key = self._key(leaf, period)
            if key is None:
                return None
            if len(self._ciphers) >= CIPHERS_MAX:
                self._ciphers.clear()
            cipher = self._ciphers[(leaf, period)] = AESGCM(key)
        return cipher

    def _key(self, leaf: LeafId, period: int) -> bytes | None:
        key = self._keys.get((leaf, period))
        if key is not None:
            return key
        secret, period_secret = self._secrets.leaf(leaf), self._secrets.period_secret(period)
        if secret is None or period_secret is None:
            return None
        if len(self._keys) >= KEYS_MAX:
            for each in list(self._keys)[: KEYS_MAX // 4]:
                del self._keys[each]
        derived = HKDF(hashes.SHA256(), SECRET_BYTES, salt=period_secret, info=b"hetki entry")
        key = self._keys[(leaf, period)] = derived.derive(secret)
        return key
