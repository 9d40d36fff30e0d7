"""Destination: where messages go, and what must be declared for each kind."""

from __future__ import annotations

import re
from typing import Literal
from urllib.parse import urlsplit

import msgspec

from hetki.dialogues.reach import (
    OPENED,
    THIS_MACHINE,
    address_of,
    endpoint,
    host_fault,
    is_this_machine,
    kind_of,
    reach,
    spelled,
)
from hetki.dialogues.webhook import keys
from hetki.errors import Fault, Invalid, shown

PER_S_MAX = 10_000
TIMEOUT_S_MAX = 60

_ADDRESS = re.compile(
    r"[\w.!#$%&'*+/=?^`{|}~-]{1,64}@[A-Za-z0-9](?:[A-Za-z0-9.-]{0,252}[A-Za-z0-9])?", re.ASCII
)
_FROM_ENVIRONMENT = re.compile(r"env:[A-Za-z_][A-Za-z0-9_]*", re.ASCII)


class Destination(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One `[destinations.NAME]` table of `hetki.toml`.

    A webhook has `url` and `secret`: `whsec_` keys, several separated by spaces while they are changed, or
    `env:NAME`. E-mail has `server` (`host:port`) and `sender`. `inside` opens this machine or a part of the
    network around it to this destination (`hetki.dialogues.reach`). `per_s` bounds the sends per second,
    `timeout_s` one exchange.
    """

    kind: Literal["webhook", "email"]
    url: str = ""
    secret: str = ""
    server: str = ""
    sender: str = ""
    inside: tuple[str, ...] = ()
    per_s: float = 50
    timeout_s: float = 10

    def __repr__(self) -> str:
        return f"Destination(kind={self.kind!r}, ...)"  # an address may hold a token, as the secret is one

    def faults(self, where: str) -> list[Fault]:
        """What is wrong with this table; secrets are never shown."""
        found = _webhook_faults(self, where) if self.kind == "webhook" else _email_faults(self, where)
        if not 0 < self.per_s <= PER_S_MAX:
            found.append(Fault(f"{where}.per_s", shown(self.per_s), f"above 0 and at most {PER_S_MAX}"))
        if not 0 < self.timeout_s <= TIMEOUT_S_MAX:
            found.append(
                Fault(f"{where}.timeout_s", shown(self.timeout_s), f"above 0 and at most {TIMEOUT_S_MAX}")
            )
        return found


def is_address(text: str) -> bool:
    """Whether a text is one plain e-mail address in ASCII, without a display name.

    >>> is_address("aino@kauppa.fi"), is_address("Aino <aino@kauppa.fi>"), is_address("a@b, c@d")
    (True, False, False)
    """
    return _ADDRESS.fullmatch(text) is not None


def host_port(server: str) -> tuple[str, int]:
    """The parts of `host:port`; raises `Invalid`.

    >>> host_port("[::1]:1025")
    ('::1', 1025)
    """
    try:
        parts = urlsplit(f"//{server}")
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
    if not host or not port or server.lower() != spelled(host, port) or host_fault(host):
        raise Invalid(Fault("server", shown(server), "host:port"))
    return host, port


def _webhook_faults(given: Destination, where: str) -> list[Fault]:
    found = _foreign(where, server=given.server, sender=given.sender)
    try:
        aim = endpoint(given.url, f"{where}.url")
    except Invalid as error:
        found.extend(error.faults)
    else:
        if not aim.is_tls and not is_this_machine(aim.host):
            must = "an https address, or http on this machine"
            found.append(Fault(f"{where}.url", shown(given.url), must))
        else:
            found.extend(_reach_faults(given, where, "url", aim.host))
    if not given.secret:
        found.append(Fault(f"{where}.secret", "nothing", "env:NAME or whsec_ and a key in base64"))
    elif not _FROM_ENVIRONMENT.fullmatch(given.secret):
        try:
            keys(given.secret, f"{where}.secret")
        except Invalid as error:
            found.extend(error.faults)
    return found


def _email_faults(given: Destination, where: str) -> list[Fault]:
    found = _foreign(where, url=given.url, secret=given.secret)
    try:
        host, _ = host_port(given.server)
    except Invalid:
        found.append(Fault(f"{where}.server", shown(given.server), "host:port"))
    else:
        found.extend(_reach_faults(given, where, "server", host))
    if not is_address(given.sender):
        found.append(Fault(f"{where}.sender", shown(given.sender), "one plain e-mail address"))
    return found


def _reach_faults(given: Destination, where: str, field: str, host: str) -> list[Fault]:
    """What can be told without a resolver: wrong openings, and a host inside that none of them opens."""
    try:
        opened = reach(given.inside, host, f"{where}.inside")
    except Invalid as error:
        return list(error.faults)
    address = address_of("127.0.0.1" if host == THIS_MACHINE else host)
    if address is None or not opened.refusal(host, address):
        return []
    kind = kind_of(address)
    hint = f'inside = ["{host}"] opens it' if kind in OPENED else ""
    return [Fault(f"{where}.{field}", f"{shown(host)}, which is {kind}", "a public address", hint)]


def _foreign(where: str, **fields: str) -> list[Fault]:
    return [
        Fault(f"{where}.{name}", "a value", "absent", "it belongs to the other kind of destination")
        for name, text in fields.items()
        if text
    ]
