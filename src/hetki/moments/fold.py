"""The fold: one customer's events -> state and occurrences. Live, backtest and replay all call `step`.

    step(program, folded, batch, advance_to) -> (folded, occurrences)

Pure and deterministic: any split of a stream into batches gives equal states and equal settled
occurrences. What is folded must come in total order (`Event.order_key`); history that is repaired (a late
event, a merge, an unmerge) is folded again from the beginning by the caller.
"""

from __future__ import annotations

from typing import Collection, Final, Sequence

import msgspec

from hetki.consent.purpose import Purpose
from hetki.consent.statements import SPOKEN, Statements, closing, mask, spoken, strictest, whole
from hetki.events.event import GROUPED, IDENTIFIED, Event, EventId, LeafId, OrderKey
from hetki.events.fields import Fields, MemberFields
from hetki.identity.survival import Heard, Scalar, Survival, hear, standing
from hetki.moments.moment import Moment, Occurrence, occurrence_id
from hetki.patterns.aggregates import remember
from hetki.patterns.around import Around
from hetki.patterns.matcher import next_due, observe, pass_time, rests_on, settle, withdraw
from hetki.patterns.run import Match, Run, Seen, copied, packed
from hetki.patterns.segments import Segment
from hetki.patterns.staffing import NO_STAFFING, Timeline
from hetki.patterns.told import NO_EVENT, Telling
from hetki.settings import SECOND

#: The form of folded states. It is part of the program's version: under another one everybody is folded
#: again.
FORM: Final = 8


class Program(msgspec.Struct, frozen=True):
    """What the fold runs: compiled moments, purposes in a fixed order, what each source may be used for.

    `bits` is the bit of each moment's purpose; `listening` the moments that an event's name concerns.
    `traits` are the customer's traits that any declaration refers to, each with the rule by which one value
    stands (`surviving`); no other is kept in the state.
    `version` is the hash of the declarations, and the form of states. `watching` are the segments that an
    event's name concerns; `bits` has their purposes, too, by the names under which their windows are kept.
    `accounts` has the moments about accounts, if there are any, and `account` is the one that is folded.
    `household` has the traits that make customers one household. `categories` has the category of events
    that have one, `closed_to` the purposes, as bits, that use no data of an event's category.
    """

    moments: tuple[Moment, ...]
    purposes: tuple[tuple[str, Purpose], ...]
    contracts: dict[str, int]
    traits: dict[str, Survival]
    lateness_s: int
    version: str
    bits: dict[str, int]
    listening: dict[str, tuple[Moment, ...]]
    segments: tuple[Segment, ...] = ()
    watching: dict[str, tuple[Segment, ...]] = {}
    accounts: Program | None = None
    account: bytes = b""
    household: tuple[str, ...] = ()
    categories: dict[str, str] = {}
    closed_to: dict[str, int] = {}

    @property
    def every_moment(self) -> tuple[Moment, ...]:
        """Its moments, and those about accounts."""
        return self.moments + (self.accounts.moments if self.accounts else ())

    @property
    def asks_staffing(self) -> bool:
        """Whether any moment asks for staffing."""
        return any(moment.asks_staffing for moment in self.every_moment)

    @property
    def traits_told_by(self) -> str:
        """The event that tells the traits of what is folded."""
        return GROUPED if self.account else IDENTIFIED

    def of(self, account: bytes) -> Program:
        """What is folded of an account; without moments about accounts that is nothing."""
        found = self.accounts or msgspec.structs.replace(self.only(()), segments=(), watching={})
        return msgspec.structs.replace(found, accounts=None, account=account)

    def only(self, names: Collection[str]) -> Program:
        """The program with these of its moments alone."""
        accounts = self.accounts.only(names) if self.accounts else None
        moments = tuple(moment for moment in self.moments if moment.name in names)
        listening = {
            event: kept
            for event, each in self.listening.items()
            if (kept := tuple(moment for moment in each if moment.name in names))
        }
        return msgspec.structs.replace(self, moments=moments, listening=listening, accounts=accounts)

    def concerns(self, event: Event) -> bool:
        """Whether the fold reads this event at all; any other cannot change a state."""
        if event.name in self.listening or event.name in self.watching:
            return True
        return event.name in SPOKEN or event.name == self.traits_told_by or event.gpc


