"""Site: how the server is reached from outside: by which origin, and through which proxies. Checked here."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from ipaddress import IPv4Network, IPv6Network, ip_network
from urllib.parse import urlsplit

from hetki.engine.files import Files
from hetki.errors import Fault, Invalid, shown
from hetki.settings import BURST_S, Limits

Network = IPv4Network | IPv6Network
#: The rates, and how much of each the largest request takes.
_RATES: dict[str, Callable[[Limits], int]] = {
    "key_events_per_s": lambda limits: limits.batch_events_max,
    "address_events_per_s": lambda limits: limits.batch_events_max,
    "key_bytes_per_s": lambda limits: max(limits.inflated_bytes_max, limits.body_bytes_max),
    "address_bytes_per_s": lambda limits: max(limits.inflated_bytes_max, limits.body_bytes_max),
    "refused_per_s": lambda limits: 1,
}
_DEFAULT_PORTS = {"https": 443, "http": 80}


def check_site(files: Files) -> list[Fault]:
    """What is wrong with the table `[server]`."""
    declared = files.toml
    if declared.value is None:
        return []
    server, faults = declared.value.server, []
    if server.origin:
        usual = _as_browsers_say(server.origin)
        if usual != server.origin:
            must = "an origin such as https://cx.example.com: a scheme, a host, a port if it is unusual"
            hint = f"write {usual}" if usual else ""
            faults.append(Fault(declared.where("server", "origin"), shown(server.origin), must, hint))
    for number, text in enumerate(server.proxies):
        try:
            network(text)
        except Invalid as error:
            must, hint = error.faults[0].must, error.faults[0].hint
            faults.append(Fault(declared.where("server", "proxies", number), shown(text), must, hint))
    for field in _RATES:
        n_least = _RATES[field](declared.value.hetki.limits)
        if getattr(server, field) * BURST_S < n_least:
            must = f"at least {-(-n_least // BURST_S)}"
            hint = f"what is allowed in one request must fit into {BURST_S} seconds"
            where = declared.where("server", field)
            faults.append(Fault(where, shown(getattr(server, field)), must, hint if n_least > 1 else ""))
    return faults


def networks(texts: Iterable[str]) -> tuple[Network, ...]:
    """The networks of checked texts."""
    return tuple(network(text) for text in texts)


def network(text: str) -> Network:
    """One address, or a network such as 10.0.0.0/8. Raises `Invalid`; everybody is no network."""
    try:
        found = ip_network(text)
    except ValueError:
        must, hint = "an IP address, or a network such as 10.0.0.0/8", "a name is not looked up"
        raise Invalid(Fault("proxies", shown(text), must, hint)) from None
    if found.prefixlen == 0:
        must, hint = "a network of your own proxies", "who believes everybody is told any address"
        raise Invalid(Fault("proxies", shown(text), must, hint))
    return found


def _as_browsers_say(origin: str) -> str:
    """An origin as browsers spell it; "" if it is none."""
    try:
        parts = urlsplit(origin)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        return ""
    has_more = parts.username is not None or parts.password is not None or parts.path not in ("", "/")
    is_plain = host.isascii() and host.isprintable() and not set(host) & set(" \\%")
    if parts.scheme not in _DEFAULT_PORTS or not host or not is_plain:
        return ""
    if has_more or parts.query or parts.fragment:
        return ""
    named = f"[{host}]" if ":" in host else host
    return f"{parts.scheme}://{named}" + ("" if port in (None, _DEFAULT_PORTS[parts.scheme]) else f":{port}")
