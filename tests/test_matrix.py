"""Who may do what: every route of the router, by every method, with every kind of credential.

The table is written here a second time: a route that stands in no row fails, and so does one that the code
opens to anybody else than this file says.
"""

from __future__ import annotations

import asyncio
import base64
import gc
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace

import httpx
import msgspec
import pytest
from console import FORM_TYPE, PASSWORD, House
from serving import n_stores_open
from starlette.applications import Starlette
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Scope

from hetki.consent.source import WriteKey, digest_of
from hetki.engine.advance import advance
from hetki.engine.engine import Engine
from hetki.events.event import LeafId, utc
from hetki.server.access import SESSION_S
from hetki.server.app import Guard, Served
from hetki.server.committer import Committer
from hetki.server.ingest import KINDS
from hetki.server.pages import Pages
from hetki.server.site import COOKIE, Site
from hetki.server.visit import token_of
from hetki.settings import DAY, SECOND, Server
from hetki.store.pages import PageLinks
from hetki.store.sqlite import transaction
from hetki.store.staff import Role, Staff

SECRET = "a-name-that-only-the-console-may-show"

#: Everybody may open these; they show nothing of anybody.
FREE = {"/sign-in", "/openapi.json", "/style.css", "/favicon.svg", "/feed.js"}
#: Whoever has the link, and nobody else: no session helps.
MINE_READ = {"/my/{token}", "/my/{token}/erase", "/my/{token}/data.zip"}
MINE_WRITE = {"/my/{token}/say", "/my/{token}/erased"}
#: The least role that reads each; they change nothing.
READ: dict[str, Role] = {
    "/": "viewer",
    "/moments": "viewer",
    "/moments/{name}": "viewer",
    "/feed": "agent",
    "/customers": "agent",
    "/customers/{customer}": "agent",
    "/customers/{customer}/identities": "agent",
    "/customers/{customer}/why": "agent",
    "/accounts/{account}": "agent",
    "/review": "agent",
    "/review/{link}": "agent",
    "/decisions/{decision_id}": "agent",
    "/rejected": "admin",
    "/outbox": "admin",
}
#: The least role that writes each, and only with the token of its own form.
WRITE: dict[str, Role] = {
    "/customers/{customer}/undo": "agent",
    "/customers/{customer}/merge": "agent",
    "/customers/{customer}/restrict": "agent",
    "/customers/{customer}/object": "agent",
    "/customers/{customer}/rectify": "agent",
    "/review/{link}/answer": "agent",
    "/sign-out": "viewer",
}
ROLES: tuple[Role, ...] = ("viewer", "agent", "admin")
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")


@dataclass
class Desk:
    """A console and a way in, with the credentials that people may come with, and whose roles these are."""

    house: House
    served: Served
    credentials: dict[str, dict[str, str]]
    roles: dict[str, Role]
    runner: asyncio.Runner

    def ask(self, who: str, method: str, path: str, body: str = "", kind: str = "") -> httpx.Response:
        """One request with somebody's credential."""
        headers = {"host": "hetki", **self.credentials[who], **({"content-type": kind} if kind else {})}
        return self.runner.run(called(self.served, method, path, body.encode(), headers))

    def may(self, who: str, least: Role) -> bool:
        return who in self.roles and ROLES.index(self.roles[who]) >= ROLES.index(least)


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    folder = tmp_path_factory.mktemp("matrix")
    house = House(folder)
    house.say("anna", "Customer Identified", first_name=SECRET)
    house.say("bertta", "Order Tracked")
    advance(house.engine)
    access, staff = house.access, Staff(house.disk, house.engine.chance)
    lapsed = access.sign_in(access.new_token())
    lapsed_too = house.signed_in("Lea", "admin")
    house.clock.move(house.clock.now() + SESSION_S * SECOND + SECOND)
    house.session = access.sign_in(access.new_token())
    signed_out = access.sign_in(access.new_token())
    access.sign_out(signed_out)
    sessions = {role: house.signed_in(f"the {role}", role) for role in ROLES}
    removed, changed, demoted = (house.signed_in(name, "admin") for name in ("Rita", "Petra", "Dora"))
    staff.remove("Rita")
    staff.set_password("Petra", PASSWORD + "!", house.clock.now())
    staff.set_role("Dora", "viewer", house.clock.now())
    again = house.signed_in("Rita", "viewer")
    committer = Committer(house.engine.acceptor.accept)
    committer.start()
    token = access.new_token()
    sent = {
        "a session that never was": "0" * len(house.session),
        "a session that has ended": lapsed,
        "a session of a person that has ended": lapsed_too,
        "a session that was signed out": signed_out,
        "a session of somebody who was removed": removed,
        "a session from before another password": changed,
        "a session from before another role": demoted,
        "a token that was not exchanged": token,
        "the hash of a session": "".join(sorted(access._sessions)[:1]),
        "the operator's session": house.session,
        "a session of somebody who was added again": again,
        **{f"a session: {role}": session for role, session in sessions.items()},
    }
    credentials = {who: {"cookie": f"{COOKIE}={session}"} for who, session in sent.items()}
    credentials["a token that was not exchanged"] |= {"authorization": f"Bearer {token}"}
    credentials |= {
        "nobody": {},
        "a session in another cookie": {"cookie": f"__Host-{COOKIE}={house.session}"},
        "a session as a token": {"authorization": f"Bearer {house.session}"},
        "a password without a session": {"authorization": basic("the admin", PASSWORD)},
        "a write key": {"authorization": basic("demo-app"), "cookie": f"{COOKIE}=demo-app"},
        "a write key for one event": {"authorization": basic("demo-narrow")},
        "a write key that has expired": {"authorization": basic("demo-old")},
        "a wrong write key": {"authorization": basic("nobody")},
    }
    roles: dict[str, Role] = {
        "the operator's session": "admin",
        "a session of somebody who was added again": "viewer",
        **{f"a session: {role}": role for role in ROLES},
    }
    served = Served(with_keys(house.engine), committer, access, lambda: True)
    with asyncio.Runner() as runner:
        yield Desk(house, served, credentials, roles, runner)
    committer.stop()


