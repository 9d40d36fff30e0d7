"""Initiative: why a group of moments exists, who answers for it, and how far ahead it looks."""

from __future__ import annotations

from typing import Literal

import msgspec

#: `mainstream` improves what is done today; `explore` tries what may be done tomorrow.
Horizon = Literal["mainstream", "explore"]


class Initiative(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One `initiatives/*.yaml`. Its moments share one holdout: a customer is assigned once per initiative."""

    initiative: str
    title: str
    owner: str
    horizon: Horizon = "mainstream"
