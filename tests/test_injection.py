"""No user string becomes markup, script, a line of the feed, or SQL: whole stories told in hostile strings.

A story is lived twice in every field and channel, in hostile strings and in harmless ones of the same shape.
Every page must be built of the same elements with the same attributes, and every hostile string must be there
to be read. In a real browser nothing runs and the policy has nothing to complain of.
"""

from __future__ import annotations

import json
import random
import re
import sqlite3
from collections import Counter
from collections.abc import Callable
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import quote

import duckdb
import httpx
import msgspec
import pyarrow as pa
import pytest
from console import ask as asked_of
from console import browsing, serving
from jinja2 import Environment
from markupsafe import Markup
from world import World, action, moment, project

from hetki.cli import accounts
from hetki.dialogues.tracing import why_words
from hetki.dialogues.wording import values_words
from hetki.engine.commands import CannotLink, Matched, MatchedPair, Merge
from hetki.engine.telling import titles, why_moment
from hetki.engine.warming import refuse
from hetki.errors import Fault
from hetki.events.event import IDENTIFIED, Event, LeafId
from hetki.events.wire import Parsed, Rejected
from hetki.identity.columns import clean
from hetki.identity.identifier import Namespace, NodeId, identifier
from hetki.server import graph_svg, pages
from hetki.server.access import Access
from hetki.server.app import PAGES, console_app
from hetki.server.desk import Desk
from hetki.server.effects import Effects
from hetki.server.feed import News
from hetki.server.pages import Pages
from hetki.server.site import COOKIE, NAME_COOKIE
from hetki.settings import DAY, SECOND
from hetki.store.lake import open_lake, refresh
from hetki.store.pages import PageLinks
from hetki.store.ports import Sent
from hetki.store.sqlite import transaction
from hetki.store.system import SystemDisk

MARK = "pwned"
ATOMS = [
    "<img src=x onerror=pwned()>",
    '"><svg/onload=pwned()>',
    "' onmouseover='pwned()",
    "</title></code><script>pwned()</script>",
    "</textarea></select></table><b>",
    "{{ 7*7 }}{% raw %}",
    "javascript:pwned()",
    "&lt;b&gt;&#60;b>",
    "<!-- ]]> <!DOCTYPE",
    "'); DROP TABLE nodes; --",
    '" OR 1=1 --',
    "//evil.example/x",
]
#: Only where line breaks may stand: in the properties of an event.
BREAKS = "\n\nevent: lines\ndata: <i>\r\n\u2028id: 9"
TOLD = (("prior", -9.0), ("name", 7.5), ("city", -1.0))
Say = Callable[[str], str]


def hostile(seed: int) -> Say:
    """A hostile string for each name of a field, the same whenever it is asked for."""

    def say(field: str) -> str:
        draw = random.Random(f"{seed} {field}")
        number = sum(map(ord, field)) % 10_000
        return f"z{number}{draw.choice(ATOMS)}{draw.choice(ATOMS)}z"

    return say


def harmless(say: Say) -> Say:
    """The same strings with a letter for each sign that could mean anything."""
    return lambda field: re.sub(r"[^A-Za-z0-9]", "x", say(field)).replace(MARK, "tamed")


