"""A small world for the tests of the engine: a project from texts, a clock that is moved, tables of text.

An event is a line: when it happened, `>` when it arrived (if later), its source, whose it is, what it is:

    10:00>10:20 web u=anna a=web1 mail=anna@kauppa.fi Order Completed order_id=o1

`u`, `a`, `p`, `mail`, `tel` and `g` are identifiers (user, anonymous, previous id, e-mail, phone, account),
`gpc` a header.
A line is its own message id, so the same line again is a repeat; `id=` gives another. Times are of
2 March 2026 (UTC); `2/10:00` is the next day. What comes out is lines, too.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from functools import cache

import msgspec

from hetki.decisions.question import Decision
from hetki.engine.advance import BATCH_MAX, advance, catch_up
from hetki.engine.changing import target
from hetki.engine.commands import CannotLink, Merge, Unmerge
from hetki.engine.deliver import Delivered, deliver
from hetki.engine.engine import Engine, open_engine
from hetki.engine.folding import decode_occurrence
from hetki.engine.project import Project, load
from hetki.engine.rebuilding import rebuild
from hetki.engine.warming import begin, kept_project, warm_once
from hetki.events.event import Event, instant
from hetki.events.wire import Parsed
from hetki.identity.identifier import Namespace, identifier
from hetki.settings import DAY, SECOND
from hetki.simulation.world import LocalNet, MemoryDisk, SeededChance, SimulatedClock
from hetki.store.ports import Disk, Sent

ORIGIN = instant(datetime(2026, 3, 2, tzinfo=UTC))
IDENTIFIERS = {"u": "user_id", "a": "anonymous_id", "p": "previous_id", "mail": "email", "tel": "phone"} | {
    "g": "group_id"
}
#: A line without these is its words.
QUOTED = re.compile(r"""["'\\]""")
SECRET = "whsec_aGV0a2ktdGVzdHMtaGV0a2ktdGVzdHMtaGV0a2k="

TOML = f"""
[hetki]
name = "World"
lateness_s = 60
[purposes.service]
title = "What you came for"
basis = "contract"
[purposes.marketing]
title = "Offers"
basis = "consent"
gpc = true
[destinations.app]
kind = "webhook"
url = "http://localhost:9/app"
inside = ["localhost"]
secret = "{SECRET}"
[destinations.mail]
kind = "email"
server = "localhost:1025"
inside = ["localhost"]
sender = "hello@kauppa.fi"
"""


def _moment(name: str, purpose: str, steps: str, answers: str, more: str, holdout: str) -> str:
    return f"""
moment: {name}
title: {name}
owner: team
initiative: keep_our_word
purpose: {purpose}
identify:
  need: "?"
  steps: [{steps}]
{more}
design: {{answers: [{answers}]}}
analyse: {{solved: no Contact Started within 24 hours, holdout: {holdout}}}
"""


def moment(
    name: str,
    steps: str,
    answers: str = "call",
    purpose: str = "service",
    more: str = "",
    holdout: str = "0%",
) -> dict[str, str]:
    """The file of a moment; `steps` are separated by `|`, `more` holds further lines of `identify`."""
    listed = ", ".join(f'{{"{a.strip()}": "{b.strip()}"}}' for a, b in _split(steps))
    more = more if "expires:" in more else f"expires: 20 minutes\n{more}"
    lines = "\n".join(f"  {line.strip()}" for line in more.strip().splitlines())
    return {f"moments/{name}.yaml": _moment(name, purpose, listed, answers, lines, holdout)}


def _split(steps: str) -> list[tuple[str, str]]:
    return [(a, b) for a, _, b in (step.partition(":") for step in steps.split("|"))]


def action(
    name: str, purpose: str = "service", destination: str = "app", customer: float = 4, more: str = ""
) -> dict[str, str]:
    """The files of an action and its template."""
    text = f"""
action: {name}
title: {name}
purpose: {purpose}
destination: {destination}
template: {name}
value: {{customer: {customer}}}
{more}
"""
    return {f"actions/{name}.yaml": text, f"templates/{name}.liquid": f"Subject: {name}\n\nHello, {name}."}


def source(name: str, purposes: str) -> dict[str, str]:
    """The file of a source and what its data may be used for."""
    return {f"sources/{name}.yaml": f"source: {name}\nchannel: {name}\npurposes: [{purposes}]\n"}


