"""Drawing: small pictures as SVG, made here and coloured by `style.css`. No inline style, no script."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

WIDTH, HEIGHT = 220, 26
#: Half of the axis, in points: the first that holds every interval of a table.
AXES = (2, 5, 10, 20, 50, 100)
DAY_WIDTH, DAYS_HEIGHT = 9, 56


def axis_of(bounds: Sequence[float]) -> int:
    """How many points each side of zero must show, for shares of -1 to 1."""
    widest = max((abs(100 * bound) for bound in bounds), default=0.0)
    return next((axis for axis in AXES if widest <= axis), AXES[-1])


def interval(low: float, effect: float, high: float, axis: int, is_shown: bool) -> Markup:
    """An effect (share) with its interval beside a zero line; the axis runs from -axis to +axis points."""
    left, middle, right = (_x(share, axis) for share in (low, effect, high))
    label = f"{100 * effect:+.1f} points, from {100 * low:+.1f} to {100 * high:+.1f}"
    return Markup(
        '<svg class="interval {clear}" viewBox="0 0 {w} {h}" width="{w}" height="{h}" role="img"'
        ' aria-label="{label}"><title>{label}</title>'
        '<line class="frame" x1="4" x2="{end}" y1="{y}" y2="{y}"/>'
        '<line class="zero" x1="{zero}" x2="{zero}" y1="2" y2="{bottom}"/>'
        '<line class="range" x1="{left}" x2="{right}" y1="{y}" y2="{y}"/>'
        '<line class="tip" x1="{left}" x2="{left}" y1="8" y2="18"/>'
        '<line class="tip" x1="{right}" x2="{right}" y1="8" y2="18"/>'
        '<circle cx="{middle}" cy="{y}" r="4"/></svg>'
    ).format(
        clear="shown" if is_shown else "unclear",
        w=WIDTH,
        h=HEIGHT,
        label=label,
        end=WIDTH - 4,
        y=HEIGHT // 2,
        zero=_x(0, axis),
        bottom=HEIGHT - 2,
        left=left,
        middle=middle,
        right=right,
    )


def per_day(counts: Sequence[tuple[str, int]]) -> Markup:
    """Bars, one per (day, count), in order."""
    highest = max((count for _, count in counts), default=0) or 1
    bars = Markup("").join(
        Markup('<rect x="{}" y="{}" width="{}" height="{}"><title>{}: {}</title></rect>').format(
            place * DAY_WIDTH,
            round(DAYS_HEIGHT - DAYS_HEIGHT * count / highest, 1),
            DAY_WIDTH - 2,
            round(DAYS_HEIGHT * count / highest, 1),
            day,
            f"{count:,}",
        )
        for place, (day, count) in enumerate(counts)
    )
    total = sum(count for _, count in counts)
    label = f"{total:,} in {len(counts)} days, at most {max(c for _, c in counts):,} in one" if counts else ""
    width = DAY_WIDTH * len(counts)
    return Markup(
        '<svg class="days" viewBox="0 0 {w} {h}" width="{w}" height="{h}" role="img" aria-label="{label}">'
        '<line class="frame" x1="0" x2="{w}" y1="{y}" y2="{y}"/>{bars}</svg>'
    ).format(w=width, h=DAYS_HEIGHT + 1, y=DAYS_HEIGHT + 0.5, label=label, bars=bars)


def _x(share: float, axis: int) -> float:
    """Where a share stands on the axis, in units of the picture; beyond its ends it stands at them."""
    within = max(-1.0, min(1.0, 100 * share / axis))
    return round(WIDTH / 2 + within * (WIDTH / 2 - 6), 1)
