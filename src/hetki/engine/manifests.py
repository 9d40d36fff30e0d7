"""Manifests: what a backup or a copy of secrets holds, signed, and written last: without one it is not whole.

A folder that has begun holds `unfinished` with the public key of its project, so that the next run knows
its own leavings.
"""

from __future__ import annotations

from typing import TypeVar

import msgspec

from hetki.engine.receipts import is_genuine, public_key, sign_bytes
from hetki.errors import Fault, Invalid, NotFound
from hetki.events.event import utc
from hetki.store.parts import Part
from hetki.store.ports import Chance, Disk
from hetki.store.secrets import Secrets

FILE = "manifest.json"
UNFINISHED = "unfinished"


class Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A backup: as of when, how far journal and fold had come, and its parts.

    `position` and `chain` are the journal's last row, `folded` and `advance_to` how far it was folded,
    under which `program`; `decisions` and `decided` the last link of the chain over decisions (hex).
    `number` counts the changes by erasures until then. `data` is where the project keeps its data.
    """

    backup_id: str
    made_at: int
    hetki: str
    name: str
    data: str
    position: int
    chain: str
    folded: int
    advance_to: int
    program: str
    decisions: int
    decided: str
    number: int
    journal: list[Part]
    ledger: list[Part]
    public_key: str

    @property
    def parts(self) -> list[Part]:
        """All that it holds."""
        return [*self.journal, *self.ledger]


class SecretsManifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A copy of secrets: as of when, after how many changes by erasures, and its parts; those of `staff` hold
    who may sign in."""

    backup_id: str
    made_at: int
    number: int
    secrets: list[Part]
    receipts: list[Part]
    staff: list[Part]
    public_key: str

    @property
    def parts(self) -> list[Part]:
        """All that it holds."""
        return [*self.secrets, *self.receipts, *self.staff]


Signed = TypeVar("Signed", Manifest, SecretsManifest)


def stamp(now: int, chance: Chance) -> str:
    """The name of a new backup: when it was made, to the microsecond, as the newest is told by its name; and
    four digits against that of another project."""
    return f"{utc(now):%Y%m%dT%H%M%S.%fZ}-{chance.bytes(2).hex()}"


def begin(disk: Disk, folder: str, secrets: Secrets) -> None:
    """Mark a folder as begun, and delete what this project has begun there and never finished.

    The caller sees to it that no other process makes a backup of this project.
    """
    public = public_key(secrets).encode()
    for name in disk.names(f"*/{UNFINISHED}"):
        left = name.removesuffix(f"/{UNFINISHED}")
        if disk.read(name) == public:
            if disk.names(f"{left}/{FILE}"):
                disk.remove(name)
            else:
                disk.remove(left)
    disk.write(f"{folder}/{UNFINISHED}", public)


def finish(disk: Disk, folder: str, manifest: Manifest | SecretsManifest, secrets: Secrets) -> None:
    """Sign and write the manifest: from now on the folder is whole."""
    body = msgspec.json.encode(manifest)
    signature = sign_bytes(secrets, body).hex().encode()
    disk.write(f"{folder}/{FILE}", body + b"\n" + signature + b"\n")
    disk.remove(f"{folder}/{UNFINISHED}")


def read_manifest(disk: Disk, folder: str, kind: type[Signed]) -> Signed:
    """The manifest of a folder. Raises `Invalid` if it is not what was signed, `NotFound` if the folder
    was never finished."""
    name = f"{folder}/{FILE}"
    try:
        body, signature, end = disk.read(name).split(b"\n")
        manifest = msgspec.json.decode(body, type=kind)
        signed = bytes.fromhex(signature.decode())
        if end or signature.lower() != signature or not is_genuine(manifest.public_key, body, signed):
            raise ValueError
    except NotFound as error:
        must, hint = "a backup that was finished", "take another one: this was stopped half way, or is none"
        raise NotFound(Fault(name, "no such file", must, hint)) from error
    except (ValueError, msgspec.MsgspecError) as error:
        raise Invalid(Fault(name, "bytes that nobody signed", "what was once written")) from error
    return manifest


def newest(disk: Disk, called: str) -> str:
    """The newest whole folder. Raises `NotFound`, which tells of those that were stopped half way."""
    found = whole(disk)
    if not found:
        n_left = len(disk.names(f"*/{UNFINISHED}"))
        got = f"{n_left} stopped half way" if n_left else "none"
        raise NotFound(Fault(called, got, "a backup that was finished"))
    return found[0]


def whole(disk: Disk) -> list[str]:
    """The folders with a manifest, the newest first."""
    return sorted((name.removesuffix(f"/{FILE}") for name in disk.names(f"*/{FILE}")), reverse=True)