FILES = {
    "hetki.toml": TOML,
    "initiatives/keep_our_word.yaml": "initiative: keep_our_word\ntitle: k\nowner: t\nhorizon: mainstream\n",
    **source("web", "service, marketing"),
    **source("app", "service, marketing"),
    **source("shop", "service"),
    **action("call"),
    **action("remind", "marketing", "mail"),
    # searched in vain, and no chat for ten minutes
    **moment("help", "searched: Help Searched where n_results = 0 | no chat: Chat Started, for 10 minutes"),
    # put into the basket and not bought, for half an hour; needs consent
    **moment(
        "basket",
        "added: Product Added | no bought: Order Completed, for 30 minutes",
        "remind",
        "marketing",
        "repeat: once per 1 hour",
    ),
    # ends with an event, under consent
    **moment(
        "again",
        "one: Product Viewed | two: Product Viewed where product_id = one.product_id",
        "call, remind",
        "marketing",
        "within: 2 hours",
    ),
    # a deadline taken from a field
    **moment(
        "promise",
        "late: Delivery Delayed | no chat: Chat Started where order_id = late.order_id, by late.promised_at",
        more="repeat: once per late.order_id",
    ),
}


@cache
def _loaded(files: tuple[tuple[str, str], ...]) -> Project:
    disk = MemoryDisk()
    for name, text in files:
        disk.write(name, text.encode())
    return load(disk)


def project(changes: Mapping[str, str | None] | None = None, toml: str = "") -> Project:
    """The project above with other files (None: without the file) and further lines of `hetki.toml`."""
    files = {**FILES, **(changes or {})}
    files["hetki.toml"] = (files["hetki.toml"] or "") + toml
    return _loaded(tuple(sorted((name, text) for name, text in files.items() if text is not None)))


def at(text: str) -> int:
    """`10:00`, `10:00:30` or `2/10:00` as an instant."""
    day, _, clock = text.rpartition("/")
    hours, minutes, *seconds = (int(part) for part in clock.split(":"))
    return ORIGIN + (int(day or 1) - 1) * DAY + (hours * 3600 + minutes * 60 + sum(seconds)) * SECOND