class Scene:
    """A project and a story in the strings that `say` gives, and a browser that is signed in."""

    def __init__(self, folder: Path, say: Say) -> None:
        self.say = say = Asked(say)
        self.world = World(told(say), disk=SystemDisk(folder, durable=False))
        self.engine = self.world.engine
        self.clock = self.world.clock
        self.access = Access(self.engine.disk, self.clock, self.engine.chance)
        self.session = self.access.sign_in(self.access.new_token())
        self.app = console_app(self.engine, self.access)
        self.n = 0
        self.live()
        with transaction(self.engine.db):
            links, now = PageLinks(self.engine.db), self.clock.now()
            self.token = links.make(
                self.engine.state, self.engine.chance, self.customer(), say("by"), now, now + DAY
            )

    def customer(self) -> LeafId:
        node = NodeId(bytes.fromhex(self.node("user_id", self.say("user"))))
        return self.engine.state.customers_of([node])[node]

    def event(self, kind: str, properties: dict[str, object], **names: str) -> None:
        self.n += 1
        now = self.clock.now() + SECOND
        self.clock.move(now)
        say = self.say
        context = {
            "device": {"id": names.pop("device", ""), "type": say("device type"), "model": say("model")},
            "page": {"path": say("page"), "url": say("url"), "title": say("title of a page")},
            "locale": say("locale"),
            "userAgent": say("agent"),
        }
        names = {space: value for space, value in names.items() if value}
        body = msgspec.json.encode(properties)
        raw = msgspec.json.encode(context)
        message = f"{say('message')}{self.n}"
        self.world.accept([Event("web", message, "web", kind, now, now, names, body, raw)])

    def live(self) -> None:
        say = self.say
        anna = {"user_id": say("user"), "anonymous_id": say("anonymous")}
        mail = {"email": "anna@kauppa.fi"}
        traits = {"name": say("name"), "city": say("city"), say("trait"): say("trait value"), "note": BREAKS}
        self.event(IDENTIFIED, traits, **anna, **mail)
        self.event(
            IDENTIFIED, {"name": say("other name")}, user_id=say("other"), anonymous_id=say("anonymous")
        )
        self.event("Consent Granted", {"purpose": "marketing", "notice": say("notice")}, **anna)
        self.event("Account Joined", {"name": say("account name")}, **anna, group_id=say("group"))
        searched = {"n_results": 0, "query": say("query") + BREAKS, say("property"): [say("in a list")]}
        self.event("Help Searched", searched, **anna, device=say("device"))
        self.world.advance()
        self.records()
        body = json.dumps({"type": say("rejected"), "userId": say("rejected user")}).encode()
        fault = Fault(f"batch[0].{say('where')}", say("got"), say("must"), say("hint"))
        self.engine.acceptor.accept([Parsed([], [Rejected("web", self.clock.now(), body, fault)])])
        command = self.engine.acceptor.command
        now = self.clock.now()
        command(
            Merge(
                self.node("user_id", say("user")), self.node("user_id", say("other")), say("who"), now, True
            )
        )
        command(
            CannotLink(self.node("record", "a"), self.node("user_id", say("other")), say("who else"), now)
        )
        self.world.advance()
        self.world.answers = [Sent(False, 500)]
        self.world.deliver("app")
        refuse(self.engine, [fault])

    def records(self) -> None:
        """Two records that linkage finds alike."""
        for row in ("a", "b"):
            fields = {"name": say_of(self, row), self.say("column"): self.say("cell")}
            self.event(IDENTIFIED, fields, record_id=row)
        self.world.advance()
        pair = MatchedPair(self.node("record", "a"), self.node("record", "b"), "possible", 3.0, TOLD)
        self.engine.acceptor.command(Matched(self.say("model version"), [pair], self.clock.now()))
        self.world.advance()

    def node(self, namespace: Namespace, value: str) -> str:
        found = identifier(self.engine.keys.node, namespace, value)
        assert found is not None, value
        return found.node.hex()

    def addresses(self) -> list[str]:
        """Every page of the console, and those that say an error."""
        say = self.say
        customer = self.customer()
        [[account]] = self.world.rows("SELECT account FROM accounts")
        [[decision]] = self.world.rows("SELECT decision_id FROM decisions LIMIT 1")
        [[link]] = self.world.rows("SELECT link_id FROM links WHERE kind = 'possible'")
        assert isinstance(account, bytes) and isinstance(link, bytes)
        given = {
            "customer": customer.hex(),
            "account": account.hex(),
            "name": "seen",
            "decision_id": str(decision),
            "link": link.hex(),
        }
        wild = quote(say("address"), safe="")
        found = [path.format(**given) for path in PAGES]
        found[found.index(f"/customers/{customer.hex()}/why")] += f"?other={quote(say('other'), safe='')}"
        found += [re.sub(r"\{\w+\}", wild, path) for path in PAGES if "{" in path]
        return [
            *found,
            f"/customers?q={wild}",
            f"/outbox?status={wild}",
            f"/{wild}",
            f"/sign-in?token={wild}",
            f"/my/{self.token}",
            f"/my/{self.token}/erase",
            f"/my/{wild}",
        ]

    def get(self, address: str) -> httpx.Response:
        speaker = quote(self.say("speaker"), safe="")
        headers = {"cookie": f"{COOKIE}={self.session}; {NAME_COOKIE}={speaker}"}
        return asked_of(self.app, address, "", headers=headers)


def say_of(scene: Scene, row: str) -> str:
    return scene.say(f"name of record {row}")


def told(say: Say) -> Any:
    """A project whose author is hostile, too."""

    def text(field: str) -> str:
        return json.dumps(say(field))

    files = {
        **action("greet", more=""),
        **moment("seen", "searched: Help Searched where n_results = 0", "greet", more="context: [device]"),
        "templates/greet.liquid": "Subject: {{ customer.name }}\n\n{{ searched.query }} {{ customer.name }}",
    }
    files["moments/seen.yaml"] = (
        files["moments/seen.yaml"]
        .replace("title: seen", f"title: {text('moment title')}")
        .replace("owner: team", f"owner: {text('owner')}")
        .replace('need: "?"', f"need: {text('need')}")
    )
    files["actions/greet.yaml"] = files["actions/greet.yaml"].replace(
        "title: greet", f"title: {text('action title')}"
    )
    files["initiatives/keep_our_word.yaml"] = (
        f"initiative: keep_our_word\ntitle: {text('initiative')}\nowner: {text('its owner')}\n"
        "horizon: mainstream\n"
    )
    return project(files, toml=f"\n[controller]\nname = {text('controller')}\ncontact = {text('contact')}\n")