class Fact(msgspec.Struct, frozen=True, gc=False):
    """One event of the customer, with its id and the leaf it belongs to. Of an account, `member` is the
    customer whose event it is; one that is none of the account's and counts for consent alone `is_quiet`."""

    event: Event
    event_id: EventId
    leaf: LeafId
    member: str = ""
    is_quiet: bool = False

    @property
    def order_key(self) -> OrderKey:
        """Its place in the total order."""
        return self.event.order_key


class Joined(msgspec.Struct, frozen=True, gc=False):
    """From this instant on two identifiers (hex nodes) are one customer: their statements are joined."""

    joined_at: int
    node_a: str
    node_b: str

    @property
    def order_key(self) -> OrderKey:
        """Before every event of the same instant."""
        return (self.joined_at, "", 0, self.node_a + self.node_b)


class Folded(msgspec.Struct, array_like=True):
    """Everything the fold holds of one customer.

    `groups` maps joined identifiers (hex) to their group (absent: a group of its own), `statements` each
    group to what its leaves said about purposes. `settled_at` is the latest instant that time alone changed,
    by an occurrence or the end of a grant: what is not later is not folded on. `heard` is what was told of
    each trait, `traits` what of it stands, which is not encoded twice. Equal states encode to equal bytes.
    """

    last_key: OrderKey | None = None
    traits: dict[str, Scalar] = {}
    groups: dict[str, str] = {}
    statements: dict[str, Statements] = {}
    runs: dict[str, Run] = {}
    settled_at: int | None = None
    heard: dict[str, Heard] = {}


_encoder = msgspec.msgpack.Encoder(order="deterministic")
_decoder = msgspec.msgpack.Decoder(Folded)


def encode(folded: Folded) -> bytes:
    """A state as bytes; equal states give equal bytes."""
    runs = {name: run for name, run in folded.runs.items() if packed(run) is not None}
    return _encoder.encode(
        Folded(folded.last_key, {}, folded.groups, folded.statements, runs, folded.settled_at, folded.heard)
    )


def decode(state: bytes) -> Folded:
    """A state from its bytes."""
    folded = _decoder.decode(state)
    folded.traits = standing(folded.heard)
    return folded


def is_late(folded: Folded, item: Fact | Joined) -> bool:
    """Whether something older than what is folded has come: its customer is folded from the beginning."""
    if folded.last_key is not None and item.order_key < folded.last_key:
        return True
    return folded.settled_at is not None and item.order_key[0] <= folded.settled_at


def step(
    program: Program,
    folded: Folded,
    batch: Sequence[Fact | Joined],
    advance_to: int,
    staffing: Timeline = NO_STAFFING,
    telling: Telling | None = None,
) -> tuple[Folded, list[Occurrence]]:
    """Fold a batch, in total order and nothing of it late, and let time pass to `advance_to`.

    `staffing` holds every report that an event of the batch may see. Occurrences come in order of
    (occurred_at, moment, id). `telling` is for who asks why.
    """
    after = Folded(
        folded.last_key,
        folded.traits,
        dict(folded.groups),
        {group: dict(said) for group, said in folded.statements.items()},
        {name: copied(run) for name, run in folded.runs.items()},
        folded.settled_at,
        folded.heard,
    )
    caught: list[Occurrence] = []
    until = advance_to - program.lateness_s * SECOND
    for item in batch:
        assert not is_late(after, item), "facts are folded in total order"
        after.last_key = item.order_key
        _lapse(program, after, item.order_key[0], telling)
        if isinstance(item, Joined):
            _join(program, after, item, telling)
        else:
            _take(program, after, item, until, staffing, caught, telling)
    _lapse(program, after, until, telling)
    for moment in program.moments:
        if moment.name in after.runs:
            _settle(program, moment, after, until, caught, telling)
    caught.sort(key=lambda occurrence: (occurrence.occurred_at, occurrence.moment, occurrence.occurrence_id))
    return after, caught


