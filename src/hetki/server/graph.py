"""Graph: identifiers and the links between them, laid out as a tree with two sides. No chance in it.

The identifiers are taken along the strongest links; the one in the middle of the tree stands in the middle
of the picture, and its branches go to both sides, a row for each of their ends. Start at `layout`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import msgspec

from hetki.identity.identifier import NodeId
from hetki.identity.joining import Judged

#: A picture of more identifiers than this is no picture.
NODES_MAX = 60
BOX_WIDTH, BOX_HEIGHT = 162, 42
#: Room between two columns: the words of a link stand in it.
ROOM = 112
STEP = BOX_WIDTH + ROOM
ROW = BOX_HEIGHT + 12
#: A line of words at a link, and the most lines at one pair of identifiers.
LINE, LINES_MAX = 14, 3
MARGIN = 12
#: How far a link between two identifiers of one column may swing out.
SWING = 96


class Box(msgspec.Struct, frozen=True):
    """Where an identifier stands: its middle, and the side of the picture (-1, 0, 1)."""

    node: NodeId
    x: float
    y: float
    side: int


class Tie(msgspec.Struct, frozen=True):
    """All links between two identifiers. `is_branch`: the layout follows it; `b` is the farther end."""

    a: NodeId
    b: NodeId
    links: list[Judged]
    is_branch: bool


class Layout(msgspec.Struct, frozen=True):
    """Boxes by node and ties, and the size of the whole; `n_left_out` identifiers found no room."""

    boxes: dict[NodeId, Box]
    ties: list[Tie]
    width: float
    height: float
    n_left_out: int


def layout(nodes: Iterable[NodeId], links: Sequence[Judged], n_max: int = NODES_MAX) -> Layout:
    """The picture of identifiers (the best known first) and links (strongest first)."""
    listed = list(dict.fromkeys(nodes))
    everything = dict.fromkeys([*listed, *(node for each in links for node in each.ends)])
    by_pair: dict[frozenset[NodeId], list[Judged]] = {}
    for each in links:
        by_pair.setdefault(frozenset(each.ends), []).append(each)
    tree = _grown(listed[0], by_pair, n_max) if listed else {}
    if not tree:
        return Layout({}, [], 0, 0, len(everything))
    root = _middle(tree)
    children, order = _rooted(tree, root)
    n_lines = {pair: min(len(each), LINES_MAX) for pair, each in by_pair.items()}
    boxes, height = _placed(root, children, n_lines)
    branches = {frozenset((parent, child)) for parent, below in children.items() for child in below}
    ties = []
    for pair, between in by_pair.items():
        if len(pair) == 2 and pair <= boxes.keys():
            near, far = sorted(pair, key=order.__getitem__)
            ties.append(Tie(near, far, between, pair in branches))
    boxes, width = _framed(boxes, ties)
    return Layout(boxes, ties, width, height, len(everything) - len(boxes))


def _grown(start: NodeId, pairs: Iterable[frozenset[NodeId]], n_max: int) -> dict[NodeId, list[NodeId]]:
    """A tree over at most `n_max` identifiers: always the strongest link that leads to another one."""
    at: dict[NodeId, list[tuple[int, NodeId]]] = {}
    for number, pair in enumerate(pairs):
        if len(pair) == 2:
            for node in pair:
                (far,) = pair - {node}
                at.setdefault(node, []).append((number, far))
    tree: dict[NodeId, list[NodeId]] = {start: []}
    reachable = {(number, far, start) for number, far in at.get(start, ())}
    while reachable and len(tree) < n_max:
        best = min(reachable)
        reachable.discard(best)
        _, node, near = best
        if node in tree:
            continue
        tree[node] = [near]
        tree[near].append(node)
        reachable |= {(number, far, node) for number, far in at[node] if far not in tree}
    return tree


def _middle(tree: Mapping[NodeId, Sequence[NodeId]]) -> NodeId:
    """The identifier from which the farthest one is nearest; of several the one with most links."""
    places = {node: place for place, node in enumerate(tree)}

    def depth(node: NodeId) -> int:
        seen, edge, n_steps = {node}, [node], 0
        while edge := [far for near in edge for far in tree[near] if far not in seen]:
            seen.update(edge)
            n_steps += 1
        return n_steps

    return min(tree, key=lambda node: (depth(node), -len(tree[node]), places[node]))


def _rooted(
    tree: Mapping[NodeId, Sequence[NodeId]], root: NodeId
) -> tuple[dict[NodeId, list[NodeId]], dict[NodeId, int]]:
    """The children of each identifier, and the order in which the picture reaches them."""
    children: dict[NodeId, list[NodeId]] = {}
    order = {root: 0}
    edge = [root]
    for node in edge:
        children[node] = [far for far in tree[node] if far not in order]
        for far in children[node]:
            order[far] = len(order)
        edge += children[node]
    return children, order


def _placed(
    root: NodeId, children: Mapping[NodeId, Sequence[NodeId]], n_lines: Mapping[frozenset[NodeId], int]
) -> tuple[dict[NodeId, Box], float]:
    """Boxes around a root at 0, and the height. Sides are filled so that they are about equally high."""

    def room(node: NodeId, parent: NodeId) -> float:
        below = sum(room(each, node) for each in children[node])
        return max(ROW, LINE * n_lines[frozenset((node, parent))] + 18, below)

    rooms = {node: room(node, root) for node in children[root]}
    sides: dict[int, list[NodeId]] = {1: [], -1: []}
    highs = {1: 0.0, -1: 0.0}
    for node in sorted(children[root], key=lambda node: -rooms[node]):
        side = 1 if highs[1] <= highs[-1] else -1
        sides[side].append(node)
        highs[side] += rooms[node]
    height = max(ROW, *highs.values()) + 2 * MARGIN
    boxes = {root: Box(root, 0, height / 2, 0)}

    def place(node: NodeId, parent: NodeId, side: int, column: int, top: float) -> float:
        """Place an identifier and all behind it from a height downwards; return the room they took."""
        taken = room(node, parent)
        at = top + (taken - sum(room(each, node) for each in children[node])) / 2
        for each in children[node]:
            at += place(each, node, side, column + 1, at)
        boxes[node] = Box(node, side * column * STEP, top + taken / 2, side)
        return taken

    for side, nodes in sides.items():
        top = (height - highs[side]) / 2
        for node in nodes:
            top += place(node, root, side, 1, top)
    return boxes, height


def _framed(boxes: Mapping[NodeId, Box], ties: Iterable[Tie]) -> tuple[dict[NodeId, Box], float]:
    """The boxes moved so that the picture begins at 0, with room for what swings out; and its width."""
    half = BOX_WIDTH / 2 + MARGIN
    places = [each.x + side * half for each in boxes.values() for side in (-1, 1)]
    for tie in ties:
        a, b = boxes[tie.a], boxes[tie.b]
        if a.x == b.x:
            places.append(a.x + a.side * (half + SWING + ROOM / 4))
    left = min(places)
    moved = {node: msgspec.structs.replace(box, x=box.x - left) for node, box in boxes.items()}
    return moved, max(places) - left
