"""Moment: a declaration compiled, and Occurrence: one caught. Start here, then `sentence`.

A moment has four parts: *identify* (when), *design* (which answers), *secure* (what it needs) and *analyse*
(what must come of it).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from datetime import date
from functools import partial
from hashlib import blake2b
from typing import Annotated, Final, Iterable, Literal, Mapping

import msgspec

from hetki.declarations.durations import seconds
from hetki.declarations.read import Declared
from hetki.errors import Fault, Invalid, nearest, shown
from hetki.events.catalogue import Catalogue
from hetki.events.event import EventId
from hetki.moments.context import (
    NOTHING_BESIDE,
    Beside,
    asks,
    asks_staffing,
    conditions,
    parse_context,
    test_of,
)
from hetki.patterns.aggregates import Aggregate, parse_aggregates
from hetki.patterns.choices import Choice, EventWithin, parse_outcome
from hetki.patterns.pattern import FIRST_PER_START, parse_pattern
from hetki.patterns.run import OPEN_TO, Bound
from hetki.patterns.scope import Surroundings
from hetki.patterns.segments import needed, unused_fault
from hetki.patterns.sequence import Pattern
from hetki.patterns.tree import Node

_NAME: Final = re.compile(r"[a-z][a-z0-9_]{0,59}")
_EXPECT: Final = re.compile(
    r"\s*(?P<result>solved|business)\s+(?P<points>[+-]\d+(?:\.\d+)?)\s+points?\s+by\s+(?P<date>\d{4}-\d\d-\d\d)\s*"
)
_SHARE: Final = re.compile(r"\s*(?P<percent>\d+(?:\.\d+)?)\s*%\s*")


class Identify(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """When it is this moment: the customer's need, and the steps that show it.

    `about` an account, its steps are events of any of its members; an answer goes to the member whose event
    was bound last. `who` is judged at the first step. `match` says whether a start counts while a try is
    open. `within` runs from the first event to the last. An answer later than `expires` after the occurrence
    is never sent. `aggregates` are figures over the customer's own past, by name; `context` is what to keep
    of the situation as of the last event that is bound.
    """

    need: str
    steps: list[
        Annotated[
            dict[str, str | dict[str, str] | list[dict[str, str | dict[str, str]]]],
            msgspec.Meta(description="a name and what happens, such as late: Delivery Delayed"),
        ]
    ]
    expires: str
    about: Literal["customer", "account"] = "customer"
    who: str = ""
    within: str = ""
    repeat: str = "every time"
    match: str = FIRST_PER_START
    aggregates: dict[str, str] = {}
    context: list[str] = []


class Design(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The actions that may answer; doing nothing always may."""

    answers: list[str]


