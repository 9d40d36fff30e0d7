"""Steps: the entries of `steps` -> event steps, absences and stages, or every fault in them.

- late: Delivery Delayed                            one event
- {failed: Delivery Failed, waited: Chat Waited}    both, in any order
- any: {answered: Survey Answered, no answer: Survey Answered, for 7 days}     whichever is first
- again: [{no answer: Survey Answered, for 1 day}]  a group that starts again each time it is passed
- no visit: Store Visited, for 7 days               an absence

What the text of one step says is read in `texts`.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Final, Mapping, Sequence

from hetki.errors import Fault, shown
from hetki.patterns.scope import CUSTOMER, RESERVED
from hetki.patterns.sequence import Absence, Stage
from hetki.patterns.texts import Key, Reading, has_time, read_absence, read_event, read_part

STEPS_MAX: Final = 16
ANY: Final = "any"
AGAIN: Final = "again"

Part = Mapping[str, str]
Inner = Mapping[str, str | Part]
Entry = Mapping[str, str | Part | Sequence[Inner]]

_NAME: Final = re.compile(r"[a-z][a-z0-9_]{0,39}")
_MUST_ANY: Final = (
    "named parts of which one is enough, as in: {any: {paid: Order Completed, left: Order Cancelled}}"
)
_MUST_AGAIN: Final = "a list of steps, as in: {again: [{failed: Help Searched}]}"
#: What must stand under a word that is no step of its own, or is easily taken for one.
_MUST_BE: Final = {
    ANY: _MUST_ANY,
    AGAIN: _MUST_AGAIN,
    "all": "two names in one entry, as in: {failed: Delivery Failed, waited: Chat Started}",
}


def read_steps(entries: Sequence[Entry], reading: Reading) -> None:
    """Read all entries."""
    n_steps = sum(_n_steps(each) for each in entries)
    if not 1 <= len(entries) <= STEPS_MAX or n_steps > STEPS_MAX:
        got = f"{max(len(entries), n_steps)} steps"
        reading.faults.append(Fault(reading.where("steps"), got, f"1 to {STEPS_MAX} steps"))
        return
    for number, entry in enumerate(entries):
        key: Key = ("steps", number)
        group = entry.get(AGAIN)
        if not isinstance(group, (list, tuple)):
            _read_entry(entry, key, reading, in_group=False)
        elif len(entry) == 1 and group:
            _read_group(group, (*key, AGAIN), reading)
        else:
            got = "again beside another name" if group else "again with nothing"
            reading.faults.append(Fault(reading.where(*key), got, _MUST_AGAIN))
    opening = [step.name for step in reading.events if step.stage == 0]
    for name, at in reading.starts:
        if name not in opening and opening:
            reading.faults.append(Fault(at, shown(name), f"the first event step, {' or '.join(opening)}"))


def _n_steps(entry: Entry) -> int:
    return sum(
        1
        if isinstance(value, str)
        else sum(_n_steps(each) for each in value)
        if isinstance(value, (list, tuple))
        else len(value)
        for value in entry.values()
    )


def _read_group(entries: Sequence[Inner], key: Key, reading: Reading) -> None:
    """Entries that start again each time the last of them is passed."""
    first = len(reading.stages)
    if not first:
        must = "a step before the group; each first event opens a try of its own by itself"
        reading.faults.append(Fault(reading.where(*key), "again in the first step", must))
    n_steps = len(reading.steps)
    for number, entry in enumerate(entries):
        if isinstance(entry.get(AGAIN), (list, tuple)):
            got, must = "a group in a group", "steps of this group"
            reading.faults.append(Fault(reading.where(*key, number), got, must))
            continue
        _read_entry(entry, (*key, number), reading, in_group=True)
    if len(reading.stages) == first:
        must = "an event, or a silence with a time"
        reading.faults.append(Fault(reading.where(*key), "a group that nothing passes", must))
        return
    last = reading.steps[-1] if reading.steps else None
    if isinstance(last, Absence) and last.follows == len(reading.stages) and len(reading.steps) > n_steps:
        must = "a silence with a time, or a step after it in the group"
        reading.faults.append(Fault(reading.where(*reading.keys[-1]), "a silence that ends a group", must))
    if reading.stages[first].is_optional or reading.stages[-1].is_optional:
        must = "steps that always come, first and last"
        reading.faults.append(Fault(reading.where(*key), "a group with a step that may be missing", must))
    reading.stages[-1] = replace(reading.stages[-1], back=first)


def _read_entry(entry: Inner | Entry, key: Key, reading: Reading, in_group: bool) -> None:
    parts = entry.get(ANY)
    if isinstance(parts, Mapping):
        if len(entry) > 1 or len(parts) < 2:
            got = "any beside another name" if len(entry) > 1 else "any with too few parts"
            reading.faults.append(Fault(reading.where(*key), got, _MUST_ANY))
            return
        _read_stage(parts, (*key, ANY), reading, is_any=True)
        return
    texts: dict[str, str] = {}
    for name, text in entry.items():
        if isinstance(text, str):
            texts[name] = text
        else:
            got = f"a {'mapping' if isinstance(text, Mapping) else 'list'} in {shown(name)}"
            must = _MUST_BE.get(name, "the text of a step, or any, or again")
            reading.faults.append(Fault(reading.where(*key, name), got, must))
    if not entry:
        must = "one name and its event, as in: late: Delivery Delayed"
        reading.faults.append(Fault(reading.where(*key), "0 entries in one step", must))
    elif len(texts) == len(entry) == 1 and next(iter(texts)).startswith("no "):
        _read_alone(*next(iter(texts.items())), key, reading, in_group)
    elif len(texts) == len(entry):
        _read_stage(texts, key, reading, is_any=False)


def _read_alone(name: str, text: str, key: Key, reading: Reading, in_group: bool) -> None:
    """An absence by itself: between stages, or in a group a stage that time passes."""
    if in_group and reading.stages and has_time(text, reading.catalogue):
        _read_stage({name: text}, key, reading, is_any=False)
        return
    called = _named(name, key, reading)
    absence = read_absence(called, text, (*key, name), reading)
    if absence is not None:
        reading.add(absence, (*key, name))


def _read_stage(parts: Part, key: Key, reading: Reading, is_any: bool) -> None:
    """What is passed together, or (`is_any`) by whichever part is first."""
    known, stage = reading.scope(), len(reading.stages)
    indices: list[int] = []
    is_optional = False
    for name, text in parts.items():
        called = _named(name, key, reading)
        if name.startswith("no "):
            if not stage:
                must = "events only: a silence starts with a step before it"
                hint = "a step of its own begins with a dash" if len(parts) > 1 else ""
                got = "a silence in the first step"
                reading.faults.append(Fault(reading.where(*key, name), got, must, hint))
                continue
            reading.add(read_part(called, text, (*key, name), reading), (*key, name))
            continue
        step, maybe = read_event(called, text, known, (*key, name), reading)
        if maybe and len(parts) > 1:
            must = "a step by itself: of what stands together nothing may be missing"
            reading.faults.append(Fault(reading.where(*key, name), "maybe beside another step", must))
        is_optional |= maybe
        if maybe or is_any:
            reading.unsure[called] = "may be missing"
        indices.append(len(reading.events))
        reading.events.append(step)
        reading.add(step, (*key, name))
    reading.stages.append(Stage(stage, tuple(indices), is_any=is_any, is_optional=is_optional))


def _named(key: str, at: Key, reading: Reading) -> str:
    """The name in a key, after `no`, which must be well formed and its own."""
    name = key.removeprefix("no ").strip()
    if not _NAME.fullmatch(name):
        must = "a step name of small letters, digits and _, such as late"
        hint = f"a silence is written no {name[4:].strip()}" if name.startswith("not ") else ""
        reading.faults.append(Fault(reading.where(*at), shown(name), must, hint))
    elif name in RESERVED or name in reading.names:
        must = f"a step name of its own, and not {name if name in RESERVED else CUSTOMER}"
        reading.faults.append(Fault(reading.where(*at), shown(name), must))
    reading.names.add(name)
    return name
