"""Access: who may open the console. A one-time token becomes a session; only hashes are kept.

There is no password. `new_token` makes a token that signs one browser in, once, within a day; what is
stored in `access/` can be read by anybody without opening anything.
"""

from __future__ import annotations

import threading
from hashlib import blake2b
from hmac import compare_digest

import msgspec

from hetki.errors import Fault, Forbidden, NotFound
from hetki.settings import SECOND
from hetki.store.ports import Chance, Clock, Disk

TOKEN_FILE = "access/token.json"
SESSIONS_FILE = "access/sessions.json"
TOKEN_S = 24 * 3_600
SESSION_S = 12 * 3_600
#: More browsers than this sign the oldest out.
SESSIONS_MAX = 50
#: 32 random bytes, in hex.
SECRET_BYTES = 32


class Kept(msgspec.Struct, frozen=True):
    """The hash of a token or of a session's id, and when it ends."""

    digest: str
    expires_at: int


class Access:
    """Tokens and sessions of one project. One server owns the sessions; anyone may make a token."""

    def __init__(self, disk: Disk, clock: Clock, chance: Chance) -> None:
        self._disk = disk
        self._clock = clock
        self._chance = chance
        self._lock = threading.Lock()
        self._sessions = self._load(SESSIONS_FILE) or []

    def first_token(self) -> str | None:
        """A token for the very first run; None once the console has been opened or a token is waiting."""
        now = self._clock.now()
        waiting = any(kept.expires_at > now for kept in self._load(TOKEN_FILE) or [])
        return None if waiting or self._load(SESSIONS_FILE) is not None else self.new_token()

    def new_token(self) -> str:
        """A token that signs one browser in, once. An older one ends."""
        token = self._chance.bytes(SECRET_BYTES).hex()
        kept = Kept(_digest(token), self._clock.now() + TOKEN_S * SECOND)
        self._disk.write(TOKEN_FILE, msgspec.json.encode([kept]))
        return token

    def sign_in(self, token: str) -> str:
        """Exchange a token for a session's id. Raises `Forbidden` for any but the one that is waiting."""
        with self._lock:
            now = self._clock.now()
            fits = [kept for kept in self._load(TOKEN_FILE) or [] if _fits(kept, token, now)]
            if not fits:
                got, must = "a token that is not known, was used or is too old", "a fresh one"
                raise Forbidden(Fault("sign-in", got, must, "run 'hetki token' and open what it prints"))
            self._disk.remove(TOKEN_FILE)
            session = self._chance.bytes(SECRET_BYTES).hex()
            kept = Kept(_digest(session), now + SESSION_S * SECOND)
            self._save([*self._sessions, kept])
        return session

    def is_open(self, session: str) -> bool:
        """Whether a session's id is that of a browser that is signed in."""
        now = self._clock.now()
        return any(_fits(kept, session, now) for kept in self._sessions)

    def sign_out(self, session: str) -> None:
        """End a session; an unknown one changes nothing."""
        with self._lock:
            self._save([kept for kept in self._sessions if not compare_digest(kept.digest, _digest(session))])

    def _load(self, name: str) -> list[Kept] | None:
        """What a file holds; None when there is no such file."""
        try:
            return msgspec.json.decode(self._disk.read(name), type=list[Kept])
        except NotFound:
            return None

    def _save(self, sessions: list[Kept]) -> None:
        now = self._clock.now()
        kept = [each for each in sessions if each.expires_at > now][-SESSIONS_MAX:]
        self._disk.write(SESSIONS_FILE, msgspec.json.encode(kept))
        self._sessions = kept


def _fits(kept: Kept, secret: str, now: int) -> bool:
    return compare_digest(kept.digest, _digest(secret)) and now < kept.expires_at


def _digest(secret: str) -> str:
    return blake2b(secret.encode("utf-8", "replace"), digest_size=32, person=b"hetki access").hexdigest()