class Shape(HTMLParser):
    """Which elements a page is built of, with which attributes, and where its links lead."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: Counter[tuple[str, tuple[str, ...]]] = Counter()
        self.away: list[str] = []
        self.strange: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements[tag, tuple(sorted(name for name, _ in attrs))] += 1
        for name, value in attrs:
            if name in ("href", "src", "action", "formaction", "xlink:href"):
                if not re.match(r"(/(?!/)|#|\?)", value or ""):
                    self.away.append(f"{tag} {name}={value}")

    def handle_comment(self, data: str) -> None:
        self.strange.append(data)

    def handle_pi(self, data: str) -> None:
        self.strange.append(data)

    def unknown_decl(self, data: str) -> None:
        self.strange.append(data)


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[Scene, Scene]]:
    """Stories in hostile strings, each with its harmless twin."""
    found = []
    for seed in range(2):
        folder = tmp_path_factory.mktemp("scene")
        found.append(
            (Scene(folder / "hostile", hostile(seed)), Scene(folder / "tame", harmless(hostile(seed))))
        )
    return found


def test_every_page_is_built_of_the_same_elements(scenes: list[tuple[Scene, Scene]]) -> None:
    n_pages = 0
    for scene, tame in scenes:
        for address, other in zip(scene.addresses(), tame.addresses(), strict=True):
            page, twin = scene.get(address), tame.get(other)
            assert page.status_code == twin.status_code in (200, 401, 404), address
            n_pages += page.status_code == 200
            shape, expected = Shape(page.text), Shape(twin.text)
            assert shape.elements == expected.elements, (address, shape.elements - expected.elements)
            assert shape.away == [] and shape.strange == expected.strange == [], address
    assert n_pages >= 2 * (len(PAGES) + 2), "the console's pages, and the customer's own two"


class Raw(Markup):
    """What a programmer would have made who forgot to escape."""

    def format(self, *given: Any, **named: Any) -> Markup:
        return Markup(str.format(self, *given, **named))


@pytest.mark.parametrize("planted", ["pages", "picture"])
def test_what_is_not_escaped_is_found(
    scenes: list[tuple[Scene, Scene]], monkeypatch: pytest.MonkeyPatch, planted: str
) -> None:
    scene, tame = scenes[0]
    address, other = (
        next(each for each in of.addresses() if each.endswith("/identities")) for of in (scene, tame)
    )
    if planted == "pages":
        monkeypatch.setattr(
            pages, "Environment", lambda **given: Environment(**{**given, "autoescape": False})
        )
    else:
        monkeypatch.setattr(graph_svg, "Markup", Raw)
    monkeypatch.setattr(scene, "app", console_app(scene.engine, scene.access))
    assert Shape(scene.get(address).text).elements != Shape(tame.get(other).text).elements


#: Strings that no page shows. All others must be seen, or their fields were not looked at.
UNSEEN = {"agent", "by", "in a list", "its owner", "model", "page", "property", "title of a page", "url"}


class Asked:
    """What `say` was asked for."""

    def __init__(self, say: Say) -> None:
        self.fields: dict[str, str] = {}
        self._say = say

    def __call__(self, field: str) -> str:
        return self.fields.setdefault(field, self._say(field))


def test_every_string_is_there_to_be_read(scenes: list[tuple[Scene, Scene]]) -> None:
    scene, _ = scenes[0]
    assert isinstance(scene.say, Asked)
    told = " ".join(unescape(scene.get(address).text) for address in scene.addresses())
    seen = {field for field, text in scene.say.fields.items() if " ".join(text.split())[:14] in told}
    assert set(scene.say.fields) - seen == UNSEEN


def test_the_feed_has_no_line_of_others(scenes: list[tuple[Scene, Scene]]) -> None:
    for scene, tame in scenes:
        told, twin = ([*map(kind_of, lines_of(each))] for each in (scene, tame))
        assert told == twin and "event: lines" in told and told.count("event: lines") == 1
        data = "\n".join(line.removeprefix("data: ") for line in lines_of(scene) if line.startswith("data: "))
        assert Shape(data).elements and not Shape(data).away and MARK in data


def lines_of(scene: Scene) -> list[str]:
    """The lines of the feed as a browser cuts them."""
    desk = Desk(
        scene.engine,
        Pages("x", "UTC"),
        Effects(scene.engine.disk, scene.clock, []),
        titles(scene.engine.project),
    )
    news = News(desk, 0)
    text = news.text()
    news.close()
    return re.split("\r\n|\n|\r", text)


def kind_of(line: str) -> str:
    return "data" if line.startswith("data: ") else "id" if line.startswith("id: ") else line


def test_no_string_is_in_a_statement(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A story and its pages once more, with every statement written down."""
    statements: list[str] = []

    class Told(sqlite3.Connection):
        """A connection that tells what it is given."""

        def execute(self, sql: str, *values: Any) -> sqlite3.Cursor:
            statements.append(sql)
            return super().execute(sql, *values)

        def executemany(self, sql: str, *values: Any) -> sqlite3.Cursor:
            statements.append(sql)
            return super().executemany(sql, *values)

    connect = sqlite3.connect
    monkeypatch.setattr(
        sqlite3, "connect", lambda *given, **more: connect(*given, **{**more, "factory": Told})
    )
    scene = Scene(tmp_path / "scene", hostile(9))
    for address in scene.addresses():
        scene.get(address)
    for field in ("user", "query", "trait"):
        scene.get(f"/customers?q={quote(scene.say(field), safe='')}")
    refresh(scene.engine.disk, scene.engine.journal, scene.engine.state)
    lake = open_lake(scene.engine.disk)
    assert lake.sql("SELECT count(*) FROM events").fetchall() == [(scene.n,)]
    lake.close()
    assert len(set(statements)) > 100
    assert [each for each in statements if MARK in each or "DROP" in each or "evil" in each] == []
    assert scene.world.rows("SELECT count(*) FROM nodes") != [(0,)]


