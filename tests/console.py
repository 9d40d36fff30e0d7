"""A console over a simulated project, a browser that is signed in, and the texts of pages: for tests."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import httpx
import msgspec
import pytest
import uvicorn
from keyed import open_sources
from starlette.types import ASGIApp

from hetki.engine.advance import advance
from hetki.engine.engine import Engine
from hetki.events import segment
from hetki.events.event import IDENTIFIED, Event
from hetki.events.wire import Parsed
from hetki.identity.identifier import Namespace, NodeId, identifier
from hetki.server.access import Access
from hetki.server.app import Served, console_app
from hetki.server.committer import Committer
from hetki.server.forms import FORM_TYPE
from hetki.server.site import COOKIE
from hetki.server.visit import token_of
from hetki.settings import SECOND, Limits
from hetki.simulation import demo
from hetki.simulation.world import SimulatedClock
from hetki.store.staff import Role, Staff
from hetki.store.system import SystemDisk

PROJECT = Path(demo.__file__).parent / "restaurants_project"
MINUTE = 60 * SECOND
EVIL = "<script>alert('evil')</script>"
#: Of everybody who has an account.
PASSWORD = "five words that nobody says"


CHROMIUM = os.environ.get("CHROMIUM", "/usr/bin/chromium")
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]


#: What a page is to a browser: how wide, and whether headings, tables and controls are in order.
SEEN = """() => ({
    wide: document.documentElement.scrollWidth,
    headings: [...document.querySelectorAll('h1, h2, h3')].map(each => Number(each.tagName[1])),
    tables: [...document.querySelectorAll('table')].every(
        each => each.caption && [...each.querySelectorAll('th')].every(head => head.scope)),
    named: [...document.querySelectorAll('a, button, input:not([type=hidden]), select')].every(
        each => each.textContent.trim() || each.labels?.length),
    ids: [...document.querySelectorAll('[id]')].map(each => each.id),
})"""


class House:
    """A project with a few simulated days, a console over it, and a browser that is signed in."""

    def __init__(self, folder: Path, toml: str = "") -> None:
        """`toml`: further lines of `hetki.toml`."""
        self.disk = SystemDisk(folder / "data", durable=False)
        files = shutil.copytree(PROJECT, folder / "project")
        open_sources(files, "demo-")
        with (files / "hetki.toml").open("a") as file:
            file.write(toml)
        self.engine: Engine
        self.engine, _ = demo.run(SystemDisk(files), self.disk, 5, 300, 3)
        assert isinstance(self.engine.clock, SimulatedClock)
        self.clock: SimulatedClock = self.engine.clock
        self.access = Access(self.disk, self.clock, self.engine.chance)
        self.app = console_app(self.engine, self.access)
        self.session = self.access.sign_in(self.access.new_token())
        self.n_sent = 0

    def say(self, user: str, name: str, /, *, source: str = "app", **properties: object) -> None:
        """One event now, accepted; `advance` folds it."""
        self.n_sent += 1
        call = {
            "type": "identify" if name == "Customer Identified" else "track",
            "messageId": f"m{self.n_sent}",
            "event": name,
            "userId": user,
            "traits" if name == "Customer Identified" else "properties": properties,
            "context": {"device": {"type": "mobile"}},
        }
        body = json.dumps({"batch": [call]}).encode()
        now = self.clock.now()
        channel = self.engine.project.sources[source].channel
        parsed = segment.parse(body, "batch", source, channel, now, Limits(), False)
        self.engine.acceptor.accept([parsed])

    def identify(self, /, **call: object) -> None:
        """One call `identify`, a second after the last, accepted: as Segment's SDKs send it."""
        self.n_sent += 1
        self.clock.move(self.clock.now() + SECOND)
        body = json.dumps({"batch": [{"type": "identify", "messageId": f"m{self.n_sent}", **call}]}).encode()
        channel = self.engine.project.sources["app"].channel
        parsed = segment.parse(body, "batch", "app", channel, self.clock.now(), Limits(), False)
        assert not parsed.rejected
        self.engine.acceptor.accept([parsed])

    def record(self, row: str, /, user: str = "", **fields: object) -> str:
        """A row of a customer table, perhaps of a user, a second after the last: its node in hex."""
        self.n_sent += 1
        self.clock.move(self.clock.now() + SECOND)
        now = self.clock.now()
        names = {"record_id": row, **({"user_id": user} if user else {})}
        properties = msgspec.json.encode(fields)
        told = Event("app", f"m{self.n_sent}", "app", IDENTIFIED, now, now, names, properties)
        self.engine.acceptor.accept([Parsed([told], [])])
        return self.node("record", row)

    def customer(self, namespace: Namespace, value: str) -> str:
        """The present customer of an identifier, as it stands in addresses."""
        node = NodeId(bytes.fromhex(self.node(namespace, value)))
        return self.engine.state.customers_of([node])[node].hex()

    def late_order(self, user: str, plan: str = "private") -> None:
        """A story of 13 minutes that ends in the moment where_is_my_order, caught and decided."""
        self.say(user, "Customer Identified", plan=plan, email=f"{user}@example.com", name=EVIL)
        late = {"order_id": f"o-{user}", "n_minutes": 20, "expected_at": "2026-03-05T17:30:00Z"}
        self.say(user, "Delivery Delayed", source="kitchen", **late)
        self.clock.move(self.clock.now() + MINUTE)
        self.say(user, "Help Searched", n_results=0, order_id=f"o-{user}", query=EVIL)
        advance(self.engine)
        self.clock.move(self.clock.now() + 12 * MINUTE)
        advance(self.engine)

    def node(self, namespace: Namespace, value: str) -> str:
        found = identifier(self.engine.keys.node, namespace, value)
        assert found is not None
        return found.node.hex()

    def signed_in(self, name: str, role: Role) -> str:
        """A session of a new person with an account."""
        staff = Staff(self.disk, self.engine.chance)
        staff.add(name, role, PASSWORD, self.clock.now())
        return self.access.enter(name, PASSWORD)

    def get(self, path: str, session: str | None = None, method: str = "GET") -> httpx.Response:
        return ask(self.app, path, self.session if session is None else session, method)

    def post(self, path: str, session: str | None = None, /, **fields: str) -> httpx.Response:
        """A form of ours, as a browser sends it; `fields` may overwrite its token."""
        session = self.session if session is None else session
        headers = {"content-type": FORM_TYPE, "origin": "http://hetki"}
        body = urlencode({"token": token_of(session), "said_by": "Sami", **fields})
        return ask(self.app, path, session, "POST", body, headers)


