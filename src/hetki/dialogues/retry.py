"""Trying again: when, how often, and when a whole destination is left in peace. Values in, values out."""

from __future__ import annotations

from hashlib import blake2b
from typing import Literal

import msgspec

from hetki.settings import SECOND

#: Waits after each failed attempt, in seconds: the schedule that Standard Webhooks 1.0 recommends.
SCHEDULE_S = (5, 300, 1_800, 7_200, 18_000, 36_000, 50_400, 72_000, 86_400)
#: A wait is lengthened by up to this share, so that what failed together does not return together.
JITTER_SHARE = 0.2
#: A destination cannot put us off for longer than this.
RETRY_AFTER_S_MAX = 86_400.0

#: HTTP statuses below 500 that may pass: timeout, too early, too many.
_PASSING = frozenset({408, 425, 429})


def next_attempt(
    n_attempts: int, failed_at: int, message_id: str, retry_after_s: float | None = None
) -> int | None:
    """The instant of the next attempt after `n_attempts` (at least 1) failed ones; None when given up.

    The jitter comes from the message's id, so a replay waits just as long. `retry_after_s`, what the
    destination asked for, is a floor.
    """
    assert n_attempts >= 1, "the first attempt has been made"
    if n_attempts > len(SCHEDULE_S):
        return None
    drawn = (
        int.from_bytes(blake2b(f"{message_id}\0{n_attempts}".encode(), digest_size=8).digest(), "big") / 2**64
    )
    wait_s = SCHEDULE_S[n_attempts - 1] * (1 + JITTER_SHARE * drawn)
    floor_s = min(max(0.0, retry_after_s or 0.0), RETRY_AFTER_S_MAX)
    return failed_at + round(max(wait_s, floor_s) * SECOND)


def is_permanent(kind: Literal["webhook", "email"], status: int) -> bool:
    """Whether a refusal will stay one: HTTP 4xx (but 408, 425, 429), SMTP 5xx. No answer (0) may pass.

    >>> is_permanent("webhook", 410), is_permanent("webhook", 503), is_permanent("email", 550)
    (True, False, True)
    """
    if kind == "webhook":
        return 400 <= status < 500 and status not in _PASSING
    return 500 <= status < 600


class Breaker(msgspec.Struct, frozen=True):
    """The state of one destination: closed, open until `retry_at`, or half-open while one message tries.

    `n_opened` counts the openings since it last worked, and lengthens the pause.
    """

    n_failures: int = 0
    n_opened: int = 0
    retry_at: int = 0
    probing: bool = False

    @property
    def is_open(self) -> bool:
        return self.n_opened > 0


FAILURES_MAX = 5
PAUSE_S_MIN, PAUSE_S_MAX = 10, 600


def admit(breaker: Breaker, now: int) -> tuple[bool, Breaker]:
    """Whether a message may be sent now, and the state that must be kept if it is.

    An open breaker lets one message through when its pause is over. Should that one never report, another
    may try after a further pause.
    """
    if not breaker.is_open:
        return True, breaker
    if now < breaker.retry_at:
        return False, breaker
    retry_at = now + _pause_s(breaker.n_opened) * SECOND
    return True, Breaker(breaker.n_failures, breaker.n_opened, retry_at, probing=True)


def report(breaker: Breaker, ok: bool, now: int) -> Breaker:
    """The state after an attempt. A permanent refusal counts as `ok`: the destination works."""
    if ok:
        return Breaker()
    if breaker.is_open and not breaker.probing:
        return breaker
    n_failures = breaker.n_failures + 1
    if n_failures < FAILURES_MAX:
        return Breaker(n_failures)
    n_opened = breaker.n_opened + 1
    return Breaker(n_failures, n_opened, now + _pause_s(n_opened) * SECOND)


def _pause_s(n_opened: int) -> int:
    return min(PAUSE_S_MIN << min(n_opened - 1, 16), PAUSE_S_MAX)
