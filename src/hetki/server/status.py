"""Status: what our errors are in HTTP. Nothing else in Hetki knows a status code."""

from __future__ import annotations

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
    return {"retry-after": str(retry_after_s(error))} if status_of(error) in (429, 503) else {}
