"""The console: who may open it, what its pages say, the live feed, and a real browser that drives it."""

from __future__ import annotations

import asyncio
import re
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast
from unittest.mock import Mock

import httpx
import msgspec
import pytest
from console import EVIL, MINUTE, PROJECT, SEEN, House, ask, browsing, serving, words
from starlette.types import ASGIApp, Message

from hetki.engine.advance import advance
from hetki.engine.changing import Target
from hetki.engine.commands import Merge, Unmerge
from hetki.engine.deliver import deliver
from hetki.engine.engine import Engine
from hetki.engine.files import Kept
from hetki.engine.project import load
from hetki.engine.warming import begin, refuse
from hetki.errors import Fault, Forbidden, Unavailable
from hetki.events import segment
from hetki.patterns.condition import Condition
from hetki.patterns.segments import Segment
from hetki.server import drawing, feed
from hetki.server.access import SESSION_S, TOKEN_S, Access
from hetki.server.app import HEADERS, PAGES, Served, console_app
from hetki.server.committer import Committer
from hetki.server.desk import days
from hetki.server.effects import Effects
from hetki.server.feed import LISTENERS_MAX
from hetki.server.following import Follower
from hetki.server.site import COOKIE
from hetki.settings import SECOND, Limits
from hetki.simulation import demo
from hetki.simulation.world import LocalNet, MemoryDisk, SeededChance, SimulatedClock
from hetki.store.lake import refresh
from hetki.store.ports import Disk, Sent
from hetki.store.system import SystemDisk
from hetki.store.views import Views


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> House:
    house = House(tmp_path_factory.mktemp("console"))
    house.late_order("anna")
    return house


def test_what_is_warmed_and_what_is_refused_is_shown(house: House) -> None:
    assert "version" in words(house.get("/moments"))
    assert "being warmed" not in words(house.get("/moments"))
    version = house.engine.program.version
    other = msgspec.structs.replace(house.engine.program, version="x")
    begin(house.engine, Target(house.engine.project, other, version))
    assert "being warmed: 0 of" in words(house.get("/moments"))
    refuse(house.engine, [Fault("moments/late.yaml:3:1", EVIL, "a known event")])
    page = house.get("/moments")
    assert "was refused" in words(page) and "moments/late.yaml:3:1" in words(page)
    assert EVIL not in page.text and "being warmed" not in words(page)
    refuse(house.engine, [])
    assert "refused" not in words(house.get("/moments"))


def test_other_declarations_are_served_from_the_next_request_on(house: House) -> None:
    served = Served(house.engine, Committer(house.engine.acceptor.accept), house.access)
    follower = Follower(served)
    follower.look()
    assert served.engine is house.engine, "they are in force already"
    texts = dict(house.engine.project.texts)
    title = house.engine.project.moments["where_is_my_order"].title.encode()
    assert title in texts["moments/where_is_my_order.yaml"]
    name = "moments/where_is_my_order.yaml"
    texts[name] = texts[name].replace(title, b"Another title")
    served.take_up(load(Kept(texts)))
    assert "Another title" in words(ask(served, "/moments", house.session))
    follower.look()
    assert "Another title" not in words(ask(served, "/moments", house.session))
    assert served.engine.program.version == house.engine.program.version


# Who may open it


class Signing:
    """Only the ways in: a disk in memory, a clock that is moved."""

    def __init__(self) -> None:
        self.disk = MemoryDisk()
        self.clock = SimulatedClock(1_772_366_400 * SECOND)
        self.access = Access(self.disk, self.clock, SeededChance(1))


def test_a_token_opens_once() -> None:
    signing = Signing()
    token = signing.access.new_token()
    session = signing.access.sign_in(token)
    assert signing.access.who(session)
    with pytest.raises(Forbidden, match="hetki token"):
        signing.access.sign_in(token)


@pytest.mark.parametrize("token", ["", "0" * 64, "é", "\ud800"])
def test_no_other_token_opens(token: str) -> None:
    signing = Signing()
    for _ in range(2):
        with pytest.raises(Forbidden):
            signing.access.sign_in(token)
        signing.access.new_token()
    assert not signing.access.who("") and not signing.access.who(token)


