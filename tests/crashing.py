"""A life of an engine on the faulty disk: a seed gives what is done, what goes wrong, and what must hold.

`Life(seed).live()` draws operations (accept, repeat, advance, deliver, merge, declare, ...) for two processes
in turn and lets `Fate` strike; then nothing goes wrong any more, and everything is brought to its end.
What must hold then is in `holding.py`. A seed is the bug report: `Life(seed)` does the same again.
"""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Callable
from contextlib import suppress

import msgspec
from crash_receiver import Receiver
from crash_scene import (
    BEGINS,
    BROWSERS,
    HER_WITHDRAWAL,
    MARKETING,
    PEOPLE,
    STORIES,
    VERA,
    WORDS,
    began,
    kept,
    prepared,
    projects,
    repaired,
)
from faults import Crashed, Fate, Process, Strike, What
from world import at, clock, event

from hetki.engine import repair as repairing
from hetki.engine.advance import advance
from hetki.engine.changing import target
from hetki.engine.commands import CannotLink, Merge, Unmerge
from hetki.engine.deliver import deliver
from hetki.engine.engine import Engine, open_engine
from hetki.engine.rebuilding import rebuild
from hetki.engine.warming import begin, warm_once
from hetki.errors import Conflict, Fault, Unavailable
from hetki.events.event import Event
from hetki.events.wire import Parsed, Rejected
from hetki.identity.identifier import identifier
from hetki.settings import SECOND
from hetki.simulation.world import LocalNet, MemoryDisk, SeededChance, SimulatedClock
from hetki.store.lake import refresh


