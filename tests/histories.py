"""Random histories of consent, many customers in one engine, and an oracle of law 4 with no code of its.

A slot is one customer in up to four fragments: two user ids and an anonymous id of each, which logins and a
merge join and an unmerge parts. What the sender is handed is judged at that instant, from what had been
acknowledged by then: `Lawful` replays the words of the law over plain tuples.
"""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from email import message_from_bytes, policy
from typing import TypeVar

import msgspec
from world import SECRET, World, action, moment, project, source

from hetki.engine.commands import Unmerge
from hetki.engine.deliver import deliver
from hetki.engine.erase import erase
from hetki.events.event import Event, LeafId, event_id, utc
from hetki.events.wire import Parsed
from hetki.settings import SECOND
from hetki.store.ports import Disk, Sent

T = TypeVar("T")
MINUTE = 60 * SECOND
N_TICKS = 8
TICK = 25 * MINUTE

#: What the law is asked of: (needs a grant, refused by Sec-GPC, may be objected to, notices, categories).
Purpose = tuple[bool, bool, bool, tuple[str, ...], tuple[str, ...]]
PURPOSES: dict[str, Purpose] = {
    "service": (False, False, False, (), ()),
    "care": (False, True, True, (), ()),
    "marketing": (True, True, True, ("n2", "n3"), ()),
    "profile": (True, False, False, (), ("views", "searches")),
}
BASIS = {"service": "contract", "care": "legitimate_interests", "marketing": "consent", "profile": "consent"}
CATEGORY = {"Product Viewed": "views", "Help Searched": "searches"}
CONTRACT = {"web": set(PURPOSES), "shop": {"service", "care"}, "hetki": set(PURPOSES)}

TOML = f"""
[hetki]
name = "World"
lateness_s = 60
[purposes.service]
title = "s"
basis = "contract"
[purposes.care]
title = "c"
basis = "legitimate_interests"
gpc = true
[purposes.marketing]
title = "m"
basis = "consent"
gpc = true
dpv = "DirectMarketing"
notices = ["n2", "n3"]
[purposes.profile]
title = "p"
basis = "consent"
categories = ["views", "searches"]
[categories.views]
title = "v"
events = ["Product Viewed"]
[categories.searches]
title = "h"
events = ["Help Searched"]
[destinations.app]
kind = "webhook"
url = "http://localhost:9/app"
secret = "{SECRET}"
inside = ["localhost"]
per_s = 1000
[destinations.mail]
kind = "email"
server = "localhost:1025"
inside = ["localhost"]
sender = "hello@kauppa.fi"
per_s = 1000
[contact]
quiet_hours = "07:15-08:30"
"""
WAITS = "expires: 4 hours"
FILES: dict[str, str | None] = {
    "hetki.toml": TOML,
    **dict.fromkeys(("moments/help.yaml", "moments/basket.yaml", "moments/again.yaml"), None),
    **dict.fromkeys(("moments/promise.yaml", "actions/call.yaml", "actions/remind.yaml"), None),
    **source("web", "service, care, marketing, profile"),
    **source("shop", "service, care"),
    **action("serve", "service", "app", more="transactional: true"),
    **action("cares", "care", "app"),
    **action("offer", "marketing", "mail"),
    **action("advise", "profile", "app"),
    **moment("m_service", "a: Order Tracked", "serve, offer", "service", WAITS),
    **moment("m_care", "a: Complaint Opened", "cares", "care", WAITS),
    **moment("m_market", "a: Product Added", "offer", "marketing", WAITS),
    **moment(
        "m_twice",
        "a: Product Added | b: Product Viewed",
        "advise, offer",
        "marketing",
        WAITS + "\nwithin: 3 hours",
    ),
    **moment("m_profile", "a: Product Viewed", "advise", "profile", WAITS),
}
TRIGGERS = ["Order Tracked", "Complaint Opened", *["Product Added"] * 4, *["Product Viewed"] * 4]
SPOKEN_OF = [*PURPOSES, "nobodys", *["marketing"] * 5, *["profile"] * 3]


