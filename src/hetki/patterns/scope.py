"""Scope: which names a condition may use, and their types. What `condition` and `pattern` share."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Callable, Final, Literal, Mapping

from hetki.events.catalogue import Catalogue
from hetki.patterns.tree import Kind, Node

#: Turns an offset in a text into a place a person can find (`moments/late.yaml:8:24`).
Place = Callable[[int], str]

_KIND: dict[str, Kind] = {"integer": "number"}


CUSTOMER: Final = "customer"
CONTEXT: Final = "context"
ACCOUNT: Final = "account"
#: What stands before the dot of a name that is no step's, and what such a name is called.
HEADS: Final = {
    "aggregate": "aggregate",
    "segment": "segment",
    "consent": "purpose",
    ACCOUNT: "trait of an account",
}
#: No step can be called so.
RESERVED: Final = frozenset({CUSTOMER, CONTEXT, *HEADS})


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a condition may ask beside events and traits, by the names behind the dot.

    `staffing` is known of any pool, only of those that the condition names itself, or of none. `account` has
    the traits of the account, and `has_customer` says whether there is one customer to ask for theirs.
    """

    aggregates: Mapping[str, Node] = field(default_factory=dict)
    segments: Mapping[str, Node] = field(default_factory=dict)
    purposes: Mapping[str, Node] = field(default_factory=dict)
    staffing: Literal["any", "named", "none"] = "none"
    account: Mapping[str, Node] = field(default_factory=dict)
    has_customer: bool = True

    def of(self, head: str) -> Mapping[str, Node]:
        """Everything that may stand behind a head."""
        return {
            "aggregate": self.aggregates,
            "segment": self.segments,
            "consent": self.purposes,
            ACCOUNT: self.account,
        }[head]


#: Where events and traits are all that is known.
NOTHING_AROUND: Final = Surroundings()


@dataclass(frozen=True, slots=True)
class Scope:
    """`events` are the possible names of the event at hand; `steps` those of every event step that may be
    referred to, in order. Both hold names of the catalogue only.
    """

    catalogue: Catalogue
    events: tuple[str, ...] = ()
    steps: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    #: Steps that exist but cannot be referred to here, with the reason.
    closed: Mapping[str, str] = field(default_factory=dict)
    #: Steps that bind several events: `step.n` is how many, `step.first.field` is of the first.
    counted: frozenset[str] = frozenset()
    around: Surroundings = NOTHING_AROUND

    def kinds(self, events: tuple[str, ...], name: str) -> dict[str, Kind]:
        """The type of a field in each of the events that have it."""
        found: dict[str, Kind] = {}
        for event in events:
            kind = self.catalogue.field_type(event, name)
            if kind is not None:
                found[event] = _KIND.get(kind) or _plain(kind)
        return found

    def of_step(self, step: str, name: str) -> dict[str, Kind]:
        """The type of what is read of a step: a field of its event, or of the first or last of several."""
        if step in self.counted:
            if name == "n":
                return dict.fromkeys(self.steps[step], "number")
            name = name.removeprefix("first.").removeprefix("last.")
        return self.kinds(self.steps[step], name)

    def index(self, step: str) -> int:
        """Which event step it is, counted from 0."""
        return list(self.steps).index(step)


def _plain(kind: str) -> Kind:
    match kind:
        case "text" | "number" | "boolean" | "time" | "list" | "object":
            return kind
        case _:
            return "unknown"


def shifted(place: Place, start: int) -> Place:
    """The places of a text that starts `start` characters into another."""
    return lambda offset: place(start + offset)
