"""Households: customers who live together, as far as declared traits say so. A view, and never a merge.

A household is known by what its customers' traits are, all of them equal after putting them into one form.
Nothing is decided by it, and no data of the others is used.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from hashlib import blake2b
from unicodedata import normalize

import msgspec

from hetki.errors import Fault, nearest, shown
from hetki.identity.identifier import JUNK

TRAITS_MAX = 8
MEMBERS_MOST = 100
_BETWEEN = re.compile(r"[\W_]+")


class Household(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The `[household]` table of `hetki.toml`: customers are one household if all of these traits are the
    `same`. `address.street` is the street in an address. More than `members_max` are an office or a
    dormitory: they are listed, and are no household.
    """

    same: list[str]
    members_max: int = 12


def household_id(key: bytes, same: Sequence[str], traits: Mapping[str, object]) -> bytes | None:
    """The id (16 bytes, keyed) of the household that traits say; None if one of them is missing.

    >>> one = {"address.street": "Katu 1 A", "name": "Virtanen"}
    >>> other = {"address.street": " katu 1, a", "name": "VIRTANEN"}
    >>> household_id(b"key", list(one), one) == household_id(b"key", list(other), other)
    True
    >>> household_id(b"key", ["name"], {"name": "n/a"}) is None
    True
    """
    parts = []
    for name in same:
        value = traits.get(name)
        text = str(value).strip().casefold() if isinstance(value, str | int | float) else ""
        form = _BETWEEN.sub(" ", normalize("NFKC", text)).strip()
        if not form or text in JUNK:
            return None
        parts.append(form)
    told = "\0".join(parts).encode()
    return blake2b(told, key=key, digest_size=16, person=b"household").digest() if parts else None


def household_faults(
    household: Household | None, fields: Mapping[str, str], where: Callable[..., str]
) -> list[Fault]:
    """What is wrong with the table; `fields` are the traits with their types, `where` the place of keys."""
    if household is None:
        return []
    faults = []
    n_same, n_max = len(household.same), household.members_max
    if not 1 <= n_same <= TRAITS_MAX:
        must = f"1 to {TRAITS_MAX} traits"
        faults.append(Fault(where("household", "same"), f"{n_same} traits", must))
    if not 2 <= n_max <= MEMBERS_MOST:
        must = f"a number from 2 to {MEMBERS_MOST}"
        faults.append(Fault(where("household", "members_max"), f"{n_max}", must))
    for number, name in enumerate(household.same):
        head, dot, _ = name.partition(".")
        place = where("household", "same", number)
        if head not in fields:
            faults.append(Fault(place, shown(name), "a trait of the catalogue", nearest(head, fields)))
        elif (fields[head] == "object") != bool(dot) or fields[head] == "list":
            must = "a trait with one plain value, or a part of an object such as address.street"
            faults.append(Fault(place, f"{shown(name)}, which is of type {fields[head]}", must))
        elif name in household.same[:number]:
            faults.append(Fault(place, f"{shown(name)} again", "each trait once"))
    return faults