def due_at(program: Program, folded: Folded) -> int | None:
    """When time alone changes this state: at its next deadline or end of a grant, and the lateness after."""
    dues = [
        due
        for moment in program.moments
        if moment.name in folded.runs and (due := next_due(folded.runs[moment.name])) is not None
    ]
    for said in folded.statements.values():
        dues += [each.until for each in said.values() if each.until is not None]
    return min(dues) + program.lateness_s * SECOND if dues else None


def in_force(program: Program, folded: Folded, at: int) -> int:
    """The purposes in force for the whole customer at an instant, as bits: the strictest of all groups."""
    return mask(program.purposes, whole(folded.statements), at)


def _settle(
    program: Program,
    moment: Moment,
    folded: Folded,
    until: int,
    caught: list[Occurrence],
    telling: Telling | None,
) -> None:
    """Take out what a moment's silences have become by an instant."""
    run = folded.runs[moment.name]
    _pass_time(moment, folded, until, telling)
    due = [each.due_at for each in run.partials if each.due_at is not None and each.due_at <= until]
    if due:
        folded.settled_at = max(due if folded.settled_at is None else [folded.settled_at, *due])
        settled = settle(moment.pattern, run, until, telling)
        caught.extend(_occurrence(program, moment, match) for match in settled)


def _pass_time(moment: Moment, folded: Folded, until: int, telling: Telling | None) -> None:
    """Let time alone move what a silence holds up, and remember until when it did."""
    moved_at = pass_time(moment.pattern, folded.runs[moment.name], until, telling)
    if moved_at is not None:
        folded.settled_at = max(moved_at, folded.settled_at or moved_at)


def _take(
    program: Program,
    folded: Folded,
    fact: Fact,
    until: int,
    staffing: Timeline,
    caught: list[Occurrence],
    telling: Telling | None,
) -> None:
    event = fact.event
    group = fact.leaf.hex()
    group = folded.groups.get(group, group)
    if event.gpc or event.name in SPOKEN:
        standing = folded.statements.get(group, {})
        said = spoken(event, dict(program.purposes), standing)
        if said:
            after = folded.statements[group] = {**standing, **said}
            closed = closing(program.purposes, standing, after, event.occurred_at)
            _drop_closed(program, folded, group, closed, event.occurred_at, telling)
    if fact.is_quiet:
        return
    if event.name == program.traits_told_by:
        _learn(program, folded, fact)
    listening, watching = program.listening.get(event.name, ()), program.watching.get(event.name, ())
    if not listening and not watching:
        return
    category = program.categories.get(event.name, "")
    purposes = mask(program.purposes, folded.statements.get(group, {}), event.occurred_at, category)
    purposes &= program.contracts.get(event.source, 0) & ~program.closed_to.get(event.name, 0)
    seen = Seen(
        fact.event_id,
        fact.leaf,
        event.order_key,
        event.name,
        event.occurred_at,
        event.source,
        purposes,
        MemberFields(event, fact.member) if program.account else Fields(event),
    )
    for moment in listening:
        if purposes & program.bits[moment.name]:
            run = folded.runs.get(moment.name)
            if run is None:
                run = folded.runs[moment.name] = Run()
            elif run.partials:  # what has happened is not looked at again by every later event
                _settle(program, moment, folded, min(until, event.occurred_at - 1), caught, telling)
                _pass_time(moment, folded, event.occurred_at - 1, telling)
            known = _around(program, folded, moment, run, seen, staffing) if moment.asks else folded.traits
            matches = observe(moment.pattern, run, seen, known, telling)
            caught.extend(_occurrence(program, moment, match) for match in matches)
            if moment.aggregates:
                remember(moment.aggregates, run, seen, folded.traits, bool(program.account))
        elif telling is not None and seen.name in moment.pattern.names:
            telling.tell("closed", NO_EVENT, event.occurred_at, seen=seen)
    for segment in watching:
        if purposes & program.bits[segment.key]:
            run = folded.runs.setdefault(segment.key, Run())
            remember(segment.aggregates, run, seen, folded.traits)


