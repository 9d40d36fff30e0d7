"""Tables: how patterns become the numbers of `automaton.Tables`, pattern by pattern and name by name."""

from __future__ import annotations

from typing import Iterable, Mapping, Sequence

import numpy as np

from hetki.patterns import tree as t
from hetki.patterns.automaton import (
    BITS_MAX,
    OPERATION,
    PATTERNS_MAX,
    Automaton,
    Numbers,
    Reads,
    Tables,
    Wanted,
    is_pure,
    of_one_step,
    parts_of,
    refusal,
)
from hetki.patterns.columnar import KEY, NULL, Taken
from hetki.patterns.condition import Condition
from hetki.patterns.sequence import Absence, Pattern
from hetki.settings import SECOND


def compiled(patterns: Sequence[Pattern]) -> Automaton:
    """The tables of patterns that are not refused, at most `PATTERNS_MAX`. Raises `OverflowError` if they
    ask more of one event name than fits into a word."""
    assert len(patterns) <= PATTERNS_MAX and not any(map(refusal, patterns)), "refused patterns stay out"
    names = {name: n for n, name in enumerate(sorted({name for each in patterns for name in each.names}))}
    builder = _Builder(names, len(patterns))
    for number, pattern in enumerate(patterns):
        builder.add(number, pattern)
    reads = tuple(builder.reads)
    if any(len(each.bits) > BITS_MAX for each in reads):
        raise OverflowError("more conditions on one event name than bits in a word")
    return Automaton(
        tuple(patterns),
        names,
        reads,
        builder.tables(),
        max((len(each.columns) for each in reads), default=0),
        max((len(each) for each in builder.wanted.values()), default=0),
        max(len(each.events) for each in patterns),
        max(len(each.timed) for each in patterns),
        max(len(each.before) for each in patterns),
    )