def test_only_the_first_run_makes_a_token_by_itself() -> None:
    signing = Signing()
    token = signing.access.first_token()
    assert token and signing.access.first_token() is None
    signing.access.sign_in(token)
    assert signing.access.first_token() is None


def test_a_waiting_token_that_nobody_used_ends_and_is_made_again() -> None:
    signing = Signing()
    old = signing.access.first_token()
    assert old
    signing.clock.move(signing.clock.now() + TOKEN_S * SECOND)
    with pytest.raises(Forbidden):
        signing.access.sign_in(old)
    assert signing.access.first_token()


def test_a_new_token_ends_the_older_one() -> None:
    signing = Signing()
    old, new = signing.access.new_token(), signing.access.new_token()
    with pytest.raises(Forbidden):
        signing.access.sign_in(old)
    assert signing.access.sign_in(new)


def test_a_session_ends_after_twelve_hours_or_by_signing_out_and_outlives_a_restart() -> None:
    signing = Signing()
    first = signing.access.sign_in(signing.access.new_token())
    second = signing.access.sign_in(signing.access.new_token())
    again = Access(signing.disk, signing.clock, SeededChance(2))
    assert again.who(first) and again.who(second)
    again.sign_out(first)
    assert not again.who(first) and again.who(second)
    signing.clock.move(signing.clock.now() + SESSION_S * SECOND)
    assert not again.who(second)


@pytest.mark.parametrize("name", ["access/token.json", "access/sessions.json"])
def test_a_file_that_cannot_be_read_is_told_with_what_to_do(name: str) -> None:
    signing = Signing()
    signing.access.sign_in(signing.access.new_token())
    signing.access.new_token()
    signing.disk.write(name, signing.disk.read(name)[:-9])
    with pytest.raises(Unavailable, match=f"{name}: .+ Hint: delete it"):
        Access(signing.disk, signing.clock, SeededChance(2)).first_token()


def test_what_is_stored_opens_nothing() -> None:
    signing = Signing()
    token = signing.access.new_token()
    kept = [signing.disk.read(name) for name in signing.disk.names("**/*")]
    session = signing.access.sign_in(token)
    kept += [signing.disk.read(name) for name in signing.disk.names("**/*")]
    assert len(kept) == 2
    assert not any(secret.encode() in each for each in kept for secret in (token, session))


def test_nothing_is_shown_without_a_session(house: House) -> None:
    for path in [*PAGES, "/feed", "/nowhere", "/sign-out"]:
        for session in ("", "0" * 64):
            answer = house.get(path.replace("{", "").replace("}", ""), session)
            assert (answer.status_code, answer.headers["location"]) == (303, "/sign-in")
            assert "anna" not in answer.text
    assert "hetki token" in house.get("/sign-in", "").text


def test_opening_the_printed_address_signs_in(house: House) -> None:
    before = house.access.sign_in(house.access.new_token())
    address = f"/sign-in?token={house.access.new_token()}"
    house.get(address, "", "HEAD")  # a look ahead by a mail reader or a chat
    answer = house.get(address, before)
    assert house.get("/", before).status_code == 303, "one browser, one session"
    cookie = answer.headers["set-cookie"]
    assert (answer.status_code, answer.headers["location"]) == (303, "/")
    assert "HttpOnly" in cookie and "SameSite=strict" in cookie and f"Max-Age={SESSION_S}" in cookie
    assert "Secure" not in cookie
    session = re.findall(rf"{COOKIE}=(\w+)", cookie)[0]
    assert house.get("/", session).status_code == 200
    again = house.get(address, "")
    assert again.status_code == 401 and "Hint: run &#39;hetki token&#39;" in again.text
    assert house.get("/sign-out", session).status_code == 405
    assert house.get("/sign-out", session, "POST").status_code == 400
    assert house.get("/", session).status_code == 200, "a form that is none signs nobody out"
    assert house.post("/sign-out", session).headers["location"] == "/sign-in"
    assert house.get("/", session).status_code == 303


# What is shown


