"""Members: who joins an account that is folded already."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from hetki.moments.fold import Fact, Folded, Joined, Program, step
from hetki.settings import SECOND


def adopted(
    program: Program, folded: Folded, batch: Sequence[Fact | Joined], theirs: Sequence[Fact | Joined]
) -> tuple[Folded, list[Fact | Joined]]:
    """An account's state with what newcomers had said of consent before, and the batch with what is to be
    folded of them, in order; `theirs` is all of that and of this batch.

    Nothing that was folded rests on their events, so what they said earlier can be taken in beside it, and
    comes to what folding it in its place does.
    """
    last_key = folded.last_key

    def is_early(item: Fact | Joined) -> bool:
        is_quiet = isinstance(item, Joined) or item.is_quiet
        return is_quiet and last_key is not None and item.order_key < last_key

    early = [each for each in theirs if is_early(each)]
    rest = [*batch, *(each for each in theirs if not is_early(each))]
    rest.sort(key=lambda item: item.order_key)
    if not early or last_key is None:
        return folded, rest
    alone, _ = step(program.only(()), Folded(), early, last_key[0] + program.lateness_s * SECOND)
    times = [each for each in (folded.settled_at, alone.settled_at) if each is not None]
    joined = msgspec.structs.replace(
        folded,
        groups={**folded.groups, **alone.groups},
        statements={**folded.statements, **alone.statements},
        settled_at=max(times, default=None),
    )
    return joined, rest
