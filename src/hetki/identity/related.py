"""Related: people who are alike without being the same, as those of one household are.

Fellegi and Sunter know matches and others. Where many records share a last name, an address and a telephone
number, the pairs of one family are no chance, and two classes take them for matches. Here a third class is
looked for in the patterns of all compared pairs: one in which a date that tells persons apart agrees as
rarely as between strangers. Weights are then told against both, strangers and relatives.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Sequence

import numpy as np
from numpy.typing import NDArray

from hetki.identity.columns import Column, units

Shares = list[NDArray[np.float64]]
#: A date agrees among relatives at most by so much more often than among strangers, and among records of one
#: person at least so often.
CHANCE_MAX = 0.15
TELLING_MIN = 0.6
#: What relatives share agrees at least so often, and this many columns do.
SHARED_MIN = 0.6
N_SHARED_MIN = 2
#: Fewer related pairs than this, for one pair of one person, are not worth a class.
RELATED_MIN = 0.1
ROUNDS = 200
TINY = 1e-6
#: So much of what was learned is doubted: no level is impossible because no pair has shown it.
DOUBT = 0.02


@dataclass(frozen=True, slots=True)
class Classes:
    """For each comparison how often pairs of one person, and of relatives, reach its levels, by gamma from 0;
    and how many pairs of either kind there are."""

    same: Shares
    related: Shares
    n_same: float
    n_related: float


def classes(
    columns: Sequence[Column],
    patterns: NDArray[np.int64],
    counts: NDArray[np.float64],
    u: Shares,
    n_pairs: float,
) -> Classes | None:
    """The classes of matches and relatives, if there are relatives; else None.

    `patterns` has one row for each pattern, with the gamma of each comparison (-1: a value is missing), and
    `counts` how many compared pairs show it; `u` is how often strangers reach each level, of whom there are
    `n_pairs`. By expectation maximisation with u held fixed.
    """
    found = _maximised(patterns, counts, u, n_pairs)
    same, related, others = ([1 - share[0] for share in each] for each in (found.same, found.related, u))
    dates = [place for place, unit in enumerate(units(columns)) if unit[0].kind == "date"]
    tells_apart = any(
        related[place] < others[place] + CHANCE_MAX < TELLING_MIN < same[place] for place in dates
    )
    is_shared = sum(share > SHARED_MIN for share in related) >= N_SHARED_MIN
    is_many = found.n_related > RELATED_MIN * found.n_same
    return found if tells_apart and is_shared and is_many else None


def _maximised(
    patterns: NDArray[np.int64], counts: NDArray[np.float64], u: Shares, n_pairs: float
) -> Classes:
    """Three classes of which strangers stay as they are; from matches that agree in nearly all."""
    same = [_agreeing(len(share), 0.9) for share in u]
    related = [_agreeing(len(share), 0.5) for share in u]
    stranger = n_pairs * _likelihood(patterns, u)
    n_same = n_related = counts.sum() / 4
    for _ in range(ROUNDS):
        by_same, by_related = n_same * _likelihood(patterns, same), n_related * _likelihood(patterns, related)
        total = stranger + by_same + by_related
        of_same, of_related = counts * by_same / total, counts * by_related / total
        n_same, n_related = max(of_same.sum(), TINY), max(of_related.sum(), TINY)
        same = [_shares(patterns[:, k], of_same, len(share)) for k, share in enumerate(u)]
        related = [_shares(patterns[:, k], of_related, len(share)) for k, share in enumerate(u)]
    return Classes(same, related, float(n_same), float(n_related))


def _agreeing(n_levels: int, share: float) -> NDArray[np.float64]:
    """Shares of levels of which the highest has most."""
    rest = np.full(n_levels, (1 - share) / max(n_levels - 1, 1))
    rest[-1] = share
    return rest


def _likelihood(patterns: NDArray[np.int64], shares: Shares) -> NDArray[np.float64]:
    """How likely a class shows each pattern; a missing value says nothing."""
    found = np.ones(len(patterns))
    for k, share in enumerate(shares):
        gamma = patterns[:, k]
        found *= np.where(gamma < 0, 1.0, share[np.maximum(gamma, 0)])
    return found


def _shares(gamma: NDArray[np.int64], weight: NDArray[np.float64], n_levels: int) -> NDArray[np.float64]:
    known = gamma >= 0
    found = np.bincount(gamma[known], weight[known], minlength=n_levels) + TINY
    return np.asarray((1 - DOUBT) * found / found.sum() + DOUBT / n_levels)
