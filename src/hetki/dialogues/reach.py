"""Reach: where a request may go. Names and addresses are judged here; nothing is looked up.

What goes out goes to public addresses. An address of this machine or of the network around it is reached
only if the destination says so (`inside`), and some are never reached. Start at `Reach.refusal`.

Source: IANA's registries of special-purpose IPv4 and IPv6 addresses (RFC 6890 and its updates).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Sequence
from urllib.parse import urlsplit

from hetki.errors import Fault, Invalid, shown

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

HOST_CHARS_MAX = 253
THIS_MACHINE = "localhost"


def _networks(table: dict[str, str]) -> tuple[tuple[Network, str], ...]:
    return tuple((ip_network(text), kind) for kind, texts in table.items() for text in texts.split())


#: Where services tell secrets to whoever asks from inside a machine or a cloud: never reached.
_METADATA = frozenset(
    ip_address(text)
    for text in (
        "169.254.169.254 169.254.170.2 169.254.170.23 100.100.100.200 168.63.129.16 192.0.0.192"
        " fd00:ec2::254 fd00:ec2::23 fd20:ce::254"
    ).split()
)
#: Inside: reached where a destination opens it.
_INSIDE = _networks(
    {
        "this machine": "127.0.0.0/8 ::1/128",
        "private": "10.0.0.0/8 172.16.0.0/12 192.168.0.0/16 fc00::/7",
        "shared": "100.64.0.0/10",
        "link-local": "169.254.0.0/16",
    }
)
#: The kinds that a destination can open.
OPENED = frozenset(kind for _, kind in _INSIDE)
#: What a name opens: a link-local address must be named as a network.
_BY_NAME = frozenset({"this machine", "private", "shared"})
#: Never reached: nobody is there, or a translator would lead to an address that was not looked at.
_NEVER = _networks(
    {
        "unspecified": "0.0.0.0/8",
        "reserved": "192.0.0.0/24 192.88.99.0/24 198.18.0.0/15 240.0.0.0/4 2001::/23 5f00::/16",
        "for documentation": "192.0.2.0/24 198.51.100.0/24 203.0.113.0/24 2001:db8::/32 3fff::/20",
        "on one cable": "fe80::/10",
        "multicast": "224.0.0.0/4 ff00::/8",
        "6to4": "2002::/16",
    }
)
#: All that is given out to anybody on the IPv6 internet; whatever lies elsewhere is reserved.
_UNICAST = IPv6Network("2000::/3")
#: Translators that lead to the IPv4 address in the last 32 bits: mapped (RFC 4291) and NAT64 (RFC 6052).
_EMBEDDING = (IPv6Network("::ffff:0:0/96"), IPv6Network("64:ff9b::/96"))
#: The interface ids of ISATAP (RFC 5214), which leads to the IPv4 address in them.
_ISATAP = (0x0000_5EFE, 0x0200_5EFE)

_LABEL = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?<!-)", re.ASCII)
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*", re.ASCII)


def address_of(text: str) -> Address | None:
    """The address that a text spells in its one usual form; none for a name.

    >>> address_of("10.0.0.1"), address_of("0x0a.1"), address_of("fe80::1%eth0")
    (IPv4Address('10.0.0.1'), None, None)
    """
    try:
        return None if "%" in text else ip_address(text)
    except ValueError:
        return None


def kind_of(address: Address) -> str:
    """What an address is, in a few words; "" for one that anybody may reach.

    >>> kind_of(ip_address("::ffff:10.0.0.1")), kind_of(ip_address("9.9.9.9"))
    ('private', '')
    """
    address = _meant(address)
    if address in _METADATA:
        return "metadata of a cloud"
    for network, kind in (*_INSIDE, *_NEVER):
        if address in network:
            return kind
    if address.version == 6 and (address not in _UNICAST or int(address) >> 32 & 0xFFFF_FFFF in _ISATAP):
        return "reserved"
    return ""


def _meant(address: Address) -> Address:
    """The IPv4 address that a translator would make of this one, else the address itself."""
    if address.version == 6 and any(address in each for each in _EMBEDDING):
        return IPv4Address(int(address) & 0xFFFF_FFFF)
    return address


@dataclass(frozen=True, slots=True)
class Reach:
    """What one destination has opened: names (of which only its own host counts) and networks."""

    names: frozenset[str] = frozenset()
    networks: tuple[Network, ...] = ()

    def refusal(self, host: str, address: Address) -> str:
        """Why a request to `host` must not go to `address`; "" if it may.

        >>> Reach().refusal("app.example", ip_address("10.0.0.1"))
        'its address is private'
        >>> reach(["10.0.0.0/8"], "app.example").refusal("app.example", ip_address("10.0.0.1"))
        ''
        """
        kind = kind_of(address)
        meant = _meant(address)
        is_open = kind in OPENED and (
            any(meant in network for network in self.networks)
            or (kind in _BY_NAME and host != THIS_MACHINE and host in self.names)
            or (kind == "this machine" and THIS_MACHINE in self.names)
        )
        return "" if is_open or not kind else f"its address is {kind}"


def reach(inside: Sequence[str], host: str, where: str = "inside") -> Reach:
    """What a destination's list `inside` opens for its `host`; raises `Invalid` with all faults."""
    names, networks, faults = set(), [], []
    for given in inside:
        text = given.lower()
        if text == THIS_MACHINE or (text == host and address_of(text) is None):
            names.add(text)
            continue
        try:
            network = ip_network(text)
        except ValueError:
            must = f"{THIS_MACHINE}, the destination's own host, or a network such as 10.20.0.0/16"
            faults.append(Fault(where, shown(text), must))
            continue
        if any(network.version == each.version and network.subnet_of(each) for each, _ in _INSIDE):  # type: ignore[arg-type]
            networks.append(network)
        else:
            must = "a network of this machine, private, shared or link-local"
            faults.append(Fault(where, shown(text), must, "what is public needs no opening"))
    if faults:
        raise Invalid(*faults)
    return Reach(frozenset(names), tuple(networks))


