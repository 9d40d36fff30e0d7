"""Purpose: what data may be used for, and the lawful basis that it needs (law 4)."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Literal

import msgspec

from hetki.consent.vocabulary import DPV, MARKETING, PURPOSES
from hetki.errors import Fault, nearest, shown

#: The six lawful bases of GDPR article 6(1).
Basis = Literal[
    "consent", "contract", "legal_obligation", "vital_interests", "public_task", "legitimate_interests"
]


class Controller(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The `[controller]` table of `hetki.toml`: who answers for the data, as records of consent name them."""

    name: str
    contact: str = ""


class Category(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One `[categories.NAME]` table of `hetki.toml`: a kind of data, as the events that hold it."""

    title: str
    events: list[str]


class Purpose(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One `[purposes.NAME]` table of `hetki.toml`.

    Under `basis: consent` unknown is no. Under any other basis the purpose is in force until the
    customer refuses it. `gpc` lets a `Sec-GPC: 1` header stand as a refusal of this purpose. `dpv` is the
    term of the Data Privacy Vocabulary for it. If `notices` are listed, only a grant under one of these
    versions counts. If `categories` are listed, it uses no other data. `retention` is how
    long events are needed for it; empty: as long as their sources keep them.
    """

    title: str
    basis: Basis
    gpc: bool = False
    dpv: str = ""
    notices: list[str] = []
    categories: list[str] = []
    retention: str = ""

    def allows(self, stated: Literal["granted", "refused"] | None) -> bool:
        """Whether this purpose is in force, given the customer's standing statement.

        >>> Purpose("News", "consent").allows(None), Purpose("Service", "contract").allows(None)
        (False, True)
        """
        return stated == "granted" if self.basis == "consent" else stated != "refused"

    @property
    def may_be_objected_to(self) -> bool:
        """Whether GDPR article 21 lets a person object: on these bases, and to direct marketing always."""
        return self.basis in ("public_task", "legitimate_interests") or self.dpv in MARKETING


def purpose_faults(
    purposes: Mapping[str, Purpose],
    categories: Mapping[str, Category],
    events: Collection[str],
    where: Callable[..., str],
) -> list[Fault]:
    """What is wrong with the purposes and categories of data; `events` are the names of the catalogue."""
    faults: list[Fault] = []
    for name, purpose in purposes.items():
        if purpose.dpv and purpose.dpv not in PURPOSES:
            must = f"a purpose of the Data Privacy Vocabulary {DPV}"
            hint = nearest(purpose.dpv, PURPOSES) or "such as CustomerCare or DirectMarketing"
            faults.append(Fault(where("purposes", name, "dpv"), shown(purpose.dpv), must, hint))
        for number, category in enumerate(purpose.categories):
            if category not in categories:
                place = where("purposes", name, "categories", number)
                must, hint = "a declared category", nearest(category, categories)
                faults.append(Fault(place, shown(category), must, hint or "add [categories.NAME]"))
    first: dict[str, str] = {}
    for name, spec in categories.items():
        for number, event in enumerate(spec.events):
            place = where("categories", name, "events", number)
            if event not in events:
                faults.append(Fault(place, shown(event), "an event of the catalogue", nearest(event, events)))
            elif event in first:
                must = "an event in one category"
                faults.append(Fault(place, f"{shown(event)} again", must, f"the other is {first[event]}"))
            first.setdefault(event, name)
    return faults


def category_of(categories: Mapping[str, Category]) -> dict[str, str]:
    """The category of each event that has one, by its name."""
    return {event: name for name, each in categories.items() for event in each.events}


def closed_to(purposes: Mapping[str, Purpose], categories: Mapping[str, str], event: str) -> list[str]:
    """The purposes that use no data of an event's category.

    >>> closed_to({"news": Purpose("News", "consent", categories=["orders"])}, {}, "Help Searched")
    ['news']
    """
    mine = categories.get(event, "")
    return [name for name, each in purposes.items() if each.categories and mine not in each.categories]
