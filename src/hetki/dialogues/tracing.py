"""Tracing: what became of a customer's tries at a moment, in words: why it was caught, and why it was not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from hetki.declarations.durations import spoken
from hetki.dialogues.wording import counted, in_one_line, spoken_at
from hetki.moments.moment import Moment
from hetki.moments.sentence import sentence, step_names
from hetki.moments.why import Try, Why
from hetki.patterns.told import Miss, Told
from hetki.patterns.words import words

#: More of one kind are counted, not told.
TRIES_MAX: Final = 10
MISSES_MAX: Final = 5


def why_words(why: Why, moment: Moment, action_titles: Mapping[str, str], time_zone: str) -> list[str]:
    """Lines of text: the moment's sentence, what it could see, and its newest tries, those first."""
    could_not = f"; {why.n_closed:,} it could not see, as its purpose was not in force" * (why.n_closed > 0)
    n_caught = len(why.occurrences)
    caught = f"caught {'once' if n_caught == 1 else f'{n_caught} times'}" if n_caught else "never caught"
    lines = [
        f"'{moment.title}' ({moment.name})",
        f"  {sentence(moment, action_titles)}",
        "",
        f"It listens to {counted(why.n_listened, 'event')} of this {moment.spec.identify.about}{could_not}.",
        f"It was {caught}, of {counted(len(why.tries), 'start')}.",
    ]
    for each in list(reversed(why.tries))[:TRIES_MAX]:
        lines += ["", *_try(each, moment, time_zone)]
    if len(why.tries) > TRIES_MAX:
        lines += ["", f"and {len(why.tries) - TRIES_MAX:,} earlier starts"]
    if why.missed:
        lines += ["", f"{counted(len(why.missed), 'event')} did not open a try; the newest:"]
        lines += _misses(list(reversed(why.missed)), moment, time_zone)
    return lines


def _try(told: Try, moment: Moment, time_zone: str) -> list[str]:
    lines = [f"Started {spoken_at(told.started_at, time_zone)}"]
    for each in told.steps:
        lines.append(f"  {spoken_at(each.occurred_at, time_zone)}  {_happened(each)}")
    lines.append(f"  {_end(told, moment, time_zone)}")
    if told.end in ("ended", "open") and told.missed:
        lines += ["  what came for a step and did not fit, newest first:"]
        lines += [f"  {line}" for line in _misses(list(reversed(told.missed)), moment, time_zone)]
    return lines


def _happened(told: Told) -> str:
    if told.what == "caught":
        return "caught"
    return f"{told.step}: {told.event}" if told.what == "bound" else f"no {told.step}: the silence was kept"


def _end(told: Try, moment: Moment, time_zone: str) -> str:
    pattern = moment.pattern
    at = spoken_at(told.ended_at, time_zone) if told.ended_at is not None else ""
    match told.end:
        case "caught":
            return f"{at}  caught"
        case "repeated":
            return f"{at}  complete, but the same again: repeat is {moment.spec.identify.repeat}"
        case "open":
            until = f" until {spoken_at(told.until, time_zone)}" if told.until is not None else ""
            return f"still open{until}, waiting for {' and '.join(told.awaits) or 'more'}"
    within = spoken(pattern.within_s) if pattern.within_s is not None else ""
    limits = {step.name: step.limit.within_s for step in pattern.events if step.limit is not None}
    reasons = {
        "within": f"{told.about} had not come within {within} of the start",
        "limit": f"{told.about} had not come within {spoken(limits.get(told.about, 0))}",
        "broken": f"{told.by} came, and {told.about} asks for none",
        "between": f"{told.by} came, and next allows nothing in between",
        "until": f"{told.by} came before {told.about} had enough",
        "no_deadline": f"the event does not say the time that {told.about} needs",
        "pushed_out": "too many tries were open, and this was the oldest",
        "withdrawn": "its purpose was withdrawn, so what was half matched was dropped",
    }
    return f"ended, seen at {at}: {reasons[told.why]}" if told.why in reasons else f"ended at {at}"


def _misses(missed: Sequence[Told], moment: Moment, time_zone: str) -> list[str]:
    lines = []
    for each in missed[:MISSES_MAX]:
        at = spoken_at(each.occurred_at, time_zone)
        lines.append(f"  {at}  {each.event} for {each.step}: {_missed(each, moment)}")
    if len(missed) > MISSES_MAX:
        lines.append(f"  and {len(missed) - MISSES_MAX:,} more")
    return lines


def _missed(told: Told, moment: Moment) -> str:
    if told.why == "one_open":
        return "a try was open already"
    if told.why == "before":
        return f"what {told.step} forbids had come shortly before"
    if told.why == "until":
        return "it ends the step that it would open"
    who = f"the {moment.spec.identify.about} is not one of who: " if told.why == "who" else ""
    called = step_names(moment.pattern)
    return who + "; ".join(miss_words(each, called) for each in told.misses)


def miss_words(miss: Miss, called: Mapping[str, str]) -> str:
    """Why a part of a condition was not true: what must be, and what was."""
    was = []
    for node, value in miss.values:
        told = f"'{in_one_line(value)}'" if isinstance(value, str) else f"{value}"
        was.append(f"{words(node, called)} was {'missing' if value is None else told}")
    return f"must be that {words(miss.part, called)}" + (f", but {' and '.join(was)}" if was else "")
