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
    HERS,
    MAILS,
    MARKETING,
    PEOPLE,
    STORIES,
    STRANGER,
    VERA,
    WORDS,
    began,
    empty,
    kept,
    prepared,
    projects,
    repaired,
)
from crash_vault import Vault, back_up, bring_back
from faults import Crashed, Fate, Process, SharedDisk, Strike, What
from world import at, clock, event

from hetki.engine import repair as repairing
from hetki.engine.advance import advance
from hetki.engine.changing import target
from hetki.engine.commands import CannotLink, Merge, Unmerge
from hetki.engine.deliver import DEEDS, deed_id, deliver
from hetki.engine.engine import Engine, open_engine
from hetki.engine.erase import erase, finish
from hetki.engine.rebuilding import rebuild
from hetki.engine.warming import begin, warm_once
from hetki.errors import Conflict, Fault, NotFound, Unavailable
from hetki.events.event import OWN_SOURCE, Event, event_id
from hetki.events.wire import Parsed, Rejected
from hetki.identity.identifier import identifier
from hetki.settings import SECOND
from hetki.simulation.world import LocalNet, SeededChance, SimulatedClock
from hetki.store.lake import refresh

#: What the first strike is aimed at, where it is not the operation that a life is called after.
AIMS = {"late": "deliver", "forget": "erase"}
#: How many points an operation has that the first strike is aimed at, where they are more than a dozen.
REACH = {"erase": 47, "forget": 56, "backup": 30, "restore": 34, "refresh": 60}
#: Lives that are about a person.
ERASING = ("erase", "forget")


