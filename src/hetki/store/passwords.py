"""Passwords: how one must be, and the only form in which it is kept: Argon2id, as a PHC string.

Argon2id costs time and memory on purpose (`MEMORY_KIB` and `PASSES`, after OWASP's Password Storage Cheat
Sheet), so that whoever gets hold of the file still has to guess. How many run at once, `server` bounds.
"""

from __future__ import annotations

import unicodedata

from cryptography.exceptions import InvalidKey
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id

from hetki.errors import Fault, Invalid

#: Each check holds this much memory (KiB), reads it so often, in so many threads.
MEMORY_KIB, PASSES, LANES = 19 * 1_024, 2, 1
SALT_BYTES, HASH_BYTES = 16, 32
#: After NIST SP 800-63B, where a password is the only factor; nothing else is asked of it.
CHARS_MIN = 15
CHARS_MAX = 256
#: Fewer different characters than this make a pattern, no password.
DISTINCT_MIN = 5

_PRESENT = f"$argon2id$v=19$m={MEMORY_KIB},t={PASSES},p={LANES}$"


def check_password(password: str, name: str) -> None:
    """Raises `Invalid` for one that is too short, too long, of too few characters, or made of the name."""
    text = _normal(password).decode()
    must = ""
    if not CHARS_MIN <= len(text) <= CHARS_MAX:
        must = f"{CHARS_MIN} to {CHARS_MAX} characters"
    elif len(set(text)) < DISTINCT_MIN:
        must = f"at least {DISTINCT_MIN} different characters"
    elif not text.casefold().replace(name.casefold(), "").strip():
        must = "something else than the name"
    if must:
        raise Invalid(Fault("password", "one that is easily guessed", must, "some words that only you join"))


def kept_form(password: str, salt: bytes) -> str:
    """What is kept of a password, with the present cost. `salt` has `SALT_BYTES`."""
    kdf = Argon2id(salt=salt, length=HASH_BYTES, iterations=PASSES, lanes=LANES, memory_cost=MEMORY_KIB)
    return kdf.derive_phc_encoded(_normal(password))


def fits(password: str, kept: str) -> bool:
    """Whether a password is the one that was kept, with the cost of that time."""
    try:
        Argon2id.verify_phc_encoded(_normal(password), kept)
    except InvalidKey:
        return False
    return True


def is_dated(kept: str) -> bool:
    """Whether a kept form has another cost than the present one."""
    return not kept.startswith(_PRESENT)


def _normal(password: str) -> bytes:
    """The same text for the same keys, whatever keyboard and system composed it."""
    return unicodedata.normalize("NFKC", password).encode("utf-8", "replace")
