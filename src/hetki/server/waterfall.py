"""Waterfall: how the fields of two records add up to the weight of the evidence, as SVG.

Each field is a bar from where the fields before it left off; its figure stands beside it, with its sign.
"""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

LABEL, AXIS, FIGURE = 150, 420, 70
ROW, BAR = 26, 16
CHARS_MAX = 20
#: The rows of a picture; what is beyond is summed into one.
ROWS_MAX = 30
#: Rounding aside, fields add up to the total; what is missing is shown as a step of its own.
ROUNDING = 0.05


def steps(told: Sequence[tuple[str, float]], weight: float) -> list[tuple[str, float, float]]:
    """The steps from nothing to the weight, in bits: (field, where it begins, where it ends)."""
    named = list(told[:ROWS_MAX])
    rest = weight - sum(bits for _, bits in named)
    if abs(rest) > ROUNDING:
        named.append(("all others" if named else "all fields", rest))
    found: list[tuple[str, float, float]] = []
    at = 0.0
    for name, bits in named:
        found.append((name, at, at + bits))
        at += bits
    return found


def waterfall_svg(told: Sequence[tuple[str, float]], weight: float) -> Markup:
    """The picture of a weight (bits) by its fields; the last row is the whole."""
    rows = [*steps(told, weight), ("together", 0.0, weight)]
    low = min(0.0, *(min(begin, end) for _, begin, end in rows))
    high = max(0.0, *(max(begin, end) for _, begin, end in rows))
    scale = AXIS / (high - low or 1.0)
    height = ROW * len(rows) + 8

    def x(bits: float) -> float:
        return round(LABEL + (bits - low) * scale, 1)

    bars = Markup("").join(
        _row(name, begin, end, 4 + ROW * place, x(begin), x(end), place == len(rows) - 1)
        for place, (name, begin, end) in enumerate(rows)
    )
    label = "; ".join(f"{name} {end - begin:+.1f}" for name, begin, end in rows)
    return Markup(
        '<svg class="waterfall" viewBox="0 0 {w} {h}" width="{w}" height="{h}" role="img"'
        ' aria-label="Bits: {label}"><line class="zero" x1="{zero}" x2="{zero}" y1="0" y2="{h}"/>{bars}</svg>'
    ).format(w=LABEL + AXIS + FIGURE, h=height, label=label, zero=x(0.0), bars=bars)


def _row(name: str, begin: float, end: float, y: float, x0: float, x1: float, is_sum: bool) -> Markup:
    bits = end - begin
    name = name.replace("_", " ")
    cut = name if len(name) <= CHARS_MAX else name[: CHARS_MAX - 1] + "…"
    kind = "sum" if is_sum else "for" if bits > 0 else "against" if bits < 0 else "none"
    return Markup(
        '<g class="{kind}"><title>{name} {bits}</title><text x="0" y="{text}">{cut}</text>'
        '<rect x="{x}" y="{y}" width="{w}" height="{h}"/>'
        '<text class="figure" text-anchor="end" x="{end}" y="{text}">{bits}</text></g>'
    ).format(
        kind=kind,
        name=name,
        cut=cut,
        bits=f"{bits:+.1f}",
        text=y + BAR - 3,
        x=min(x0, x1),
        y=y,
        w=max(round(abs(x1 - x0), 1), 1),
        h=BAR,
        end=LABEL + AXIS + FIGURE,
    )
