"""Reviewing: what a person says of two customers, or of two records that are perhaps one's, as commands.

An answer is a link of its own, so it holds until it is taken back, whatever linkage finds later.
"""

from __future__ import annotations

from typing import Final, Literal, get_args

from hetki.engine.commands import CannotLink, Merge, Unsure
from hetki.errors import Conflict, Fault, Invalid, nearest, shown
from hetki.identity.identifier import NodeId
from hetki.identity.joining import Judged, unique_in_both
from hetki.identity.policy import Policy
from hetki.store.state import State

Answer = Literal["yes", "no", "unsure"]
ANSWERS: Final[tuple[Answer, ...]] = get_args(Answer)


def merge_of(
    state: State,
    policy: Policy,
    ends: tuple[NodeId, NodeId],
    said_by: str,
    said_at: int,
    despite_unique: bool,
    hint: str,
) -> Merge:
    """A person's word that two identifiers are one customer's.

    Raises `Conflict` with the hint if both customers have an id that is unique for ever, and that is not
    meant.
    """
    customers = state.customers_of(ends)
    ours, theirs = (state.members([customers[end]])[customers[end]] for end in ends)
    spaces = unique_in_both(policy, ours.values(), theirs.values())
    if spaces and not despite_unique:
        both = " and ".join(each.replace("_", " ") for each in spaces)
        raise Conflict(Fault("merge", f"two customers who both have a {both}", "meant in spite of it", hint))
    a, b = ends
    return Merge(a.hex(), b.hex(), said_by, said_at, despite_unique)


def command_of(
    state: State,
    policy: Policy,
    asked: Judged,
    answer: str,
    said_by: str,
    said_at: int,
    despite_unique: bool,
    hint: str,
) -> Merge | CannotLink | Unsure:
    """What a person's answer about a link is as a command.

    Raises `Invalid` for an answer that is none, `Conflict` for a link that does not wait for one, and what
    `merge_of` raises.
    """
    link = asked.link
    if asked.refusal != "needs_review" or asked.revoked_at is not None:
        raise Conflict(Fault("review", f"a link that is {asked.look}", "one that waits for a person"))
    if answer == "yes":
        return merge_of(state, policy, asked.ends, said_by, said_at, despite_unique, hint)
    if answer == "no":
        return CannotLink(link.node_a.hex(), link.node_b.hex(), said_by, said_at)
    if answer == "unsure":
        return Unsure(link.link_id.hex(), said_by, said_at)
    raise Invalid(Fault("answer", shown(answer), "yes, no or unsure", nearest(answer, ANSWERS)))
