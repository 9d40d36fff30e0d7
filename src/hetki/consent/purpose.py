"""Purpose: what data may be used for, and the lawful basis that it needs (law 4)."""

from __future__ import annotations

from typing import Literal

import msgspec

#: The six lawful bases of GDPR article 6(1).
Basis = Literal[
    "consent", "contract", "legal_obligation", "vital_interests", "public_task", "legitimate_interests"
]


class Purpose(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One `[purposes.NAME]` table of `hetki.toml`.

    Under `basis: consent` unknown is no. Under any other basis the purpose is in force until the
    customer refuses it. `gpc` lets a `Sec-GPC: 1` header stand as a refusal of this purpose. `retention` is
    how long events are needed for it; empty: as long as their sources keep them.
    """

    title: str
    basis: Basis
    gpc: bool = False
    retention: str = ""

    def allows(self, stated: Literal["granted", "refused"] | None) -> bool:
        """Whether this purpose is in force, given the customer's standing statement.

        >>> Purpose("News", "consent").allows(None), Purpose("Service", "contract").allows(None)
        (False, True)
        """
        return stated == "granted" if self.basis == "consent" else stated != "refused"
