"""Check: what `hetki check` finds out. All faults of a project, what its moments say, and its examples run.

An example is folded by the code that folds live events. Its events come from a source that may be used for
anything, unless they name one; every purpose is in force, unless an event of the example refuses it.
"""

from __future__ import annotations

from hashlib import blake2b

import msgspec

from hetki.consent.purpose import Purpose
from hetki.declarations.durations import seconds, spoken
from hetki.declarations.read import Declared
from hetki.declarations.tree import in_order
from hetki.declarations.walk import FAULTS_MAX
from hetki.engine.files import Case, Examples
from hetki.engine.project import Project, load
from hetki.errors import Fault, Invalid, nearest, shown
from hetki.events.catalogue import BUILT_IN, MEMBER, Catalogue, FieldType
from hetki.events.event import Event, EventId, LeafId, utc
from hetki.events.fields import instant_of, json_object
from hetki.identity.survival import surviving
from hetki.moments.context import account_traits
from hetki.moments.fold import Fact, Folded, Program, step
from hetki.moments.moment import Moment
from hetki.moments.sentence import segment_sentence, sentence
from hetki.patterns.staffing import read_report, timeline
from hetki.settings import DAY, SECOND
from hetki.store.ports import Shelf

#: Every case starts at the same instant: Monday, 5 January 2026, 09:00 UTC.
STARTS_AT = 1_767_603_600 * SECOND
EVENTS_MAX = 1_000
#: Fields that a note names.
NAMED_MAX = 8

_SOURCE = "example"
_ACCOUNT = b"example"
_LONG_AFTER = STARTS_AT + 300 * 365 * DAY
_KINDS: dict[FieldType, tuple[type, ...]] = {
    "text": (str,),
    "number": (int, float),
    "integer": (int,),
    "boolean": (bool,),
    "time": (str,),
    "list": (list,),
    "object": (dict,),
}


class Checked(msgspec.Struct, frozen=True):
    """What a check came to. `sentences` are the moments in plain words and `segments` the segments, by name;
    `notes` are no faults.
    """

    faults: list[Fault]
    sentences: dict[str, str] = {}
    n_cases: int = 0
    notes: list[str] = []
    segments: dict[str, str] = {}


def check(disk: Shelf) -> Checked:
    """Everything there is to say about the project in a folder. Raises `NotFound` if there is none."""
    try:
        project = load(disk)
    except Invalid as error:
        return Checked(in_order(list(error.faults)))
    titles = {name: action.title for name, action in project.actions.items()}
    return Checked(
        run_examples(project),
        {name: sentence(moment, titles) for name, moment in sorted(project.moments.items())},
        sum(len(spec.cases) for spec, _ in project.files.examples.read()),
        _notes(project),
        {name: segment_sentence(segment) for name, segment in sorted(project.segments.items())},
    )


def run_examples(project: Project) -> list[Fault]:
    """A fault for every case in which a moment fired otherwise than it must, and for every broken case."""
    faults: list[Fault] = []
    for spec, declared in project.files.examples.read():
        moment = project.moments.get(spec.moment)
        if moment is None:
            hint = nearest(spec.moment, project.moments)
            faults.append(Fault(declared.where("moment"), shown(spec.moment), "a declared moment", hint))
            continue
        for number, case in enumerate(spec.cases):
            if len(faults) >= FAULTS_MAX:
                break
            catalogue = project.catalogue
            catalogue = catalogue.with_members() if moment.is_about_account else catalogue
            events, must_fire, found = _read_case(project, catalogue, case, number, declared)
            faults.extend(found)
            if not found:
                fired = _fired(project, moment, events)
                if fired != must_fire:
                    got = f"a moment that {_offsets(fired)}"
                    must = f"one that {_offsets(must_fire)} (case {shown(case.name)})"
                    where = declared.where("cases", number, "fires")
                    faults.append(Fault(where, got, must))
    return in_order(faults)


