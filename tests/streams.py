"""Patterns and streams in one line each, for the tests of the matcher.

Events read `60 B k=x v=2 due=90 from=q`: at second 60, named B, from source q; due is given in seconds.
"""

from __future__ import annotations

from typing import Any

import msgspec

from hetki.events.catalogue import Catalogue, EventSpec, FieldType
from hetki.events.event import Event, EventId, LeafId
from hetki.patterns import matcher
from hetki.patterns.pattern import parse_pattern
from hetki.patterns.run import Match, Run, Seen, seen
from hetki.patterns.sequence import Pattern
from hetki.settings import SECOND

FIELDS: dict[str, FieldType] = {"k": "text", "v": "number", "due": "time"}
CATALOGUE = Catalogue({name: EventSpec(name, name, FIELDS) for name in "ABCXY"})
FAR = 10_000_000


def entries_of(steps: str) -> list[Any]:
    """Entries as a declaration has them, in one line: `a: A & b: B | no x: X, for 10 seconds | c: C`.

    `&` joins what stands in one entry; `any(b: B & no x: X, for 1 day)` and `again[b: B then c: C]` nest.
    """
    entries: list[Any] = []
    for entry in (each.strip() for each in steps.split("|") if each.strip()):
        if entry.startswith("any("):
            entries.append({"any": entries_of(entry[4:-1])[0]})
        elif entry.startswith("again["):
            entries.append({"again": entries_of(entry[6:-1].replace(" then ", "|"))})
        else:
            named = [each.split(":", 1) for each in entry.split("&")]
            entries.append({name.strip(): text.strip() for name, text in named})
    return entries


def pattern_of(
    steps: str,
    within: str = "1 hour",
    repeat: str = "every time",
    who: str = "",
    match: str = "first_per_start",
) -> Pattern:
    """Steps in one line, compiled."""
    pattern, faults = parse_pattern(
        entries_of(steps),
        who,
        within,
        repeat,
        CATALOGUE,
        (),
        lambda *keys, offset=0: f"{keys}+{offset}",
        match,
    )
    assert pattern is not None, "\n".join(map(str, faults))
    return pattern


def events_of(line: str) -> list[Seen]:
    """`0 A k=x, 60 B v=2 due=90 from=q`: due is given in seconds, `from` is the source."""
    seens = []
    for number, words in enumerate(each.split() for each in line.split(",") if each.strip()):
        values: dict[str, object] = {}
        source = "p"
        for key, _, value in (word.partition("=") for word in words[2:]):
            if key == "from":
                source = value
            elif key == "due" and value.lstrip("-").isdigit():
                minutes, seconds = divmod(int(value), 60)
                values[key] = f"1970-01-01T{minutes // 60:02}:{minutes % 60:02}:{seconds:02}Z"
            else:
                values[key] = float(value) if key == "v" else value
        at = int(words[0]) * SECOND
        raw = msgspec.json.encode(values)
        event = Event(source, f"m{number:04}", "web", words[1], at, at, {}, raw)
        seens.append(seen(event, EventId(number.to_bytes(16, "big")), LeafId(bytes(16))))
    return seens


def shown(matches: list[Match]) -> list[str]:
    """`60: a0 b60`: the instant, then each bound step with the instant of its event."""
    return [
        f"{match.occurred_at // SECOND}: "
        + " ".join(f"{each.step}{each.occurred_at // SECOND}" for each in match.bound if each.step)
        for match in matches
    ]


def fires(pattern: Pattern, line: str, until: int = FAR) -> list[str]:
    """What a pattern gives for a line of events, with time up to second `until`."""
    return shown(matcher.step(pattern, Run(), events_of(line), until * SECOND, 0)[1])
