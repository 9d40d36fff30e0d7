"""Status: what our errors are in HTTP, and how a refusal reads. No other room knows a status code."""

from __future__ import annotations

import msgspec

from hetki.errors import Exhausted, Fault, HetkiError

#: When to come back, with a 429 or a 503 that does not know better.
RETRY_AFTER_S = 1

STATUS = {
    "invalid": 400,
    "forbidden": 401,
    "not_found": 404,
    "conflict": 409,
    "exhausted": 413,
    "unavailable": 503,
}
#: What each status of the ways in says.
SAID = {
    200: "Everything that could be read is on the disk",
    400: "The body cannot be cut into events",
    401: "No write key of this project",
    404: "No such path",
    405: "No POST",
    408: "Headers or body took too long to arrive",
    409: "No way in answers so today",
    413: "The body is larger than a limit",
    414: "The address that is asked for is longer than a limit",
    429: "The queue is full, a key or an address sends too much, or it has too many connections",
    431: "The headers are larger than a limit, or more",
    503: "The journal cannot be written, the server stops, or it has no place for one more connection",
}
#: Those after which the same is to be sent again, with `Retry-After`.
AGAIN = (429, 503)


class Refusal(msgspec.Struct, frozen=True):
    """The body of an answer that is not 200, as the SDKs expect it."""

    code: str
    message: str


class Busy(Exhausted):
    """A bound that is reached for now: the same is taken later."""

    def __init__(self, fault: Fault, retry_after_s: int = RETRY_AFTER_S) -> None:
        super().__init__(fault)
        self.retry_after_s = retry_after_s


def status_of(error: HetkiError) -> int:
    """The HTTP status of an error of ours."""
    return 429 if isinstance(error, Busy) else STATUS[error.code]


def retry_after_s(error: HetkiError) -> int:
    """When to come back, where that helps."""
    return error.retry_after_s if isinstance(error, Busy) else RETRY_AFTER_S


def retry_after(error: HetkiError) -> dict[str, str]:
    """The header that says so."""
    return {"retry-after": str(retry_after_s(error))} if status_of(error) in AGAIN else {}
