"""The customer's own page: a link opens one customer and nobody else, and what it says is so."""

from __future__ import annotations

import io
import re
import subprocess
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from console import EVIL, MINUTE, SEEN, House, browsing, serving, words

from hetki.engine.advance import advance
from hetki.engine.commands import Merge, Unmerge
from hetki.engine.export import export
from hetki.engine.receipts import listed
from hetki.events.event import LeafId
from hetki.identity.identifier import NodeId
from hetki.moments.fold import decode, in_force
from hetki.server.app import console_app
from hetki.server.rates import COSTLY_MAX, MISSES_MAX, Rates
from hetki.server.visit import token_of
from hetki.settings import DAY, SECOND, Server
from hetki.store.pages import PageLinks
from hetki.store.sqlite import transaction

CONTROLLER = '\n[controller]\nname = "Ravintolat Oy"\ncontact = "tieto@ravintolat.example"\n'


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> House:
    house = House(tmp_path_factory.mktemp("mine"), CONTROLLER)
    house.app = console_app(house.engine, house.access, rates=Rates(Server(), house.clock.now))
    for user in ("anna", "berta"):
        house.say(user, "Consent Granted", purpose="marketing", notice_version="7")
        house.late_order(user)
    return house


def link(house: House, user: str, days: int = 7) -> str:
    """A new link to somebody's page, as `hetki page` makes it."""
    engine, now = house.engine, house.clock.now()
    customer = LeafId(bytes.fromhex(house.customer("user_id", user)))
    with transaction(engine.db):
        links = PageLinks(engine.db)
        token = links.make(engine.state, engine.chance, customer, "desk", now, now + days * DAY)
    return f"/my/{token}"


def opened(house: House, address: str) -> httpx.Response:
    """A page as somebody opens it who is not signed in anywhere."""
    return house.get(address, "")


def post(house: House, address: str, to: str, **fields: str) -> httpx.Response:
    fields.setdefault("token", token_of(address.rpartition("/")[2]))
    return house.post(f"{address}/{to}", "", **fields)


def is_open(house: House, user: str, purpose: str) -> bool:
    customer = LeafId(bytes.fromhex(house.customer("user_id", user)))
    folded = decode(house.engine.state.load_customers([customer])[customer].state)
    bits = in_force(house.engine.program, folded, house.clock.now())
    names = [name for name, _ in house.engine.program.purposes]
    return bool(bits & 1 << names.index(purpose))


def test_the_page_tells_what_is_known_and_why_in_plain_words(house: House) -> None:
    page = opened(house, link(house, "anna"))
    text = words(page)
    assert page.status_code == 200
    for told in (
        "Ravintolat Oy",
        "tieto@ravintolat.example",
        "anna@example.com",
        "Reminders and offers yes You have allowed it.",
        "Late order; searches help on the phone and finds nothing",
        "We chose 'Tell the new time' for you, because it seemed to be worth most to you",
        "Consent Granted marketing, notice 7",
    ):
        assert told in text, told
    assert EVIL not in page.text and "berta" not in page.text and "<script" not in page.text
    assert "Sign out" not in text and "Customers" not in text, "nothing of the console"


def test_what_a_link_opens_tells_its_address_to_nobody_and_is_not_kept(house: House) -> None:
    address = link(house, "anna")
    for page in (opened(house, address), opened(house, f"{address}/data.zip"), opened(house, "/my/x")):
        assert page.headers["referrer-policy"] == "no-referrer"
        assert page.headers["cache-control"] == "no-store" and "set-cookie" not in page.headers
        assert page.headers["x-robots-tag"] == "noindex"
        assert page.headers["content-security-policy"].startswith("default-src 'none'")
    text = opened(house, address).text
    assert not re.findall(r'(?:href|src|action)="(?:https?:|//)', text)


def test_only_the_hash_of_a_token_is_kept(house: House) -> None:
    token = link(house, "anna").rpartition("/")[2]
    for name in house.disk.names("**"):
        data = Path(house.disk.path(name))
        # by another process: to close a database here would drop the locks that this one holds on it
        told = subprocess.run(["cat", str(data)], capture_output=True).stdout if data.is_file() else b""
        assert token.encode() not in told, name


def test_no_session_helps_and_no_other_address_opens_anything(house: House) -> None:
    address = link(house, "anna")
    wrong = "/my/" + "0" * 64
    for session in ("", house.session):
        for path in (wrong, f"{wrong}/data.zip", f"{wrong}/erase", address[:-1], f"{address}0"):
            page = house.get(path, session)
            assert page.status_code == 404 and "anna" not in page.text, path
    for to in ("say", "erased"):
        assert house.post(f"{wrong}/{to}", house.session, what="restrict").status_code == 404
    assert house.get("/customers", "").status_code == 303, "and a link is no session"
    assert house.get("/customers", address.rpartition("/")[2]).status_code == 303


