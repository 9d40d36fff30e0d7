"""Matching cases of other engines, run through the matcher: live, event by event, and as history.

    python bench/vectors.py DIR        (JSON files of cases; --failed prints each that differs)

A case is only translated: its pattern into a declaration of ours, its events into events. One that our
language does not say is counted with its reason. A millisecond of a case is a second here.

The named policies: siddhi with `every` starts at each first event; without it the pattern starts once, at an
event "Query Started" (a silence at the beginning is broken by it, and the first match is the only one).
`every` over the whole has one try open at a time.
A silence beside an event may end after it, in a sequence it ends before.
flink-cep without skipping starts at each first event.
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

    steps: list[dict[str, str]]
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


def compiled(case: Translated) -> Pattern:
    names = {each.name for each in case.events} | {BEGAN}
    for text in (text for step in case.steps for text in step.values()):
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


def often(step: Case) -> str:
    times = step.get("times")
    if times is None:
        return ""
    least, most = times["min"], times["max"]
    if least == 0:
        raise NotExpressed("a step that may be missing")
    if most is None:
        return f"at least {least} times "
    if least == most:
        return "" if most == 1 else f"{most} times "
    return f"{least} to {most} times "


def literal(value: object) -> str:
    return f"'{value}'" if isinstance(value, str) else json.dumps(value)


# -- Siddhi ---------------------------------------------------------------------------------------------


def siddhi(case: Case) -> Translated:
    elements, within = case["pattern"], EVER
    if len(elements) == 1 and "group" in elements[0]:
        within = f"{elements[0]['within_ms']} seconds" if "within_ms" in elements[0] else EVER
        elements = [{"every": elements[0].get("every"), **elements[0]["group"][0]}, *elements[0]["group"][1:]]
    first = elements[0]
    if any("group" in each for each in elements):
        raise NotExpressed("a group of steps that starts again as a whole")
    if any(each.get("every") for each in elements[1:]) or (first.get("every") and first.get("absent")):
        raise NotExpressed("a silence or a step in the middle that starts again by itself")
    match = "one_open" if first.get("every") and ("all" in first or "group" in case["pattern"][0]) else ""
    if match and "all" in first and len(elements) > 1:
        raise NotExpressed("a group of steps that starts again as a whole")
    is_sequence = any(each.get("link") == "strict" for each in elements)
    looks_back = bool(first.get("absent") and first.get("for_ms") and not is_sequence)
    steps: list[dict[str, str]] = [] if first.get("every") or looks_back else [{"began": BEGAN}]
    last = "began" if steps else ""
    for number, element in enumerate(elements):
        if number == 0 and looks_back:
            following = names_of(elements[1])
            text = f"{said(element)} or {BEGAN}, for {element['for_ms']} seconds before {following[0]}"
            steps.append({"no x0": text})
            continue
        for step in siddhi_entries(element, number, last, looks_back and number == 1):
            steps.append(step)
        last = ([*names_of(element), last] if not element.get("absent") else [last])[0]
    events = [event("began", BEGAN, 0, 0, {})]
    events += [
        event(each["id"], each["stream"], each["ts"], number, each)
        for number, each in enumerate(case["events"], 1)
    ]
    by_id = {number.to_bytes(16, "big"): each for number, each in enumerate(case["events"], 1)}
    streams = {each["name"]: each["stream"] for one in elements for each in parts(one) if each.get("name")}
    places = {name: where for one in elements for name, where in placed(one).items()}

    def row(match: Match) -> object:
        values = []
        for select in case["select"]:
            bound = {each.step: each.all for each in match.bound}[places[select["step"]]]
            index = select.get("index", "last")
            if isinstance(index, str):  # last, last-1
                index = len(bound) - 1 - int(index.removeprefix("last").removeprefix("-") or 0)
            source = by_id[bound[index].event_id] if 0 <= index < len(bound) else {}
            fits = source.get("stream") == streams[select["step"]]
            values.append(source.get(select["field"]) if fits else None)
        return values

    if len(case["rows"]) != case["rows_total"]:
        raise NotExpressed("a case that does not say all of its rows")
    repeat = f"once per {EVER}" if looks_back else "every time"
    until = case["observe_until_ms"] * SECOND
    match = match or "first_per_start"
    return Translated(steps, within, repeat, events, until, row, case["rows"], match)


def parts(element: Case) -> list[Case]:
    found: list[Case] = element.get("all") or element.get("any") or [element]
    return found


def names_of(element: Case) -> list[str]:
    """The names of our event steps for an element: one for a choice."""
    names = [each["name"] for each in parts(element) if each.get("name") and not each.get("absent")]
    return names[:1] if "any" in element else names


def placed(element: Case) -> dict[str, str]:
    """Which of our steps each name of the case is bound to."""
    names = [each["name"] for each in parts(element) if each.get("name")]
    return {name: names[0] if "any" in element else name for name in names}


def siddhi_entries(element: Case, number: int, last: str, is_first: bool) -> list[dict[str, str]]:
    strict = "next " if element.get("link") == "strict" and not is_first else ""
    limit = f" within {element['within_ms']} seconds" if element.get("within_ms") else ""
    if element.get("absent"):
        time = f", for {element['for_ms']} seconds" if element.get("for_ms") else ""
        return [{f"no x{number}": said(element) + time}]
    if "any" in element:
        if any(each.get("absent") for each in parts(element)):
            raise NotExpressed("a silence or an event, whichever is first")
        if len({each["stream"] for each in parts(element)}) < len(parts(element)):
            raise NotExpressed("a choice between two conditions that says which one held")
        choices = " or ".join(said(each) for each in parts(element))
        return [{names_of(element)[0]: f"{strict}{choices}{limit}"}]
    before, entry, after = [], {}, []
    for n, each in enumerate(parts(element)):
        if not each.get("absent"):
            inner = f" within {each['within_ms']} seconds of {last}" if each.get("within_ms") else limit
            entry[each["name"]] = f"{strict}{often(each)}{said(each)}{inner}"
        elif each.get("for_ms"):
            if number == 0:
                raise NotExpressed(
                    "a silence at the start that begins again when it is broken, beside an event"
                )
            silence = {f"no x{number}{n}": f"{said(each)}, for {each['for_ms']} seconds after {last}"}
            (before if strict else after).append(silence)
        else:
            before.append({f"no x{number}{n}": said(each)})
    if not entry:
        raise NotExpressed("two silences and no event")
    return [*before, entry, *after]


def said(step: Case) -> str:
    return step["stream"] + (f" where {condition(step['where'])}" if step.get("where") else "")


def condition(where: Case) -> str:
    for word, joined in (("all", " and "), ("any", " or ")):
        if word in where:
            return joined.join(f"({condition(each)})" for each in where[word])
    if "not" in where:
        return f"not ({condition(where['not'])})"
    if "is_null" in where:
        return f"{operand(where['is_null'])} is null"
    return f"{operand(where['l'])} {SIGNS.get(where['op'], where['op'])} {operand(where['r'])}"


def operand(side: Case) -> str:
    if "const" in side:
        return literal(side["const"])
    if "step" not in side:
        return str(side["field"])
    index = side.get("index")
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
    steps: list[dict[str, str]] = []
    for number, each in enumerate(case["pattern"]):
        for key, reason in (
            ("group", "a group of steps that repeats"),
            ("greedy", "as many events as possible"),
            ("until", "a condition that ends the collecting"),
            ("optional", "a step that may be missing"),
        ):
            if each.get(key):
                raise NotExpressed(reason)
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
        lambda match: sorted(ids[each.event_id] for bound in match.bound for each in bound.all),
        [sorted(each) for each in case["matches"]],
    )


def flink_step(step: Case, number: int, limit: str) -> dict[str, str]:
    wheres = []
    for each in step.get("where") or []:
        if each["op"] == "contains":
            wheres.append(f"{each['field']} like '%{each['value']}%'")
        else:
            wheres.append(f"{each['field']} {SIGNS.get(each['op'], each['op'])} {literal(each['value'])}")
    text = "Event" + (f" where {' and '.join(wheres)}" if wheres else "")
    link, times = step["link"], step.get("times") or {"min": 1, "max": 1}
    if link == "not_relaxed":
        return {f"no s{number}": f"{text}, for {limit} after s0" if limit and limit != EVER else text}
    if link == "not_strict":
        raise NotExpressed("an event that must not come at once, but may come later")
    if times["min"] != times["max"]:
        raise NotExpressed("a match for every number of events")
    if link == "relaxed_any" or step.get("repeat_link") == "relaxed_any":
        raise NotExpressed("every combination of events")
    inner_strict = step.get("repeat_link") == "strict"
    if times["max"] > 1 and inner_strict != (link == "strict"):
        raise NotExpressed("several events without anything between, after a gap, or the reverse")
    return {f"s{number}": ("next " if link == "strict" else "") + often(step) + text}


if __name__ == "__main__":
    main()