async def called(
    app: ASGIApp, method: str, path: str, body: bytes, headers: dict[str, str]
) -> httpx.Response:
    """One request without a client around it: there are thousands of them here."""
    found: list[Message] = []

    async def receive() -> Message:
        return {"type": "http.request", "body": body}

    async def send(message: Message) -> None:
        found.append(message)

    raw = [(name.encode(), text.encode()) for name, text in headers.items()]
    scope: Scope = {"type": "http", "http_version": "1.1", "method": method, "scheme": "http", "path": path}
    scope |= {"query_string": b"", "headers": raw, "client": ("192.0.2.1", 1), "server": ("hetki", 80)}
    await app(scope, receive, send)
    content = b"".join(each.get("body", b"") for each in found[1:])
    return httpx.Response(found[0]["status"], headers=found[0]["headers"], content=content)


def basic(user: str, password: str = "") -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


def with_keys(engine: Engine) -> Engine:
    """The same project, one of whose sources has a key for one event and one that has expired.

    Its server bears all the wrong keys that are tried here.
    """
    more = [
        WriteKey(digest_of("demo-narrow"), events=["Help Searched"]),
        WriteKey(digest_of("demo-old"), expires=f"{utc(engine.clock.now() - DAY):%Y-%m-%d}"),
    ]
    app = engine.project.sources["app"]
    app = msgspec.structs.replace(app, write_keys=[*app.write_keys, *more])
    sources, server = {**engine.project.sources, "app": app}, Server(refused_per_s=1_000_000)
    return replace(engine, project=replace(engine.project, sources=sources, server=server))


def routes(house: House) -> list[Route]:
    assert isinstance(house.app, Guard) and isinstance(house.app.inner, Starlette)
    found = [each for each in house.app.inner.routes if isinstance(each, Route)]
    assert len(found) == len(house.app.inner.routes), "a kind of route that is not asked here"
    return found


def address(desk: Desk, path: str) -> str:
    """A path as it is called, of somebody who is there."""
    return path.format(
        customer=desk.house.customer("user_id", "anna"),
        account="0" * 32,
        link="0" * 32,
        name="where_is_my_order",
        decision_id="0" * 32,
    )


def test_every_route_stands_in_one_row(desk: Desk) -> None:
    methods: dict[str, set[str]] = {}
    for each in routes(desk.house):
        methods.setdefault(each.path, set()).update(each.methods or ())
    rows = [FREE, READ.keys(), WRITE.keys(), MINE_READ, MINE_WRITE]
    assert methods.keys() == set().union(*rows) and sum(map(len, rows)) == len(methods)
    for path, found in methods.items():
        expected = {"POST"} if path in WRITE or path in MINE_WRITE else {"GET", "HEAD"}
        assert found == expected | ({"POST"} if path == "/sign-in" else set()), path


def test_a_route_that_nobody_listed_is_not_served(desk: Desk) -> None:
    assert isinstance(desk.house.app, Guard)
    more = [*routes(desk.house), Route("/secrets", lambda request: Response())]
    with pytest.raises(AssertionError, match="who may open a route"):
        Guard(desk.house.app.inner, more, desk.house.access, Pages("", "UTC"), Site(Server()))


