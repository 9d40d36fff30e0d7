"""Clusters of records from match weights, guarded against over-merge.

Connected components join a whole crowd through one wrong pair. Here a component is accepted only if it is
small and dense; else more evidence is asked of its pairs, bit by bit, until it falls into parts that are. A
crowd in which nearly all agree is too many to be believed without a person: quarantine.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

Rows = NDArray[np.int64]

#: More records than this are never joined without a person.
CLUSTER_MAX = 25
#: The least share of a component's pairs that must match. Two wholly agreeing halves that hang together by a
#: single pair stay just below 1/2, so a share above that never lets one pair join two persons.
DENSITY_MIN = 0.6
#: A crowd of more than CLUSTER_MAX in which this share of pairs matches is one person or junk, as a whole.
CROWD_DENSITY = 0.9
#: Bits; no evidence is stronger than this, so that raising the threshold comes to an end.
WEIGHT_MAX = 100.0


@dataclass(frozen=True, slots=True)
class Pairs:
    """Pairs of records and how strong the evidence is that they match.

    `left` and `right` are rows (left is not right, a pair comes once), `weight` is in bits: the binary
    logarithm of the odds, so that 0 is even.
    """

    left: Rows
    right: Rows
    weight: NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Clusters:
    """`cluster` of each record, numbered from 0; a record in quarantine is alone in its cluster.

    `crowd` is the number of the crowd in quarantine that a record is in, or -1.
    """

    cluster: Rows
    crowd: Rows


def clustered(n_records: int, pairs: Pairs, customer: Rows | None = None) -> Clusters:
    """Clusters that are small and dense, and the crowds that went to quarantine.

    `customer` numbers the customers that records belong to already: these stay together, and one of
    CLUSTER_MAX records or more takes in no other. A function of the pairs as a set: their order does not
    matter.
    """
    is_asked = np.ones(n_records, bool)
    if customer is not None:
        pairs, is_asked = _with_customers(pairs, customer)
    left, right, weight = pairs.left, pairs.right, np.minimum(pairs.weight, WEIGHT_MAX)
    settled = np.full(n_records, -1, np.int64)
    crowd = np.full(n_records, -1, np.int64)
    waiting = np.ones(n_records, bool)
    n_named, threshold = 0, 0.0
    while waiting.any():
        strong = (weight >= threshold) & waiting[left] & waiting[right]
        left, right, weight = left[strong], right[strong], weight[strong]
        part = components(n_records, left, right)
        size = np.bincount(part, minlength=n_records)
        density = np.bincount(part[left], minlength=n_records) / np.maximum(size * (size - 1) / 2, 1)
        is_crowd = (size > CLUSTER_MAX) & (density >= CROWD_DENSITY)
        is_accepted = (size == 1) | ((size <= CLUSTER_MAX) & (density >= DENSITY_MIN))
        done, crowded = waiting & is_accepted[part], waiting & is_crowd[part]
        settled[done] = part[done] + n_named
        crowd[crowded] = part[crowded] + n_named
        waiting &= ~(done | crowded)
        n_named += n_records
        threshold += 1.0
    alone = crowd >= 0
    settled[alone] = n_named + np.flatnonzero(alone)
    crowd[alone] = renumbered(crowd[alone])
    if customer is not None:
        settled[~is_asked] = n_named + n_records + customer[~is_asked]
    return Clusters(renumbered(settled), crowd)


def _with_customers(pairs: Pairs, customer: Rows) -> tuple[Pairs, NDArray[np.bool_]]:
    """The pairs between customers, all pairs within each customer who has such a pair at full weight, and
    which records are of such a customer."""
    large = np.bincount(customer)[customer] >= CLUSTER_MAX
    between = (customer[pairs.left] != customer[pairs.right]) & ~large[pairs.left] & ~large[pairs.right]
    left, right, weight = pairs.left[between], pairs.right[between], pairs.weight[between]
    is_asked = np.isin(customer, customer[np.concatenate([left, right])])
    rows = np.flatnonzero(is_asked)
    rows = rows[np.argsort(customer[rows], kind="stable")]
    # Each record with those behind it in the same customer.
    end = np.searchsorted(customer[rows], customer[rows], side="right")
    n_behind = end - np.arange(len(rows)) - 1
    place = np.repeat(np.arange(len(rows)), n_behind)
    step = np.arange(len(place)) - np.repeat(np.cumsum(n_behind) - n_behind, n_behind) + 1
    within = Pairs(rows[place], rows[place + step], np.full(len(place), WEIGHT_MAX))
    joined = Pairs(
        np.concatenate([left, within.left]),
        np.concatenate([right, within.right]),
        np.concatenate([weight, within.weight]),
    )
    return joined, is_asked


def components(n_records: int, left: Rows, right: Rows) -> Rows:
    """The connected component of each record."""
    graph = coo_matrix((np.ones(len(left), np.int8), (left, right)), shape=(n_records, n_records))
    return np.asarray(connected_components(graph, directed=False)[1], np.int64)


def renumbered(names: Rows) -> Rows:
    """Numbers from 0 for what has the same name, in the order of first appearance."""
    _, first, inverse = np.unique(names, return_index=True, return_inverse=True)
    place = np.empty(len(first), np.int64)
    place[np.argsort(first)] = np.arange(len(first))
    return place[inverse]