def addresses(house: House) -> list[str]:
    """Every page, the ones of one thing included."""
    anna = house.node("user_id", "anna")
    with_decision = house.engine.db.execute("SELECT decision_id FROM decisions ORDER BY decided_at DESC")
    decisions = [row[0] for row in with_decision.fetchmany(1)]
    fixed = [
        "/",
        "/customers",
        "/customers?q=nobody",
        "/moments",
        "/rejected",
        "/outbox",
        "/outbox?status=sent",
    ]
    fixed += [f"/moments/{name}" for name in house.engine.project.moments]
    identities = [f"/customers/{anna}/identities", f"/customers/{anna}/why?other=anna@example.com", "/review"]
    return [*fixed, f"/customers/{anna}", *identities, f"/decisions/{decisions[0]}"]


INLINE = re.compile(r"<style|\sstyle=|\son\w+=|javascript:|<script(?![^>]* src=)")


def test_every_page_opens_with_its_headers_and_nothing_inline(house: House) -> None:
    for address in addresses(house):
        page = house.get(address)
        assert page.status_code == 200, address
        assert {name: page.headers[name] for name in HEADERS} == HEADERS
        assert not re.search(r"<style|\sstyle=|\son\w+=|javascript:|<script(?![^>]* src=)", page.text), (
            address
        )
        assert page.text.count("<h1") == 1 and "Europe/Helsinki" in page.text
    assert "script-src 'self'" in HEADERS["content-security-policy"]


def test_assets_are_ours_and_may_be_kept(house: House) -> None:
    page = house.get("/", "").text + house.get("/").text
    for address in set(re.findall(r'(?:href|src)="(/[\w.]+\?v=\w+)"', page)):
        answer = house.get(address, "")
        assert answer.status_code == 200 and "immutable" in answer.headers["cache-control"]
    assert "EventSource" in house.get("/feed.js", "").text


def test_text_of_others_is_never_markup(house: House) -> None:
    anna = house.get(f"/customers/{house.node('user_id', 'anna')}")
    assert "&lt;script&gt;alert" in anna.text
    for address in addresses(house):
        assert "<script>alert" not in house.get(address).text
    assert "<script>" not in house.get(f"/customers?q={EVIL}").text


def test_a_customer_is_found_by_any_exact_identifier(house: House) -> None:
    present = f"/customers/{house.node('user_id', 'anna')}"
    for asked in ("anna", " ANNA@example.com ", house.node("user_id", "anna")):
        found = house.get(f"/customers?q={asked}")
        assert (found.status_code, found.headers["location"]) == (303, present)
    assert "Nobody is known by" in words(house.get("/customers?q=ann"))


def test_a_customers_story(house: House) -> None:
    page = words(house.get(f"/customers/{house.node('user_id', 'anna')}"))
    story = page[page.index("Story") :]
    told = ["Late order; searches help", "Help Searched", "Delivery Delayed", "Customer Identified"]
    assert [story.index(each) for each in told] == sorted(story.index(each) for each in told)
    assert "n_minutes 20" in story and "The phone app" in story
    assert "user id anna" in page and "email anna@example.com" in page
    assert "the address came with this id" in page


