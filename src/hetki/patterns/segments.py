"""Segments: groups of customers that are declared once and always current.

A segment is a condition on the customer's traits, on aggregates of its own and on other segments. A moment
that asks for one takes it in whole, aggregates included, so its data is read under the moment's own purpose.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Iterable, Mapping

import msgspec

from hetki.declarations.read import Declared
from hetki.errors import Fault, shown
from hetki.events.catalogue import Catalogue
from hetki.patterns import tree as t
from hetki.patterns.aggregates import Aggregate, parse_aggregates
from hetki.patterns.condition import Condition, asked, parse
from hetki.patterns.scope import Scope, Surroundings


class SegmentSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One `segments/*.yaml`. `purpose` is the one under which its events are read when the segment itself is
    listed."""

    segment: str
    title: str
    purpose: str
    who: str
    aggregates: dict[str, str] = {}


@dataclass(frozen=True, slots=True)
class Segment:
    """A segment that passed its checks. `aggregates` are all that its condition asks for, those of segments
    within it included; `listens` are the events that they are about."""

    name: str
    title: str
    purpose: str
    who: Condition
    aggregates: tuple[Aggregate, ...]
    listens: frozenset[str]

    @property
    def key(self) -> str:
        """The name under which its windows are kept."""
        return f"segment.{self.name}"

    @property
    def node(self) -> t.InSegment:
        """How it stands in the tree of a condition."""
        return t.InSegment(self.name, self.title, self.who.tree)


#: Segments by name; `None` for one that has a fault.
Segments = Mapping[str, Segment | None]


def compile_segments(
    declared: Iterable[Declared[SegmentSpec]], names: Iterable[str], catalogue: Catalogue
) -> tuple[dict[str, Segment | None], list[Fault]]:
    """Every segment, each after those that it asks for, or every fault.

    `names` are all that are declared, those of files that cannot be read too: one fault does not make others.
    """
    by_name = {each.value.segment: each for each in declared if each.value is not None}
    compiled: dict[str, Segment | None] = {name: None for name in names if name not in by_name}
    faults: list[Fault] = []
    for name in sorted(by_name):
        _compile(name, (), by_name, catalogue, compiled, faults)
    return compiled, faults


def _compile(
    name: str,
    path: tuple[str, ...],
    by_name: Mapping[str, Declared[SegmentSpec]],
    catalogue: Catalogue,
    compiled: dict[str, Segment | None],
    faults: list[Fault],
) -> None:
    if name in compiled:
        return
    declared = by_name[name]
    spec = declared.value
    assert spec is not None, "only segments that were read are compiled"
    place = partial(_at, declared, "who")
    for other in _asked(spec):
        chain = (*path, name)
        if other in chain:
            circle = (*chain[chain.index(other) :], other)
            at = place(max(spec.who.find(f"segment.{other}"), 0))
            got = f"a circle: {' asks for '.join(circle)}"
            faults.append(Fault(at, got, "a segment that does not lead back to itself"))
            compiled[name] = None
            return
        if other in by_name:
            _compile(other, (*path, name), by_name, catalogue, compiled, faults)
            if name in compiled:
                return
    own, found = parse_aggregates(
        spec.aggregates, catalogue, partial(_where, declared, "aggregates"), within=name
    )
    known = {other: compiled.get(other) for other in {*by_name, *compiled} if other != name}
    scope = Scope(catalogue, around=Surroundings(nodes(own), nodes(known)))
    who, wrong = parse(spec.who, scope, place)
    faults += found + wrong
    compiled[name] = None
    if who is None or found:
        return
    aggregates = needed([who.tree], own.values(), known.values())
    unused = [each for each in own if own[each] not in aggregates]
    faults += [unused_fault(_where(declared, "aggregates", each), each) for each in unused]
    if not unused:
        listens = frozenset(event for each in aggregates for event in each.tests)
        compiled[name] = Segment(name, spec.title, spec.purpose, who, aggregates, listens)


def _asked(spec: SegmentSpec) -> list[str]:
    return [each.removeprefix("segment.") for each in asked(spec.who) if each.startswith("segment.")]


def nodes(known: Mapping[str, Aggregate | None] | Segments) -> dict[str, t.Node]:
    """How each stands in a tree; one that has a fault fits everywhere."""
    return {name: t.UNKNOWN if each is None else each.node for name, each in known.items()}


def needed(
    trees: Iterable[t.Node], own: Iterable[Aggregate | None], segments: Iterable[Segment | None]
) -> tuple[Aggregate, ...]:
    """The aggregates that trees look up, in order of their names."""
    every = {each.key: each for each in own if each is not None}
    every |= {one.key: one for each in segments if each is not None for one in each.aggregates}
    keys = {node.key for tree in trees for node in t.walk(tree) if isinstance(node, t.Known)}
    return tuple(every[key] for key in sorted(keys) if key in every)


def unused_fault(where: str, name: str) -> Fault:
    """An aggregate that nothing asks for."""
    must = f"asked for by a condition, as aggregate.{name}, or left out"
    return Fault(where, f"the aggregate {shown(name)} that nothing uses", must)


def _where(declared: Declared[SegmentSpec], *keys: str, offset: int = 0) -> str:
    return declared.where(*keys, offset=offset)


def _at(declared: Declared[SegmentSpec], key: str, offset: int) -> str:
    return declared.where(key, offset=offset)