@pytest.mark.parametrize("path", sorted([*READ, *WRITE]))
def test_only_a_session_with_a_role_that_is_enough_opens_the_console(desk: Desk, path: str) -> None:
    least = {**READ, **WRITE}[path]
    for who in desk.credentials:
        for method in METHODS:
            answer = desk.ask(who, method, address(desk, path), "said_by=me&answer=yes", FORM_TYPE)
            case = f"{method} {path} with {who}: {answer.status_code}"
            if who not in desk.roles:
                assert (answer.status_code, answer.headers["location"]) == (303, "/sign-in"), case
                assert answer.content == b"", case
            elif not desk.may(who, least):
                assert answer.status_code == 403, case
                assert SECRET not in answer.text, case
                assert "this asks for more" in answer.text, case
            elif path in WRITE:
                expected = 403 if method == "POST" else 405
                assert answer.status_code == expected, f"{case}: without the token of its form"
                assert "this asks for more" not in answer.text, case
            elif method in ("GET", "HEAD"):
                assert answer.status_code in (200, 303, 404), case
                assert answer.headers.get("location") != "/sign-in", case
            else:
                assert answer.status_code == 405, case


@pytest.mark.parametrize("path", sorted(WRITE))
def test_a_form_writes_with_the_token_of_the_session_whose_role_is_enough(desk: Desk, path: str) -> None:
    if path == "/sign-out":
        return
    for who in desk.credentials:
        cookie = desk.credentials[who].get("cookie", "")
        token = token_of(cookie.partition("=")[2])
        n_rows = desk.house.engine.journal.head()[0]
        body = f"token={token}&said_by=me&answer=yes&other=nobody&link=none&trait=first_name&value=x"
        of_nobody = path.format(customer="0" * 32, link="0" * 32)
        answer = desk.ask(who, "POST", of_nobody, body, FORM_TYPE)
        case = f"{path} with {who}: {answer.status_code}"
        if who not in desk.roles:
            assert (answer.status_code, answer.headers["location"]) == (303, "/sign-in"), case
        else:
            assert answer.status_code == (404 if desk.may(who, WRITE[path]) else 403), case
        assert desk.house.engine.journal.head()[0] == n_rows, case


@pytest.mark.parametrize("path", sorted(MINE_READ | MINE_WRITE))
def test_only_its_link_opens_a_customers_own_page(desk: Desk, path: str) -> None:
    engine, now = desk.house.engine, desk.house.clock.now()
    tokens = {}
    for user in ("anna", "bertta"):
        customer = LeafId(bytes.fromhex(desk.house.customer("user_id", user)))
        with transaction(engine.db):
            links = PageLinks(engine.db)
            tokens[user] = links.make(engine.state, engine.chance, customer, "desk", now, now + SECOND * 60)
    for who in desk.credentials:
        for method in METHODS:
            for user, token in {**tokens, "nobody": "0" * 64, "a session": desk.house.session}.items():
                address = path.format(token=token)
                answer = desk.ask(who, method, address, "what=restrict&word=erase", FORM_TYPE)
                case = f"{method} {path} of {user} with {who}: {answer.status_code}"
                known = user in tokens
                if path in MINE_WRITE:
                    expected = {405} if method != "POST" else {403, 429} if known else {404, 429}
                elif method in ("GET", "HEAD"):
                    expected = {200, 429} if known else {404, 429}
                else:
                    expected = {405}
                assert answer.status_code in expected, case
                assert SECRET not in answer.text or (user == "anna" and answer.status_code == 200), case
                assert "set-cookie" not in answer.headers, case


@pytest.mark.parametrize("path", sorted(FREE))
def test_what_everybody_may_open_shows_nothing_of_anybody(desk: Desk, path: str) -> None:
    for who in desk.credentials:
        answer = desk.ask(who, "GET", path)
        assert answer.status_code == (303 if who in desk.roles and path == "/sign-in" else 200), who
        assert SECRET not in answer.text
        for method in METHODS[2:]:
            if (path, method) == ("/sign-in", "POST"):
                form = f"name=not {who}&password=no"
                assert desk.ask(who, method, path, form, FORM_TYPE).status_code == 401, who
            else:
                assert desk.ask(who, method, path).status_code == 405, (method, who)


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_only_a_write_key_takes_in_and_it_reads_nothing(desk: Desk, kind: str) -> None:
    call = {"userId": "bert", "event": "Order Tracked", "type": "track"}
    body = json.dumps({**call, "batch": [call]})
    for who in desk.credentials:
        for method in METHODS:
            n_rows = desk.house.engine.journal.head()[0]
            answer = desk.ask(who, method, f"/v1/{kind}", body)
            case = f"{method} /v1/{kind} with {who}: {answer.status_code}"
            assert SECRET not in answer.text, case
            if method == "POST" and who in ("a write key", "a write key for one event"):
                assert answer.status_code in (200, 400), case
                is_let_in = answer.status_code == 200 and answer.json()["n_rejected"] == 0
                assert not (is_let_in and who == "a write key for one event"), "an event beyond its scope"
            else:
                assert answer.status_code == (401 if method == "POST" else 405), case
                assert desk.house.engine.journal.head()[0] == n_rows, case


