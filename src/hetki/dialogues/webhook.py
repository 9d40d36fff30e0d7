"""Webhooks signed after Standard Webhooks 1.0: body, headers, and the receiver's check.

Source: the specification at github.com/standard-webhooks/standard-webhooks, symmetric scheme `v1`.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from typing import Mapping

import msgspec

from hetki.errors import Fault, Forbidden, Invalid
from hetki.events.event import utc

PREFIX = "whsec_"
KEY_BYTES_MIN, KEY_BYTES_MAX = 24, 64
#: How far a timestamp may be from the receiver's clock: older ones may be replays.
TOLERANCE_S = 300


def payload(kind: str, at: int, data: Mapping[str, object]) -> bytes:
    """The JSON body `{type, timestamp, data}`; `at` is an instant.

    >>> payload("moment.answered", 0, {"action": "tell_new_time"})
    b'{"type":"moment.answered","timestamp":"1970-01-01T00:00:00Z","data":{"action":"tell_new_time"}}'
    """
    timestamp = utc(at).isoformat().removesuffix("+00:00") + "Z"
    return msgspec.json.encode({"type": kind, "timestamp": timestamp, "data": data})


def keys(secret: str, where: str = "secret") -> list[bytes]:
    """The keys in a secret, one per `whsec_` word: several while one is changed for another.

    Raises `Invalid`, without showing the secret.
    """
    found = []
    for word in secret.split():
        try:
            key = base64.b64decode(word.removeprefix(PREFIX), validate=True)
        except (binascii.Error, ValueError):
            key = b""
        if not word.startswith(PREFIX) or not KEY_BYTES_MIN <= len(key) <= KEY_BYTES_MAX:
            must = f"whsec_ and {KEY_BYTES_MIN} to {KEY_BYTES_MAX} bytes in base64"
            raise Invalid(Fault(where, "another text", must))
        found.append(key)
    if not found:
        raise Invalid(Fault(where, "nothing", "whsec_ and a key in base64"))
    return found


def sign(secret: str, message_id: str, timestamp_s: int, body: bytes) -> dict[str, str]:
    """The three headers of a message, with one signature per key."""
    signatures = [_signature(key, message_id, str(timestamp_s), body) for key in keys(secret)]
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(timestamp_s),
        "webhook-signature": " ".join(signatures),
    }


def verify(
    secret: str, headers: Mapping[str, str], body: bytes, now_s: int, tolerance_s: int = TOLERANCE_S
) -> str:
    """The message id of a genuine and fresh message; raises `Forbidden` for any other.

    A repeat within the tolerance verifies again: the receiver tells repeats by the id.
    """
    given = {name.lower(): text for name, text in headers.items()}
    message_id = given.get("webhook-id", "")
    timestamp = given.get("webhook-timestamp", "")
    if not message_id or not (timestamp.isascii() and timestamp.isdigit() and len(timestamp) <= 12):
        raise Forbidden(Fault("webhook headers", "no id or no timestamp", "webhook-id and webhook-timestamp"))
    expected = [_signature(key, message_id, timestamp, body).encode() for key in keys(secret)]
    offered = [word.encode() for word in given.get("webhook-signature", "").split()[:16]]
    if not any(hmac.compare_digest(mine, theirs) for mine in expected for theirs in offered):
        raise Forbidden(Fault("webhook-signature", "none that fits", "a v1 signature of this body"))
    if abs(now_s - int(timestamp)) > tolerance_s:
        raise Forbidden(Fault("webhook-timestamp", timestamp, f"within {tolerance_s} seconds of now"))
    return message_id


def _signature(key: bytes, message_id: str, timestamp: str, body: bytes) -> str:
    signed = f"{message_id}.{timestamp}.".encode() + body
    return "v1," + base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
