"""Site: what follows from how the server is reached: the names of cookies, HSTS, whose form it is, and whose
address is believed.

uvicorn would believe what any process of this machine, or a variable of the environment, says of a sender's
address; here only proxies that the project declares are believed.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address
from urllib.parse import urlsplit

from starlette.responses import Response
from starlette.types import Scope

from hetki.engine.site import networks
from hetki.settings import Server

COOKIE = "hetki_session"
#: How the operator, who has no account, was called last, so that nobody has to say it twice.
NAME_COOKIE = "hetki_name"
#: Browsers keep a cookie of this prefix only if it came over HTTPS, for this host alone and all of its paths.
HOST_ONLY = "__Host-"
HSTS = "max-age=31536000"
#: Bits of an IPv6 address that one household or server has for itself.
OWN_BITS = 64
#: By these a proxy on this machine connects.
THIS_MACHINE = ("127.0.0.1", "::1")


class Site:
    """One server as it is reached from outside. `headers` go with every answer of the console."""

    def __init__(self, server: Server) -> None:
        self.origin = server.origin
        self.is_https = server.origin.startswith("https://")
        prefix = HOST_ONLY if self.is_https else ""
        self.cookie = prefix + COOKIE
        self.name_cookie = prefix + NAME_COOKIE
        self.headers = {"strict-transport-security": HSTS} if self.is_https else {}
        self._proxies = networks(server.proxies)

    def is_ours(self, origin: str, host: str) -> bool:
        """Whether a form of this origin is one of ours. Without a declared origin the `Host` header says
        what we are called."""
        if self.origin:
            return origin == self.origin
        try:
            return urlsplit(origin).netloc == host
        except ValueError:
            return False

    def keep(self, answer: Response, name: str, text: str, kept_s: int) -> None:
        """Have the browser keep a text for us, which it shows to us alone; for 0 seconds: forget it."""
        answer.set_cookie(
            name, text, max_age=kept_s, path="/", secure=self.is_https, httponly=True, samesite="strict"
        )

    def address(self, scope: Scope) -> str:
        """Where a request comes from, as `known_as` says it.

        Each proxy adds whom it heard from to the right of `X-Forwarded-For`: so from the right the first that
        is no proxy of ours is the sender, and whatever stands left of it was told by that sender.
        """
        client = scope.get("client")
        heard: list[str] = [client[0]] if client else []
        if heard and self._is_proxy(heard[0]):
            told = [text.decode("latin-1") for name, text in scope["headers"] if name == b"x-forwarded-for"]
            heard = [*(part.strip() for part in ",".join(told).split(",")), *heard]
        while len(heard) > 1 and self._is_proxy(heard[-1]) and _read(heard[-2]) is not None:
            heard.pop()
        return known_as(heard[-1]) if heard else ""

    def speaks_for_others(self, address: str) -> bool:
        """Whether many senders may come from one address: from this machine, or through a proxy."""
        return known_as(address) in _THIS_MACHINE or self._is_proxy(address)

    def _is_proxy(self, text: str) -> bool:
        found = _read(text)
        return found is not None and any(found in network for network in self._proxies)


def known_as(address: str) -> str:
    """What one sender has for itself: an IPv4 address, or the first half of an IPv6 address.

    >>> known_as("2001:db8::7:1"), known_as("::ffff:192.0.2.1"), known_as("192.0.2.1")
    ('2001:db8::', '192.0.2.1', '192.0.2.1')
    """
    found = _read(address)
    if isinstance(found, IPv6Address):
        return str(IPv6Address(int(found) >> (128 - OWN_BITS) << (128 - OWN_BITS)))
    return str(found or address)


def _read(text: str) -> IPv4Address | IPv6Address | None:
    """An address as proxies write it, perhaps with a port; None if it is none."""
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        found = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    if isinstance(found, IPv6Address) and found.ipv4_mapped is not None:
        return found.ipv4_mapped
    return found


_THIS_MACHINE = frozenset(map(known_as, THIS_MACHINE))