def _fired(project: Project, moment: Moment, events: list[Event]) -> list[int]:
    """The offsets in seconds at which a moment fires on events in order."""
    purposes = sorted(project.purposes)
    bit = {name: 1 << number for number, name in enumerate(purposes)}
    contracts = {
        name: sum(bit[each] for each in set(source.purposes)) for name, source in project.sources.items()
    }
    is_about_account = moment.is_about_account
    program = Program(
        moments=(moment,),
        purposes=tuple((name, Purpose("", "contract")) for name in purposes),
        contracts={**contracts, _SOURCE: sum(bit.values())},
        traits=account_traits(moment.trees)
        if is_about_account
        else surviving(project.traits, project.survival),
        lateness_s=0,
        version="",
        bits={moment.name: bit[moment.purpose]},
        listening=dict.fromkeys(moment.listens, (moment,)),
        account=_ACCOUNT if is_about_account else b"",
    )
    staffing = timeline(report for event in events if (report := read_report(event)))
    facts = [_fact(event, number, is_about_account) for number, event in enumerate(events, start=1)]
    facts.sort(key=lambda fact: fact.order_key)
    _, occurrences = step(program, Folded(), facts, _LONG_AFTER, staffing)
    return sorted((each.occurred_at - STARTS_AT) // SECOND for each in occurrences)


def _fact(event: Event, number: int, is_about_account: bool) -> Fact:
    """An event of a case; of a moment about an account, `member` says whose it is."""
    member = json_object(event.properties).get(MEMBER) if is_about_account else None
    name = member if isinstance(member, str) else ""
    leaf = LeafId(blake2b(name.encode(), digest_size=16).digest()) if name else LeafId(bytes(16))
    return Fact(event, EventId(number.to_bytes(16)), leaf, name)


def _read_case(
    project: Project, catalogue: Catalogue, case: Case, number: int, declared: Declared[Examples]
) -> tuple[list[Event], list[int], list[Fault]]:
    faults: list[Fault] = []
    events: list[Event] = []
    if len(case.events) > EVENTS_MAX:
        where = declared.where("cases", number, "events")
        return [], [], [Fault(where, f"{len(case.events)} events", f"at most {EVENTS_MAX}")]
    for place, given in enumerate(case.events):
        keys = ("cases", number, "events", place)
        event, found = _read_event(project, catalogue, given, place, keys, declared)
        faults.extend(found)
        events.append(event)
    fires = [
        _offset(text, declared.where("cases", number, "fires", place), faults)
        for place, text in enumerate(case.fires)
    ]
    return events, sorted(fires), faults


def _read_event(
    project: Project,
    known: Catalogue,
    given: dict[str, object],
    number: int,
    keys: tuple[str | int, ...],
    declared: Declared[Examples],
) -> tuple[Event, list[Fault]]:
    """One event of a case. A time may be written as an offset from the start of the case, like `at`."""
    faults: list[Fault] = []
    values = dict(given)
    name = values.pop("name", None)
    at_s = _offset(values.pop("at", None), declared.where(*keys, "at"), faults)
    if not isinstance(name, str) or name not in known.events:
        hint = nearest(str(name), known.events)
        must = "name: an event of the catalogue"
        faults.append(Fault(declared.where(*keys, "name"), shown(name), must, hint))
        return _event("", number, at_s, {}), faults
    for field, value in values.items():
        kind = known.field_type(name, field)
        where = declared.where(*keys, field)
        if kind is None or field == "occurred_at":
            where = declared.key(*keys, field)
            fields = [each for each in known.fields(name) if each != "occurred_at"]
            faults.append(Fault(where, shown(field), f"a field of {name}", nearest(field, fields)))
        elif kind == "time" and isinstance(value, str) and instant_of(value) is None:
            offset_s = _offset(value, where, faults)
            values[field] = utc(STARTS_AT + offset_s * SECOND).isoformat()
        elif field == "source" and value not in project.sources:
            hint = nearest(str(value), project.sources)
            faults.append(Fault(where, shown(value), "a declared source", hint))
        elif value is not None and not _is(value, kind):
            must = f"{kind}, as the catalogue has {name}.{field}"
            faults.append(Fault(where, f"{field}: {shown(value)}", must))
    return _event(name, number, at_s, values), faults


def _event(name: str, number: int, at_s: int, values: dict[str, object]) -> Event:
    context = {
        "device": {"type": values.get("device")},
        "locale": values.get("locale"),
        "page": {"path": values.get("page_path")},
    }
    properties = {field: value for field, value in values.items() if field not in BUILT_IN}
    at = STARTS_AT + at_s * SECOND
    return Event(
        source=str(values.get("source", _SOURCE)),
        message_id=f"{number:06}",
        channel=str(values.get("channel", "")),
        name=name,
        occurred_at=at,
        received_at=at,
        identifiers={"user_id": _SOURCE},
        properties=msgspec.json.encode(properties),
        context=msgspec.json.encode(context),
    )


def _is(value: object, kind: FieldType) -> bool:
    return isinstance(value, _KINDS[kind]) and (kind == "boolean" or not isinstance(value, bool))


def _offset(text: object, where: str, faults: list[Fault]) -> int:
    if not isinstance(text, str):
        got = "no offset" if text is None else shown(text)
        faults.append(Fault(where, got, "an offset from the start of the case, such as at: 5 minutes"))
        return 0
    try:
        return seconds(text, where)
    except Invalid as error:
        faults.extend(error.faults)
        return 0


def _offsets(offsets_s: list[int]) -> str:
    times = " and ".join(spoken(each) for each in offsets_s)
    return f"fires after {times}" if times else "never fires"


def _notes(project: Project) -> list[str]:
    tried = {spec.moment for spec, _ in project.files.examples.read()}
    used = {answer for moment in project.moments.values() for answer in moment.answers}
    printed = {project.actions[name].template for name in used}
    closed = {
        name
        for name, moment in project.moments.items()
        if not any(moment.purpose in source.purposes for source in project.sources.values())
    }
    return [
        *_unsaid(project),
        *(f"moments/{name}.yaml: no source may be used for its purpose" for name in sorted(closed)),
        *(
            f"moments/{name}.yaml: no example in tests/ tries it"
            for name in sorted(project.moments.keys() - tried)
        ),
        *(f"actions/{name}.yaml: no moment uses it" for name in sorted(project.actions.keys() - used)),
        *(
            f"templates/{name}.liquid: no answer uses it"
            for name in sorted(project.templates.keys() - printed)
        ),
    ]


def _unsaid(project: Project) -> list[str]:
    """One note on all fields that the project added and called neither personal nor free."""
    own = {(spec.event, field) for spec, _ in project.files.events.read() for field in spec.fields}
    unsaid = sorted(
        f"{event}.{field}" for event, field in own if field in project.catalogue.events[event].unsaid
    )
    if not unsaid:
        return []
    more = f" and {len(unsaid) - NAMED_MAX} more" if len(unsaid) > NAMED_MAX else ""
    named = ", ".join(unsaid[:NAMED_MAX]) + more
    return [f"events/: nobody called these fields free, so they are personal: {named}"]