def test_the_segments_of_a_customer_and_what_gave_way(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    anna = f"/customers/{house.node('user_id', 'anna')}"
    assert "Segments" not in words(house.get(anna))
    club = Segment("club", "Club members", "service", cast(Condition, None), (), frozenset())
    monkeypatch.setattr("hetki.server.people.in_segments", lambda *given: [club])
    monkeypatch.setattr("hetki.server.people.dropped", lambda *given: {"late": (1, 3)})
    page = words(house.get(anna))
    assert "Segments Club members club" in page and "late: 1 try and 3 values gave way" in page


def test_grants_with_their_history(house: House) -> None:
    house.say("berta", "Consent Granted", purpose="marketing", notice_version="7")
    advance(house.engine)
    berta = f"/customers/{house.node('user_id', 'berta')}"
    assert "in force Reminders and offers consent: granted" in words(house.get(berta))
    house.clock.move(house.clock.now() + MINUTE)
    house.say("berta", "Consent Withdrawn", purpose="marketing")
    advance(house.engine)
    page = words(house.get(berta))
    assert "closed Reminders and offers consent: refused" in page
    assert page.index("Consent Withdrawn") < page.index("Consent Granted purpose marketing")
    assert "in force Keeping what we promised: orders, deliveries, complaints contract: nothing" in page


def test_old_ids_lead_to_the_present_customer_and_back_after_an_unmerge(house: House) -> None:
    house.say("carl", "Order Tracked")
    house.say("dora", "Order Tracked")
    a, b = (house.node("user_id", user) for user in ("carl", "dora"))
    house.engine.acceptor.command(Merge(a, b, "someone", house.clock.now(), despite_unique=True))
    advance(house.engine)
    answers = {house.get(f"/customers/{each}").status_code for each in (a, b)}
    assert answers == {200, 303}
    assert "a person said that they are one customer" in words(house.get(f"/customers/{min(a, b)}"))
    link = house.engine.db.execute("SELECT link_id FROM links WHERE kind = 'merge'").fetchone()[0]
    house.engine.acceptor.command(Unmerge(link.hex(), "someone", house.clock.now()))
    advance(house.engine)
    assert {house.get(f"/customers/{each}").status_code for each in (a, b)} == {200}
    assert "taken back" in words(house.get(f"/customers/{a}"))


def test_a_long_story_is_turned_page_by_page(house: House) -> None:
    for number in range(60):
        house.clock.move(house.clock.now() + SECOND)
        house.say("emil", "Order Tracked", order_id=f"number-{number}")
    advance(house.engine)
    emil = f"/customers/{house.node('user_id', 'emil')}"
    first, second = house.get(emil), house.get(f"{emil}?page=2")
    numbers = [re.findall(r"number-(\d+)", each.text) for each in (first, second)]
    assert [*numbers[0], *numbers[1]] == [str(number) for number in range(59, -1, -1)]
    assert "page=2" in first.text and "page=1" in second.text
    for odd in ("0", "-1", "x", "99999999999999999999"):
        assert house.get(f"{emil}?page={odd}").status_code == 200


def test_a_moment_says_itself_and_where_answers_were_dropped(house: House) -> None:
    page = words(house.get("/moments/where_is_my_order"))
    assert "For a customer whose plan is private: after Delivery Delayed" in page
    assert "“When will it come?”" in page and "delivery team" in page
    n_decided = house.engine.db.execute("SELECT count(*) FROM decisions WHERE moment = 'where_is_my_order'")
    assert f"Of {n_decided.fetchone()[0]} decision" in page
    assert "Offer a voucher for the long wait" in page and "Data contract".lower() in page


def test_effects_come_from_the_lake_and_are_estimated_once(house: House) -> None:
    assert "no effect shown" in words(house.get("/moments/first_app_order"))
    assert "95 % interval" in words(house.get("/moments/first_app_order"))
    assert "<svg" in house.get("/moments/first_app_order").text
    effects = Effects(house.disk, house.clock, [])
    assert effects.load() is effects.load() is not None


def test_without_a_lake_no_effect_is_claimed() -> None:
    assert Effects(MemoryDisk(), SimulatedClock(0), []).load() is None


def test_a_decision_is_explained(house: House) -> None:
    row = house.engine.db.execute(
        "SELECT decision_id, occurrence_id FROM decisions WHERE moment = 'where_is_my_order'"
        " ORDER BY decided_at DESC"
    ).fetchone()
    page = house.get(f"/decisions/{row[0]}")
    told = words(page)
    assert "data of user id anna" in told and "late.n_minutes was 20" in told
    assert "Dropped at consent, because no lawful basis for 'Reminders and offers' is in force" in told
    assert "What would have changed it" in told and "&#34;decision_id&#34;" in page.text
    assert house.get(f"/decisions/{row[1]}").text == page.text


def test_rejected_events_are_listed_with_what_came(house: House) -> None:
    house.engine.acceptor.accept(
        [
            segment.parse(
                b'{"batch": [{"type": "track", "event": "X", "messageId": "r1", "timestamp": "never"}]}',
                "batch", "web", "web", house.clock.now(), Limits(), False,
            )
        ]
    )  # fmt: skip
    advance(house.engine)
    page = words(house.get("/rejected"))
    assert "batch[0]" in page and "hetki rejected replay ID --with FILE" in page
    assert '"messageId": "r1"' in page


def test_the_outbox_tells_each_attempt(house: House) -> None:
    failing = LocalNet(post=lambda url, headers, body: Sent(False, 503, "busy"))
    customers = iter("fghijklmnopqrstuvw")  # of whom 40 % are held out
    while not failing.n_posts:
        house.late_order(next(customers))
        deliver(house.engine, failing, "app", 1)
    page = words(house.get("/outbox?status=waiting"))
    assert "waiting busy" in page and ": busy (503)" in page and "Due" in page
    assert "app webhook unsteady The last 1 attempt failed. mail email working" in page
    while failing.n_posts < 5:
        house.late_order(next(customers))
        deliver(house.engine, failing, "app", 1)
    assert "app webhook resting The last 5 attempts failed; the next is at" in words(house.get("/outbox"))


@pytest.mark.parametrize(
    ("address", "hint"),
    [
        ("/nowhere", "Not found"),
        ("/moments/where_is_my_ordr", "did you mean 'where_is_my_order'"),
        ("/moments/%3Cscript%3E", "known are"),
        ("/customers/xyz", "search by an exact identifier"),
        ("/customers/" + "0" * 32, "search by an exact identifier"),
        ("/decisions/none", "it may have been missed"),
        ("/outbox?status=lost", "one of a message"),
    ],
)
def test_what_is_not_there_is_said_calmly(house: House, address: str, hint: str) -> None:
    page = house.get(address)
    assert page.status_code == 404 and hint in words(page) and "Back to the first page" in page.text


class Broken:
    """A disk whose databases cannot be opened."""

    def __init__(self, disk: Disk) -> None:
        self._disk = disk

    def connect(self, name: str) -> sqlite3.Connection:
        raise Unavailable(Fault(name, "a disk that fails", "a disk that works"))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._disk, name)