@dataclass(frozen=True)
class Word:
    """A word on a purpose as the law knows it: no, or yes until a time, for some data, with the signal on."""

    is_yes: bool
    until: float = float("inf")
    data: frozenset[str] | None = None
    with_signal: bool = False


@dataclass
class Slot:
    """One customer: its fragments, what was acknowledged of it, and which joins stand."""

    name: str
    told: list[Event] = field(default_factory=list)
    joins: dict[tuple[str, str], int] = field(default_factory=dict)
    parted: set[tuple[str, str]] = field(default_factory=set)
    erased: dict[str, int] = field(default_factory=dict)  # name -> when; it may come back by a grant
    back: dict[str, int] = field(default_factory=dict)

    def leaf(self, event: Event) -> str:
        return event.identifiers.get("user_id") or event.identifiers["anonymous_id"]

    def group(self, leaf: str) -> set[str]:
        """The fragments that are one with this one at present."""
        found = {leaf}
        for _ in range(3):
            for pair in self.joins.keys() - self.parted:
                found |= set(pair) if found & set(pair) else set()
        return found

    def erase(self, leaf: str, now: int) -> None:
        gone = self.group(leaf)
        self.erased |= dict.fromkeys(gone, now)
        self.back = {name: at for name, at in self.back.items() if name not in gone}
        self.told = [event for event in self.told if self.leaf(event) not in gone]
        self.joins = {pair: at for pair, at in self.joins.items() if not gone & set(pair)}

    def is_taken_in(self, event: Event) -> bool:
        """Whether an event's names are not erased, or its grant brings them back."""
        names = [name for name in event.identifiers.values() if name in self.erased]
        if any(event.occurred_at < self.back.get(name, 2**62) for name in names):
            after = all(self.erased[name] < event.occurred_at for name in names)
            if event.name != "Consent Granted" or not after:
                return False
            self.back |= dict.fromkeys(names, event.occurred_at)
        return True