def ask(
    what: ASGIApp,
    path: str,
    session: str,
    method: str = "GET",
    body: str | bytes = "",
    headers: dict[str, str] | None = None,
) -> httpx.Response:
    async def asked() -> httpx.Response:
        transport = httpx.ASGITransport(what, raise_app_exceptions=False)
        cookies = {COOKIE: session} if session else {}
        async with httpx.AsyncClient(transport=transport, base_url="http://hetki", cookies=cookies) as client:
            return await client.request(method, path, content=body, headers=headers)

    return asyncio.run(asked())


def words(page: httpx.Response) -> str:
    """The text of a page as a reader sees it, white space in one."""
    told: list[str] = []
    parser = HTMLParser()
    parser.handle_data = told.append  # type: ignore[method-assign]
    parser.feed(page.text)
    return " ".join(" ".join(told).split())


@contextmanager
def serving(house: House) -> Iterator[str]:
    """The address of a running server: the way in and the console."""
    committer = Committer(house.engine.acceptor.accept)
    committer.start()
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        stopping = threading.Event()
        everything = Served(house.engine, committer, house.access, stopping.is_set)
        config = uvicorn.Config(everything, lifespan="off", log_level="warning", access_log=False)
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, args=([bound],), daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{bound.getsockname()[1]}"
        stopping.set()
        server.should_exit = True
        thread.join(20)
        committer.stop()
    assert not thread.is_alive(), "an open feed keeps no server from stopping"


@contextmanager
def browsing() -> Iterator[Any]:
    """A real browser without a window; the test is left out where there is none."""
    if not Path(CHROMIUM).exists():
        pytest.skip(f"no browser at {CHROMIUM} (apt-get install chromium, or set CHROMIUM)")
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()