def test_a_store_that_fails_is_a_calm_page_too(house: House) -> None:
    engine = house.engine
    fields = {name: getattr(engine, name) for name in Engine.__slots__}
    broken = console_app(Engine(**{**fields, "disk": Broken(house.disk)}), house.access)
    page = ask(broken, "/", house.session)
    assert page.status_code == 503 and "Not available just now" in page.text and page.headers["retry-after"]
    own = ask(broken, "/my/x", "")
    assert own.status_code == 503 and "Try again" in own.text and own.headers["retry-after"]
    assert "disk" not in own.text, "that is for the operator"


@pytest.mark.parametrize("failing", ["hetki.server.access.Access.who", "hetki.server.pages.Pages.render"])
@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("can't start new thread")])
def test_where_memory_is_missing_for_the_page_of_the_error_too(
    house: House, monkeypatch: pytest.MonkeyPatch, failing: str, error: Exception
) -> None:
    """Who is asked for first, and what says that something failed."""
    monkeypatch.setattr(failing, Mock(side_effect=error))
    page = ask(house.app, "/moments", house.session)
    assert page.status_code == 503 and page.headers["retry-after"]
    assert page.headers["content-security-policy"].startswith("default-src 'none'")


def test_the_console_cannot_write(house: House) -> None:
    views = Views(house.disk)
    for table in ("customers", "outbox", "decisions"):
        with pytest.raises(sqlite3.OperationalError, match="readonly"):
            views.db.execute(f"DELETE FROM {table}")
    views.close()


def test_a_new_project_says_that_nothing_has_come_in(tmp_path: Path) -> None:
    engine = demo.open_engine(
        demo.load(SystemDisk(PROJECT)), MemoryDisk(), SimulatedClock(0), SeededChance(1), {}
    )
    access = Access(engine.disk, engine.clock, engine.chance)
    console = console_app(engine, access)
    session = access.sign_in(access.new_token())
    assert "Nothing has come in yet. Send a first event to" in words(ask(console, "/", session))
    for address in ("/moments/promise_broken", "/rejected", "/outbox", "/customers", "/moments"):
        assert ask(console, address, session).status_code == 200
    assert "there is no lake" in words(ask(console, "/moments/promise_broken", session))


