"""Staff: the people who sign in to the console, their roles, and what is kept of their passwords.

In a database and not in a file that is written whole: two processes change it (the command line and the
server), and whoever was removed must not come back by a write that began before. Every change of a person
gives a new `stamp`; a session holds the stamp it began under, and ends with it.
"""

from __future__ import annotations

import sqlite3
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Final, Literal, get_args

import msgspec

from hetki.errors import Conflict, Fault, Invalid, NotFound, Unavailable, nearest, shown
from hetki.store.passwords import SALT_BYTES, check_password, fits, is_dated, kept_form
from hetki.store.ports import Chance, Disk
from hetki.store.sqlite import opened, transaction, truncate_log

FILE = "access/staff.db"
SCHEMA = """
CREATE TABLE IF NOT EXISTS staff(
    handle TEXT PRIMARY KEY, name TEXT NOT NULL, role TEXT NOT NULL, password TEXT NOT NULL,
    stamp BLOB NOT NULL, changed_at INTEGER NOT NULL) WITHOUT ROWID;
"""
#: From the least to the most: each may do what those before it may.
Role = Literal["viewer", "agent", "admin"]
ROLES: Final[tuple[Role, ...]] = get_args(Role)
NAME_CHARS_MAX = 80
STAMP_BYTES = 16
_COLUMNS = "name, role, stamp, changed_at"
#: What a backup keeps of a person: no stamp, so that no session of before can be one of afterwards.
_COPIED = "handle, name, role, password, changed_at"


class Person(msgspec.Struct, frozen=True):
    """Somebody who signs in; `stamp` is another one after every change."""

    name: str
    role: Role
    stamp: bytes
    changed_at: int


def has_staff(disk: Disk) -> bool:
    """Whether anybody was ever given an account on a disk."""
    return FILE in disk.names("access/*")


class Staff:
    """The people of one project, for one thread at a time; any number may open them.

    Every method raises `Unavailable` while the disk is full, locked or failing.
    """

    def __init__(self, disk: Disk, chance: Chance) -> None:
        self._chance = chance
        disk.settle(FILE)
        self._db = opened(disk, FILE, SCHEMA)

    def close(self) -> None:
        """Give the connection back."""
        self._db.close()

    def everybody(self) -> list[Person]:
        """All people, by name."""
        with self._reading() as db:
            rows = db.execute(f"SELECT {_COLUMNS} FROM staff ORDER BY handle").fetchall()
        return [Person(*row) for row in rows]

    def known(self, name: str) -> Person | None:
        """The person of a name, however it is capitalised."""
        with self._reading() as db:
            row = db.execute(f"SELECT {_COLUMNS} FROM staff WHERE handle = ?", (handle_of(name),)).fetchone()
        return Person(*row) if row else None

    def add(self, name: str, role: Role, password: str, now: int) -> Person:
        """A new person. Raises `Invalid` for a bad name or password, `Conflict` for somebody who is known."""
        name = checked_name(name)
        check_password(password, name)
        person = Person(name, role, self._stamp(), now)
        kept = kept_form(password, self._chance.bytes(SALT_BYTES))
        row = (handle_of(name), name, role, kept, person.stamp, now)
        with self._writing() as db:
            if db.execute("INSERT OR IGNORE INTO staff VALUES (?, ?, ?, ?, ?, ?)", row).rowcount == 0:
                hint = "hetki staff passwd and hetki staff role change somebody"
                raise Conflict(Fault("name", shown(name), "of nobody yet", hint))
        return person

    def remove(self, name: str) -> None:
        """Take somebody out; their sessions end at once. Raises `NotFound`."""
        self._change(name, "DELETE FROM staff WHERE handle = ?1")

    def set_password(self, name: str, password: str, now: int) -> None:
        """Another password; sessions that began under the old one end. Raises `Invalid` or `NotFound`."""
        check_password(password, name)
        kept = kept_form(password, self._chance.bytes(SALT_BYTES))
        statement = "UPDATE staff SET password = ?2, stamp = ?3, changed_at = ?4 WHERE handle = ?1"
        self._change(name, statement, kept, self._stamp(), now)

    def set_role(self, name: str, role: Role, now: int) -> None:
        """Another role; sessions that began under the old one end. Raises `NotFound`."""
        statement = "UPDATE staff SET role = ?2, stamp = ?3, changed_at = ?4 WHERE handle = ?1"
        self._change(name, statement, role, self._stamp(), now)

    def proved(self, name: str, password: str) -> Person | None:
        """The person whose name and password these are; None for any other pair.

        For an unknown name as much is computed as for a known one, so that time tells nothing of it. What
        was kept at another cost is kept anew; a person who was changed meanwhile stays as changed.
        """
        query = f"SELECT password, {_COLUMNS} FROM staff WHERE handle = ?"
        with self._reading() as db:
            row = db.execute(query, (handle_of(name),)).fetchone()
        if row is None:
            kept_form(password, self._chance.bytes(SALT_BYTES))
            return None
        kept, person = row[0], Person(*row[1:])
        if not fits(password, kept):
            return None
        if is_dated(kept):
            anew = kept_form(password, self._chance.bytes(SALT_BYTES))
            with self._writing() as db:
                db.execute(
                    "UPDATE staff SET password = ? WHERE handle = ? AND password = ? AND stamp = ?",
                    (anew, handle_of(name), kept, person.stamp),
                )
        return person

    def copied(self) -> list[tuple[object, ...]]:
        """Every person as a backup keeps them, by name."""
        with self._reading() as db:
            return db.execute(f"SELECT {_COPIED} FROM staff ORDER BY handle").fetchall()

    def bring_back(self, rows: Iterable[Sequence[object]]) -> int:
        """Put the people of a backup into an empty file, each with another stamp; return how many."""
        people = [(*row, self._stamp()) for row in rows]
        with self._writing() as db:
            db.executemany(f"INSERT INTO staff({_COPIED}, stamp) VALUES (?, ?, ?, ?, ?, ?)", people)
        return len(people)

    def _change(self, name: str, statement: str, *values: object) -> None:
        known = [each.name for each in self.everybody()]
        with self._writing() as db:
            if db.execute(statement, (handle_of(name), *values)).rowcount == 0:
                raise NotFound(Fault("name", shown(name), "of somebody who signs in", nearest(name, known)))

    def _stamp(self) -> bytes:
        return self._chance.bytes(STAMP_BYTES)

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        try:
            yield self._db
        except sqlite3.OperationalError as error:
            raise Unavailable(Fault("staff", str(error), "readable", "try again in a moment")) from error

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        """One transaction; nothing of what it replaced stays in the log, unless somebody reads just then."""
        with transaction(self._db) as db:
            yield db
        truncate_log(self._db)


def checked_name(name: str, where: str = "name") -> str:
    """A name as it is kept, its spaces in one. Raises `Invalid`."""
    plain = unicodedata.normalize("NFC", " ".join(name.split()))
    if not plain or len(plain) > NAME_CHARS_MAX or not plain.isprintable():
        raise Invalid(Fault(where, shown(name), f"a name of at most {NAME_CHARS_MAX} characters"))
    return plain


def handle_of(name: str) -> str:
    """One for all spellings of a name that people would take for the same."""
    return unicodedata.normalize("NFKC", " ".join(name.split())).casefold()