def clock(when: int) -> str:
    """An instant as it is written in the tables."""
    day, rest = divmod(when - ORIGIN, DAY)
    hours, rest = divmod(rest // SECOND, 3600)
    text = f"{hours:02}:{rest // 60:02}" + (f":{rest % 60:02}" if rest % 60 else "")
    return f"{day + 1}/{text}" if day else text


def lines(text: str) -> list[str]:
    """A table as its lines, without empty ones and the white space around."""
    return [line.strip() for line in text.splitlines() if line.strip()]


def event(line: str) -> Event:
    """One line as an event."""
    when, source_name, *words = shlex.split(line) if QUOTED.search(line) else line.split()
    occurred, _, received = when.partition(">")
    given = dict(word.partition("=")[::2] for word in words if "=" in word)
    names = [word for word in words if "=" not in word and word != "gpc"]
    message_id = given.pop("id", f"{occurred} {source_name} {' '.join(words)}"[-100:])
    identifiers = {full: given.pop(short) for short, full in IDENTIFIERS.items() if short in given}
    return Event(
        source=source_name,
        message_id=message_id,
        channel=source_name,
        name=" ".join(names),
        occurred_at=at(occurred),
        received_at=at(received or occurred),
        identifiers=identifiers,
        properties=msgspec.json.encode({name: _value(text) for name, text in given.items()}),
        gpc="gpc" in words,
    )


def _value(text: str) -> object:
    try:
        return msgspec.json.decode(text)
    except msgspec.DecodeError:
        return text


class World:
    """A running engine and the tables it shows. `batch_max` is the size of its micro-batches."""

    def __init__(
        self,
        with_project: Project | None = None,
        disk: Disk | None = None,
        seed: int = 1,
        batch_max: int = BATCH_MAX,
        starts: str = "06:00",
    ) -> None:
        self.disk = disk or MemoryDisk()
        self.clock = SimulatedClock(at(starts))
        self.chance = SeededChance(seed)
        self.batch_max = batch_max
        self.environment: dict[str, str] = {}
        self.answers: list[Sent] = []
        self.posts: list[tuple[dict[str, str], bytes]] = []
        self.mails: list[tuple[str, bytes]] = []
        self._in_force: dict[str, Project | None] = {}
        self.net = LocalNet(self._posted, self._mailed)
        self.engine = self._open(with_project or project())

    def _open(self, with_project: Project) -> Engine:
        return open_engine(with_project, self.disk, self.clock, self.chance, self.environment)

    def reopen(self, with_project: Project | None = None) -> None:
        """Another process on the same disk, perhaps with other declarations."""
        self.engine = self._open(with_project or self.engine.project)

    # -- what happens

    def tell(self, text: str) -> None:
        """Accept all lines in one body, when the last of them has arrived; nothing is folded."""
        self.accept([event(line) for line in lines(text)])

    def accept(self, events: list[Event]) -> None:
        """Accept events in one body."""
        self.clock.move(max(each.received_at for each in events))
        self.engine.acceptor.accept([Parsed(events, [])])

    def live(self, text: str) -> None:
        """Each line by itself, as it arrives: accepted, folded, decided."""
        for line in lines(text):
            self.tell(line)
            self.advance()

    def until(self, when: str) -> None:
        """Let time pass to an instant."""
        self.clock.move(at(when))
        self.advance()

    def advance(self) -> None:
        advance(self.engine, self.batch_max)

    def catch_up(self) -> None:
        """Fold and decide under the declarations in force, whatever is being warmed."""
        catch_up(self.engine, self.batch_max)

    def warm(self, with_project: Project, n_max: int = 1) -> bool:
        """One step towards other declarations, as a worker takes it; it uses them once they are in force."""
        progress = self.engine.state.progress()
        assert progress is not None
        if progress.program not in self._in_force:
            self._in_force[progress.program] = kept_project(self.engine.ledger, progress.program)
        found = target(with_project, progress.program, self._in_force[progress.program])
        begin(self.engine, found)
        is_over = warm_once(self.engine, found, n_max)
        if is_over:
            self.reopen(with_project)
        return is_over

    def deliver(self, destination: str = "app") -> Delivered:
        return deliver(self.engine, self.net, destination)

    def merge(self, a: str, b: str, despite_unique: bool = True) -> None:
        """A person says that two user ids (or `a=` anonymous ids) are one customer."""
        said_at = self.clock.now()
        command = Merge(self.node(a).hex(), self.node(b).hex(), "agent", said_at, despite_unique)
        self.engine.acceptor.command(command)

    def cannot(self, a: str, b: str) -> None:
        """A person says that two user ids (or `a=` anonymous ids) are not one customer."""
        said_at = self.clock.now()
        self.engine.acceptor.command(CannotLink(self.node(a).hex(), self.node(b).hex(), "agent", said_at))

    def unmerge(self, kind: str = "merge", place: int = -1) -> None:
        """A person takes back one link of a kind, by its place in order of time: the latest."""
        rows = self.engine.db.execute(
            "SELECT link_id FROM links WHERE kind = ? AND revoked_at IS NULL ORDER BY linked_at, link_id",
            (kind,),
        ).fetchall()
        self.engine.acceptor.command(Unmerge(rows[place][0].hex(), "agent", self.clock.now()))

    def _posted(self, url: str, headers: dict[str, str], body: bytes) -> Sent:
        self.posts.append((headers, body))
        return self.answers.pop(0) if self.answers else Sent(True, 200)

    def _mailed(self, server: str, sender: str, recipient: str, message: bytes) -> Sent:
        self.mails.append((recipient, message))
        return self.answers.pop(0) if self.answers else Sent(True, 250)

    # -- what can be seen

    def node(self, name: str) -> bytes:
        """The node of a user id, of an anonymous id written `a=web1`, or of another, as `record=crm:1`."""
        short, _, value = name.rpartition("=")
        namespace: Namespace = {"": "user_id", "a": "anonymous_id"}.get(short, short)
        found = identifier(self.engine.keys.node, namespace, value)
        assert found is not None
        return bytes(found.node)

    def rows(self, query: str, *values: object) -> list[tuple[object, ...]]:
        return list(self.engine.db.execute(query, values).fetchall())

    def name_of(self, customer: object) -> str:
        """The present customer of a leaf by its user ids, else by whatever identifies it; an account by its
        group id."""
        for (group,) in self.rows("SELECT group_id FROM accounts WHERE account = ?", customer):
            return str(group)
        present = "SELECT customer FROM nodes WHERE node = ?"
        rows = self.rows(
            f"SELECT namespace, value FROM nodes WHERE customer = ({present}) ORDER BY 2", customer
        )
        for namespace in ("user_id", "anonymous_id", "email", "phone"):
            values = [str(value) for space, value in rows if space == namespace]
            if values:
                return "+".join(values)
        return "nobody"

    def customers(self) -> list[str]:
        """One line per customer: its identifiers."""
        found: dict[object, list[str]] = {}
        for customer, value in self.rows("SELECT customer, value FROM nodes ORDER BY value"):
            found.setdefault(customer, []).append(str(value))
        return sorted(" ".join(dict.fromkeys(values)) for values in found.values())

    def refusals(self) -> list[str]:
        """The links that were refused: `anna - web1: two_user_ids`."""
        rows = self.rows(
            "SELECT a.value, b.value, refusal FROM links JOIN nodes a ON a.node = node_a"
            " JOIN nodes b ON b.node = node_b WHERE refusal <> '' AND revoked_at IS NULL"
        )
        return sorted(" - ".join(sorted(map(str, row[:2]))) + f": {row[2]}" for row in rows)

    def occurrences(self, moment_name: str = "") -> list[str]:
        """`10:10 help anna: 10:00`: when, which, whose, and when its events were."""
        found = []
        for row in self.rows("SELECT customer, body FROM occurrences ORDER BY occurred_at, moment, 1"):
            occurrence = decode_occurrence(row[1])
            if moment_name in ("", occurrence.moment):
                bound = " ".join(clock(each.occurred_at) for each in occurrence.bound)
                whose = self.name_of(row[0])
                found.append(f"{clock(occurrence.occurred_at)} {occurrence.moment} {whose}: {bound}")
        return found

    def decisions(self) -> list[str]:
        """`10:11 help anna answered call`: when it was decided, for whom, the arm, and what."""
        rows = self.rows("SELECT decided_at, moment, customer, arm, chosen FROM decisions ORDER BY 1")
        told = [(number(r[0]), f"{r[1]} {self.name_of(r[2])} {r[3]} {r[4]}") for r in rows]
        return [f"{clock(when)} {text}" for when, text in sorted(told)]

    def records(self) -> list[Decision]:
        """The decisions as they were recorded."""
        rows = self.rows("SELECT decision_id FROM decisions ORDER BY decided_at, decision_id")
        found = [self.engine.ledger.decision(str(row[0])) for row in rows]
        return [each for each in found if each is not None]

    def outbox(self) -> list[str]:
        """`10:11 call to anna: sent`: when it is due or was sent, to whom, how it stands, and why."""
        rows = self.rows(
            "SELECT iif(status = 'sent', sent_at, due_at), action, recipient, status, detail FROM outbox"
            " ORDER BY 1, 2, 3"
        )
        return [f"{clock(number(r[0]))} {r[1]} to {r[2]}: {r[3]} {r[4]}".strip() for r in rows]

    def revisions(self) -> list[str]:
        """`retracted help: late event; decided: call, message cancelled`."""
        rows = self.rows("SELECT kind, moment, cause, detail FROM revisions ORDER BY revised_at, 1, 2")
        return [f"{r[0]} {r[1]}: {r[2]}; {r[3]}" for r in rows]

    def missed(self) -> list[str]:
        rows = self.rows("SELECT occurred_at, moment, customer FROM missed ORDER BY 1, 2, 3")
        return [f"{clock(number(r[0]))} {r[1]} {self.name_of(r[2])}" for r in rows]

    def assert_rebuilds(self) -> None:
        """Every projection deleted and folded again is the same."""
        rebuilt = rebuild(self.engine)
        assert rebuilt.before == rebuilt.after


def caught_either_way(moment: str, story: str, until: str) -> list[str]:
    """The occurrences of a moment in a story, told live and told at once: the same."""
    live, at_once = World(), World()
    live.live(story)
    at_once.tell(story)
    for world in (live, at_once):
        world.until(until)
        world.assert_rebuilds()
    assert live.occurrences(moment) == at_once.occurrences(moment)
    return live.occurrences(moment)


def number(value: object) -> int:
    assert isinstance(value, int)
    return value


def bodies(told: Iterable[tuple[dict[str, str], bytes]]) -> list[dict[str, object]]:
    """The data of received webhooks."""
    return [msgspec.json.decode(body)["data"] for _, body in told]
