"""Status: what our errors are in HTTP. Nothing else in Hetki knows a status code."""

from __future__ import annotations

from hetki.errors import HetkiError

STATUS = {
    "invalid": 400,
    "forbidden": 401,
    "not_found": 404,
    "conflict": 409,
    "exhausted": 413,
    "unavailable": 503,
}


def status_of(error: HetkiError) -> int:
    """The HTTP status of an error of ours."""
    return STATUS[error.code]
