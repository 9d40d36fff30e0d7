"""Identities in the console: the graph with its evidence, why and why not, undo, merge, who may write."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from console import EVIL, House, ask, browsing, serving, words
from starlette.routing import Route

from hetki.cli import people
from hetki.engine.advance import advance
from hetki.server.acting import ACTIONS
from hetki.server.app import Guard, console_app
from hetki.server.forms import BODY_BYTES_MAX, FORM_TYPE
from hetki.server.mine import WRITES
from hetki.server.site import NAME_COOKIE
from hetki.server.visit import token_of


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> House:
    # what two users share stays with the first of them, so that there is something to refuse
    shared = "\n[identity.anonymous_id]\nunique_ids_max = 2\n"
    house = House(tmp_path_factory.mktemp("identities"), shared)
    house.identify(userId="anna", anonymousId="laptop", traits={"email": "anna@example.com", "name": EVIL})
    house.identify(userId="anna", anonymousId="phone-7")
    house.identify(userId="ben", anonymousId="laptop", traits={"email": "ben@example.com"})
    house.identify(userId=EVIL, anonymousId="kiosk")
    house.identify(userId="carl")
    advance(house.engine)
    return house


def page_of(house: House, user: str) -> str:
    return f"/customers/{house.customer('user_id', user)}/identities"


def followed(house: House, address: str) -> httpx.Response:
    """A page, also where the customer is called by another id by now."""
    page = house.get(address)
    return house.get(page.headers["location"]) if page.status_code == 303 else page


def link_between(house: House, kind: str, a: str, b: str) -> str:
    """The newest link of a kind between two identifiers, by their values."""
    row = house.engine.db.execute(
        "SELECT l.link_id FROM links l JOIN nodes a ON a.node = node_a JOIN nodes b ON b.node = node_b"
        " WHERE kind = ?1 AND (a.value, b.value) IN (VALUES (?2, ?3), (?3, ?2)) ORDER BY linked_at DESC",
        (kind, a, b),
    ).fetchone()
    assert row is not None
    return str(row[0].hex())


# What is shown


def test_every_link_stands_in_the_picture_and_in_the_table(house: House) -> None:
    page = house.get(page_of(house, "anna"))
    assert page.status_code == 200 and 'role="img"' in page.text and "<table" in page.text
    told = words(page)
    assert "4 identifiers of one customer, and 4 links." in told
    assert "user id anna anonymous id laptop both ids came with one event" in told
    assert "Customer Identified, app · The phone app · message m1" in told
    assert "refused it would join two user ids, or others that are unique for ever" in told
    for number in range(1, 5):
        assert f"Undo link {number}" in told and f"{number} · " in told
    assert f"/customers/{house.customer('user_id', 'ben')}" in page.text, (
        "the other end leads to its customer"
    )


def test_what_is_in_quarantine_is_said_with_its_reason(house: House) -> None:
    for user in ("karl", "kaj", "kim"):
        house.identify(userId=user, anonymousId="shop-tablet")
    advance(house.engine)
    tablet = f"/customers/{house.customer('anonymous_id', 'shop-tablet')}/identities"
    told = words(house.get(tablet))
    assert "In quarantine anonymous id shop-tablet joins nobody by itself: too many share it." in told
    assert told.count("refused too many share the value") == 3 and "anonymous id, in quarantine" in told
    assert "Identifiers that both are linked with" in why(house, "karl", "kim")


def test_who_stands_alone_has_no_picture(house: House) -> None:
    told = words(house.get(page_of(house, "carl")))
    assert "nothing to draw" in told and "No link has ever been at this customer" in told


def test_names_of_others_are_text_on_every_page(house: House) -> None:
    evil = page_of(house, EVIL)
    for address in (evil, page_of(house, "anna"), evil.replace("identities", f"why?other={EVIL}")):
        page = house.get(address)
        assert page.status_code == 200 and "<script>" not in page.text
    assert "&lt;script&gt;" in house.get(evil).text


def test_many_links_are_turned_page_by_page_and_a_picture_has_a_bound(house: House) -> None:
    for number in range(70):
        house.identify(userId="many", anonymousId=f"many-{number}")
    advance(house.engine)
    first, second = (house.get(f"{page_of(house, 'many')}?page={page}") for page in (1, 2))
    assert "The 60 most strongly linked identifiers are drawn; 11 are left out." in words(first)
    numbers = [int(n) for page in (first, second) for n in re.findall(r"Undo<[^>]*> link (\d+)", page.text)]
    assert numbers == list(range(1, 71))


# Why, and why not


def why(house: House, user: str, other: str, of: str = "") -> str:
    address = page_of(house, user).replace("identities", "why")
    return words(house.get(f"{address}?other={other}&of={of}"))


def test_why_they_are_one(house: House) -> None:
    told = why(house, "anna", "phone-7", of=house.node("email", "anna@example.com"))
    assert "One customer email anna@example.com and anonymous id phone-7 are one customer's" in told
    chain = told[told.index("This chain of links") :]
    assert chain.index("the address came with this id") < chain.index("both ids came with one event")
    assert "One identifier" in why(house, "anna", "anna")


def test_why_they_are_not_one(house: House) -> None:
    told = why(house, "anna", "ben@example.com")
    assert "belong to two customers" in told
    assert "What links them, and why it did not join them" in told
    assert "refused it would join two user ids" in told
    assert "No evidence links them" in why(house, "anna", "carl")
    assert "Nobody is known by nobody" in why(house, "anna", "nobody")


def test_the_command_line_tells_the_same(
    house: House, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(people, "opened", lambda folder: house.engine)
    people.explain(customer="anna", other="ben", project=Path())
    told = capsys.readouterr().out
    assert told.startswith("user id anna and user id ben are two customers'.\nWhat links them")
    assert "user id ben" in told and "refused: it would join two user ids" in told
    people.explain(customer="anna@example.com", other="laptop", project=Path())
    assert "are one customer's. What joins them:" in capsys.readouterr().out
    people.customer("anna", project=Path())
    assert re.search(r"link \w{32}  login  .*  refused: it would join two user ids", capsys.readouterr().out)


# Undo and merge


def test_an_undo_is_kept_at_once_and_in_force_when_it_is_folded(house: House) -> None:
    house.identify(userId="dora", anonymousId="tablet")
    advance(house.engine)
    before = page_of(house, "dora")
    done = house.post(
        before.replace("identities", "undo"), link=link_between(house, "login", "dora", "tablet")
    )
    assert done.status_code == 303 and done.headers["location"].startswith(f"{before}?after=")
    assert f"{NAME_COOKIE}=Sami" in done.headers["set-cookie"]
    waiting = house.get(done.headers["location"])
    assert "Being worked on" in words(waiting) and '<meta http-equiv="refresh"' in waiting.text
    advance(house.engine)
    after = house.get(done.headers["location"])
    assert "Being worked on" not in words(after) and "http-equiv" not in after.text
    assert "Its ends belong to 2 customers:" in words(after) and "taken back" in words(after)
    assert house.customer("user_id", "dora") != house.customer("anonymous_id", "tablet")
    again = house.post(
        before.replace("identities", "undo"), link=link_between(house, "login", "dora", "tablet")
    )
    assert again.status_code == 409 and "taken back before" in words(again)


def test_a_merge_by_a_person_and_its_undo(house: House) -> None:
    house.identify(userId="emma", traits={"email": "emma@example.com"})
    house.identify(userId="finn")
    advance(house.engine)
    before = page_of(house, "emma").replace("identities", "merge")
    done = house.post(before, other="finn", despite_unique="yes", said_by="  Sami   Åberg ")
    advance(house.engine)
    assert "They are one customer." in words(followed(house, done.headers["location"]))
    assert house.customer("user_id", "emma") == house.customer("user_id", "finn")
    assert "a person said that they are one customer" in words(house.get(page_of(house, "emma")))
    undo = before.replace("merge", "undo")
    house.post(undo, link=link_between(house, "merge", "emma", "finn"))
    advance(house.engine)
    assert house.customer("user_id", "emma") != house.customer("user_id", "finn")


@pytest.mark.parametrize(
    ("fields", "status", "hint"),
    [
        ({"other": "nobody"}, 404, "search by an exact identifier"),
        ({"other": "anna"}, 409, "who is this customer already"),
        ({"other": "ben", "said_by": " "}, 400, "a name of at most 80 characters"),
        ({"other": "ben", "said_by": "x" * 81}, 400, "a name of at most 80 characters"),
        ({"other": "ben", "said_by": "a\x00b"}, 400, "a name of at most 80 characters"),
    ],
)
def test_a_merge_that_cannot_be_is_refused_calmly(
    house: House, fields: dict[str, str], status: int, hint: str
) -> None:
    head = house.engine.journal.head()
    page = house.post(page_of(house, "anna").replace("identities", "merge"), **fields)
    assert page.status_code == status and hint in words(page)
    assert house.engine.journal.head() == head


def test_a_link_that_is_none_cannot_be_undone(house: House) -> None:
    for link in ("", "x", "0" * 32, EVIL):
        page = house.post(page_of(house, "anna").replace("identities", "undo"), link=link)
        assert page.status_code == 404 and "<script>" not in page.text


@pytest.mark.parametrize("after", ["x", "-1", "9" * 30, "99999999", ""])
def test_an_address_of_somebodys_own_making_waits_for_nothing(house: House, after: str) -> None:
    page = house.get(f"{page_of(house, 'anna')}?after={after}&link={EVIL}")
    assert page.status_code == 200 and "http-equiv" not in page.text and "<script>" not in page.text


# Who may write


def paths(house: House) -> list[str]:
    """Every path that takes a POST, as the console has them, with a customer and a link filled in."""
    guard = console_app(house.engine, house.access)
    assert isinstance(guard, Guard)
    routes = [each for each in guard.inner.routes if isinstance(each, Route)]  # type: ignore[attr-defined]
    posts = {each.path for each in routes if set(each.methods or ()) - {"GET", "HEAD"}}
    without_session = {"/sign-in", *WRITES}
    assert posts == {*ACTIONS, "/sign-out", *without_session}, "a path that changes something, not listed"
    posts -= without_session
    anna = house.customer("user_id", "anna")
    link = link_between(house, "login", "anna", "laptop")
    return [path.replace("{customer}", anna).replace("{link}", link) for path in sorted(posts)]


def test_nothing_is_written_without_the_token_of_the_session(house: House) -> None:
    head = house.engine.journal.head()
    other = house.access.sign_in(house.access.new_token())
    fields = {"link": link_between(house, "login", "anna", "laptop"), "other": "ben", "answer": "yes"}
    for path in paths(house):
        for token in ("", "0" * 64, token_of(other), token_of(""), "é"):
            refused = house.post(path, token=token, **fields)
            assert refused.status_code == 403 and "Open the page again" in words(refused), path
    assert house.engine.journal.head() == head
    assert house.get("/").status_code == 200, "the session is open still"


@pytest.mark.parametrize(
    "origin", ["http://evil.example", "null", "http://hetki.evil.example", "http://hetki:81"]
)
def test_nothing_is_written_from_another_site(house: House, origin: str) -> None:
    head = house.engine.journal.head()
    for path in paths(house):
        body = f"token={token_of(house.session)}&said_by=Sami&other=ben&answer=yes"
        headers = {"content-type": FORM_TYPE, "origin": origin}
        refused = ask(house.app, path, house.session, "POST", body, headers)
        assert refused.status_code == 403 and "another site" in words(refused)
    assert house.engine.journal.head() == head


def test_nothing_is_written_without_a_session(house: House) -> None:
    head = house.engine.journal.head()
    for path in paths(house):
        for session in ("", "0" * 64):
            answer = house.post(path, session, other="ben", answer="yes")
            assert (answer.status_code, answer.headers["location"]) == (303, "/sign-in")
    assert house.engine.journal.head() == head


def test_nothing_is_written_by_looking(house: House) -> None:
    head = house.engine.journal.head()
    for path in paths(house):
        assert house.get(f"{path}?token={token_of(house.session)}&said_by=Sami").status_code == 405
    assert house.engine.journal.head() == head


@pytest.mark.parametrize(
    ("kind", "body", "status"),
    [
        ("application/json", "{}", 400),
        ("multipart/form-data; boundary=x", "--x--", 400),
        (FORM_TYPE, "a=" + "x" * BODY_BYTES_MAX, 413),
        (FORM_TYPE, "&".join(f"f{number}=1" for number in range(40)), 400),
        (FORM_TYPE, "\udcff", 400),
    ],
)
def test_a_form_has_a_kind_and_bounds(house: House, kind: str, body: str, status: int) -> None:
    for path in paths(house):
        headers = {"content-type": kind, "origin": "http://hetki"}
        sent = body.encode("utf-8", "surrogateescape")
        assert ask(house.app, path, house.session, "POST", sent, headers).status_code == status


def test_a_cookie_of_a_hostile_name_is_text(house: House) -> None:
    done = house.post(page_of(house, "anna").replace("identities", "undo"), link="x", said_by=EVIL)
    assert done.status_code == 404
    page = ask(house.app, page_of(house, "anna"), f"{house.session}; {NAME_COOKIE}=%3Cscript%3E%22")
    assert page.status_code == 200 and 'value="&lt;script&gt;&#34;"' in page.text


# A real browser


@pytest.fixture
def served(house: House) -> Iterator[str]:
    with serving(house) as address:
        yield address


@pytest.fixture
def browser() -> Iterator[Any]:
    with browsing() as started:
        yield started


def test_a_person_takes_a_link_back_and_sees_two_customers(house: House, served: str, browser: Any) -> None:
    house.identify(userId="gina", anonymousId="old-browser", traits={"name": EVIL})
    advance(house.engine)
    page = browser.new_page()
    complaints: list[str] = []
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.goto(f"{served}/sign-in?token={house.access.new_token()}")
    page.goto(f"{served}/customers?q=gina")
    page.get_by_role("link", name="Identities as a graph").click()
    page.get_by_role("img", name="2 identifiers and 1 links between them").wait_for()
    page.get_by_role("button", name="Undo link 1").click()
    assert "after=" not in page.url, "the browser asks for a name first"
    page.locator("#undo").get_by_label("Who says so").fill("Sami")
    page.keyboard.press("Enter")
    assert "after=" not in page.url, "Enter in the field undoes nothing"
    page.get_by_role("button", name="Undo link 1").focus()
    page.keyboard.press("Enter")
    page.get_by_text("Being worked on").wait_for()
    advance(house.engine)
    page.get_by_text("Its ends belong to 2 customers").wait_for()
    assert house.customer("user_id", "gina") != house.customer("anonymous_id", "old-browser")
    assert page.locator("#undo").count() == 1 and page.get_by_role("button", name="Undo").count() == 0
    assert page.get_by_label("Who says so").first.input_value() == "Sami"
    assert complaints == []