def host_fault(host: str) -> str:
    """What a host must be instead; "" for a name in ASCII or an address in its usual form.

    Other spellings of addresses (octal, hexadecimal, short) are refused, as programs read them differently.
    """
    if address_of(host) is not None:
        return ""
    labels = host.split(".")
    if _NUMBER.fullmatch(labels[-1]):
        return "an IPv4 address as four decimal numbers"
    if ":" in host or "%" in host:
        return "an IPv6 address without a zone"
    if len(host) > HOST_CHARS_MAX or not all(_LABEL.fullmatch(each) for each in labels):
        return "a host's name in small ASCII letters, digits, - and _, without a dot at its end"
    return ""


def spelled(host: str, port: int | None) -> str:
    """A host with its port as they stand in an address: what reads otherwise has more in it.

    >>> spelled("::1", 25)
    '[::1]:25'
    """
    return (f"[{host}]" if ":" in host else host) + ("" if port is None else f":{port}")


def is_this_machine(host: str) -> bool:
    """Whether a host is this machine by its name or its address."""
    address = address_of(host)
    return host == THIS_MACHINE if address is None else kind_of(address) == "this machine"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a URL leads: `path` with its query, as it stands in the request."""

    is_tls: bool
    host: str
    port: int
    path: str


def endpoint(url: str, where: str = "url") -> Endpoint:
    """The parts of an http or https URL; raises `Invalid` for one that two programs may read differently.

    >>> endpoint("https://app.example/hook?a=1")
    Endpoint(is_tls=True, host='app.example', port=443, path='/hook?a=1')
    """
    must = "an https address, or http on this machine, without a user name"
    plain = url.isascii() and url.isprintable() and not set(' \\"<>^`{|}') & set(url)
    try:
        parts = urlsplit(url if plain else "")
        host, port = parts.hostname or "", parts.port
    except ValueError:
        host, port, parts = "", None, urlsplit("")
    is_plain = parts.netloc.lower() == spelled(host, port) and port != 0 and not parts.fragment
    if not host or parts.scheme not in ("http", "https") or not is_plain:
        raise Invalid(Fault(where, shown(url), must))
    if instead := host_fault(host):
        raise Invalid(Fault(where, shown(url), instead))
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return Endpoint(parts.scheme == "https", host, port or (443 if parts.scheme == "https" else 80), path)