class Life:
    """Two processes on one disk, clients that tell them of events, and destinations."""

    def __init__(self, seed: int, plan: list[Strike] | None = None, n_operations: int = 0) -> None:
        self.seed = seed
        self.dice = random.Random(f"life {seed}")
        self.n_operations = n_operations or (7 if seed < 2_000 else 12)  # later ones are longer
        self.about = list(STORIES)[seed % len(STORIES)]
        is_blank = seed % 16 == 15
        self.has_lake = self.about == "refresh"
        self.fate = Fate(self._drawn_plan() if plan is None else plan, is_blank)
        self.fate.visit = self._visit
        self.is_rough = True
        self.clock = SimulatedClock(at(BEGINS))
        self.chance = SeededChance(seed)
        self.disk = MemoryDisk()
        if not is_blank:
            _copy(prepared(), self.disk)
        self.receiver = Receiver(self, seed)
        self.net = LocalNet(self.receiver.post, self.receiver.mail)
        self.told: dict[str, Event] = {}
        self.acknowledged: set[str] = set()
        self.unanswered: list[list[Event]] = []
        if is_blank:
            self.unanswered.append(began())
        self.told.update((each.message_id, each) for each in began())
        self.folder = projects()[0]
        self._processes: list[tuple[Process, Engine] | None] = [None, None]
        self._running: Process | None = None
        self._observer: sqlite3.Connection | None = None
        self._is_withdrawn = False
        self._is_visited = False

    def _drawn_plan(self) -> list[Strike]:
        """One to three strikes, half of them crashes; the first is aimed at what the life is about."""
        dice = random.Random(f"fate {self.seed}")
        kinds: tuple[What, ...] = ("crash", "crash", "crash", "crash", "full", "lost", "unsure", "visit")
        aim = "deliver" if self.about == "late" else self.about
        plan = [Strike(dice.randint(1, 12), dice.choice(kinds), aim)]
        others = range(dice.randint(0, 2))
        return plan + [Strike(dice.randint(1, 40), dice.choice(kinds)) for _ in others]

    def live(self) -> None:
        """All operations, then the end, in which nothing goes wrong."""
        if self.fate.is_blank:
            self.do("accept", self._accept, self.dice.randrange(2))
        for name in self._drawn():
            number = self.dice.randrange(2)
            self.clock.sleep(self.dice.choice((0, 5, 60, 180, 700)))
            self.do(name, OPERATIONS[name][1].__get__(self), number)
        self.settle()

    def _drawn(self) -> list[str]:
        """The names of all operations: the story, and others."""
        weights = [weight for weight, _ in OPERATIONS.values()]
        told = STORIES[self.about].split()
        return told + self.dice.choices(list(OPERATIONS), weights, k=self.n_operations - len(told))

    def do(self, name: str, operation: Callable[[Engine], None], number: int) -> None:
        """One operation in one of the processes; it may die of it, or be refused."""
        self.fate.operation = name
        self._is_visited = False
        try:
            operation(self.engine(number))
        except (Crashed, Unavailable):
            self.kill(number)
            if self.dice.random() < 0.3:
                self.kill(1 - number)
        except Conflict:  # another process has taken up other declarations
            self.kill(number)
        finally:
            self.fate.operation = ""

    def engine(self, number: int) -> Engine:
        """One of the two processes, started if it is not there, or stands under other declarations."""
        found = self._processes[number]
        if found is None or found[1].project is not self.folder:
            self.kill(number)
            process = Process(self.disk, self.fate)
            engine = self._opened(process)
            found = self._processes[number] = (process, engine)
        self._running = found[0]
        return found[1]

    def _opened(self, process: Process) -> Engine:
        """An engine of a process; to open one is an operation of its own."""
        was, self.fate.operation = self.fate.operation, "open"
        self._running = process
        try:
            return open_engine(self.folder, process, self.clock, self.chance, {})
        except BaseException:
            process.end()
            raise
        finally:
            self.fate.operation = was

    def kill(self, number: int) -> None:
        found = self._processes[number]
        if found is not None:
            found[0].end()
            self._processes[number] = None

    def point(self, place: str) -> None:
        """A point outside the disk."""
        assert self._running is not None
        self.fate.point(self._running, "network", place)

    def look(self, query: str, *values: object) -> list[tuple[object, ...]]:
        """What is committed in `state.db`."""
        if self._observer is None:
            self._observer = self.disk.connect("state.db")
        return self._observer.execute(query, values).fetchall()

    def must_be_sent(self, message_id: str) -> None:
        """What must hold, and be durable, at the instant of sending."""
        rows = self.look(
            "SELECT o.status, d.chosen, d.occurrence_id, o.recipient FROM outbox o JOIN decisions d"
            " USING (decision_id) WHERE o.message_id = ?",
            message_id,
        )
        assert len(rows) == 1, "a message is sent that no decision made"
        status, chosen, occurrence_id, recipient = rows[0]
        assert status == "claimed", f"a message is sent that is {status}"
        if self._is_visited:
            return  # what was said between the claim and the sending comes too late
        if self._is_withdrawn and VERA in str(recipient):
            assert chosen != MARKETING, "sent after a withdrawal that was acknowledged"
        retracted = self.look(
            "SELECT 1 FROM revisions WHERE occurrence_id = ? AND kind = 'retracted'", occurrence_id
        )
        present = self.look("SELECT 1 FROM occurrences WHERE occurrence_id = ?", occurrence_id)
        assert present or not retracted, "sent after it was retracted"

    # -- what is done

    def _tell(self, engine: Engine) -> None:
        """A client tells of something new, perhaps late."""
        told = []
        for _ in range(self.dice.choice((1, 1, 2, 3))):
            text = self.dice.choices([each for _, each in WORDS], [weight for weight, _ in WORDS])[0]
            text = text.format(u=self.dice.choice(PEOPLE), a=self.dice.choice(BROWSERS))
            now = self.clock.now()
            when = max(at("09:30"), now - self.dice.choice((0, 0, 0, 30, 300, 700)) * SECOND)
            told.append(self._event(when, text))
        self._say(engine, told)

    def _views(self, engine: Engine) -> None:
        """Someone looks at a thing twice: that is answered at once."""
        who, now = self.dice.choice((VERA, *PEOPLE)), self.clock.now()
        self._say(engine, [self._event(now, f"u={who} Product Viewed product_id=p{n}") for n in (1, 1)])

    def _searches(self, engine: Engine) -> None:
        """Someone searches in vain; ten minutes later, that is answered."""
        self._say(engine, [self._event(self.clock.now(), f"u={PEOPLE[0]} Help Searched n_results=0")])
        self.clock.sleep(700)

    def _late(self, engine: Engine) -> None:
        """What was taken for a silence was none."""
        when = max(at("09:30"), self.clock.now() - self.dice.choice((300, 600, 900)) * SECOND)
        self._say(engine, [self._event(when, f"u={PEOPLE[0]} Chat Started")])

    def _withdraw(self, engine: Engine) -> None:
        """Vera takes her consent back, after she had given it."""
        when = max(self.clock.now(), at(BEGINS) + SECOND)
        text = f"u={VERA} Consent Withdrawn purpose=marketing id={HER_WITHDRAWAL}"
        self._say(engine, [self._event(when, text)])

    def _event(self, when: int, text: str) -> Event:
        received = max(when, self.clock.now())
        return event(f"{clock(when)}>{clock(received)} {self.dice.choice(('web', 'app'))} {text}")

    def _say(self, engine: Engine, told: list[Event]) -> None:
        self.unanswered.append(self._named(told))
        self._accept(engine)

    def _named(self, events: list[Event]) -> list[Event]:
        """Each event under an id of its own; Vera's withdrawal is one, however often it is told."""
        found = []
        for each in events:
            if each.message_id == HER_WITHDRAWAL:
                each = self.told.get(HER_WITHDRAWAL, each)
            else:
                each = msgspec.structs.replace(each, message_id=f"e{len(self.told)}")
            self.told[each.message_id] = each
            found.append(each)
        return found

    def _accept(self, engine: Engine) -> None:
        """What has no answer yet is told, again if need be, perhaps in another order and several at once."""
        if not self.unanswered:
            return
        self.dice.shuffle(self.unanswered)
        bodies = self.unanswered[: self.dice.choice((1, 1, 2))]
        engine.acceptor.accept([Parsed(body, []) for body in bodies])
        self._answered(bodies)

    def _answered(self, bodies: list[list[Event]]) -> None:
        """The client has its 200."""
        for body in bodies:
            self.acknowledged.update(each.message_id for each in body)
            if body in self.unanswered:
                self.unanswered.remove(body)
        self._is_withdrawn = HER_WITHDRAWAL in self.acknowledged

    def _repeat(self, engine: Engine) -> None:
        """A client that did not hear the answer tells what was told before, in another order."""
        known = sorted(each for each in self.told if not each.startswith("r"))
        body = [self.told[each] for each in self.dice.sample(known, min(len(known), 3))]
        if body:
            engine.acceptor.accept([Parsed(body, [])])
            self._answered([body])

    def _reject(self, engine: Engine) -> None:
        """A body that cannot be read, and later one that is repaired."""
        body = f'[{self.dice.randrange(3)}, "anna"]'.encode()
        fault = Fault("batch[0]", "a list", "an object")
        engine.acceptor.accept([Parsed([], [Rejected("web", self.clock.now(), body, fault)])])

    def _replay(self, engine: Engine) -> None:
        """A person repairs one: whoever says that it is repaired has it accepted."""
        listed = repairing.list_rejected(engine)
        if listed:
            rejected_id = self.dice.choice(listed).rejected_id
            message_id = repaired(rejected_id)
            self.told[message_id] = began()[0]
            said = {"type": "track", "event": "Help Searched", "userId": "anna", "messageId": message_id}
            body = msgspec.json.encode({**said, "properties": {"n_results": 0}})
            done = repairing.replay_rejected(engine, rejected_id, body)
            assert done.n_accepted == 1, done.faults

    def _advance(self, engine: Engine) -> None:
        advance(engine, self.dice.choice((1, 2, 10_000)))

    def _deliver(self, engine: Engine) -> None:
        destination = self.dice.choice(("app", "mail"))
        for each in (destination, "app", "mail"):
            deliver(engine, self.net, each, self.dice.choice((1, 100)))

    def _said(self, engine: Engine) -> None:
        """A person merges, unmerges or keeps apart."""
        node = engine.keys.node
        names = [identifier(node, "user_id", each) for each in PEOPLE]
        a, b = (each.node.hex() for each in names if each is not None)
        now = self.clock.now()
        links = engine.db.execute("SELECT link_id FROM links WHERE revoked_at IS NULL ORDER BY 1").fetchall()
        kind = self.dice.randrange(3)
        if kind == 0:
            engine.acceptor.command(Merge(a, b, "agent", now, True))
        elif kind == 1 and links:
            engine.acceptor.command(Unmerge(self.dice.choice(links)[0].hex(), "agent", now))
        elif kind == 2 and self.dice.random() < 0.2:
            engine.acceptor.command(CannotLink(a, b, "agent", now))

    def _declare(self, engine: Engine) -> None:
        """The folder changes; the worker takes it up in small steps."""
        first, second = projects()
        self.folder = second if self.folder is first else first
        progress = engine.state.progress()
        if progress is not None and progress.program != engine.program.version:
            return
        if progress is not None:
            found = target(self.folder, progress.program, kept(progress.program))
            begin(engine, found)
            while not warm_once(engine, found, 1):
                pass

    def _rebuild(self, engine: Engine) -> None:
        if engine.state.progress() is not None:
            rebuilt = rebuild(engine)
            assert rebuilt.before == rebuilt.after, "what was live is not what a rebuild makes"

    def _refresh(self, engine: Engine) -> None:
        refresh(engine.disk, engine.journal, engine.state)

    def _visit(self) -> None:
        """Another process, in the middle of what the first one does."""
        was, process = self._running, Process(self.disk, self.fate)
        self._is_visited = True
        try:
            engine = self._opened(process)
            with suppress(Unavailable, Conflict):
                self.dice.choice((self._tell, self._advance, self._deliver, self._deliver))(engine)
        finally:
            process.end()
            self._running = was

    # -- the end

    def settle(self) -> None:
        """Nothing goes wrong any more: what has no answer is told again, and everything comes to its end."""
        self.fate.stop()
        self.is_rough = False
        for number in (0, 1):
            self.kill(number)
        self.unanswered = [each for each in self.unanswered if self.dice.random() < 0.8]
        engine = self.engine(0)
        while self.unanswered:
            self._accept(engine)
        for _ in range(200):
            advance(engine)
            for destination in ("app", "mail"):
                deliver(engine, self.net, destination)
            due = self.look(
                "SELECT due_at FROM outbox WHERE status IN ('waiting', 'claimed')"
                " UNION ALL SELECT due_at FROM customers WHERE due_at IS NOT NULL ORDER BY 1"
            )
            ((position,),) = self.look("SELECT position FROM progress")
            if due and isinstance(due[0][0], int):
                self.clock.move(due[0][0])
                self.clock.sleep(1)
            elif engine.journal.head()[0] == position:
                return
            else:
                self.clock.sleep(15)  # longer than a pause of the breaker
        raise AssertionError("the outbox never empties")


def _copy(shared: MemoryDisk, to: MemoryDisk) -> None:
    for name in ("journal.db", "secrets.db", "state.db"):
        here, there = shared.connect(name), to.connect(name)
        here.backup(there)
        here.close()
        there.close()


OPERATIONS: dict[str, tuple[int, Callable[[Life, Engine], None]]] = {
    "tell": (7, Life._tell),
    "views": (2, Life._views),
    "searches": (2, Life._searches),
    "late": (2, Life._late),
    "withdraw": (1, Life._withdraw),
    "repeat": (3, Life._repeat),
    "accept": (3, Life._accept),
    "reject": (1, Life._reject),
    "replay": (1, Life._replay),
    "advance": (9, Life._advance),
    "deliver": (9, Life._deliver),
    "said": (2, Life._said),
    "declare": (1, Life._declare),
    "rebuild": (1, Life._rebuild),
    "refresh": (0, Life._refresh),
}