class Secure(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What must be in place. `process` is a file of the project."""

    process: str = ""


class Analyse(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What must come of it, for the customer (`solved`) and for the business, and who gets no answer."""

    solved: str
    business: str = ""
    guardrails: list[str] = []
    expect: str = ""
    holdout: str = "10%"


class MomentSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One `moments/*.yaml`. `purpose` is the one under which its events are read; a moment without an
    `initiative` is one by itself."""

    moment: str
    title: str
    owner: str
    purpose: str
    identify: Identify
    design: Design
    analyse: Analyse
    secure: Secure = Secure()
    initiative: str = ""


@dataclass(frozen=True, slots=True)
class Expect:
    """What the owner expects: so many percentage points of a result, by a day (ISO 8601)."""

    result: Literal["solved", "business"]
    points: float
    by: str


@dataclass(frozen=True, slots=True)
class Moment:
    """A moment that passed its checks. `guardrails` are counted within the window of `solved`.

    `aggregates` are all that its conditions ask for, those of segments included, and `listens` the events of
    steps and aggregates. `asks`: some condition asks for more than events and traits; `asks_staffing`: for
    staffing. `kept` is the context by name, `declared` those of its names that `identify.context` has.
    """

    name: str
    title: str
    owner: str
    initiative: str
    purpose: str
    pattern: Pattern
    expires_s: int
    answers: tuple[str, ...]
    holdout_share: float
    solved: EventWithin
    business: EventWithin | None
    guardrails: tuple[EventWithin, ...]
    expect: Expect | None
    spec: MomentSpec
    aggregates: tuple[Aggregate, ...] = ()
    listens: frozenset[str] = frozenset()
    asks: bool = False
    asks_staffing: bool = False
    kept: Mapping[str, Node] = field(default_factory=dict)
    declared: frozenset[str] = frozenset()

    @property
    def is_about_account(self) -> bool:
        """Whether it is of all members of an account together, and not of one customer."""
        return self.spec.identify.about == "account"

    @property
    def trees(self) -> list[Node]:
        """What its conditions look at, those of aggregates included, and what it keeps."""
        asked = [choice.where.tree for each in self.aggregates for choice in each.choices if choice.where]
        return [*(each.tree for each in conditions(self.pattern)), *self.kept.values(), *asked]


class Occurrence(msgspec.Struct, frozen=True, array_like=True):
    """A moment caught for one customer or account. `bound` has an entry for each event step; one without an
    event has no `step`. `context` is what was kept of the situation, by name, and under `OPEN_TO` the
    purposes to which everything was open that it rests on beside: what aggregates counted, and earlier rounds
    of a group.
    """

    occurrence_id: str
    moment: str
    occurred_at: int
    expires_at: int
    bound: list[Bound]
    deadline: int | None = None
    context: dict[str, object] = {}

    @property
    def events(self) -> list[Bound]:
        """Every event that it rests on, step by step."""
        return [each for bound in self.bound if bound.step for each in bound.all]

    @property
    def last(self) -> Bound:
        """The latest event that it rests on; of one instant, that of the later step."""
        return max(reversed(self.events), key=lambda each: each.occurred_at)


def occurrence_id(moment_name: str, start_event_id: EventId, way: bytes = b"") -> str:
    """The identity of an occurrence: at most one per moment, start and way. 32 hex digits.

    `way` is empty unless one start may have several occurrences (`again`, `match: all`).

    >>> occurrence_id("where_is_my_order", EventId(bytes(16)))
    '2f0485e0e9e4ae0919ae3b7494148fa9'
    """
    data = moment_name.encode() + b"\0" + start_event_id + way
    return blake2b(data, digest_size=16, person=b"occurrence").hexdigest()


def compile_moment(
    declared: Declared[MomentSpec],
    catalogue: Catalogue,
    captures_wanted: Iterable[tuple[str, str]] = (),
    beside: Beside = NOTHING_BESIDE,
    context_wanted: Iterable[str] = (),
) -> tuple[Moment | None, list[Fault]]:
    """A moment as it was read, checked against the catalogue: the moment, or every fault with its place.

    `captures_wanted` names the fields of steps, as `(step, field)`, that actions and templates read, and
    `context_wanted` what else the conditions of actions ask for.
    """
    spec = declared.value
    if spec is None:
        return None, list(declared.faults)
    faults: list[Fault] = []
    if not _NAME.fullmatch(spec.moment):
        must = "a name of small letters, digits and _, such as late_order"
        faults.append(Fault(declared.where("moment"), shown(spec.moment), must))
    identified = _identified(
        declared, spec.identify, catalogue, captures_wanted, beside, context_wanted, faults
    )
    expires_s = _duration(spec.identify.expires, declared.where("identify", "expires"), faults)
    faults.extend(_answers(declared, spec.design.answers))
    solved = _outcome(declared, "solved", spec.analyse.solved, catalogue, faults)
    business = _outcome(declared, "business", spec.analyse.business, catalogue, faults)
    holdout_share = _share(spec.analyse.holdout, declared.where("analyse", "holdout"), faults)
    expect = _expect(spec.analyse, declared.where("analyse", "expect"), faults)
    faults.extend(_guardrails(declared, spec.analyse.guardrails, catalogue))
    if faults or identified is None or solved is None:
        return None, faults
    trees = [condition.tree for condition in conditions(identified.pattern)] + [*identified.kept.values()]
    return Moment(
        name=spec.moment,
        title=spec.title,
        owner=spec.owner,
        initiative=spec.initiative,
        purpose=spec.purpose,
        pattern=identified.pattern,
        expires_s=expires_s,
        answers=tuple(spec.design.answers),
        holdout_share=holdout_share,
        solved=solved,
        business=business,
        guardrails=tuple(
            EventWithin(False, (Choice(event),), solved.within_s) for event in spec.analyse.guardrails
        ),
        expect=expect,
        spec=spec,
        aggregates=identified.aggregates,
        listens=identified.pattern.names | {event for each in identified.aggregates for event in each.tests},
        asks=asks(trees),
        asks_staffing=asks_staffing(trees),
        kept=identified.kept,
        declared=identified.declared,
    ), []


@dataclass(frozen=True, slots=True)
class _Identified:
    """What comes of `identify`."""

    pattern: Pattern
    aggregates: tuple[Aggregate, ...]
    kept: dict[str, Node]
    declared: frozenset[str]


def _identified(
    declared: Declared[MomentSpec],
    part: Identify,
    catalogue: Catalogue,
    captures_wanted: Iterable[tuple[str, str]],
    beside: Beside,
    context_wanted: Iterable[str],
    faults: list[Fault],
) -> _Identified | None:
    def where(*keys: str | int, offset: int = 0) -> str:
        return declared.where("identify", *keys, offset=offset)

    is_about_account = part.about == "account"
    catalogue = catalogue.with_members() if is_about_account else catalogue
    counting = Surroundings(has_customer=not is_about_account)
    own, found = parse_aggregates(part.aggregates, catalogue, partial(where, "aggregates"), around=counting)
    faults.extend(found)
    around = beside.around(own, is_about_account)
    pattern, found = parse_pattern(
        part.steps,
        part.who,
        part.within,
        part.repeat,
        catalogue,
        captures_wanted,
        where,
        part.match,
        around,
    )
    faults.extend(found)
    if pattern is None:
        return None
    wanted = list(context_wanted)
    kept, found = parse_context(part.context, wanted, pattern, catalogue, around, declared)
    faults.extend(found)
    if faults:
        return None
    trees = [*(condition.tree for condition in conditions(pattern)), *kept.values()]
    aggregates = needed(trees, own.values(), beside.segments.values())
    asked_in_vain = [each for each in wanted if each.startswith("aggregate.") and each[10:] not in own]
    if not asked_in_vain:  # else a misspelt name, which is told where it stands
        unused = [name for name in own if own[name] not in aggregates]
        faults.extend(unused_fault(where("aggregates", name), name) for name in unused)
    tests = [(name, test_of(tree)) for name, tree in sorted(kept.items())]
    if aggregates:  # an answer must not use what it could not see: decided with the bound events' purposes
        tests.append((OPEN_TO, lambda fields, bound, traits: traits.get(OPEN_TO)))
    pattern = replace(pattern, context=tuple(tests))
    named = len(part.context)
    return _Identified(pattern, aggregates, kept, frozenset(list(kept)[:named]))


def _duration(text: str, at: str, faults: list[Fault]) -> int:
    try:
        length_s = seconds(text, at)
    except Invalid as error:
        faults.extend(error.faults)
        return 0
    if length_s == 0:
        faults.append(Fault(at, shown(text), "longer than nothing"))
    return length_s


def _answers(declared: Declared[MomentSpec], answers: list[str]) -> list[Fault]:
    if not answers:
        return [Fault(declared.where("design", "answers"), "no answer", "at least one action")]
    return [
        Fault(declared.where("design", "answers", number), shown(answer), "named once")
        for number, answer in enumerate(answers)
        if answer in answers[:number]
    ]


def _guardrails(declared: Declared[MomentSpec], events: list[str], catalogue: Catalogue) -> list[Fault]:
    faults = []
    for number, event in enumerate(events):
        if event not in catalogue.events:
            at, hint = declared.where("analyse", "guardrails", number), nearest(event, catalogue.events)
            faults.append(Fault(at, shown(event), "an event of the catalogue", hint))
    return faults


def _outcome(
    declared: Declared[MomentSpec], key: str, text: str, catalogue: Catalogue, faults: list[Fault]
) -> EventWithin | None:
    if not text and key == "business":
        return None
    outcome, found = parse_outcome(
        text, catalogue, lambda offset: declared.where("analyse", key, offset=offset)
    )
    faults.extend(found)
    return outcome


def _share(text: str, at: str, faults: list[Fault]) -> float:
    written = _SHARE.fullmatch(text)
    if written is None or float(written["percent"]) > 50:
        faults.append(Fault(at, shown(text), "a share of customers from 0% to 50%, such as 10%"))
        return 0.0
    return float(written["percent"]) / 100


def _expect(analyse: Analyse, at: str, faults: list[Fault]) -> Expect | None:
    if not analyse.expect:
        return None
    written = _EXPECT.fullmatch(analyse.expect)
    must = "such as: solved +8 points by 2027-03-31"
    if written is None or not _is_day(written["date"]):
        faults.append(Fault(at, shown(analyse.expect), must))
        return None
    if written["result"] == "business" and not analyse.business:
        faults.append(Fault(at, shown(analyse.expect), "about solved, as no business result is declared"))
        return None
    result: Literal["solved", "business"] = "solved" if written["result"] == "solved" else "business"
    return Expect(result, float(written["points"]), written["date"])


def _is_day(text: str) -> bool:
    try:
        date.fromisoformat(text)
    except ValueError:
        return False
    return True
