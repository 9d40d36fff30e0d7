"""Joining: why two identifiers are one customer's, and why they are not, from links as they were judged.

Questions only: what the links make of customers is said by `resolve`. Start at `why`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Final, Literal

import msgspec

from hetki.identity.identifier import Namespace, NodeId
from hetki.identity.link import Link
from hetki.identity.policy import Policy

#: What became of a link. `apart`: a person's word that two are not one; `waits`: for a person, or for an
#: identifier that nobody has seen yet; `revoked`: taken back by a person.
Look = Literal["stands", "apart", "waits", "refused", "revoked"]
LOOKS: Final[tuple[Look, ...]] = ("stands", "apart", "waits", "refused", "revoked")
#: Refusals that another word or another event ends.
WAITING: Final = frozenset({"unknown_identifier", "needs_review"})


class Judged(msgspec.Struct, frozen=True):
    """A link and what became of it: `refusal` is empty while it stands; `revoked_at`: taken back then, by
    `revoked_by`; `unsure_at`: when a person could not say whether it holds."""

    link: Link
    refusal: str = ""
    revoked_at: int | None = None
    revoked_by: str = ""
    unsure_at: int | None = None

    @property
    def look(self) -> Look:
        """What became of the link, in one word."""
        if self.revoked_at is not None:
            return "revoked"
        if self.refusal:
            return "waits" if self.refusal in WAITING else "refused"
        return "apart" if self.link.kind == "cannot" else "stands"

    @property
    def ends(self) -> tuple[NodeId, NodeId]:
        return self.link.node_a, self.link.node_b

    def far(self, node: NodeId) -> NodeId:
        """The other end, seen from one of the two."""
        return self.link.node_b if self.link.node_a == node else self.link.node_a


class Answer(msgspec.Struct, frozen=True):
    """Why two identifiers are one customer's, or are not.

    One customer: `path` is the chain of standing links from the first to the second, by the strongest
    evidence there is (empty when they are the same identifier). Two: `apart` is a person's word that they
    are, `direct` the links between the two groups that did not join them, and `by_way` pairs of links, one
    of each group, to an identifier of neither. Nothing of all this: no evidence links them.
    """

    is_one: bool
    path: list[Judged] = []
    apart: list[Judged] = []
    direct: list[Judged] = []
    by_way: list[tuple[Judged, Judged]] = []

    @property
    def links(self) -> list[Judged]:
        """Every link that it names."""
        return [*self.path, *self.apart, *self.direct, *(each for pair in self.by_way for each in pair)]


def unique_in_both(policy: Policy, ours: Iterable[Namespace], theirs: Iterable[Namespace]) -> list[Namespace]:
    """The namespaces unique for ever of which both customers have a value: only a person joins them then."""
    return sorted(space for space in {*ours} & {*theirs} if policy.of(space).is_unique)


def strongest_first(links: Iterable[Judged]) -> list[Judged]:
    """Links in order: what stands before what does not, strong kinds before weak ones, old before new."""
    return sorted(links, key=_rank)


def _rank(each: Judged) -> tuple[int, tuple[int, float, int, bytes]]:
    return LOOKS.index(each.look), each.link.strength


def path(links: Iterable[Judged], a: NodeId, b: NodeId) -> list[Judged]:
    """The standing links from one identifier to another; empty when there are none, or they are the same.

    Of several chains the one whose weakest link is strongest: links are taken strongest first, and each is
    kept that joins something, so there is one chain.
    """
    tree: dict[NodeId, list[Judged]] = {}
    group: dict[NodeId, set[NodeId]] = {}
    for each in strongest_first(links):
        if each.look != "stands":
            break
        left, right = (group.setdefault(node, {node}) for node in each.ends)
        if left is right:
            continue
        for node in each.ends:
            tree.setdefault(node, []).append(each)
        left |= right
        group.update(dict.fromkeys(right, left))
    return _walk(tree, a, b)


def _walk(tree: Mapping[NodeId, Sequence[Judged]], a: NodeId, b: NodeId) -> list[Judged]:
    came_by: dict[NodeId, Judged | None] = {a: None}
    edge = [a]
    while edge and b not in came_by:
        node = edge.pop()
        for each in tree.get(node, ()):
            far = each.far(node)
            if far not in came_by:
                came_by[far] = each
                edge.append(far)
    found: list[Judged] = []
    node, by = b, came_by.get(b)
    while by is not None:
        found.append(by)
        node = by.far(node)
        by = came_by[node]
    return found[::-1]


def why(
    links: Iterable[Judged],
    a: NodeId,
    b: NodeId,
    ours: AbstractSet[NodeId],
    theirs: AbstractSet[NodeId],
) -> Answer:
    """Why `a` and `b` are one customer's, or are not.

    `ours` and `theirs` are the identifiers of the customer of each (equal when it is one); `links` at least
    those among them, and those from both to identifiers of neither.
    """
    if b in ours:
        return Answer(True, path(links, a, b))
    direct: list[Judged] = []
    apart: list[Judged] = []
    to_ours: dict[NodeId, list[Judged]] = {}
    to_theirs: dict[NodeId, list[Judged]] = {}
    for each in strongest_first(links):
        mine = [node for node in each.ends if node in ours]
        other = [node for node in each.ends if node in theirs]
        if mine and other:
            (apart if each.look == "apart" else direct).append(each)
        elif len(mine) == 1 and each.look != "apart":
            to_ours.setdefault(each.far(mine[0]), []).append(each)
        elif len(other) == 1 and each.look != "apart":
            to_theirs.setdefault(each.far(other[0]), []).append(each)
    shared = sorted(to_ours.keys() & to_theirs.keys())
    by_way = [(to_ours[node][0], to_theirs[node][0]) for node in shared]
    return Answer(False, apart=apart, direct=direct, by_way=by_way)