def test_a_link_ends_and_can_be_ended(house: House) -> None:
    address, other = link(house, "anna", days=1), link(house, "berta", days=30)
    ended = words(opened(house, "/my/x"))
    house.clock.move(house.clock.now() + DAY)
    assert opened(house, address).status_code == 404 and words(opened(house, address)) == ended
    assert opened(house, other).status_code == 200
    customer = LeafId(bytes.fromhex(house.customer("user_id", "berta")))
    with transaction(house.engine.db):
        assert PageLinks(house.engine.db).revoke(house.engine.state, customer) == 1
    assert opened(house, other).status_code == 404
    link(house, "anna")
    ended_at = "SELECT expires_at FROM page_links WHERE expires_at <= ?"
    assert house.engine.db.execute(ended_at, (house.clock.now(),)).fetchall() == [], "nothing is kept of it"


def test_a_merge_shows_nobody_more_and_an_unmerge_nobody_less(house: House) -> None:
    for user in ("dora", "ella"):
        house.say(user, "Order Tracked", order_id=f"secret-{user}")
    advance(house.engine)
    before = link(house, "dora")
    house.identify(anonymousId="dora-phone", userId="dora", traits={})
    advance(house.engine)
    assert "dora-phone" in words(opened(house, before)), "a visit of her own closes nothing"
    ends = sorted((house.node("user_id", "dora"), house.node("user_id", "ella")))
    house.engine.acceptor.command(Merge(*ends, "Sami", house.clock.now(), True))
    advance(house.engine)
    assert opened(house, before).status_code == 404, "the link was made when ella was somebody else"
    both = link(house, "dora")
    assert "ella" in words(opened(house, both))
    ((link_id,),) = house.engine.db.execute("SELECT link_id FROM links WHERE kind = 'merge'").fetchall()
    house.engine.acceptor.command(Unmerge(link_id.hex(), "Sami", house.clock.now()))
    advance(house.engine)
    assert opened(house, both).status_code == 404, "nobody knows whose it is"
    assert opened(house, before).status_code == 200, "dora is who she was"


def test_what_a_customer_says_takes_effect(house: House) -> None:
    address = link(house, "berta")
    assert is_open(house, "berta", "marketing")
    answer = post(house, address, "say", what="withdraw", purpose="marketing")
    assert answer.status_code == 303 and answer.headers["location"].startswith(f"{address}?after=")
    assert "we have kept your word" in words(opened(house, answer.headers["location"]))
    advance(house.engine)
    assert "Your word is in effect" in words(opened(house, answer.headers["location"]))
    assert not is_open(house, "berta", "marketing")
    assert "Reminders and offers no You have said no." in words(opened(house, address))
    house.clock.move(house.clock.now() + SECOND)
    assert post(house, address, "say", what="grant", purpose="marketing").status_code == 303
    advance(house.engine)
    assert is_open(house, "berta", "marketing")
    house.clock.move(house.clock.now() + SECOND)
    assert "Object to “Reminders and offers”" in words(opened(house, address)), "it says to what"
    assert post(house, address, "say", what="object").status_code == 303
    advance(house.engine)
    assert not is_open(house, "berta", "marketing") and is_open(house, "berta", "service")
    house.clock.move(house.clock.now() + SECOND)
    assert post(house, address, "say", what="restrict").status_code == 303
    advance(house.engine)
    assert not is_open(house, "berta", "service")
    page = words(opened(house, address))
    assert "use it for nothing else" in page and "Processing Restricted all" in page
    assert "Allow this" not in page, "staff lift it"


def test_a_word_is_told_once_as_the_customers_own_whatever_they_are_known_by(house: House) -> None:
    """It is kept with each identifier, so that it stays with each after an unmerge."""
    house.identify(userId="gita", anonymousId="browser-gita")
    advance(house.engine)
    address = link(house, "gita")
    assert post(house, address, "say", what="restrict").status_code == 303
    advance(house.engine)
    said = words(opened(house, address)).partition("What you have said, and when")[2]
    assert said.startswith(" (1) Processing Restricted all") and "own page" in said and "staff" not in said
    session = house.access.sign_in(house.access.new_token())
    page = house.get(f"/customers/{house.customer('user_id', 'gita')}", session)
    story = words(page).partition("Story")[2]
    assert story.count("Processing Restricted") == 1


