"""Who may do what: every route of the router, by every method, with every kind of credential.

A route that stands in no row here fails, whatever it does: somebody has to say who may come in.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from dataclasses import dataclass

import httpx
import pytest
from console import FORM_TYPE, House, ask
from starlette.applications import Starlette
from starlette.routing import Route

from hetki.engine.advance import advance
from hetki.events.event import LeafId
from hetki.server.access import SESSION_S
from hetki.server.app import Guard, Served
from hetki.server.committer import Committer
from hetki.server.forms import COOKIE
from hetki.server.ingest import KINDS
from hetki.settings import SECOND
from hetki.store.pages import PageLinks
from hetki.store.sqlite import transaction

SECRET = "a-name-that-only-the-console-may-show"

#: Everybody may open these; they show nothing of anybody.
FREE = {"/sign-in", "/style.css", "/favicon.svg", "/feed.js"}
#: Only a browser that is signed in, and only to read.
#: Whoever has the link, and nobody else: no session helps.
MINE_READ = {"/my/{token}", "/my/{token}/erase", "/my/{token}/data.zip"}
MINE_WRITE = {"/my/{token}/say", "/my/{token}/erased"}
READ = {
    "/",
    "/customers",
    "/customers/{customer}",
    "/customers/{customer}/identities",
    "/customers/{customer}/why",
    "/accounts/{account}",
    "/review",
    "/review/{link}",
    "/moments",
    "/moments/{name}",
    "/decisions/{decision_id}",
    "/rejected",
    "/outbox",
    "/feed",
}
#: Only a browser that is signed in, and only with the token of its own form.
WRITE = {
    "/customers/{customer}/undo",
    "/customers/{customer}/merge",
    "/customers/{customer}/restrict",
    "/customers/{customer}/object",
    "/customers/{customer}/rectify",
    "/review/{link}/answer",
    "/sign-out",
}
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")


@dataclass
class Desk:
    """A console and a way in, with the credentials that people may come with."""

    house: House
    served: Served
    credentials: dict[str, dict[str, str]]

    def ask(self, who: str, method: str, path: str, body: str = "", kind: str = "") -> httpx.Response:
        """One request with somebody's credential."""
        headers = {**self.credentials[who], **({"content-type": kind} if kind else {})}
        return ask(self.served, path, "", method, body, headers)


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    house = House(tmp_path_factory.mktemp("matrix"))
    house.say("anna", "Customer Identified", first_name=SECRET)
    house.say("bertta", "Order Tracked")
    advance(house.engine)
    lapsed = house.access.sign_in(house.access.new_token())
    house.clock.move(house.clock.now() + SESSION_S * SECOND + SECOND)
    house.session = house.access.sign_in(house.access.new_token())
    committer = Committer(house.engine.acceptor.accept)
    committer.start()
    key = "demo-app"
    basic = base64.b64encode(f"{key}:".encode()).decode()
    token = house.access.new_token()
    credentials = {
        "nobody": {},
        "a session that never was": {"cookie": f"{COOKIE}={'0' * len(house.session)}"},
        "a session that has ended": {"cookie": f"{COOKIE}={lapsed}"},
        "a token that was not exchanged": {"cookie": f"{COOKIE}={token}", "authorization": f"Bearer {token}"},
        "a write key": {"authorization": f"Basic {basic}", "cookie": f"{COOKIE}={key}"},
        "a wrong write key": {"authorization": "Basic " + base64.b64encode(b"nobody:").decode()},
        "a session": {"cookie": f"{COOKIE}={house.session}"},
    }
    yield Desk(house, Served(house.engine, committer, house.access, lambda: True), credentials)
    committer.stop()


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
        name="basket_left",
        decision_id="0" * 32,
    )


def test_every_route_stands_in_one_row(desk: Desk) -> None:
    paths = {each.path for each in routes(desk.house)}
    rows = [FREE, READ, WRITE, MINE_READ, MINE_WRITE]
    assert paths == set().union(*rows) and sum(map(len, rows)) == len(paths)
    for each in routes(desk.house):
        assert each.methods == ({"POST"} if each.path in WRITE | MINE_WRITE else {"GET", "HEAD"}), each.path


@pytest.mark.parametrize("path", sorted(READ | WRITE))
def test_only_a_session_opens_the_console(desk: Desk, path: str) -> None:
    for who in desk.credentials:
        for method in METHODS:
            answer = desk.ask(who, method, address(desk, path), "said_by=me&answer=yes", FORM_TYPE)
            case = f"{method} {path} with {who}: {answer.status_code}"
            if who != "a session":
                assert (answer.status_code, answer.headers["location"]) == (303, "/sign-in"), case
                assert answer.content == b"", case
            elif path in WRITE:
                expected = 403 if method == "POST" else 405
                assert answer.status_code == expected, f"{case}: without the token of its form"
            elif method in ("GET", "HEAD"):
                assert answer.status_code in (200, 303, 404), case
                assert answer.headers.get("location") != "/sign-in", case
            else:
                assert answer.status_code == 405, case


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
        assert answer.status_code == (303 if who == "a session" and path == "/sign-in" else 200), who
        assert SECRET not in answer.text
        for method in METHODS[2:]:
            assert desk.ask(who, method, path).status_code == 405, (method, who)


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_only_a_write_key_takes_in_and_it_reads_nothing(desk: Desk, kind: str) -> None:
    body = json.dumps({"userId": "bert", "event": "Order Tracked", "type": "track", "batch": []})
    for who in desk.credentials:
        for method in METHODS:
            n_rows = desk.house.engine.journal.head()[0]
            answer = desk.ask(who, method, f"/v1/{kind}", body)
            case = f"{method} /v1/{kind} with {who}: {answer.status_code}"
            assert SECRET not in answer.text, case
            if method == "POST" and who == "a write key":
                assert answer.status_code in (200, 400), case
            else:
                assert answer.status_code == (401 if method == "POST" else 405), case
                assert desk.house.engine.journal.head()[0] == n_rows, case


def test_a_path_that_is_not_there_is_as_closed_as_one_that_is(desk: Desk) -> None:
    for who in desk.credentials:
        assert desk.ask(who, "GET", "/nothing").status_code == (404 if who == "a session" else 303), who
        assert desk.ask(who, "POST", "/v1/nothing").status_code == 404, who


def test_whoever_is_signed_in_is_shown_it(desk: Desk) -> None:
    page = desk.ask("a session", "GET", address(desk, "/customers/{customer}"))
    assert SECRET in page.text, "what nobody is shown cannot be hidden"