def _around(
    program: Program, folded: Folded, moment: Moment, run: Run, seen: Seen, staffing: Timeline
) -> Around:
    """What a moment's conditions may look up at an event, before the event itself counts."""

    def consents() -> frozenset[str]:
        bits = in_force(program, folded, seen.occurred_at)
        return frozenset(name for number, (name, _) in enumerate(program.purposes) if bits & 1 << number)

    return Around(folded.traits, moment.aggregates, run.windows, seen.order_key, consents, staffing)


def _join(program: Program, folded: Folded, joined: Joined, telling: Telling | None) -> None:
    a = folded.groups.get(joined.node_a, joined.node_a)
    b = folded.groups.get(joined.node_b, joined.node_b)
    if a == b:
        return
    root, other = min(a, b), max(a, b)
    for node, group in list(folded.groups.items()):
        if group == other:
            folded.groups[node] = root
    folded.groups[joined.node_a] = folded.groups[joined.node_b] = root
    folded.groups[other] = folded.groups[root] = root
    said_a, said_b = folded.statements.pop(a, {}), folded.statements.pop(b, {})
    if said_a or said_b:
        after = folded.statements[root] = strictest(said_a, said_b)
        closed = closing(program.purposes, said_a, after, joined.joined_at)
        closed |= closing(program.purposes, said_b, after, joined.joined_at)
        _drop_closed(program, folded, root, closed, joined.joined_at, telling)


def _lapse(program: Program, folded: Folded, at: int, telling: Telling | None) -> None:
    """Take away grants that have ended by `at`, and what is half matched under them: unknown again."""
    for group, said in folded.statements.items():
        for name, each in list(said.items()):
            if each.until is not None and each.until <= at:
                ended_at = max(each.until, each.stated_at)  # one that ended before it was given held never
                before = mask(program.purposes, said, ended_at - 1) if ended_at == each.until else 0
                del said[name]
                closed = before & ~mask(program.purposes, said, ended_at)
                _drop_closed(program, folded, group, closed, ended_at, telling)
                settled_at = ended_at - 1
                folded.settled_at = max(settled_at, folded.settled_at or settled_at)


def _drop_closed(
    program: Program, folded: Folded, group: str, bits: int, at: int, telling: Telling | None
) -> None:
    """Drop what is half matched under purposes that are closed now, or open to less: of an account, what
    rests on events of the member who closed them."""

    def is_theirs(leaf: LeafId) -> bool:
        return folded.groups.get(leaf.hex(), leaf.hex()) == group

    closed = [name for name, bit in program.bits.items() if bits & bit and name in folded.runs]
    if program.account:
        closed = [name for name in closed if rests_on(folded.runs[name], is_theirs)]
    for moment in program.moments:
        if moment.name in closed:
            _pass_time(moment, folded, at - 1, telling)
    for name in closed:
        withdraw(folded.runs[name], at, telling, is_theirs if program.account else None)


def _learn(program: Program, folded: Folded, fact: Fact) -> None:
    """Hear what an event tells of each trait that a declaration refers to."""
    folded.heard = hear(folded.heard, program.traits, fact.event, fact.event_id)
    folded.traits = standing(folded.heard)


def _occurrence(program: Program, moment: Moment, match: Match) -> Occurrence:
    return Occurrence(
        occurrence_id(moment.name, match.start_id, match.way + program.account),
        moment.name,
        match.occurred_at,
        match.occurred_at + moment.expires_s * SECOND,
        match.bound,
        match.deadline,
        match.context,
    )
