"""The graph of identifiers as SVG: boxes with a name, lines whose stroke says what became of a link.

Every line carries its number in the table beside it, its kind and, unless it stands, its status in words:
nothing is told by colour alone. Colours and strokes are in `style.css`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from markupsafe import Markup

from hetki.dialogues.joining import LINK_NAMES, LOOK_WORDS
from hetki.identity.identifier import NodeId
from hetki.identity.joining import LOOKS, Judged, Look
from hetki.server.graph import BOX_HEIGHT, BOX_WIDTH, LINE, LINES_MAX, ROOM, SWING, Box, Layout, Tie
from hetki.store.identity_views import Named

#: Characters of a value that fit a box.
CHARS_MAX = 19
#: A picture wider than this (px) is made smaller where there is no room for it.
WIDE = 1_056
#: How far apart lines between the same two boxes run.
APART = 5


def graph_svg(
    drawn: Layout, known: Mapping[NodeId, Named], numbers: Mapping[bytes, int], ours: Collection[NodeId]
) -> Markup:
    """The picture of a layout. `numbers` are those of the links in the table, `ours` the customer's own."""
    n_links = sum(len(tie.links) for tie in drawn.ties)
    label = f"{len(drawn.boxes)} identifiers and {n_links} links between them; the table lists each link"
    lines = Markup("").join(_lines(tie, drawn.boxes) for tie in drawn.ties)
    boxes = Markup("").join(_box(box, known.get(node), node in ours) for node, box in drawn.boxes.items())
    words = Markup("").join(_words(tie, drawn.boxes, numbers) for tie in drawn.ties)
    return Markup(
        '<svg class="graph{wide}" viewBox="0 0 {w} {h}" width="{w}" height="{h}" role="img"'
        ' aria-label="{label}">{lines}{boxes}{words}</svg>'
    ).format(
        wide=" wide" * (drawn.width > WIDE),
        w=round(drawn.width),
        h=round(drawn.height),
        label=label,
        lines=lines,
        boxes=boxes,
        words=words,
    )


def legend_svg(look: Look) -> Markup:
    """A short line, as the picture draws a link of this kind."""
    return Markup(
        '<svg class="graph sample" viewBox="0 0 40 12" width="40" height="12" aria-hidden="true">'
        '<path class="tie {look}" d="M1 6H39"/></svg>'
    ).format(look=look)


def _box(box: Box, named: Named | None, is_ours: bool) -> Markup:
    space = named.namespace.replace("_", " ") if named else "identifier"
    value = named.value if named else "that is gone"
    is_set_apart = named is not None and bool(named.quarantine)
    cut = value if len(value) <= CHARS_MAX else value[: CHARS_MAX - 1] + "…"
    return Markup(
        '<g class="{kind}"><title>{space} {value}</title>'
        '<rect x="{x}" y="{y}" width="{w}" height="{h}" rx="6"/>'
        '<text class="space" x="{at}" y="{above}">{space}{mark}</text>'
        '<text x="{at}" y="{below}">{cut}</text></g>'
    ).format(
        kind="own quarantined" if is_ours and is_set_apart else "own" if is_ours else "other",
        space=space,
        value=value,
        mark=", in quarantine" if is_set_apart else "" if is_ours else ", another's",
        x=box.x - BOX_WIDTH / 2,
        y=box.y - BOX_HEIGHT / 2,
        w=BOX_WIDTH,
        h=BOX_HEIGHT,
        at=box.x - BOX_WIDTH / 2 + 8,
        above=box.y - 5,
        below=box.y + 13,
        cut=cut,
    )


def _looks(tie: Tie) -> list[Look]:
    """What the links between two identifiers look like, each look once."""
    return [look for look in LOOKS if any(each.look == look for each in tie.links)]


def _lines(tie: Tie, boxes: Mapping[NodeId, Box]) -> Markup:
    looks = _looks(tie)
    shifts = [APART * (place - (len(looks) - 1) / 2) for place in range(len(looks))]
    return Markup("").join(
        Markup('<path class="tie {}" d="{}"/>').format(look, _path(boxes[tie.a], boxes[tie.b], shift))
        for look, shift in zip(looks, shifts, strict=True)
    )


def _path(a: Box, b: Box, shift: float) -> str:
    """A curve between two boxes: across the room between columns, or swinging out of one column."""
    ya, yb = a.y + shift, b.y + shift
    if a.x == b.x:
        out = b.side or 1
        x = a.x + out * BOX_WIDTH / 2
        return f"M{x} {ya}C{x + out * SWING} {ya} {x + out * SWING} {yb} {x} {yb}"
    towards = 1 if b.x > a.x else -1
    xa, xb = a.x + towards * BOX_WIDTH / 2, b.x - towards * BOX_WIDTH / 2
    bend = towards * min(abs(xb - xa), ROOM) * 0.45
    return f"M{xa} {ya}C{xa + bend} {ya} {xb - bend} {yb} {xb} {yb}"


def _words(tie: Tie, boxes: Mapping[NodeId, Box], numbers: Mapping[bytes, int]) -> Markup:
    """What is written at a pair: beside the farther box of a branch, else in the middle of the line."""
    a, b = boxes[tie.a], boxes[tie.b]
    told = [_named(each, numbers) for each in tie.links[:LINES_MAX]]
    if len(tie.links) > LINES_MAX:
        told[-1] = f"and {len(tie.links) - LINES_MAX + 1} more"
    anchor = "middle"
    if tie.is_branch:
        towards = 1 if b.x > a.x else -1
        anchor = "end" if towards == 1 else "start"
        x, y = b.x - towards * (BOX_WIDTH / 2 + 8), b.y - 7
    elif a.x == b.x:
        out = b.side or 1
        x, y = a.x + out * (BOX_WIDTH / 2 + 0.75 * SWING), (a.y + b.y) / 2
    else:
        x, y = (a.x + b.x) / 2, (a.y + b.y) / 2
    y -= LINE * (len(told) - 1) if tie.is_branch else LINE * (len(told) - 1) / 2
    return Markup("").join(
        Markup('<text class="word" text-anchor="{}" x="{}" y="{}">{}</text>').format(
            anchor, x, y + LINE * place, words
        )
        for place, words in enumerate(told)
    )


def _named(each: Judged, numbers: Mapping[bytes, int]) -> str:
    number = numbers.get(each.link.link_id)
    words = LINK_NAMES[each.link.kind] if number is None else f"{number} · {LINK_NAMES[each.link.kind]}"
    return words if each.look in ("stands", "apart") else f"{words}, {LOOK_WORDS[each.look]}"