def test_a_path_that_is_not_there_is_as_closed_as_one_that_is(desk: Desk) -> None:
    for who in desk.credentials:
        assert desk.ask(who, "GET", "/nothing").status_code == (404 if who in desk.roles else 303), who
        assert desk.ask(who, "POST", "/v1/nothing").status_code == 404, who


def test_a_viewer_is_shown_nobody(desk: Desk) -> None:
    """Every page that a viewer may open is searched for everything by which anybody is known."""
    house = desk.house
    house.late_order("berta")
    db = house.engine.db
    known = {row[0] for row in db.execute("SELECT value FROM nodes WHERE value <> ''")}
    known |= {bytes(row[0]).hex() for row in db.execute("SELECT DISTINCT customer FROM occurrences")}
    known = {SECRET} | {each for each in known if len(each) > 5}
    assert len(known) > 300
    viewer, agent = "a session: viewer", "a session: agent"
    names = [f"/moments/{name}" for name in house.engine.project.moments]
    for path in ("/", "/moments", *names):
        page = desk.ask(viewer, "GET", path)
        assert page.status_code == 200, path
        assert {each for each in known if each in page.text} == set(), path
        links = set(re.findall(r'href="(/[a-z]*)', page.text))
        assert links <= {"/", "/moments", "/style", "/favicon"}, path
    shown = "".join(desk.ask(agent, "GET", path).text for path in ("/", *names))
    assert [each for each in known if each in shown], "what nobody is shown cannot be hidden"


def test_whoever_is_signed_in_is_shown_what_the_role_opens(desk: Desk) -> None:
    page = desk.ask("a session: agent", "GET", address(desk, "/customers/{customer}"))
    assert SECRET in page.text, "what nobody is shown cannot be hidden"
    nav = {}
    for role in ROLES:
        text = desk.ask(f"a session: {role}", "GET", "/").text
        nav[role] = re.findall(r'<li><a href="([^"]+)"', text.partition("</nav>")[0])
        assert f"the {role} <span>{role}</span>" in text
    assert nav["viewer"] == ["/", "/moments"]
    assert nav["agent"] == ["/", "/customers", "/review", "/moments"]
    assert nav["admin"] == [*nav["agent"], "/rejected", "/outbox"]


def test_no_page_and_no_form_leaves_a_store_open(desk: Desk) -> None:
    """A connection that is only let go of waits for the collector of cycles, with its cache and its files."""
    house, engine, now = desk.house, desk.house.engine, desk.house.clock.now()
    customer = LeafId(bytes.fromhex(house.customer("user_id", "anna")))
    with transaction(engine.db):
        token = PageLinks(engine.db).make(engine.state, engine.chance, customer, "desk", now, now + DAY)
    form = f"token={token_of(house.session)}&said_by=me&trait=first_name&value=x&other=nobody"
    told = [("GET", address(desk, path).replace("/feed", "/"), "") for path in READ]
    told += [("POST", address(desk, path), form) for path in WRITE if path != "/sign-out"]
    told += [("GET", path.format(token=token), "") for path in MINE_READ]
    told += [("POST", f"/my/{token}/say", f"token={token_of(token)}&what=restrict")]
    told += [("GET", f"/customers/{customer.hex()}?after=1", "")]
    answers = {path: desk.ask("the operator's session", how, path, *_form(body)) for how, path, body in told}
    assert {path: each.status_code for path, each in answers.items() if each.status_code > 404} == {}
    gc.collect()
    gc.disable()
    try:
        left = {}
        for method, path, body in told:
            before = n_stores_open()
            desk.ask("the operator's session", method, path, *_form(body))
            left[path] = n_stores_open() - before
    finally:
        gc.enable()
    assert {path: n for path, n in left.items() if n > 0} == {}


def _form(body: str) -> tuple[str, str]:
    return (body, FORM_TYPE) if body else ("", "")
