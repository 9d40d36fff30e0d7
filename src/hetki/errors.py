"""Every error Hetki raises on purpose, drawn as one tree, and the form of its message.

    HetkiError
    ├── Invalid       "invalid"      input breaks a rule            hetki check: late.yaml:4:9: got ...
    ├── NotFound      "not_found"    a named thing does not exist   hetki explain d-unknown
    ├── Conflict      "conflict"     the state forbids it now       a merge of two customers that are one
    ├── Forbidden     "forbidden"    no key, no consent, no right   a wrong write key
    ├── Exhausted     "exhausted"    a declared bound is reached    a body over the size limit, a full queue
    └── Unavailable   "unavailable"  try again later                the disk is full, the store is locked

Codes become HTTP statuses in `hetki.server` and exit codes in `hetki.cli`, nowhere else.
A programmer's fault is an `assert`, never one of these.
"""

from __future__ import annotations

from dataclasses import dataclass
from difflib import get_close_matches
from typing import ClassVar, Iterable


@dataclass(frozen=True, slots=True, order=True)
class Fault:
    """One broken rule, as data: bad input is a row with its reason.

    `where` names the place (`moments/late.yaml:4:9`, `batch[3].timestamp`), `got` and `must` fit the
    sentence *where: got X, must be Y. Hint: Z.*
    """

    where: str
    got: str
    must: str
    hint: str = ""

    def __str__(self) -> str:
        tail = f" Hint: {self.hint}." if self.hint else ""
        return f"{self.where}: got {self.got}, must be {self.must}.{tail}"


class HetkiError(Exception):
    """Any error of ours; catch this to catch them all. `faults` is never empty."""

    code: ClassVar[str]

    def __init__(self, *faults: Fault) -> None:
        assert faults, "an error names at least one fault"
        self.faults = faults
        super().__init__("\n".join(str(fault) for fault in faults))


class Invalid(HetkiError):
    """Input breaks a rule; every fault that was found is in `faults`."""

    code = "invalid"


class NotFound(HetkiError):
    """A named thing does not exist."""

    code = "not_found"


class Conflict(HetkiError):
    """The present state forbids what was asked."""

    code = "conflict"


class Forbidden(HetkiError):
    """No valid key, no lawful basis, or no right."""

    code = "forbidden"


class Exhausted(HetkiError):
    """A declared bound is reached; the caller must send less."""

    code = "exhausted"


class Unavailable(HetkiError):
    """It would work at another time; the caller may try again."""

    code = "unavailable"


def nearest(name: str, known: Iterable[str]) -> str:
    """A hint naming the closest known names, or the known names themselves when none is close.

    >>> nearest("Order Complete", ["Order Completed", "Cart Viewed"])
    "did you mean 'Order Completed'"
    """
    names = sorted(set(known))
    close = get_close_matches(name, names, n=3, cutoff=0.6)
    if close:
        return "did you mean " + " or ".join(repr(each) for each in close)
    if names and len(names) <= 12:
        return "known are " + ", ".join(repr(each) for each in names)
    return ""


def shown(value: object, length_max: int = 60) -> str:
    """A value as it may stand in an error: quoted, on one line, cut to `length_max` characters."""
    text = repr(value)
    return text if len(text) <= length_max else text[: length_max - 3] + "..."