class _Builder:
    """Tables as they grow, pattern by pattern."""

    def __init__(self, names: Mapping[str, int], n_patterns: int) -> None:
        self.names = names
        self.reads = [Reads() for _ in names]
        self.rows: dict[str, list[tuple[int, ...]]] = {
            name: [] for name in Tables._fields if name not in ("pairs", "constants")
        }
        self.pairs = np.full((len(names), n_patterns), -1, np.int64)
        self.constants: list[float] = []
        #: (pattern, step) -> what its registers hold, in order.
        self.wanted: dict[tuple[int, int], list[Wanted]] = {}

    def add(self, number: int, pattern: Pattern) -> None:
        for step in pattern.events:
            self.wanted[number, step.index] = []
        self._want(number, pattern)
        self._describe(number, pattern)
        for name in sorted(pattern.names):
            self._pair(number, pattern, name)

    def _want(self, number: int, pattern: Pattern) -> None:
        """The registers of each step: what conditions, deadlines and `repeat` will read of it."""
        for absence in pattern.timed:
            if absence.by is not None:
                self._register(number, absence.anchor, (t.Field(absence.by, "time"), "time"))
        if pattern.repeat.once == "field":
            name = pattern.repeat.field.removeprefix("first.")
            self._register(number, pattern.repeat.index, (t.Field(name, "unknown"), KEY))

    def _register(self, number: int, step: int, wanted: Wanted) -> int:
        known = self.wanted[number, step]
        if wanted not in known:
            known.append(wanted)
        return known.index(wanted)

    def _list(self, numbers: Iterable[int]) -> tuple[int, int]:
        start = len(self.rows["lists"])
        self.rows["lists"] += [(each,) for each in numbers]
        return start, len(self.rows["lists"])

    def _describe(self, number: int, pattern: Pattern) -> None:
        repeat = pattern.repeat
        steps = self.rows["steps"]
        key = 0
        if repeat.once == "field":
            wanted = (t.Field(repeat.field.removeprefix("first."), "unknown"), KEY)
            key = self._register(number, repeat.index, wanted)
        self.rows["patterns"].append(
            (
                len(steps),
                len(pattern.events),
                len(self.rows["stages"]),
                len(pattern.stages),
                len(self.rows["timed"]),
                len(pattern.timed),
                pattern.within_us,
                ("always", "field", "period").index(repeat.once),
                repeat.index,
                key,
                int(repeat.field.startswith("first.")),
                repeat.period_s * SECOND,
                int(pattern.one_open),
                len(pattern.before),
                *self._list(pattern.ending),
            )
        )
        for absence in pattern.timed:
            register = 0
            if absence.by is not None:
                register = self._register(number, absence.anchor, (t.Field(absence.by, "time"), "time"))
            length = -1 if absence.for_s is None else absence.for_s * SECOND
            self.rows["timed"].append((length, absence.anchor, register))
        for step in pattern.events:
            steps.append(
                (
                    step.least,
                    step.most,
                    int(step.link == "next"),
                    int(step.between == "next"),
                    -1 if step.limit is None else step.limit.index,
                    0 if step.limit is None else step.limit.within_s * SECOND,
                    step.stage,
                    *self._list(step.anchors),
                )
            )
        for stage in pattern.stages:
            span = (stage.steps[0], stage.steps[-1], int(stage.collects))
            self.rows["stages"].append((*span, *self._list(stage.waits), *self._list(stage.after)))
        for absence in pattern.before:
            self.rows["before_us"].append((number, (absence.before_s or 0) * SECOND))

    def _pair(self, number: int, pattern: Pattern, name: str) -> None:
        """What an event of one name may do to one pattern."""
        reads = self.reads[self.names[name]]
        self.pairs[self.names[name], number] = len(self.rows["who"])
        who = -1 if pattern.who is None else self._bit(reads, [pattern.who.tree])
        self.rows["who"].append((who, len(self.rows["step_span"])))
        concerns: list[int] = []
        for step in pattern.events:
            start = len(self.rows["choices"])
            for choice in step.choices:
                if choice.event == name:
                    bit, program = self._test(number, reads, choice.where)
                    self.rows["choices"].append((bit, program))
                    concerns.append(bit)
            self.rows["step_span"].append((start, len(self.rows["choices"])))
        opening = pattern.opening.get(name, ())
        start = len(self.rows["opening"])
        self.rows["opening"] += [(each,) for each in opening]
        self.rows["opening_span"].append((start, len(self.rows["opening"])))
        self._silences(number, pattern, name, concerns)
        if any("next" in (step.link, step.between) for step in pattern.events):
            concerns.append(-1)
        self._opens(number, pattern, name, reads)
        for bit in concerns:
            reads.concerns[bit] = reads.concerns.get(bit, 0) | 1 << number

    def _opens(self, number: int, pattern: Pattern, name: str, reads: Reads) -> None:
        """The bits of which one is true wherever an event of this name opens a try or is remembered."""
        found = []
        for index in pattern.opening.get(name, ()):
            for choice in pattern.events[index].choices:
                if choice.event == name:
                    found.append(self._test(number, reads, choice.where)[0])
        for absence in pattern.before:
            choices = [choice for choice in absence.choices if choice.event == name]
            found += [self._test(number, reads, choice.where)[0] for choice in choices]
        for bit in found:
            reads.opens[bit] = reads.opens.get(bit, 0) | 1 << number

    def _silences(self, number: int, pattern: Pattern, name: str, concerns: list[int]) -> None:
        reads = self.reads[self.names[name]]
        start = len(self.rows["forbids"])
        absences = [each for each in pattern.steps if isinstance(each, Absence)]
        for absence in absences:
            if absence.before_s is not None:
                continue
            timed = pattern.timed.index(absence) if absence.is_timed else -1
            for choice in absence.choices:
                if choice.event == name:
                    bit, program = self._test(number, reads, choice.where)
                    self.rows["forbids"].append((absence.follows, timed, bit, program))
                    concerns.append(bit)
        self.rows["forbid_span"].append((start, len(self.rows["forbids"])))
        start = len(self.rows["before"])
        for place, absence in enumerate(pattern.before):
            for choice in absence.choices:
                if choice.event == name:
                    bit, _ = self._test(number, reads, choice.where)
                    self.rows["before"].append((place, bit))
                    concerns.append(bit)
        self.rows["before_span"].append((start, len(self.rows["before"])))

    def _test(self, number: int, reads: Reads, where: Condition | None) -> tuple[int, int]:
        """A condition as a bit (-1: always true) and a program (-1: none), both of which must be true."""
        pure = [part for part in parts_of(where) if is_pure(part)]
        mixed = [part for part in parts_of(where) if not is_pure(part)]
        bit = self._bit(reads, pure) if pure else -1
        if not mixed:
            return bit, -1
        start = len(self.rows["code"])
        for part in mixed:
            self._program(number, reads, part, "boolean")
        if len(mixed) > 1:
            self._say("and", len(mixed))
        return bit, self._packed(start)

    def _packed(self, start: int) -> int:
        """Where a program stands, as one number: it ends with an operation that says so."""
        self.rows["code"].append((-1, 0, 0))
        return start

    def _bit(self, reads: Reads, parts: Sequence[t.Node]) -> int:
        node = parts[0] if len(parts) == 1 else t.Logic("and", tuple(parts))
        return reads.bits.setdefault(node, len(reads.bits))

    def _say(self, name: str, a: int = 0, b: int = 0) -> None:
        self.rows["code"].append((OPERATION[name], a, b))

    def _program(self, number: int, reads: Reads, node: t.Node, taken: Taken) -> None:
        """A node in postfix order; what looks at one event alone is read from its columns."""
        if isinstance(node, t.Constant) and not isinstance(node.value, str):
            self._say("constant", len(self.constants))
            self.constants.append(NULL if node.value is None else float(node.value))
            return
        if not any(isinstance(each, t.StepField) for each in t.walk(node)):
            self._say("column", reads.columns.setdefault((node, taken), len(reads.columns)))
            return
        one = of_one_step(node)
        if one is not None:
            index, is_first, own = one
            register = self._register(number, index, (own, taken))
            self._say("first_register" if is_first else "register", index, register)
            return
        parts: Iterable[tuple[t.Node, Taken]]
        name, n = "", 0
        match node:
            case t.StepField(index=index):
                self._say("count", index)
                return
            case t.OneOf(part=part, choices=choices):
                equal = tuple(t.Compare("=", part, each) for each in choices)
                self._program(number, reads, t.Logic("or", equal), taken)
                return
            case t.Compare(comparison=word, left=left, right=right):
                kind = right.kind if left.kind == "unknown" else left.kind
                name, parts = word, [(left, kind), (right, kind)]
            case t.Arithmetic(left=left, right=right):
                name, parts = _work(node), [(left, "number"), (right, "number")]
            case t.Logic(word=word, parts=given):
                name, n, parts = word, len(given), [(part, "boolean") for part in given]
            case t.Not(part=part):
                name, parts = "not", [(part, "boolean")]
            case t.IsNull(part=part):
                name, parts = "is_null", [(part, part.kind)]
            case t.Call(function=function, parts=given, kind=kind):
                name, n, parts = function, len(given), [(part, kind) for part in given]
            case _:
                raise AssertionError("only programmable nodes are compiled")
        for part, as_kind in parts:
            self._program(number, reads, part, as_kind)
        self._say(name, n)

    def tables(self) -> Tables:
        """All as arrays. The registers of a step are read of each event name that it may bind."""
        spans, registers = self._registers()
        before = np.zeros((self.pairs.shape[1], max(1, len(self.rows["before_us"]))), np.int64)
        places: dict[int, int] = {}
        for number, length in self.rows["before_us"]:
            before[number, places.get(number, 0)] = length
            places[number] = places.get(number, 0) + 1
        constants = np.array(self.constants or [0.0], np.float64)
        given = {
            **{name: _table(rows) for name, rows in self.rows.items()},
            "pairs": self.pairs,
            "register_span": spans,
            "registers": registers,
            "before_us": before,
        }
        return Tables(**given, constants=constants)

    def _registers(self) -> tuple[Numbers, Numbers]:
        """For each entry of `step_span`: where its event's columns for the step's registers stand."""
        spans: list[tuple[int, ...]] = [(0, 0)] * len(self.rows["step_span"])
        registers: list[tuple[int, ...]] = []
        first = 0
        found = np.argwhere(self.pairs >= 0).tolist()
        for name, number in sorted(found, key=lambda each: int(self.pairs[each[0], each[1]])):
            reads = self.reads[name]
            steps = [step for pattern, step in self.wanted if pattern == number]
            for step in sorted(steps):
                start = len(registers)
                for wanted in self.wanted[number, step]:
                    registers.append((reads.columns.setdefault(wanted, len(reads.columns)),))
                spans[first + step] = (start, len(registers))
            first += len(steps)
        return _table(spans), _table(registers)


def _table(rows: Sequence[tuple[int, ...]]) -> Numbers:
    return np.array(rows, np.int64) if rows else np.zeros((1, 4), np.int64)


def _work(node: t.Arithmetic) -> str:
    if node.left.kind == "time" and node.right.kind == "time":
        return "seconds"
    if node.kind == "time":
        return "later" if node.sign == "+" else "earlier"
    return node.sign