class Life:
    """Two processes on one disk, clients that tell them of events, and destinations."""

    def __init__(self, seed: int, plan: list[Strike] | None = None, n_operations: int = 0) -> None:
        self.seed = seed
        self.dice = random.Random(f"life {seed}")
        self.n_operations = n_operations or (7 if seed < 2_000 else 12)  # later ones are longer
        self.about = list(STORIES)[seed % len(STORIES)]
        is_blank = seed % 16 == 15
        self.has_lake = self.about in ("refresh", "forget")
        self.fate = Fate(self._drawn_plan() if plan is None else plan, is_blank)
        self.fate.visit = self._visit
        self.her = self.dice.choice((VERA, *PEOPLE))
        self.visits = (self._hers,) * 3 + (self._addressed,) * 3 if self.about in ERASING else ()
        self.visits += (self._tell, self._advance, self._deliver, self._deliver, self._finish, self._erase)
        self.is_rough = True
        self.clock = SimulatedClock(at(BEGINS))
        self.chance = SeededChance(seed)
        self.disk = SharedDisk()
        if not is_blank:
            self.disk.copy_from(prepared())
        self.receiver = Receiver(self, seed)
        self.net = LocalNet(self.receiver.post, self.receiver.mail)
        self.told: dict[str, Event] = {}
        self.acknowledged: set[str] = set()
        self.unanswered: list[list[Event]] = []
        if is_blank:
            self.unanswered.append(list(began()))
        self.told.update((each.message_id, each) for each in began())
        self.folder = projects()[0]
        self.vault = Vault()
        self._processes: list[tuple[Process, Engine] | None] = [None, None]
        self._running: Process | None = None
        self._observers: dict[str, sqlite3.Connection] = {}
        self.erased: set[str] = set()
        self.whose: dict[str, set[str]] = {}
        self.answers: dict[tuple[str, str], str] = {}
        self.opened: Callable[[Life, Engine], None] = lambda life, engine: None
        self._is_visited = False

    def _drawn_plan(self) -> list[Strike]:
        """One to three strikes, half of them crashes; the first is aimed at what the life is about."""
        dice = random.Random(f"fate {self.seed}")
        kinds: tuple[What, ...] = ("crash", "crash", "crash", "crash", "full", "lost", "unsure", "visit")
        aim = AIMS.get(self.about, self.about)
        if self.about in REACH and self.about != "restore":
            kinds += ("visit", "visit", "visit")
        kind = dice.choice(kinds)
        first, last = 1, REACH.get(self.about, 12)
        if self.about in ERASING:  # while a person is looked up; around the command; while the rest is done
            parts = ((1, last), (1, 8)) if kind == "visit" else ((1, last), (9, 17), (last // 2, last))
            first, last = dice.choice(parts)
        plan = [Strike(dice.randint(first, last), kind, aim)]
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
            engine = open_engine(self.folder, process, self.clock, self.chance, {})
            self.keys = engine.keys
            if self.about in ("forget", "restore"):  # what was signed before the crash must be true already
                self.opened(self, engine)
            return engine
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

    @property
    def running(self) -> Process:
        """The process that does something just now."""
        assert self._running is not None
        return self._running

    def start(self, folder: SharedDisk) -> Process:
        """A process on another folder, in which there is nothing yet."""
        self._running = Process(folder, self.fate, empty=empty())
        return self._running

    def take(self, folder: SharedDisk) -> None:
        """The other folder is the one that there is."""
        self.disk = folder
        self._observers = {}

    def point(self, place: str) -> None:
        """A point outside the disk."""
        self.fate.point(self.running, "network", place)

    def look(self, query: str, *values: object, file: str = "state.db") -> list[tuple[object, ...]]:
        """What is committed in a database."""
        if file not in self._observers:
            self._observers[file] = self.disk.connect(file)
        return self._observers[file].execute(query, values).fetchall()

    def must_be_sent(self, message_id: str) -> None:
        """What must hold, and be durable, at the instant of sending."""
        rows = self.look(
            "SELECT o.status, d.chosen, d.occurrence_id, o.recipient, o.customer, d.record, d.occurred_at"
            " FROM outbox o JOIN decisions d USING (decision_id) WHERE o.message_id = ?",
            message_id,
        )
        if self._is_visited and not rows and self.look("SELECT 1 FROM erasures"):
            self.whose[message_id] = set()
            return  # it was erased between the claim and the sending
        assert len(rows) == 1, "a message is sent that no decision made"
        status, chosen, occurrence_id, recipient, customer, record, occurred_at = rows[0]
        first_id = self.answers.setdefault((str(occurrence_id), str(chosen)), message_id)
        assert first_id == message_id, "an occurrence is answered under two ids"
        assert isinstance(customer, bytes) and isinstance(record, bytes) and isinstance(occurred_at, int)
        held_until = self.vault.held.get(message_id, -1)  # an occurrence may end later, with other events
        assert held_until < occurred_at, "what was sent after the backup is sent again"
        question = msgspec.json.decode(record)["question"]
        self.whose[message_id] = {customer.hex(), *question["data_of"], *question["known_of"]}
        if self._is_visited:
            return  # what was said between the claim and the sending comes too late
        assert status == "claimed", f"a message is sent that is {status}"
        told = [event_id(self.keys.event, OWN_SOURCE, deed_id(name, message_id)) for name, _ in DEEDS]
        for each in told:
            known = self.look("SELECT 1 FROM journal WHERE instr(body, ?) > 0", each, file="journal.db")
            assert not known, "a message is sent again that was told of"
        gone = self.look(
            "SELECT 1 FROM erased WHERE node = ? AND is_leaf AND back_at IS NULL", customer, file="secrets.db"
        )
        assert not gone, "sent to a customer who was erased"
        if HER_WITHDRAWAL in self.acknowledged and recipient in (VERA, MAILS[VERA]):
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
            who = self.dice.choice(PEOPLE)
            text = text.format(u=who, m=MAILS[who], a=self.dice.choice(BROWSERS))
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

    def _repeat(self, engine: Engine) -> None:
        """A client that did not hear the answer tells what was told before, in another order."""
        known = sorted(each for each in self.told if not each.startswith("r"))
        body = [self.told[each] for each in self.dice.sample(known, min(len(known), 3))]
        if body:
            engine.acceptor.accept([Parsed(body, [])])
            self._answered([body])

    def _reject(self, engine: Engine) -> None:
        """A body that cannot be read, and later one that is repaired."""
        body = f'[{self.dice.randrange(3)}, "{PEOPLE[0]}"]'.encode()
        fault = Fault("batch[0]", "a list", "an object")
        engine.acceptor.accept([Parsed([], [Rejected("web", self.clock.now(), body, fault)])])

    def _replay(self, engine: Engine) -> None:
        """A person repairs one: whoever says that it is repaired has it accepted."""
        listed = [each for each in repairing.list_rejected(engine) if each.got == "a list"]
        if listed:
            rejected_id = self.dice.choice(listed).rejected_id
            message_id = repaired(rejected_id)
            who = f"{BEGINS} web u={PEOPLE[0]} id={message_id} Help Searched n_results=0"
            self.told[message_id] = event(who)
            said = {"type": "track", "event": "Help Searched", "userId": PEOPLE[0], "messageId": message_id}
            body = msgspec.json.encode({**said, "properties": {"n_results": 0}})
            with suppress(NotFound):  # it was erased meanwhile
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

    def _hers(self, engine: Engine) -> None:
        """Something is told of whom this life erases, in a way that may be a new one."""
        text = self.dice.choice(HERS).format(u=self.her, m=MAILS[self.her], a=self.dice.choice(BROWSERS))
        self._say(engine, [self._event(self.clock.now(), text) for _ in range(2)])

    def _addressed(self, engine: Engine) -> None:
        """A browser that nobody knows tells the e-mail address of whom this life erases."""
        text = f"a={STRANGER} mail={MAILS[self.her]} Product Viewed product_id=p1"
        self._say(engine, [self._event(self.clock.now(), text)])

    def _erase(self, engine: Engine) -> None:
        """A person is erased, wholly; whoever hears of it by a receipt is promised everything."""
        namespace, value = self.dice.choice(
            (("user_id", self.her), ("user_id", self.her), ("anonymous_id", self.dice.choice(BROWSERS)))
        )
        named = identifier(engine.keys.node, namespace, value)
        assert named is not None
        found = engine.state.customers_of([named.node])
        if named.node not in found:
            return
        assert value.encode() in self.disk.image("state.db"), "the scan is blind"
        self.disk.keep_logs()
        with suppress(NotFound):  # another process was faster
            self.erased.add(erase(engine, found[named.node], "desk"))

    def _back_up(self, engine: Engine) -> None:
        back_up(self, engine)

    def _bring_back(self, engine: Engine) -> None:
        self.fate.visit = None
        bring_back(self)
        self.fate.visit = self._visit

    def _finish(self, engine: Engine) -> None:
        """What a worker does now and then."""
        finish(engine)

    def _visit(self) -> None:
        """Another process, in the middle of what the first one does."""
        was, process = self._running, Process(self.disk, self.fate)
        self._is_visited = True
        try:
            engine = self._opened(process)
            with suppress(Unavailable, Conflict):
                self.dice.choice(self.visits)(engine)
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
            finish(engine)
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


OPERATIONS: dict[str, tuple[float, Callable[[Life, Engine], None]]] = {
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
    "hers": (1, Life._hers),
    "addressed": (0, Life._addressed),
    "erase": (1, Life._erase),
    "finish": (1, Life._finish),
    "backup": (1, Life._back_up),
    "restore": (0.3, Life._bring_back),
}
