"""Ranges: how far a template may count. The library counts what loops do, and writes a range out in memory
first where it is turned round, skipped into or given to a filter; its end may be a value of the customer's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import wraps

from liquid import RenderContext, Token
from liquid.ast import BlockNode
from liquid.builtin.expressions import LoopExpression
from liquid.builtin.tags.for_tag import ForNode, ForTag
from liquid.exceptions import FilterArgumentError, ResourceLimitError

#: Numbers in a range, and rounds of a loop.
RANGE_MAX = 1_000


def of_short_ranges(apply: Callable[..., object]) -> Callable[..., object]:
    """A filter that refuses a longer range, with what the library raises for wrong arguments."""

    @wraps(apply)
    def bounded(*given: object, **named: object) -> object:
        for each in (*given, *named.values()):
            if isinstance(each, range) and len(each) > RANGE_MAX:
                raise FilterArgumentError(f"a range has {RANGE_MAX} numbers at most", token=None)
        return apply(*given, **named)

    return bounded


class _ShortLoop(LoopExpression):
    __slots__ = ()

    def _to_iter(self, obj: object, context: RenderContext) -> tuple[Iterator[object], int]:
        if isinstance(obj, range) and len(obj) > RANGE_MAX:
            raise ResourceLimitError("loop iteration limit reached", token=self.token)
        return super()._to_iter(obj, context)


class _ShortForNode(ForNode):
    __slots__ = ()

    def __init__(
        self, token: Token, expression: LoopExpression, block: BlockNode, default: BlockNode | None = None
    ) -> None:
        short = _ShortLoop(
            expression.token,
            expression.identifier,
            expression.iterable,
            limit=expression.limit,
            offset=expression.offset,
            reversed_=expression.reversed,
            cols=expression.cols,
        )
        super().__init__(token, short, block, default)


class ShortForTag(ForTag):
    """The tag `for`, over short ranges only."""

    node_class = _ShortForNode