def test_in_a_browser_nothing_runs_and_nothing_is_complained_of(scenes: list[tuple[Scene, Scene]]) -> None:
    scene, _ = scenes[0]
    complaints: list[str] = []
    with serving(scene) as served, browsing() as browser:  # type: ignore[arg-type]
        page = browser.new_page()
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("dialog", lambda dialog: complaints.append("a dialog"))
        page.add_init_script("window.pwned = () => { window.ran = true; }")
        page.goto(f"{served}/sign-in?token={scene.access.new_token()}")
        for address in scene.addresses():
            page.goto(served + address, wait_until="domcontentloaded")
            assert page.url.startswith(served) and page.evaluate("window.ran === undefined"), address
        assert [each for each in complaints if "status of 4" not in each] == []
        # The same strings as markup: the policy keeps them from running, and says so.
        page.goto(f"{served}/customers", wait_until="domcontentloaded")
        page.evaluate("text => document.body.insertAdjacentHTML('beforeend', text)", "".join(ATOMS))
        page.evaluate("document.querySelector('img[onerror]').dispatchEvent(new Event('error'))")
        assert page.evaluate("window.ran === undefined")
        assert any("Content Security Policy" in each for each in complaints)


def test_names_of_columns_are_names_and_no_more() -> None:
    """A customer table of somebody else's, whose columns are called what they like."""
    names = [*ATOMS, 'a"b', "c'd", "c0", "row_id", "*", "e\nf"]
    tables = pa.table({name: [f"{number}-{row}" for row in range(3)] for number, name in enumerate(names)})
    con = duckdb.connect()
    clean(con, tables, {f"c{number}": name for number, name in enumerate(names)})
    found = con.sql("SELECT * FROM cleaned ORDER BY row_id").fetchall()
    assert found == [(row, *(f"{number}-{row}" for number in range(len(names)))) for row in range(3)]
    assert {name for (name,) in con.sql("SELECT table_name FROM duckdb_tables()").fetchall()} == {"cleaned"}


# -- a terminal


def test_no_string_commands_the_terminal_of_who_reads_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where a command prints what a sender told: what clears a screen, or says what was never said."""
    steps = "joined: Account Joined where name != 'x' | searched: Help Searched where query = joined.name"
    about = moment("known", "seen: Help Searched", more="about: account\nwho: account.name != 'x'")
    about = {path: text.replace("initiative: keep_our_word\n", "") for path, text in about.items()}
    world = World(project({**moment("asked", steps, more="within: 1 day"), **about}))
    evil = "z\x1b[2J\x07\x9b1m\r\nz"
    told = msgspec.json.encode({"name": evil, "query": evil + "!"})
    for name in ("Account Joined", "Help Searched"):
        now = world.clock.now() + SECOND
        names = {"user_id": "anna", "group_id": "acme"}
        world.accept([Event("web", name, "web", name, now, now, names, told)])
    world.advance()
    why = why_moment(world.engine, LeafId(world.node("anna")), "asked")
    lines = why_words(why, world.engine.project.moments["asked"], {}, "UTC")
    lines += [values_words({"query": evil, "n": 1})]
    monkeypatch.setattr(accounts, "opened", lambda folder: world.engine)
    accounts.account("acme")
    lines += capsys.readouterr().out.splitlines()
    assert sum("z" in line and "[2J" in line for line in lines) == 3, "each tells it"
    assert not [line for line in lines if re.search(r"[\x00-\x1f\x7f-\x9f]", line)]
