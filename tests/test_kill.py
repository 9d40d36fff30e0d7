"""What was acknowledged survives: processes beside each other on one store, and kill -9 at any instant."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from http.client import HTTPException
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from keyed import entry
from receiving import SECRET, Receiver
from serving import Command, Warm, eventually, is_alive, post

from hetki.engine.advance import advance
from hetki.engine.commands import Erase, read_command
from hetki.engine.deliver import deliver
from hetki.engine.engine import Engine, open_engine, open_folder
from hetki.engine.erase import finish
from hetki.engine.folding import read_event
from hetki.engine.rebuilding import rebuild
from hetki.engine.receipts import listed
from hetki.events.event import Event
from hetki.identity.identifier import identifier
from hetki.simulation.world import SimulatedClock
from hetki.store.journal import Kind
from hetki.store.lake import open_lake, refresh
from hetki.store.network import SystemNet
from hetki.store.system import SystemDisk

# -- stores that several processes hold at once

COUNTING = """
import sqlite3, sys
db = sqlite3.connect(sys.argv[1], isolation_level=None)
print(db.execute("SELECT count(*) FROM told").fetchone()[0])
db.close()
"""


def counted_elsewhere(file: Path) -> int:
    """What another process, which opens and closes the database, finds in it."""
    ran = subprocess.run([sys.executable, "-c", COUNTING, str(file)], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    return int(ran.stdout)


def test_a_process_that_comes_and_goes_takes_nothing_from_one_that_stays(tmp_path: Path) -> None:
    """A second connection in one process must not drop the locks of the first: else a visitor takes
    itself for the last user, and removes the write-ahead log that the others still write to."""
    disk = SystemDisk(tmp_path)
    first = disk.connect("x.db")
    first.execute("CREATE TABLE told(n INTEGER)")
    second = disk.connect("x.db")
    second.execute("INSERT INTO told VALUES (1)")
    assert counted_elsewhere(tmp_path / "x.db") == 1
    first.execute("INSERT INTO told VALUES (2)")
    assert counted_elsewhere(tmp_path / "x.db") == 2
    second.execute("INSERT INTO told VALUES (3)")
    assert counted_elsewhere(tmp_path / "x.db") == 3


# -- kill -9 under load

N_KILLS = 50
#: `make torture` sets the share of the full number: 1,000 kills.
N_ROUNDS = max(1, round(1_000 / N_KILLS * float(os.environ.get("HETKI_TORTURE", "0"))))
#: In every so many cycles somebody is erased.
ERASED_EVERY = 8
N_SENDERS = 2

FILES = {
    "hetki.toml": """
[hetki]
name = "Kill"
lateness_s = 1
[purposes.service]
title = "What you came for"
basis = "contract"
[destinations.app]
kind = "webhook"
url = "http://127.0.0.1:PORT/messages"
inside = ["localhost"]
secret = "SECRET"
timeout_s = 5
per_s = 1000
""",
    "sources/web.yaml": f"source: web\nchannel: web\nwrite_keys: [{entry('key-web')}]\npurposes: [service]\n",
    "initiatives/help.yaml": "initiative: help\ntitle: h\nowner: t\nhorizon: mainstream\n",
    "actions/call.yaml": (
        "action: call\ntitle: c\npurpose: service\ndestination: app\ntemplate: call\nvalue: {customer: 4}\n"
    ),
    "templates/call.liquid": "Hello.",
    # caught by the second event
    "moments/twice.yaml": """
moment: twice
title: t
owner: t
initiative: help
purpose: service
identify:
  need: "?"
  steps: [{one: Help Searched where n_results = 0}, {two: Help Searched where n_results = 0}]
  within: 1 day
  expires: 1 day
design: {answers: [call]}
analyse: {solved: no Contact Started within 24 hours, holdout: 20%}
""",
    # caught by time alone
    "moments/silent.yaml": """
moment: silent
title: s
owner: t
initiative: help
purpose: service
identify:
  need: "?"
  steps: [put: Product Added, no bought: "Order Completed, for 1 second"]
  expires: 1 day
