"""Matching cases of other engines, run through the matcher: live, event by event, and as history.

    python bench/vectors.py DIR        (JSON files of cases; --failed prints each that differs)

A case is only translated: its pattern into a declaration of ours, its events into events. One that our
language does not say is counted with its reason. A millisecond of a case is a second here.

The named policies: siddhi with `every` starts at each first event; without it the pattern starts once, at an
event "Query Started". What `every` restarts behind that is a group that starts again; in a sequence the
group reaches to the end if it begins with a silence. A silence at the beginning begins again when it is
broken. A sequence under `every` that counts has one try open, and its silences end with a new start.
A silence beside an event may end after it, in a sequence it ends before.
flink-cep without skipping follows every way.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Callable

import msgspec

from hetki.events.catalogue import Catalogue, EventSpec, FieldType
from hetki.events.event import Event, EventId, LeafId
from hetki.patterns import matcher
from hetki.patterns.pattern import parse_pattern
from hetki.patterns.run import Match, Run, Seen, seen
from hetki.patterns.sequence import Pattern
from hetki.settings import SECOND

Case = dict[str, Any]
BEGAN = "Query Started"
EVER = "1000 days"
OWN = {"id", "ts", "stream"}
SIGNS = {"==": "=", "!=": "<>", "eq": "="}


class NotExpressed(Exception):
    """Our language does not say this; the text is the reason."""


@dataclass
class Translated:
    """A case in our words. `row` reads what the case asserts of a match."""

    steps: list[dict[str, Any]]
    within: str
    repeat: str
    events: list[Seen]
    until: int
    row: Callable[[Match], object]
    expected: list[object]
    match: str = "first_per_start"


@dataclass
class Told:
    """What became of the cases of one file."""

    passed: int = 0
    failed: list[str] = field(default_factory=list)
    reasons: Counter[str] = field(default_factory=Counter)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--failed", action="store_true")
    given = parser.parse_args()
    told = run_folder(given.folder)
    for name, each in told.items():
        print(
            f"{name}: {each.passed} passed, {len(each.failed)} failed, {each.reasons.total()} not expressed"
        )
        for reason, n in each.reasons.most_common():
            print(f"    {n} x {reason}")
        for case in each.failed if given.failed else []:
            print(f"    failed: {case}")
    print(
        f"{sum(each.passed for each in told.values())} passed, "
        f"{sum(len(each.failed) for each in told.values())} failed, "
        f"{sum(each.reasons.total() for each in told.values())} not expressed"
    )


def run_folder(folder: Path) -> dict[str, Told]:
    """Every file of cases in a folder, by its name."""
    told: dict[str, Told] = {}
    for path in sorted(folder.glob("*.json")):
        each = told[path.stem] = Told()
        for case in json.loads(path.read_text("utf-8")):
            try:
                translated = translate(case)
                pattern = compiled(translated)
            except NotExpressed as reason:
                each.reasons[str(reason)] += 1
                continue
            live, history = (run(pattern, translated, one_by_one) for one_by_one in (True, False))
            if live == history == sorted(map(repr, translated.expected)):
                each.passed += 1
            else:
                each.failed.append(f"{case['id']}: {translated.steps} gave {live}, not {translated.expected}")
    return told


def texts(steps: Any) -> list[str]:
    """The texts of all steps, those of groups too."""
    if isinstance(steps, str):
        return [steps]
    return [text for each in (steps.values() if isinstance(steps, dict) else steps) for text in texts(each)]


def compiled(case: Translated) -> Pattern:
    names = {each.name for each in case.events} | {BEGAN}
    for text in texts(case.steps):
        names |= {word for word in text.replace(",", " ").split() if word[0].isupper() and "'" not in word}
    fields: dict[str, FieldType] = {"price1": "number"}  # in a schema there, and in no event
    for name, value in (
        each for one in case.events for each in json.loads(one.fields.event.properties).items()
    ):
        fields[name] = "text" if isinstance(value, str) else "number"
    catalogue = Catalogue({name: EventSpec(name, name, fields) for name in names})
    pattern, faults = parse_pattern(
        case.steps, "", case.within, case.repeat, catalogue, (), lambda *keys, offset=0: str(keys), case.match
    )
    if pattern is None:
        if faults[0].must.startswith("a step before this one"):
            raise NotExpressed("a condition on the other events of the same step")
        if faults[0].got.startswith("the absence"):
            raise NotExpressed("an event that must not come before the first step, however long ago")
        raise NotExpressed(f"refused: {faults[0].got}, must be {faults[0].must}")
    return pattern


def run(pattern: Pattern, case: Translated, one_by_one: bool) -> list[str]:
    """What each match says, live (time follows the events) or as history (all at once)."""
    state, matches = Run(), []
    for batch in [[each] for each in case.events] if one_by_one else [case.events]:
        state, found = matcher.step(pattern, state, batch, batch[-1].occurred_at if batch else 0, 0)
        matches += found
    return sorted(
        repr(case.row(each)) for each in matches + matcher.step(pattern, state, [], case.until, 0)[1]
    )


def translate(case: Case) -> Translated:
    if case["semantics"] == "siddhi":
        return siddhi(case)
    if case["semantics"] == "flink-cep":
        return flink(case)
    raise NotExpressed("rows of a table: prev(), quantified groups, skipping past the last row")


def event(case_id: str, name: str, at: int, number: int, values: Case) -> Seen:
    body = msgspec.json.encode({key: value for key, value in values.items() if key not in OWN})
    told = Event("case", case_id, "case", name, at * SECOND, at * SECOND, {}, body, sequence=number)
    return seen(told, EventId(number.to_bytes(16, "big")), LeafId(bytes(16)))


def often(step: Case, at_least: int = 0, between: str = "") -> str:
    """How many events a step has; `between` says what may stand between them."""
    times = step.get("times")
    if times is None:
        return ""
    least, most = max(times["min"], at_least), times["max"]
    if most is None:
        return f"at least {least} times {between}"
    if least == most:
        return "" if most == 1 else f"{most} times {between}"
    return f"{least} to {most} times {between}"


def literal(value: object) -> str:
    return f"'{value}'" if isinstance(value, str) else json.dumps(value)


# -- Siddhi ---------------------------------------------------------------------------------------------


def siddhi(case: Case) -> Translated:
    elements, within = case["pattern"], EVER
    match = "first_per_start"
    if len(elements) == 1 and "group" in elements[0]:
        whole = elements[0]
        within = f"{whole['within_ms']} seconds" if "within_ms" in whole else EVER
        if "group" not in whole["group"][0]:
            elements, match = whole["group"], "one_open" if whole.get("every") else match
            elements = [{"every": whole.get("every"), **elements[0]}, *elements[1:]]
        else:
            elements = whole["group"]
    first = elements[0]
    is_sequence = any(each.get("link") == "strict" for each in elements)
    opens = bool(first.get("every") and not {"absent", "any", "all", "group"} & first.keys())
    if opens and is_sequence and any(each.get("times") for each in elements):
        match = "one_open"
    steps: list[dict[str, Any]] = [] if opens else [{"began": BEGAN}]
    if not opens and within != EVER:
        limit, within = within, EVER
        elements = [*elements[:-1], {**elements[-1], "within_first": limit}]
    last = "began" if steps else ""
    for number, element in enumerate(elements):
        parts_of = element["group"] if "group" in element else [element]
        inner: list[dict[str, Any]] = []
        for n, each in enumerate(parts_of):
            restarts = number == 0 and not (is_sequence and each.get("absent") and not element.get("every"))
            inner += siddhi_entries(each, f"{number}{n}", last, restarts, first if opens else None)
            last = ([*names_of(each), last] if not each.get("absent") else [last])[0]
        again = element.get("every") and not (number == 0 and opens)
        if again and is_sequence and number == 0 and any(each.get("for_ms") for each in parts(element)):
            rest = [
                entry
                for n, each in enumerate(elements[1:], 1)
                for entry in siddhi_entries(each, f"{n}0", last, False, None)
            ]
            steps.append({"again": inner + rest})
            break
        steps += [{"again": inner}] if again else inner
    events = [event("began", BEGAN, 0, 0, {})]
    events += [
        event(each["id"], each["stream"], each["ts"], number, each)
        for number, each in enumerate(case["events"], 1)
    ]
    by_id = {number.to_bytes(16, "big"): each for number, each in enumerate(case["events"], 1)}

    def row(match: Match) -> object:
        values = []
        for select in case["select"]:
            bound = {each.step: each.all for each in match.bound if each.step}.get(select.get("step", ""), ())
            index = select.get("index", "last")
            if isinstance(index, str):  # last, last-1
                index = len(bound) - 1 - int(index.removeprefix("last").removeprefix("-") or 0)
            source = by_id[bound[index].event_id] if 0 <= index < len(bound) else {}
            values.append(source.get(select["field"]))
        return values

    if len(case["rows"]) != case["rows_total"]:
        raise NotExpressed("a case that does not say all of its rows")
    until = case["observe_until_ms"] * SECOND
    return Translated(steps, within, "every time", events, until, row, case["rows"], match)


def parts(element: Case) -> list[Case]:
    found: list[Case] = element.get("all") or element.get("any") or [element]
    return found


def names_of(element: Case) -> list[str]:
    """The names of our event steps for an element."""
    return [each["name"] for each in parts(element) if each.get("name") and not each.get("absent")]


def siddhi_entries(
    element: Case, number: str, last: str, is_first: bool, opening: Case | None
) -> list[dict[str, Any]]:
    """The entries for an element. What comes first begins again when it is broken; in a sequence that each
    first event `opening` starts, a new start ends the one that is in its silence."""
    is_strict = element.get("link") == "strict"
    strict = "next " if is_strict else ""
    limit = f" within {element['within_ms']} seconds" if element.get("within_ms") else ""
    limit = f" within {element['within_first']} of e1" if element.get("within_first") else limit
    for each in element.get("any", ()):
        limit = f" within {each['within_ms']} seconds of {last}" if each.get("within_ms") else limit
    any_time = "any " if is_first else ""

    def silence(each: Case) -> str:
        also = f" or {said(opening)}" if is_strict and opening is not None else ""
        return f"{said(each)}{also}, for {any_time}{each['for_ms']} seconds"

    if element.get("absent"):
        return [{f"no x{number}": silence(element) if element.get("for_ms") else said(element)}]
    if "any" not in element:
        return siddhi_all(element, number, last, is_first, strict, limit, silence)
    entry = {}
    for n, each in enumerate(parts(element)):
        if each.get("absent"):
            entry[f"no x{number}{n}"] = silence(each)
        else:
            entry[each["name"]] = f"{strict}{said(each)}{limit}"
    return [{"any": entry}]


def siddhi_all(
    element: Case,
    number: str,
    last: str,
    is_first: bool,
    strict: str,
    limit: str,
    silence: Callable[[Case], str],
) -> list[dict[str, Any]]:
    """An element of which every part must be: a silence may end after the event, in a sequence before it."""
    before, entry, after = [], {}, []
    for n, each in enumerate(parts(element)):
        if not each.get("absent"):
            own = f" within {each['within_ms']} seconds of {last}" if each.get("within_ms") else limit
            times = often(each, 1 if is_first else 0, "in a row " if strict else "")
            entry[each["name"]] = f"{strict}{times}{said(each)}{own}"
        elif not each.get("for_ms"):
            before.append({f"no x{number}{n}": said(each)})
        elif is_first or element.get("every"):
            entry[f"no x{number}{n}"] = silence(each)
        else:
            alone = {f"no x{number}{n}": f"{silence(each)} after {last}"}
            (before if strict else after).append(alone)
    return [*before, *([entry] if entry else []), *after]


def said(step: Case) -> str:
    where = f" where {condition(step['where'], step.get('name', ''))}" if step.get("where") else ""
    return f"{step['stream']}{where}"


def condition(where: Case, own: str) -> str:
    for word, joined in (("all", " and "), ("any", " or ")):
        if word in where:
            return joined.join(f"({condition(each, own)})" for each in where[word])
    if "not" in where:
        return f"not ({condition(where['not'], own)})"
    if "is_null" in where:
        return f"{operand(where['is_null'], own)} is null"
    return f"{operand(where['l'], own)} {SIGNS.get(where['op'], where['op'])} {operand(where['r'], own)}"


def operand(side: Case, own: str) -> str:
    if "const" in side:
        return literal(side["const"])
    index = side.get("index")
    if "step" not in side or (side["step"] == own and index is None):
        return str(side["field"])
    if index not in (None, 0, "last"):
        raise NotExpressed("a condition on the n-th of several events")
    return f"{side['step']}.{'first.' if index == 0 else ''}{side['field']}"


# -- Flink ----------------------------------------------------------------------------------------------


def flink(case: Case) -> Translated:
    if case["skip"]["mode"] != "none":
        raise NotExpressed("skipping events of a match that was found")
    within = case.get("within")
    if within and within["type"] != "first_last":
        raise NotExpressed("a time from each event to the one before it")
    limit = f"{within['ms'] * 10 - 1} seconds" if within else EVER  # theirs ends before, ours at the instant
    steps: list[dict[str, Any]] = []
    for number, each in enumerate(case["pattern"]):
        for key, reason in (
            ("group", "a group of steps that repeats"),
            ("greedy", "as many events as possible"),
        ):
            if each.get(key):
                raise NotExpressed(reason)
        if each.get("optional") and not number:
            raise NotExpressed("a first step that may be missing")
        steps.append(flink_step(each, number, limit if number == len(case["pattern"]) - 1 else ""))
    events = []
    for number, each in enumerate(case["events"]):
        at = each["ts"] * 10 if within else number
        events.append(event(each["id"], "Event", at, number, each))
    ids = {number.to_bytes(16, "big"): each["id"] for number, each in enumerate(case["events"])}
    return Translated(
        steps,
        limit,
        "every time",
        events,
        10**9 * SECOND,
        lambda match: sorted(ids[each.event_id] for bound in match.bound if bound.step for each in bound.all),
        [sorted(each) for each in case["matches"]],
        "all",
    )


LINKS = {"strict": "next ", "relaxed_any": "any "}
BETWEEN = {"strict": "in a row ", "relaxed_any": "any "}


def flink_step(step: Case, number: int, limit: str) -> dict[str, str]:
    text, link = flink_event(step.get("where")), step["link"]
    if link == "not_relaxed":
        return {f"no s{number}": f"{text}, for {limit} after s0" if limit and limit != EVER else text}
    if link == "not_strict":
        raise NotExpressed("an event that must not come at once, but may come later")
    times = often(step, between=BETWEEN.get(step.get("repeat_link"), ""))
    maybe = "maybe " if step.get("optional") else ""
    until = f" until {flink_event([step['until']])}" if step.get("until") else ""
    return {f"s{number}": f"{maybe}{LINKS.get(link, '')}{times}{text}{until}"}


def flink_event(wheres: list[Case] | None) -> str:
    said = []
    for each in wheres or []:
        if each["op"] == "contains":
            said.append(f"{each['field']} like '%{each['value']}%'")
        else:
            said.append(f"{each['field']} {SIGNS.get(each['op'], each['op'])} {literal(each['value'])}")
    return "Event" + (f" where {' and '.join(said)}" if said else "")


if __name__ == "__main__":
    main()