def test_a_look_reads_the_newest_of_what_happened_and_says_so(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else one link would hold the server up, the more the longer somebody has been a customer."""
    house.say("helga", "Consent Granted", purpose="marketing")
    for _ in range(3):
        house.clock.move(house.clock.now() + SECOND)
        house.say("helga", "Order Tracked")
    advance(house.engine)
    address, more = link(house, "helga"), "what you said before that is in the download"
    page = words(opened(house, address))
    assert "Consent Granted marketing" in page and more not in page
    for room in ("people", "mine"):
        monkeypatch.setattr(f"hetki.server.{room}.EVENTS_MAX", 3)
    page = words(opened(house, address))
    assert "Consent Granted marketing" not in page and more in page


@pytest.mark.parametrize(
    "fields",
    [
        {"what": "restrict", "token": "0" * 64},
        {"what": "restrict", "token": ""},
        {"what": "erase"},
        {"what": "grant", "purpose": "nobodys"},
        {},
    ],
)
def test_no_other_form_says_anything(house: House, fields: dict[str, str]) -> None:
    address, before = link(house, "anna"), house.engine.journal.head()[0]
    assert post(house, address, "say", **fields).status_code == (403 if "token" in fields else 400)
    assert opened(house, f"{address}/say").status_code == 405, "a look says nothing"
    assert house.engine.journal.head()[0] == before


def test_the_download_is_the_export(house: House) -> None:
    address = link(house, "anna")
    answer = opened(house, f"{address}/data.zip")
    customer = LeafId(bytes.fromhex(house.customer("user_id", "anna")))
    assert answer.content == export(house.engine, customer).archive
    assert answer.headers["content-disposition"] == 'attachment; filename="my-data.zip"'
    with zipfile.ZipFile(io.BytesIO(answer.content)) as packed:
        assert b"berta" not in b"".join(packed.read(name) for name in packed.namelist())


def n_links(house: House, customer: bytes) -> int:
    query = "SELECT count(*) FROM page_links WHERE customer = ?"
    n: int = house.engine.db.execute(query, (customer,)).fetchone()[0]
    return n


def test_an_erasure_asks_first_and_then_is_one(house: House) -> None:
    house.late_order("faye")
    address, faye = link(house, "faye"), bytes.fromhex(house.customer("user_id", "faye"))
    assert n_links(house, faye) == 1
    assert "cannot be brought back" in words(opened(house, f"{address}/erase"))
    refused = post(house, address, "erased", word="yes")
    assert refused.status_code == 400 and "Nothing has been erased" in words(refused)
    assert post(house, address, "erased", word="erase", token="0" * 64).status_code == 403
    assert opened(house, address).status_code == 200
    done = post(house, address, "erased", word=" Erase ")
    assert done.status_code == 200 and "You are erased" in words(done)
    assert opened(house, address).status_code == 404
    assert not house.engine.state.customers_of([NodeId(bytes.fromhex(house.node("user_id", "faye")))])
    assert n_links(house, faye) == 0
    receipt = listed(house.engine.journal.secrets, house.engine.db)[-1]
    assert receipt.said_by == "the customer, by their own link"


def test_what_is_asked_for_too_often_is_refused(house: House) -> None:
    house.clock.move(house.clock.now() + MINUTE)
    address, other = link(house, "anna"), link(house, "berta")
    answers = [opened(house, f"{address}/data.zip").status_code for _ in range(COSTLY_MAX + 1)]
    assert answers == [200] * COSTLY_MAX + [429]
    assert int(opened(house, f"{address}/data.zip").headers["retry-after"]) in range(1, 61)
    assert opened(house, f"{other}/data.zip").status_code == 200, "it is counted for each link"
    house.clock.move(house.clock.now() + MINUTE)
    assert opened(house, f"{address}/data.zip").status_code == 200


def test_guessing_links_is_refused_by_address_and_keeps_nobody_out(house: House) -> None:
    house.clock.move(house.clock.now() + MINUTE)
    address = link(house, "anna")
    answers = {opened(house, f"/my/{number:064x}").status_code for number in range(MISSES_MAX)}
    assert answers == {404}
    refused = opened(house, "/my/" + "f" * 64)
    assert refused.status_code == 429 and int(refused.headers["retry-after"]) >= 1
    assert opened(house, address).status_code == 200


def test_a_clock_that_is_set_back_keeps_nobody_out(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    address, now = link(house, "anna"), house.clock.now()
    monkeypatch.setattr(house, "app", console_app(house.engine, house.access))
    assert opened(house, address).status_code == 200
    monkeypatch.setattr(house.clock, "now", lambda: now - 60 * MINUTE)
    assert opened(house, address).status_code == 200


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with browsing() as found:
        yield found


def test_on_a_phone_without_script_it_is_read_and_used(house: House, browser: Any, tmp_path: Path) -> None:
    house.late_order("greta")
    address = link(house, "greta")
    with serving(house) as server:
        context = browser.new_context(
            viewport={"width": 390, "height": 844}, java_script_enabled=False, accept_downloads=True
        )
        page = context.new_page()
        page.goto(server + address)
        page.screenshot(path=str(tmp_path / "mine.png"), full_page=True)
        page.get_by_role("button", name=re.compile("Stop this.*Keeping what we promised")).click()
        assert "we have kept your word" in page.inner_text("main")
        with page.expect_download() as waiting:
            page.get_by_role("link", name="Download everything").click()
        assert zipfile.is_zipfile(waiting.value.path())
        page.get_by_role("link", name="Have everything erased").click()
        assert "cannot be brought back" in page.inner_text("main")
        context.close()
        context = browser.new_context(viewport={"width": 390, "height": 844})
        page = context.new_page()
        for path in ("", "/erase"):
            page.goto(server + address + path)
            seen = page.evaluate(SEEN)
            assert seen["wide"] <= 390 and seen["named"] and len(set(seen["ids"])) == len(seen["ids"])
            assert seen["headings"][0] == 1 and seen["headings"].count(1) == 1
        context.close()
    advance(house.engine)
    assert not is_open(house, "greta", "service")
