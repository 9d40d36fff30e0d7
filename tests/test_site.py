"""How the server is reached: cookies and HSTS by the declared origin, and whose word on an address counts."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace

import httpx
import pytest
from console import FORM_TYPE, PASSWORD, House, ask
from starlette.types import ASGIApp

from hetki.engine.advance import advance
from hetki.engine.engine import Engine
from hetki.engine.project import load
from hetki.engine.skeleton import skeleton
from hetki.errors import Invalid
from hetki.server.app import console_app
from hetki.server.site import COOKIE, HSTS, NAME_COOKIE, Site, known_as
from hetki.server.visit import token_of
from hetki.settings import Server
from hetki.simulation.world import MemoryDisk

ORIGIN = "https://cx.example.com"


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    yield House(tmp_path_factory.mktemp("site"))


@pytest.fixture(scope="module")
def secure(house: House) -> ASGIApp:
    """The same console behind a proxy with TLS."""
    return console_app(served_as(house.engine, Server(origin=ORIGIN)), house.access)


def served_as(engine: Engine, server: Server) -> Engine:
    return replace(engine, project=replace(engine.project, server=server))


def cookies_of(answer: httpx.Response) -> dict[str, set[str]]:
    """What each cookie that is set is bound to."""
    found = {}
    for header in answer.headers.get_list("set-cookie"):
        first, *rest = header.split("; ")
        found[first.partition("=")[0]] = {each for each in rest if not each.startswith("expires")}
    return found


def test_behind_tls_every_cookie_is_for_this_host_over_https_alone(house: House, secure: ASGIApp) -> None:
    house.signed_in("Sami", "admin")
    form = str(httpx.QueryParams({"name": "Sami", "password": PASSWORD}))
    headers = {"content-type": FORM_TYPE, "origin": ORIGIN}
    entered = ask(secure, "/sign-in", "", "POST", form, headers)
    opened = ask(secure, f"/sign-in?token={house.access.new_token()}", "")
    for answer in (entered, opened):
        assert answer.status_code == 303
        ((name, bound),) = cookies_of(answer).items()
        assert name == f"__Host-{COOKIE}"
        assert bound == {"HttpOnly", "Max-Age=43200", "Path=/", "SameSite=strict", "Secure"}
    session = re.findall(rf"__Host-{COOKIE}=(\w+)", opened.headers["set-cookie"])[0]
    mine = {"cookie": f"__Host-{COOKIE}={session}"}
    assert ask(secure, "/", "", headers=mine).status_code == 200
    assert ask(secure, "/", session).status_code == 303, "a cookie that any page of the domain could set"
    for user in ("one", "two"):
        house.identify(userId=user)
    advance(house.engine)
    path = f"/customers/{house.customer('user_id', 'one')}/merge"
    merge = {"token": token_of(session), "other": "two", "despite_unique": "yes", "said_by": "Sami"}
    said = ask(secure, path, "", "POST", str(httpx.QueryParams(merge)), {**headers, **mine})
    assert said.status_code == 303 and "Secure" in cookies_of(said)[f"__Host-{NAME_COOKIE}"]
    left = ask(secure, "/sign-out", "", "POST", f"token={token_of(session)}", {**headers, **mine})
    assert {"Max-Age=0", "Path=/", "Secure"} <= cookies_of(left)[f"__Host-{COOKIE}"], "or it stays"
    assert ask(secure, "/", "", headers=mine).status_code == 303


def test_without_an_origin_it_is_plain_http_and_says_so_to_browsers(house: House) -> None:
    for scheme in ("http", "https"):  # whatever a proxy nobody declared makes of it
        answer = ask(house.app, f"{scheme}://hetki/sign-in?token={house.access.new_token()}", "")
        ((name, bound),) = cookies_of(answer).items()
        assert name == COOKIE and bound == {"HttpOnly", "Max-Age=43200", "Path=/", "SameSite=strict"}
        assert "strict-transport-security" not in answer.headers


def test_behind_tls_every_answer_asks_for_https_from_now_on(house: House, secure: ASGIApp) -> None:
    mine = {"cookie": f"__Host-{COOKIE}={house.session}"}
    for path in ("/", "/sign-in", "/style.css", "/nothing", "/customers"):
        for headers in ({}, mine):
            answer = ask(secure, path, "", headers=headers)
            assert answer.headers["strict-transport-security"] == HSTS, path


@pytest.mark.parametrize(
    ("origin", "host", "status"),
    [
        (ORIGIN, "cx.example.com", 401),
        (ORIGIN, "127.0.0.1:8010", 401),  # a proxy that passes its own Host on
        ("http://cx.example.com", "cx.example.com", 403),
        ("https://cx.example.com:8443", "cx.example.com:8443", 403),
        ("https://evil.example", "evil.example", 403),  # a name that leads here
        ("null", "cx.example.com", 403),
        ("https://[", "cx.example.com", 403),
    ],
)
def test_with_an_origin_a_form_must_come_from_it(
    secure: ASGIApp, origin: str, host: str, status: int
) -> None:
    headers = {"content-type": FORM_TYPE, "origin": origin, "host": host}
    assert ask(secure, "/sign-in", "", "POST", "name=x&password=y", headers).status_code == status


@pytest.mark.parametrize("origin", ["http://[", "https://[::1", "null", ""])
def test_an_origin_that_is_none_is_not_ours(house: House, origin: str) -> None:
    headers = {"content-type": FORM_TYPE, "origin": origin, "host": "hetki"}
    assert ask(house.app, "/sign-in", "", "POST", "name=x&password=y", headers).status_code == 403


@pytest.mark.parametrize("path", ["/customers/", "/sign-in/?token=x", "/my/x/", "/my/x/data.zip/"])
def test_nobody_is_sent_to_another_host_or_to_plain_http(house: House, secure: ASGIApp, path: str) -> None:
    """An address with a token in it would go there."""
    mine = {"cookie": f"__Host-{COOKIE}={house.session}", "host": "evil.example"}
    answer = ask(secure, path, "", headers=mine)
    assert answer.status_code == 404 and "location" not in answer.headers


# -- whose address it is

PROXIES = ["10.0.0.0/8", "127.0.0.1", "2001:db8:1::/48"]
HEARD = [
    ("192.0.2.1", [], "192.0.2.1"),
    ("192.0.2.1", ["198.51.100.7"], "192.0.2.1"),
    ("127.0.0.1", [], "127.0.0.1"),
    ("127.0.0.1", ["198.51.100.7"], "198.51.100.7"),
    ("127.0.0.1", ["203.0.113.9, 198.51.100.7"], "198.51.100.7"),
    ("127.0.0.1", ["203.0.113.9, 198.51.100.7, 10.1.2.3"], "198.51.100.7"),
    ("127.0.0.1", ["203.0.113.9", "198.51.100.7"], "198.51.100.7"),
    ("127.0.0.1", ["198.51.100.7, 10.1.2.3", "10.4.5.6"], "198.51.100.7"),
    ("127.0.0.1", ["10.1.2.3"], "10.1.2.3"),
    ("127.0.0.1", ["203.0.113.9, nonsense"], "127.0.0.1"),
    ("127.0.0.1", ["198.51.100.7, "], "127.0.0.1"),
    ("127.0.0.1", [""], "127.0.0.1"),
    ("127.0.0.1", ["198.51.100.7:4711"], "198.51.100.7"),
    ("127.0.0.1", ["[2001:db8:2::7]:4711"], "2001:db8:2::"),
    ("2001:db8:1::5", ["2001:db8:2:3:4:5:6:7"], "2001:db8:2:3::"),
    ("::ffff:10.0.0.1", ["::ffff:198.51.100.7"], "198.51.100.7"),
]


@pytest.mark.parametrize(("peer", "told", "address"), HEARD)
def test_only_declared_proxies_are_believed_and_only_what_they_heard_themselves(
    peer: str, told: list[str], address: str
) -> None:
    headers = [(b"x-forwarded-for", each.encode()) for each in told]
    scope = {"type": "http", "client": (peer, 4711), "headers": headers}
    assert Site(Server(proxies=PROXIES)).address(scope) == address
    assert Site(Server()).address(scope) == known_as(peer), "nobody is believed who is not declared"


def test_a_sender_without_an_address_is_known_by_none() -> None:
    assert Site(Server(proxies=PROXIES)).address({"type": "http", "client": None, "headers": []}) == ""


# -- what is declared

FAULTS = {
    'origin = "cx.example.com"': "must be an origin such as https://cx.example.com",
    'origin = "https://cx.example.com/"': "Hint: write https://cx.example.com.",
    'origin = "https://cx.example.com:443"': "Hint: write https://cx.example.com.",
    'origin = "https://CX.example.com"': "Hint: write https://cx.example.com.",
    'origin = "https://me:secret@cx.example.com"': "must be an origin",
    'origin = "https://cx.example.com/hetki"': "must be an origin",
    'origin = "ftp://cx.example.com"': "must be an origin",
    'origin = "https://[::1"': "must be an origin",
    'origin = "https://a b"': "must be an origin",
    'proxies = ["proxy.local"]': "Hint: a name is not looked up.",
    'proxies = ["0.0.0.0/0"]': "Hint: who believes everybody is told any address.",
    'proxies = ["10.0.0.1", "10.0.0.1/8"]': "must be an IP address, or a network",
    "colour = 1": "colour",
}


def declared(lines: str) -> MemoryDisk:
    disk = MemoryDisk()
    for path, text in skeleton().items():
        disk.write(path, text.encode())
    disk.write("hetki.toml", disk.read("hetki.toml") + b"\n[server]\n" + lines.encode())
    return disk


@pytest.mark.parametrize("lines", FAULTS)
def test_a_fault_has_its_place_and_a_hint(lines: str) -> None:
    with pytest.raises(Invalid) as found:
        load(declared(lines))
    assert len(found.value.faults) == 1 and FAULTS[lines] in str(found.value)
    assert str(found.value).startswith("hetki.toml:")


def test_what_is_declared_is_read() -> None:
    lines = 'origin = "https://[2001:db8::1]:8443"\nproxies = ["10.0.0.0/8", "2001:db8::/32", "127.0.0.1"]'
    server = load(declared(lines)).server
    assert server.origin == "https://[2001:db8::1]:8443" and len(server.proxies) == 3
    assert load(declared('origin = "http://desk.local:8010"')).server.origin == "http://desk.local:8010"
