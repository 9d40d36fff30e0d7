"""Status: what our errors are in HTTP, and how a refusal reads. No other room knows a status code."""

from __future__ import annotations

import msgspec

from hetki.errors import Exhausted, HetkiError

#: When to come back, with every 429 and 503.
RETRY_AFTER_S = 1

STATUS = {
    "invalid": 400,
    "forbidden": 401,
    "not_found": 404,
    "conflict": 409,
    "exhausted": 413,
    "unavailable": 503,
}


class Busy(Exhausted):
    """A bound that is reached for now: the same is taken later."""


class Refusal(msgspec.Struct, frozen=True):
    """The body of an answer that is not 200, as the SDKs expect it."""

    code: str
    message: str


def status_of(error: HetkiError) -> int:
    """The HTTP status of an error of ours."""
    return 429 if isinstance(error, Busy) else STATUS[error.code]
