"""Action: one possible answer, and the contact policy that bounds all of them."""

from __future__ import annotations

import msgspec


class Value(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What an answer is expected to be worth, in points, to the customer and to the business."""

    customer: float
    business: float = 0.0


class Action(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One `actions/*.yaml`.

    `eligible` is a condition over the fields of the moment's steps (`late.n_minutes`) and the customer's
    traits (`customer.plan`). `transactional` exempts from caps and quiet hours, never from consent.
    `cap` reads `1 per 7 days`.
    """

    action: str
    title: str
    purpose: str
    destination: str
    template: str
    value: Value
    cost: float = 0.0
    eligible: str = ""
    transactional: bool = False
    cap: str = ""


class ContactPolicy(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The `[contact]` table of `hetki.toml`: when, and how often, a customer may be contacted at all.

    `quiet_hours` reads `21:00-08:00`, in the customer's own time zone; `cap` reads `3 per 7 days`.
    """

    quiet_hours: str = ""
    cap: str = ""


class Weights(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The `[decisions]` table of `hetki.toml`: what a point of either value counts in the arbitration."""

    customer_weight: float = 1.0
    business_weight: float = 0.2
