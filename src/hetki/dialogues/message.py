"""Message: what one decision says to one customer, in words, at one destination."""

from __future__ import annotations

from hashlib import blake2b
from typing import Literal

import msgspec

from hetki.events.event import LeafId

#: `waiting` may still be cancelled; `claimed` is on its way; the other four are final.
Status = Literal["waiting", "claimed", "sent", "failed", "cancelled", "expired"]

#: Said of a message that was on its way when it was stopped.
UNHEARD = "an attempt without a receipt may have gone out"


class Message(msgspec.Struct, frozen=True):
    """One row of the outbox. `recipient` is an address, or how a webhook knows the customer.

    It is sent when `due_at` has come and not after `expires_at` (instants). `subject` is empty where there
    is none. `detail` says why it stands where it stands.
    """

    message_id: str
    decision_id: str
    moment: str
    action: str
    purpose: str
    transactional: bool
    destination: str
    customer: LeafId
    created_at: int
    due_at: int
    expires_at: int
    recipient: str
    subject: str
    body: str
    status: Status = "waiting"
    detail: str = ""
    n_attempts: int = 0
    sent_at: int | None = None


def message_id(decision_id: str, destination: str) -> str:
    """The id of a decision's message: the same decision never makes a second one (32 hex characters).

    >>> message_id("d1", "app") == message_id("d1", "app") != message_id("d1", "mail")
    True
    """
    return blake2b(
        f"{decision_id}\0{destination}".encode(), digest_size=16, person=b"hetki.message"
    ).hexdigest()