def test_an_interval_is_drawn_where_it_lies() -> None:
    drawn = drawing.interval(-0.02, 0.03, 0.08, drawing.axis_of([-0.02, 0.08]), False)
    middle = drawing.WIDTH / 2
    places = [float(x) for x in re.findall(r'class="tip" x1="([\d.]+)"', drawn)]
    zero = float(re.findall(r'class="zero" x1="([\d.]+)"', drawn)[0])
    assert zero == middle and places[0] < zero < places[1]
    assert places[1] - zero == pytest.approx(4 * (zero - places[0]), abs=0.3)
    assert "+3.0 points, from -2.0 to +8.0" in drawn and "unclear" in drawn
    assert drawing.axis_of([]) == 2 and drawing.axis_of([-1.0, 1.0]) == 100


def test_days_are_counted_in_the_projects_zone(house: House) -> None:
    midnight = 1_772_402_400 * SECOND  # 2 March 2026, 00:00 in Helsinki
    starts = [midnight - 86_400 * SECOND, midnight]
    counts = days(starts, [midnight - 1, midnight, midnight + 5, starts[0] - 1], "Europe/Helsinki")
    assert counts == [("Sun 01 Mar", 1), ("Mon 02 Mar", 2)]
    assert "Sun 01 Mar: 1" in drawing.per_day(counts)


# The feed


class Listener:
    """One browser at `/feed`, driven by hand."""

    def __init__(self, what: ASGIApp, session: str, query: str = "") -> None:
        self.scope = {
            "type": "http", "method": "GET", "path": "/feed", "raw_path": b"/feed", "root_path": "",
            "scheme": "http", "query_string": query.encode(), "server": ("hetki", 80), "client": None,
            "headers": [(b"cookie", f"{COOKIE}={session}".encode())], "http_version": "1.1",
        }  # fmt: skip
        self.leaves = asyncio.Event()
        self.sent: asyncio.Queue[Message] = asyncio.Queue()
        self.task = asyncio.ensure_future(what(self.scope, self._receive, self.sent.put))

    async def _receive(self) -> Message:
        await self.leaves.wait()
        return {"type": "http.disconnect"}

    async def next(self) -> Message:
        return await asyncio.wait_for(self.sent.get(), 20)

    async def until(self, text: str) -> str:
        """Everything told until some text has been."""
        told = ""
        while text not in told:
            told += (await self.next())["body"].decode()
        return told


def test_what_happens_is_told_at_once_and_only_once(house: House) -> None:
    async def story() -> str:
        listener = Listener(house.app, house.session, f"after={house.clock.now()}")
        start = await listener.next()
        assert start["status"] == 200 and dict(start["headers"])[b"content-type"].startswith(b"text/event")
        assert (await listener.next())["body"] == b"retry: 2000\n\n"
        await asyncio.to_thread(house.late_order, "paula")
        told = await listener.until("event: lines")
        await asyncio.to_thread(house.late_order, "quinn")
        told += await listener.until("quinn")
        listener.leaves.set()
        await asyncio.wait_for(listener.task, 20)
        return told

    told = asyncio.run(story())
    assert told.count(">paula<") == told.count(">quinn<") == 1
    assert all(re.match(r"(data|id|event|retry): |$", line) for line in told.splitlines())


def test_a_listener_that_comes_back_is_told_what_it_missed(house: House) -> None:
    before = house.clock.now()
    house.late_order("rosa")

    async def story(after: int) -> str:
        listener = Listener(house.app, house.session)
        listener.scope["headers"] = [*listener.scope["headers"], (b"last-event-id", str(after).encode())]
        await listener.next()
        told = str((await listener.next())["body"])
        listener.leaves.set()
        await listener.task
        return told

    assert "rosa" in asyncio.run(story(before))
    assert "rosa" not in asyncio.run(story(house.clock.now()))


def test_listeners_have_a_bound_and_leave_room_when_they_go(house: House) -> None:
    async def story() -> list[int]:
        many = [Listener(house.app, house.session) for _ in range(LISTENERS_MAX)]
        statuses = [(await each.next())["status"] for each in many]
        late = Listener(house.app, house.session)
        statuses.append((await late.next())["status"])
        many[0].leaves.set()
        await asyncio.wait_for(many[0].task, 20)
        next_one = Listener(house.app, house.session)
        statuses.append((await next_one.next())["status"])
        for each in [*many, next_one]:
            each.leaves.set()
            await asyncio.wait_for(each.task, 20)
        return statuses

    assert asyncio.run(story()) == [200] * LISTENERS_MAX + [503, 200]


