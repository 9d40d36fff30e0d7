"""Columns of consent: which purposes are open to each event, for many customers at once.

It says what `statements` says, for customers whose statements are all of one leaf and have no end. Any other
is folded one by one by the fold itself.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hetki.patterns.machine import entry, inner

Numbers = NDArray[np.int64]


class Spoken(NamedTuple):
    """Events in order: whose they are, the purpose that they speak about as a bit (0: none) and whether it is
    granted, whether they carry `Sec-GPC`, and the purposes that their source's contract has, as bits."""

    customer: Numbers
    purpose: Numbers
    granted: NDArray[np.bool_]
    gpc: NDArray[np.bool_]
    contract: Numbers


class Allows(NamedTuple):
    """Purposes as bits: open while nothing was said, when granted, when refused; and refused by a signal."""

    unknown: int
    granted: int
    refused: int
    by_gpc: int


def purposes_of(spoken: Spoken, allows: Allows) -> tuple[Numbers, Numbers]:
    """For each event the purposes open to it, and those that it has closed, as bits."""
    purposes, closed = np.zeros(len(spoken.customer), np.int64), np.zeros(len(spoken.customer), np.int64)
    _fold(spoken, allows, purposes, closed)
    return purposes, closed


@entry
def _fold(spoken: Spoken, allows: Allows, purposes: Numbers, closed: Numbers) -> None:
    granted = refused = under_gpc = 0
    for place in range(len(purposes)):
        if place == 0 or spoken.customer[place] != spoken.customer[place - 1]:
            granted = refused = under_gpc = 0
        purpose, gpc = spoken.purpose[place], spoken.gpc[place]
        if purpose or gpc:
            before = _open(allows, granted, refused)
            if gpc:
                signalled = allows.by_gpc & ~(granted & under_gpc) & ~purpose
                granted, refused = granted & ~signalled, refused | signalled
            if spoken.granted[place]:
                granted, refused = granted | purpose, refused & ~purpose
                under_gpc = under_gpc | purpose if gpc else under_gpc & ~purpose
            else:
                granted, refused = granted & ~purpose, refused | purpose
            closed[place] = before & ~_open(allows, granted, refused)
        purposes[place] = _open(allows, granted, refused) & spoken.contract[place]


@inner
def _open(allows: Allows, granted: int, refused: int) -> int:
    silent = allows.unknown & ~granted & ~refused
    return silent | (allows.granted & granted) | (allows.refused & refused)
