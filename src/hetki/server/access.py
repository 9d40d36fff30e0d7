"""Access: who has signed in. A one-time token, or a name with its password, becomes a session.

Only hashes are kept: what is stored in `access/` can be read by anybody without opening anything. A session
that began with a token is the operator's; one of a person ends with any change of that person.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from hashlib import blake2b
from hmac import compare_digest

import msgspec

from hetki.errors import Fault, Forbidden, NotFound, Unavailable
from hetki.server.status import Busy
from hetki.settings import SECOND
from hetki.store.ports import Chance, Clock, Disk
from hetki.store.staff import Role, Staff

TOKEN_FILE = "access/token.json"
SESSIONS_FILE = "access/sessions.json"
TOKEN_S = 24 * 3_600
SESSION_S = 12 * 3_600
#: More browsers than this sign the oldest out: of all, and of one person.
SESSIONS_MAX = 1_000
SESSIONS_OF_ONE_MAX = 50
#: 32 random bytes, in hex.
SECRET_BYTES = 32
#: Passwords that are checked at once, and that wait for it: each takes 19 MiB and a tenth of a second.
CHECKS_MAX = 2
CHECKS_WAITING_MAX = 8


class Kept(msgspec.Struct, frozen=True):
    """The hash of a token or of a session's id, and when it ends. Of a person's session also whose it is,
    and the stamp under which it began."""

    digest: str
    expires_at: int
    name: str = ""
    stamp: str = ""


class Visitor(msgspec.Struct, frozen=True):
    """Who has signed in. The operator, who came by a token, has no name."""

    name: str
    role: Role


OPERATOR = Visitor("", "admin")


class Access:
    """Tokens and sessions of one project. One server owns the sessions; anyone may make a token."""

    def __init__(self, disk: Disk, clock: Clock, chance: Chance) -> None:
        self._disk = disk
        self._clock = clock
        self._chance = chance
        self._lock = threading.Lock()
        self._sessions = {kept.digest: kept for kept in self._load(SESSIONS_FILE) or []}
        self._looking = threading.Lock()
        self._staff: Staff | None = None
        self._checks = threading.BoundedSemaphore(CHECKS_MAX)
        self._n_checks = 0

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
            return self._begin("", "")

    def enter(self, name: str, password: str) -> str:
        """Exchange a name and a password for a session's id. Takes a tenth of a second, on purpose.

        Raises `Forbidden` for any pair that is not somebody's, `Busy` while too many are checked already.
        """
        with self._checking(), closing(Staff(self._disk, self._chance)) as staff:
            person = staff.proved(name, password)
        if person is None:
            must = "those of one person who was added with hetki staff"
            raise Forbidden(Fault("sign-in", "a name and a password that do not belong together", must))
        with self._lock:
            return self._begin(person.name, person.stamp.hex())

    def who(self, session: str) -> Visitor | None:
        """Who has signed in with a session; None if it has ended or never was."""
        kept = self._sessions.get(_digest(session))
        if kept is None or self._clock.now() >= kept.expires_at:
            return None
        if not kept.stamp:
            return OPERATOR
        with self._looking:
            self._staff = self._staff or Staff(self._disk, self._chance)
            person = self._staff.known(kept.name)
        if person is None or person.stamp.hex() != kept.stamp:
            return None
        return Visitor(person.name, person.role)

    def sign_out(self, session: str) -> None:
        """End a session; an unknown one changes nothing."""
        with self._lock:
            digest = _digest(session)
            if digest in self._sessions:
                self._save(kept for kept in self._sessions.values() if kept.digest != digest)

    @contextmanager
    def _checking(self) -> Iterator[None]:
        """A place among those whose password is checked. Raises `Busy`."""
        with self._lock:
            if self._n_checks >= CHECKS_MAX + CHECKS_WAITING_MAX:
                fault = Fault("sign-in", f"{self._n_checks} people at once", "fewer", "try again in a moment")
                raise Busy(fault)
            self._n_checks += 1
        try:
            with self._checks:
                yield
        finally:
            with self._lock:
                self._n_checks -= 1

    def _load(self, name: str) -> list[Kept] | None:
        """What a file holds; None when there is no such file. Raises `Unavailable`."""
        try:
            return msgspec.json.decode(self._disk.read(name), type=list[Kept])
        except NotFound:
            return None
        except msgspec.MsgspecError:
            got, hint = "something else", "delete it: whoever it let in signs in again"
            raise Unavailable(Fault(name, got, "what was once written", hint)) from None

    def _begin(self, name: str, stamp: str) -> str:
        """A new session, the oldest of the same person giving way. The lock is held."""
        session = self._chance.bytes(SECRET_BYTES).hex()
        kept = Kept(_digest(session), self._clock.now() + SESSION_S * SECOND, name, stamp)
        same = [each for each in self._sessions.values() if each.name == name]
        gone = {each.digest for each in same[: max(0, len(same) - SESSIONS_OF_ONE_MAX + 1)]}
        self._save([*(each for each in self._sessions.values() if each.digest not in gone), kept])
        return session

    def _save(self, sessions: Iterable[Kept]) -> None:
        now = self._clock.now()
        kept = [each for each in sessions if each.expires_at > now][-SESSIONS_MAX:]
        self._disk.write(SESSIONS_FILE, msgspec.json.encode(kept))
        self._sessions = {each.digest: each for each in kept}


def _fits(kept: Kept, secret: str, now: int) -> bool:
    return compare_digest(kept.digest, _digest(secret)) and now < kept.expires_at


def _digest(secret: str) -> str:
    return blake2b(secret.encode("utf-8", "replace"), digest_size=32, person=b"hetki access").hexdigest()