class Lawful:
    """Law 4 over one slot, as it is written: per purpose refused > granted > unknown; unknown is no where a
    grant is needed; a merge takes the strictest said before it; what is said later wins; none goes back."""

    def __init__(self, slot: Slot) -> None:
        self.slot = slot

    def words(self, leaf: str, until: int) -> dict[str, Word]:
        """What stands for the group of a fragment just after an instant (with all of that instant)."""
        groups: dict[str, set[str]] = {}
        standing: dict[str, dict[str, Word]] = {}
        for at, join, event in sorted(self._history(), key=lambda each: (each[0], each[2] is not None)):
            if at > until:
                break
            for words in standing.values():
                for name in [name for name, word in words.items() if word.until <= at]:
                    del words[name]
            if join is not None:
                a, b = (self._root(groups, each) for each in join)
                if a != b:
                    ours, theirs = standing.pop(a, {}), standing.pop(b, {})
                    groups[a] = groups.pop(a, {a}) | groups.pop(b, {b})
                    standing[a] = {
                        name: self._strictest(ours.get(name), theirs.get(name))
                        for name in ours.keys() | theirs.keys()
                    }
            if event is not None:
                mine = standing.setdefault(self._root(groups, self.slot.leaf(event)), {})
                self._hear(mine, event)
        return standing.get(self._root(groups, leaf), {})

    def _history(self) -> Iterator[tuple[int, tuple[str, str] | None, Event | None]]:
        for pair, at in self.slot.joins.items():
            if pair not in self.slot.parted:
                yield at, pair, None
        for event in self.slot.told:
            yield event.occurred_at, None, event

    def _root(self, groups: dict[str, set[str]], leaf: str) -> str:
        return next((root for root, mine in groups.items() if leaf in mine), leaf)

    def _strictest(self, a: Word | None, b: Word | None) -> Word:
        if a is None or b is None:
            found = a or b
            assert found is not None
            return found
        if not a.is_yes or not b.is_yes:
            return Word(False)
        data = a.data if b.data is None else b.data if a.data is None else a.data & b.data
        return Word(True, min(a.until, b.until), data, a.with_signal and b.with_signal)

    def _hear(self, words: dict[str, Word], event: Event) -> None:
        said = json.loads(event.properties)
        if event.gpc:
            for name, (_, by_signal, *_rest) in PURPOSES.items():
                if by_signal and not (name in words and words[name].is_yes and words[name].with_signal):
                    words[name] = Word(False)
        match event.name:
            case "Consent Granted" if said["purpose"] in PURPOSES:
                notices = PURPOSES[said["purpose"]][3]
                if not notices or said.get("notice_version") in notices:
                    until = said.get("until_us", float("inf"))
                    data = frozenset(said["categories"]) if "categories" in said else None
                    words[said["purpose"]] = Word(True, until, data, event.gpc)
            case "Consent Refused" | "Consent Withdrawn" if said["purpose"] in PURPOSES:
                words[said["purpose"]] = Word(False)
            case "Objection Raised":
                for name, (_, _, may_object, *_rest) in PURPOSES.items():
                    if may_object:
                        words[name] = Word(False)
            case "Processing Restricted":
                words["everything"] = Word(False)
            case "Restriction Lifted" if event.source == "hetki":
                words["everything"] = Word(True)

    def may(self, leaf: str, purpose: str, at: int, data: str | None = None) -> bool:
        """Whether a purpose was open to a fragment at an instant; if data is given, to that."""
        words = self.words(leaf, at)
        if "everything" in words and not words["everything"].is_yes:
            return False
        word = words.get(purpose)
        if word is None or (word.is_yes and word.until <= at):
            return not PURPOSES[purpose][0]
        return word.is_yes and (data is None or word.data is None or data in word.data)

    def may_see(self, event: Event, purpose: str) -> bool:
        """Whether an event's data was open to a purpose when it happened."""
        uses = PURPOSES[purpose][4]
        data = CATEGORY.get(event.name, "")
        if purpose not in CONTRACT[event.source] or (uses and data not in uses):
            return False
        return self.may(self.slot.leaf(event), purpose, event.occurred_at, data)


class Broken(AssertionError):
    """Law 4 was broken: what was sent, or held back, and what the oracle says."""


class Died(Exception):
    """The process ends between a claim and its receipt; the message is claimed again."""