def test_a_feed_ends_with_its_session_and_with_the_server(house: House) -> None:
    async def story() -> None:
        session = house.access.sign_in(house.access.new_token())
        listener = Listener(house.app, session)
        await listener.next()
        house.access.sign_out(session)
        await asyncio.wait_for(listener.task, 20)
        stopping: list[bool] = []
        stopped = Listener(console_app(house.engine, house.access, lambda: bool(stopping)), house.session)
        await stopped.next()
        stopping.append(True)
        await asyncio.wait_for(stopped.task, 20)

    asyncio.run(story())


def test_a_feed_whose_stores_cannot_be_read_ends_and_is_asked_for_again(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*given: object) -> None:
        raise Unavailable(Fault("state.db", "disk I/O error", "a disk that can be read"))

    async def story() -> None:
        listener = Listener(house.app, house.session)
        await listener.next()
        monkeypatch.setattr(feed, "newest_lines", refuse)
        house.say("somebody", "Help Searched")
        advance(house.engine)
        await asyncio.wait_for(listener.task, 20)

    asyncio.run(story())
    monkeypatch.setattr(feed, "News", refuse)
    assert house.get("/feed").status_code == 503


# A real browser


@pytest.fixture
def served(house: House) -> Iterator[str]:
    with serving(house) as address:
        yield address


@pytest.fixture
def browser() -> Iterator[Any]:
    with browsing() as started:
        yield started


def test_a_person_signs_in_by_keyboard_and_sees_a_moment_arrive(
    house: House, served: str, browser: Any
) -> None:
    page = browser.new_page()
    complaints: list[str] = []
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.goto(served)
    assert page.url == f"{served}/sign-in"
    page.goto(f"{served}/sign-in?token={house.access.new_token()}")
    assert page.url == f"{served}/"
    assert page.context.cookies()[0]["httpOnly"] and page.context.cookies()[0]["sameSite"] == "Strict"
    page.locator("#feed", has_text="Live: new ones appear by themselves.").wait_for()
    house.late_order("sofia")
    page.get_by_role("link", name="sofia").wait_for()
    page.locator("#feed", has_text="Live: 1 new since you opened this page.").wait_for()

    page.keyboard.press("Tab")
    page.locator("a:focus", has_text="Skip to the content").wait_for()
    page.keyboard.press("Enter")
    page.locator("#main:focus").wait_for()
    page.get_by_role("link", name="Customers").focus()
    page.keyboard.press("Enter")
    page.get_by_label("A user id, an e-mail address").fill("SOFIA@example.com")
    page.keyboard.press("Enter")
    page.get_by_role("heading", name="sofia").wait_for()
    page.get_by_role("button", name="Sign out").focus()
    page.keyboard.press("Enter")
    page.get_by_role("heading", name="Sign in").wait_for()
    assert complaints == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_page_fits_a_phone_and_is_in_order(
    house: House, served: str, browser: Any, scheme: str
) -> None:
    context = browser.new_context(viewport={"width": 360, "height": 740}, color_scheme=scheme)
    page = context.new_page()
    complaints: list[str] = []
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.goto(f"{served}/sign-in?token={house.access.new_token()}")
    for address in addresses(house):
        page.goto(served + address, wait_until="domcontentloaded")
        seen = page.evaluate(SEEN)
        assert seen["wide"] == 360, address
        assert seen["headings"][0] == 1 and seen["tables"] and seen["named"], address
        steps = zip(seen["headings"], seen["headings"][1:], strict=False)
        assert all(after - before <= 1 for before, after in steps), address
        assert len(seen["ids"]) == len(set(seen["ids"])), address
    assert complaints == []


def test_the_way_in_stands_beside_the_console(house: House, served: str) -> None:
    n_events = house.engine.journal.head()[0]
    call = {"batch": [{"type": "track", "event": "Order Tracked", "messageId": "http-1", "userId": "tuomas"}]}
    answer = httpx.post(f"{served}/v1/batch", json=call, auth=("demo-app", ""))
    assert (answer.status_code, answer.json()["success"]) == (200, True)
    assert house.engine.journal.head()[0] == n_events + 1
    refresh(house.disk, house.engine.journal, house.engine.state)
