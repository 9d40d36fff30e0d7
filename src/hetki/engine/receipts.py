"""Receipts: what an erasure came to, signed with a key of the project, without anything by which the person
could be known."""

from __future__ import annotations

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from hetki.store.secrets import Secrets
from hetki.store.sqlite import Connection

KEY = "receipts"


class Receipt(msgspec.Struct, frozen=True):
    """Who asked, when, and what was destroyed (counts). `finished_at`: no byte was left from then on.

    `public_key` (hex) is that of the project: with it anyone can verify the signature.
    """

    erasure_id: str
    said_by: str
    said_at: int
    rewritten_at: int
    finished_at: int
    destroyed: dict[str, int]
    public_key: str


class Listed(msgspec.Struct, frozen=True):
    """An erasure as it stands: its receipt (None while something is left to do), and whether the signature
    is that of this project over exactly these words."""

    erasure_id: str
    said_by: str
    said_at: int
    receipt: Receipt | None
    signature: str
    is_genuine: bool


_receipt = msgspec.json.Decoder(Receipt)


def sign(secrets: Secrets, receipt: Receipt) -> tuple[bytes, bytes]:
    """A receipt as bytes, and their signature (Ed25519). `public_key` is filled in."""
    body = msgspec.json.encode(msgspec.structs.replace(receipt, public_key=public_key(secrets)))
    return body, sign_bytes(secrets, body)


def sign_bytes(secrets: Secrets, body: bytes) -> bytes:
    """The project's signature over bytes (Ed25519, 64 bytes)."""
    return _key(secrets).sign(body)


def public_key(secrets: Secrets) -> str:
    """The public half of the project's key of receipts (64 hex digits)."""
    return _key(secrets).public_key().public_bytes(Encoding.Raw, PublicFormat.Raw).hex()


def is_genuine(public: str, body: bytes, signature: bytes) -> bool:
    """Whether a signature over a receipt's bytes is of this public key (hex)."""
    try:
        Ed25519PublicKey.from_public_bytes(bytes.fromhex(public)).verify(signature, body)
    except (InvalidSignature, ValueError):
        return False
    return True


def listed(secrets: Secrets, db: Connection) -> list[Listed]:
    """Every erasure, in order of time, each receipt verified."""
    public = public_key(secrets)
    rows = db.execute(
        "SELECT erasure_id, said_by, said_at, receipt, signature FROM erasures ORDER BY said_at, erasure_id"
    )
    found = []
    for erasure_id, said_by, said_at, body, signature in rows:
        receipt = _receipt.decode(body) if body else None
        genuine = bool(body) and is_genuine(public, body, signature)
        found.append(Listed(erasure_id, said_by, said_at, receipt, (signature or b"").hex(), genuine))
    return found


def _key(secrets: Secrets) -> Ed25519PrivateKey:
    return Ed25519PrivateKey.from_private_bytes(secrets.key(KEY))