design: {answers: [call]}
analyse: {solved: no Contact Started within 24 hours, holdout: 0%}
""",
}


class Sender:
    """Sends batches one after the other, each until it is acknowledged or, now and then, given up."""

    def __init__(self, number: int, address: Callable[[], tuple[str, int]]) -> None:
        self.acknowledged: set[str] = set()
        self.sent: set[str] = set()
        self.twice: set[str] = set()
        self.silent: set[str] = set()
        self.stopping = threading.Event()
        self._number = number
        self._dice = random.Random(number)
        self._address = address
        self._thread = threading.Thread(target=self._run)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self.stopping.set()
        self._thread.join()

    def _run(self) -> None:
        n = 0
        while not self.stopping.is_set():
            ids, body = self._batch(n)
            self.sent.update(ids)
            while not self.stopping.is_set():
                self.stopping.wait(0.002)
                if self._tell(body):
                    self.acknowledged.update(ids)
                    if self._dice.random() < 0.9:
                        break  # else once more, as a client does that did not hear the answer
                elif self._dice.random() < 0.02:
                    break
            n += 1

    def _batch(self, n: int) -> tuple[list[str], bytes]:
        """Events of passers-by, and now and then of one who looks for help in vain, or buys nothing."""
        whose = f"u{self._number}-{n}u"
        events: list[dict[str, object]] = [
            {"type": "page", "name": "Home", "anonymousId": f"a{self._number}-{self._dice.randrange(200)}"}
            for _ in range(3)
        ]
        if n % 8 == 0:
            searched = {"type": "track", "event": "Help Searched", "userId": whose}
            events += [{**searched, "properties": {"n_results": 0}}] * 2
        elif n % 8 == 4:
            events.append({"type": "track", "event": "Product Added", "userId": whose})
        ids = [f"{whose if k >= 3 else f'passer-by {self._number}-{n}'}-{k}" for k in range(len(events))]
        said = [{**event, "messageId": each} for event, each in zip(events, ids, strict=True)]
        (self.twice if n % 8 == 0 else self.silent if n % 8 == 4 else set()).add(ids[-1])
        return ids, json.dumps({"batch": said, "writeKey": "key-web"}).encode()

    def _tell(self, body: bytes) -> bool:
        try:
            status, _ = post(self._address(), "/v1/batch", body)
        except (OSError, HTTPException, ValueError):
            time.sleep(0.01)
            return False
        assert status in (200, 429, 503), status
        return status == 200


class Moving:
    """Whether a number has grown since the first look."""

    def __init__(self, look: Callable[[], int]) -> None:
        self._look = look
        self._first = look()

    def __call__(self) -> bool:
        return self._look() > self._first


class Served:
    """The project of these stories, served by processes that are killed."""

    def __init__(self, folder: Path, port: int) -> None:
        self.folder = folder
        for name, text in FILES.items():
            file = folder / "project" / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text.replace("PORT", str(port)).replace("SECRET", SECRET))
        self.warm = Warm(folder)
        self.n_kills: Counter[str] = Counter()
        self.orphans: list[int] = []
        self.erasing: dict[str, Command] = {}
        self.told_staff: set[Path] = set()
        self.start()
        self._state = SystemDisk(folder / "project" / "data").connect("state.db")

    def start(self) -> None:
        self.command = self.warm.start("serve", "-C", str(self.folder / "project"), "--port", "0")
        self.address = self.command.address()

    def kill(self, what: str) -> None:
        """kill -9 of everything; of the worker (the server starts another); or of the server alone (its
        worker ends by itself, and the next server does not wait for that)."""
        self.n_kills[what] += 1
        worker = self.command.worker()
        if what == "worker":
            os.kill(worker, signal.SIGKILL)
            return
        if what == "server":
            self.orphans.append(worker)
            self.command.signal(signal.SIGKILL)
            self.command.wait()
        else:
            self.command.kill()
        self.start()

    def erase(self, who: str) -> None:
        """Erase somebody, beside the server; every other time that is killed, too."""
        command = self.warm.start("erase", who, "--by", "desk", "-C", str(self.folder / "project"))
        self.erasing[who] = command
        self.told_staff.add(command.out)
        if len(self.erasing) % 2:
            time.sleep(0.2)
            self.erasing[who].kill()

    def promised(self) -> set[str]:
        """Those of whom it was said that they are erased."""
        return {who for who, command in self.erasing.items() if command.wait() == 0}

    def folded_to(self) -> int:
        """The journal position that the worker has reached."""
        progress = self._state.execute("SELECT position FROM progress").fetchone()
        return progress[0] if progress else 0


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    found = Receiver(seed=1)
    yield found
    found.stop()


@pytest.fixture
def served(tmp_path: Path, receiver: Receiver) -> Iterator[Served]:
    if not Path("/proc/self/stat").exists():
        pytest.skip("without /proc the worker's process id is not known")
    found = Served(tmp_path, receiver.port)
    yield found
    found.warm.stop()


@pytest.mark.parametrize("number", range(N_ROUNDS))
def test_killed_at_any_instant_nothing_acknowledged_is_missing_and_no_effect_is_doubled(
    number: int, served: Served, receiver: Receiver
) -> None:
    dice = random.Random(20_260_302 + number)
    senders = [Sender(number * N_SENDERS + each, lambda: served.address) for each in range(N_SENDERS)]
    for sender in senders:
        sender.start()
    try:
        for cycle in range(N_KILLS):
            acknowledges = Moving(lambda: sum(len(each.acknowledged) for each in senders))
            eventually("load that is acknowledged", acknowledges)
            if cycle % 2:  # else it may be hit while it starts
                eventually("a worker that folds", Moving(served.folded_to))
            time.sleep(dice.uniform(0.0, 0.25))  # the instant of the kill, anywhere in the work
            if cycle % ERASED_EVERY == ERASED_EVERY - 1:
                served.erase(whose(dice.choice(sorted(senders[0].twice & senders[0].acknowledged))))
            served.kill(dice.choice(("all", "worker", "server")))
        assert served.n_kills.total() == N_KILLS and len(served.n_kills) == 3
    finally:
        for sender in senders:
            sender.stop()
        served.command.kill()
    eventually("the end of workers without a server", lambda: not any(map(is_alive, served.orphans)))
    promised = served.promised()
    engine = caught_up(str(served.folder / "project"))
    gone = erased(engine, senders)
    assert promised <= gone and gone
    n_acknowledged = sum(len(each.acknowledged) for each in senders)
    print({"acknowledged": n_acknowledged, "repeats": receiver.n_repeats, "erased": len(gone)})
    acknowledged_is_stored(engine, senders, gone)
    every_occurrence_is_decided_once(engine, senders, gone)
    every_answer_has_one_effect(engine, receiver, gone)
    everything_can_be_made_again(engine)
    no_byte_is_left(served.folder, gone, served.told_staff)


def caught_up(folder: str) -> Engine:
    """The project when all is folded and every message is sent, waits included."""
    was = open_folder(folder)
    clock = SimulatedClock(was.clock.now())
    engine = open_engine(was.project, was.disk, clock, was.chance, {})
    for _ in range(40):
        advance(engine)
        finish(engine)
        deliver(engine, SystemNet(["localhost"]), "app", 10_000)
        waiting = engine.db.execute(
            "SELECT min(due_at) FROM outbox WHERE status IN ('waiting', 'claimed')"
        ).fetchone()[0]
        if waiting is None:
            break
        clock.move(waiting)
        clock.sleep(15)  # longer than a pause of the breaker
    else:
        raise AssertionError("the outbox never empties")
    advance(engine)
    return engine


def whose(message_id: str) -> str:
    """Who an event is of."""
    return message_id.rpartition("-")[0]


def erased(engine: Engine, senders: list[Sender]) -> set[str]:
    """Those whom the journal says to be erased; each has a genuine receipt."""
    entries = [each for each in engine.journal.read(0, 10**9) if each.kind is Kind.COMMAND]
    commands = [read_command(each.body) for each in entries if each.body is not None]
    erasures = [each for each in commands if isinstance(each, Erase)]
    leaves = {leaf for each in erasures for leaf in each.leaves}
    found = set()
    for message_id in set().union(*(each.twice for each in senders)):
        named = identifier(engine.keys.node, "user_id", whose(message_id))
        if named is not None and named.node.hex() in leaves:
            found.add(whose(message_id))
    receipts = listed(engine.journal.secrets, engine.db)
    assert len(receipts) == len(erasures) == len(found) and all(each.is_genuine for each in receipts)
    return found


def no_byte_is_left(folder: Path, gone: set[str], told_staff: set[Path]) -> None:
    """Nothing is left of who was erased, in any file, but where a command answered who typed the name."""
    for path in set(folder.rglob("*")) - told_staff:
        if path.is_file():
            is_table = path.suffix == ".parquet"
            data = repr(pq.ParquetFile(path).read().to_pylist()).encode() if is_table else path.read_bytes()
            assert not [who for who in gone if who.encode() in data], path


def acknowledged_is_stored(engine: Engine, senders: list[Sender], gone: set[str]) -> None:
    """Every acknowledged event is folded, once; what is stored and was not acknowledged was sent."""
    events = [each for each in engine.journal.read(0, 10**9) if each.kind is Kind.EVENT]
    told = {each.event_id: read_event(each) for each in events}
    stored = {each.message_id for each in told.values() if each is not None and each.source == "web"}
    acknowledged = set().union(*(sender.acknowledged for sender in senders))
    assert len(acknowledged) > 1_000, "there was load"
    searched = {f"{who}-{number}" for who in gone for number in (3, 4)}
    assert not searched & stored, "what was erased can be read"
    assert acknowledged - searched <= stored <= set().union(*(sender.sent for sender in senders))
    assert len(events) > len(told), "some came twice"
    assert engine.db.execute("SELECT count(*) FROM events").fetchone() == (len(told),)
    counts = engine.state.counts()
    assert (counts["events"], counts["duplicates"]) == (len(told), len(events) - len(told))
    refresh(engine.disk, engine.journal, engine.state)
    lake = open_lake(engine.disk)
    ids = [(each.hex(),) for each in sorted(told) if told[each] is not None]
    assert lake.execute("SELECT event_id FROM events ORDER BY event_id").fetchall() == ids


def every_occurrence_is_decided_once(engine: Engine, senders: list[Sender], gone: set[str]) -> None:
    """Whoever completed a moment in what was acknowledged is decided, once, and nobody else is."""
    decided = Counter(row[0] for row in engine.db.execute("SELECT occurrence_id FROM decisions"))
    caught = {row[0] for row in engine.db.execute("SELECT occurrence_id FROM occurrences")}
    assert set(decided) == caught and set(decided.values()) == {1}
    assert engine.db.execute("SELECT count(*) FROM missed").fetchone() == (0,)
    for moment in ("twice", "silent"):
        ends = {each for sender in senders for each in getattr(sender, moment) if whose(each) not in gone}
        acknowledged = ends & set().union(*(sender.acknowledged for sender in senders))
        n = engine.db.execute("SELECT count(*) FROM decisions WHERE moment = ?", (moment,)).fetchone()[0]
        assert 20 < len(acknowledged) <= n <= len(ends)


def every_answer_has_one_effect(engine: Engine, receiver: Receiver, gone: set[str]) -> None:
    """One message per answer, one effect per message, and one event that tells of it."""
    answered = {
        row[0] for row in engine.db.execute("SELECT decision_id FROM decisions WHERE chosen = 'call'")
    }
    # a message that was being sent when its customer was erased stays as an empty row
    outbox = engine.db.execute(
        "SELECT message_id, decision_id, status FROM outbox WHERE recipient <> ''"
    ).fetchall()
    assert receiver.wrong == []
    assert {row[2] for row in outbox} == {"sent"}
    assert len(outbox) == len(answered) and {row[1] for row in outbox} == answered
    effects = {each for each, body in receiver.effects.items() if recipient_of(body) not in gone}
    assert effects == {row[0] for row in outbox}
    events = [each for each in engine.journal.read(0, 10**9) if each.kind is Kind.EVENT]
    told = {each.event_id: read_event(each) for each in events}
    own = [event for event in told.values() if isinstance(event, Event) and event.source == "hetki"]
    assert {event.name for event in own} == {"Message Sent"}
    deeds = Counter(json.loads(event.properties)["decision_id"] for event in own)
    assert set(deeds.values()) == {1} and answered <= set(deeds)
    assert len(deeds) - len(answered) <= len(gone)
    assert receiver.n_repeats > 0, "some answers were lost on their way back"


def recipient_of(body: bytes) -> str:
    return str(json.loads(body)["data"]["recipient"])


def everything_can_be_made_again(engine: Engine) -> None:
    n_rows, _ = engine.journal.head()
    assert engine.journal.verify() == n_rows
    rebuilt = rebuild(engine)
    assert rebuilt.before == rebuilt.after
    for name in ("journal.db", "state.db", "secrets.db"):
        assert engine.disk.connect(name).execute("PRAGMA integrity_check").fetchone() == ("ok",)