class Many:
    """Many slots in one engine, told and answered for three hours and a half of simulated time."""

    def __init__(self, seed: int, n_slots: int, disk: Disk | None = None) -> None:
        self.random = random.Random(seed)
        self.world = World(project(FILES), disk, seed=seed)
        self.world.net.post = self._posted  # type: ignore[method-assign]
        self.world.net.mail = self._mailed  # type: ignore[method-assign]
        self.slots = {f"s{number}": Slot(f"s{number}") for number in range(n_slots)}
        self.counts: Counter[str] = Counter()
        self.n_events = 0
        self.judged: set[str] = set()

    def run(self) -> Counter[str]:
        """Live through all ticks; raises `Broken`."""
        for _ in range(N_TICKS):
            self._accept()
            if self.random.random() < 0.4:
                self._deliver()  # what was said is acknowledged, and not folded yet
            self.world.advance()
            self._command()
            self.world.advance()
            self._deliver()
            self._judge_cancelled()
        return self.counts

    # -- what happens

    def _one(self, these: Sequence[T]) -> T:
        """One of them: `Random.choice` takes a tenth of the time of a whole history."""
        return these[int(self.random.random() * len(these))]

    def _accept(self) -> None:
        begins, events = self.world.clock.now(), []
        for slot in self.slots.values():
            for _ in range(self._one((0, 1, 1, 2))):
                events.append((slot, self._event(slot, begins)))
        self.world.clock.move(begins + TICK)
        self.world.engine.acceptor.accept([Parsed([event for _, event in events], [])])
        for slot, event in events:
            if not slot.is_taken_in(event):
                continue
            slot.told.append(event)
            names = event.identifiers
            if "user_id" in names and "anonymous_id" in names:
                pair = names["anonymous_id"], names["user_id"]
                slot.joins[pair] = min(event.occurred_at, slot.joins.get(pair, event.occurred_at))

    def _event(self, slot: Slot, begins: int) -> Event:
        self.n_events += 1
        late = self._one((0, 0, 0, 1, 1, 3)) * TICK  # some are late
        at = max(begins - late, 0) + int(self.random.random() * 1_400) * SECOND + self.n_events % SECOND
        half = self._one("ab")
        user, visitor = f"{slot.name}-{half}", f"{slot.name}-{half}-visitor"
        pick = self.random.random()
        whose = {"user_id": user} if pick < 0.7 else {}
        whose |= {"anonymous_id": visitor} if pick >= 0.6 else {}
        name, properties, from_source = self._said(at)
        if not slot.told and self.random.random() < 0.7:
            name, properties = "Customer Identified", {"email": f"{slot.name}@kauppa.fi"}
        elif len(slot.told) == 1 and self.random.random() < 0.6:
            name, properties = "Consent Granted", {"purpose": "marketing", "notice_version": "n3"}
        elif len(slot.told) > 3 and self.random.random() < 0.2:
            name, properties = "Consent Withdrawn", {"purpose": self._one([*PURPOSES])}
        return Event(
            source=from_source,
            message_id=f"e{self.n_events}",
            channel="web",
            name=name,
            occurred_at=at,
            received_at=begins + TICK,
            identifiers=whose,
            properties=msgspec.json.encode(properties),
            gpc=self.random.random() < 0.05,
        )

    def _said(self, at: int) -> tuple[str, dict[str, object], str]:
        pick, purpose = self.random.random(), self._one(SPOKEN_OF)
        if pick < 0.4:
            properties: dict[str, object] = {"purpose": purpose}
            if self.random.random() < 0.9:
                properties["notice_version"] = self._one(("n1", "n2", "n3", "n3", "n3"))
            if self.random.random() < 0.3:
                until = at + int(1 + self.random.random() * 9_000) * SECOND
                properties |= {"until": utc(until).isoformat(), "until_us": until}
            if self.random.random() < 0.2:
                properties["categories"] = self.random.sample(["views", "searches", "odd"], 2)
            return "Consent Granted", properties, "web"
        if pick < 0.48:
            return self._one(("Consent Refused", "Consent Withdrawn")), {"purpose": purpose}, "web"
        if pick < 0.5:
            return "Objection Raised", {}, "web"
        if pick < 0.52:
            return "Processing Restricted", {}, self._one(("web", "hetki"))
        if pick < 0.55:
            return "Restriction Lifted", {}, self._one(("web", "hetki", "hetki"))
        return self._one(TRIGGERS), {}, self._one(("web", "web", "web", "shop"))

    def _command(self) -> None:
        """Merges, unmerges and erasures of a few slots; each is acknowledged when it returns."""
        engine = self.world.engine
        for slot in self.slots.values():
            pick = self.random.random()
            pair = f"{slot.name}-a", f"{slot.name}-b"
            if pick > 0.12:
                continue
            known = {each for event in slot.told for each in event.identifiers.values()}
            if pick < 0.06 and set(pair) <= known and pair not in slot.joins:
                self.world.clock.move(self.world.clock.now() + 1)
                self.world.merge(*pair)
                slot.joins[pair] = self.world.clock.now()
                self.counts["merges"] += 1
            elif pick < 0.118:
                self._unmerge(slot)
            elif known:
                name = self._one(sorted(known))
                leaf = self.world.node(f"a={name}" if name.endswith("visitor") else name)
                erase(engine, LeafId(leaf), "desk")
                slot.erase(name, self.world.clock.now())
                self.counts["erasures"] += 1

    def _unmerge(self, slot: Slot) -> None:
        standing = [pair for pair in slot.joins if pair not in slot.parted]
        for pair in standing[:1]:
            nodes = sorted(
                self.world.node(f"a={each}" if each.endswith("visitor") else each) for each in pair
            )
            rows = self.world.rows(
                "SELECT link_id FROM links WHERE node_a = ? AND node_b = ? AND revoked_at IS NULL", *nodes
            )
            for (link_id,) in rows:
                assert isinstance(link_id, bytes)
                command = Unmerge(link_id.hex(), "agent", self.world.clock.now())
                self.world.engine.acceptor.command(command)
                slot.parted.add(pair)
                self.counts["unmerges"] += 1

    # -- what is sent, and what is held back

    def _deliver(self) -> None:
        for name in ("app", "mail"):
            for _ in range(50):
                try:
                    if not deliver(self.world.engine, self.world.net, name, 200).n_sent:
                        break
                except Died:
                    self.counts["died while sending"] += 1

    def _posted(self, url: str, headers: dict[str, str], body: bytes, timeout_s: float) -> Sent:
        return self._judge(json.loads(body)["data"]["message_id"])

    def _mailed(self, server: str, sender: str, recipient: str, letter: bytes, timeout_s: float) -> Sent:
        return self._judge(
            message_from_bytes(letter, policy=policy.default)["Message-ID"].strip("<>").split("@")[0]
        )

    def _judge(self, message_id: str) -> Sent:
        """The instant of a send: the law is asked of what has been acknowledged by now."""
        engine, now = self.world.engine, self.world.clock.now()
        ((purpose, decision_id, customer),) = self.world.rows(
            "SELECT purpose, decision_id, customer FROM outbox WHERE message_id = ?", message_id
        )
        decision = engine.ledger.decision(str(decision_id))
        assert decision is not None and isinstance(customer, bytes)
        slot, leaf = self._whose(customer)
        law, purpose = Lawful(slot), str(purpose)
        self.counts["sent"] += 1
        self.counts[f"sent for {purpose}"] += 1
        if leaf not in {slot.leaf(event) for event in slot.told}:
            raise Broken(f"{leaf} was erased, and {message_id} was sent")
        if not law.may(leaf, purpose, now):
            raise Broken(f"{message_id} to {leaf} for {purpose} at {now}: {law.words(leaf, now)}")
        needed = {purpose, engine.project.moments[decision.question.moment].purpose}
        for event in self._events(slot, decision.question.data_used):
            for each in needed:
                if not law.may_see(event, each):
                    raise Broken(f"{message_id} rests on {event} which was closed to {each}")
        if self.random.random() < 0.02:
            raise Died
        return Sent(True, 250) if self.random.random() < 0.7 else Sent(False, 503)

    def _judge_cancelled(self) -> None:
        """What was held back for want of a basis had none: who holds back everything keeps every law."""
        rows = self.world.rows(
            "SELECT message_id, purpose, customer, detail FROM outbox WHERE status = 'cancelled'"
        )
        for message_id, purpose, customer, detail in rows:
            if message_id in self.judged or "lawful" not in str(detail):
                continue
            self.judged.add(str(message_id))
            self.counts["held back"] += 1
            assert isinstance(customer, bytes)
            slot, leaf = self._whose(customer)
            if Lawful(slot).may(leaf, str(purpose), self.world.clock.now()):
                raise Broken(f"{message_id} to {leaf} for {purpose} was held back, and nothing closes it")

    def _whose(self, leaf: bytes) -> tuple[Slot, str]:
        ((value,),) = self.world.rows("SELECT value FROM nodes WHERE node = ?", leaf)
        name = str(value)
        return self.slots[name.partition("-")[0]], name

    def _events(self, slot: Slot, ids: list[str]) -> list[Event]:
        keys = self.world.engine.keys
        from_ids = {event_id(keys.event, each.source, each.message_id).hex(): each for each in slot.told}
        return [from_ids[each] for each in ids]
