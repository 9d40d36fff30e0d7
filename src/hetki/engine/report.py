"""Report: load sums from the lake, estimate, set the effects in a table. Writes nothing to the lake."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import duckdb
import msgspec
import pyarrow as pa

from hetki.events.event import Event
from hetki.identity.account import group_of, is_of
from hetki.measurement.effect import Arm, Effect, Sums, estimate
from hetki.measurement.outcome import CANDIDATES, SUMS, Hit, Measured, hits, rules, settlers

_RULES = pa.schema(
    [
        ("moment", pa.string()),
        ("measure", pa.string()),
        ("settler", pa.int64()),
        ("within_us", pa.int64()),
        ("negated", pa.bool_()),
    ]
)
_HITS = pa.schema([("settler", pa.int64()), ("customer", pa.string()), ("occurred_at", pa.int64())])
_ROWS_MAX = 10_000

#: initiative, moment ("": the whole initiative), measure
_Key = tuple[str, str, str]


def report(lake: duckdb.DuckDBPyConnection, moments: Sequence[Measured], until: int) -> list[Effect]:
    """Every measure of every moment and of every initiative, judged by what had happened at `until`.

    `lake` shows the tables events, customers, accounts, account_members, decisions, deliveries and
    restricted. A declared measure without a single mature decision is a row too: "not enough data".
    Customers whose processing is restricted, or was while a result was waited for, are only counted.
    """
    sums: dict[_Key, dict[tuple[Arm, float], Sums]] = {key: {} for key in _declared(moments)}
    left_out: dict[_Key, Counter[Arm]] = {key: Counter() for key in sums}
    for initiative, moment, measure, arm, share, is_left_out, *row in _load_sums(lake, moments, until):
        key, found = (initiative, moment or "", measure), Sums(*(int(each) for each in row))
        if is_left_out:
            left_out[key][arm] += found.n_customers
        else:
            sums[key][arm, share] = found
    return [estimate(*key, by_share, left_out[key]) for key, by_share in sums.items()]


def render_report(effects: Sequence[Effect]) -> str:
    """The effects as lines of plain text, one block per initiative."""
    lines: list[str] = []
    for initiative in dict.fromkeys(each.initiative for each in effects):
        lines += ["", f"initiative {initiative}"]
        lines += _aligned([_HEAD, *(_cells(each) for each in effects if each.initiative == initiative)])
    return "\n".join([*lines[1:], "", *_notes(effects)]) if effects else "no moment has a measure to report"


def _declared(moments: Sequence[Measured]) -> list[_Key]:
    """Initiative by initiative: the whole first, then its moments, each in the order of declaration."""
    keys: list[_Key] = []
    for initiative in dict.fromkeys(each.initiative for each in moments):
        mine = [each for each in moments if each.initiative == initiative]
        keys += [(initiative, "", name) for each in mine for name in each.outcomes]
        keys += [(initiative, each.moment, name) for each in mine for name in each.outcomes]
    return list(dict.fromkeys(keys))


def _load_sums(
    lake: duckdb.DuckDBPyConnection, moments: Sequence[Measured], until: int
) -> list[tuple[str, str | None, str, Arm, float, bool, *tuple[int, ...]]]:
    rows = [msgspec.structs.asdict(each) for each in rules(moments)]
    found = _load_hits(lake, moments)
    columns = {name: [getattr(each, name) for each in found] for name in _HITS.names}
    lake.register("hetki_rules", pa.Table.from_pylist(rows, schema=_RULES))
    lake.register("hetki_hits", pa.table(columns, schema=_HITS))
    try:
        return lake.execute(SUMS, {"until": until}).fetchall()
    finally:
        lake.unregister("hetki_rules")
        lake.unregister("hetki_hits")


def _load_hits(lake: duckdb.DuckDBPyConnection, moments: Sequence[Measured]) -> list[Hit]:
    waiting = settlers(moments)
    names = sorted({choice.event for outcome in waiting for choice in outcome.choices})
    found: list[Hit] = []
    cursor = lake.execute(CANDIDATES, {"names": names})
    while rows := cursor.fetchmany(_ROWS_MAX):
        for unit, group, joined_at, *fields in rows:
            event = _event(*fields)
            if group is None or is_of(group_of(event), group, joined_at, event.occurred_at):
                found += hits(waiting, unit, event)
    return found


def _event(
    source: str,
    message_id: str,
    channel: str,
    name: str,
    occurred_at: int,
    received_at: int,
    identifiers: str,
    properties: str,
    context: str,
    sequence: int,
    gpc: bool,
) -> Event:
    known = msgspec.json.decode(identifiers, type=dict[str, str])
    told = (properties.encode(), context.encode())
    return Event(source, message_id, channel, name, occurred_at, received_at, known, *told, sequence, gpc)


_HEAD = (
    "moment",
    "measure",
    "answered",
    "customers",
    "holdout",
    "customers",
    "effect (95 %)",
    "evidence",
    "",
)


def _cells(effect: Effect) -> tuple[str, ...]:
    interval = "-"
    if effect.effect is not None and effect.low is not None and effect.high is not None:
        interval = f"{100 * effect.effect:+.1f} ({100 * effect.low:+.1f} to {100 * effect.high:+.1f})"
    return (
        effect.moment or "(all)",
        effect.measure if effect.measure in ("solved", "business") else f"{effect.measure} (guardrail)",
        _share(effect.share_answered, effect.n_answered),
        f"{effect.n_customers_answered:,}",
        _share(effect.share_holdout, effect.n_holdout),
        f"{effect.n_customers_holdout:,}",
        interval,
        effect.grade,
        effect.verdict,
    )


def _share(share: float | None, n_decisions: int) -> str:
    return "-" if share is None else f"{100 * share:.1f} % of {n_decisions:,}"


def _aligned(rows: Sequence[tuple[str, ...]]) -> list[str]:
    widths = [max(len(row[place]) for row in rows) for place in range(len(rows[0]))]
    return ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]


_RESTRICTED = "customers left out of both arms, as their processing is or was restricted"


def _of(n_left_out: int, n_kept: int) -> str:
    return f"{n_left_out:,} of {n_left_out + n_kept:,}"


def _notes(effects: Sequence[Effect]) -> list[str]:
    """What a reader must know of how the arms were made and what reached them."""
    notes = [
        "Arms as assigned, whatever was delivered; n in decisions; intervals clustered by customer,"
        " or by account where moments are about accounts."
    ]
    told: set[str] = set()
    for each in effects:
        where = f"{each.initiative}, {each.moment or '(all)'}"
        if each.grade == "broken":
            notes.append(f"{where}, {each.measure}: sample ratio p = {each.ratio_p_value:.2g}.")
        if each.n_crossed:
            notes.append(
                f"{where}: customers in both arms before a merge: {each.n_crossed:,} (first counts)."
            )
        if each.measure == "solved" and (each.n_left_out_answered or each.n_left_out_holdout):
            answered = _of(each.n_left_out_answered, each.n_customers_answered)
            holdout = _of(each.n_left_out_holdout, each.n_customers_holdout)
            notes.append(f"{where}: {_RESTRICTED}: {answered} answered, {holdout} holdout.")
        if where not in told and (each.n_delivered_answered < each.n_answered or each.n_delivered_holdout):
            told.add(where)
            sent = f"{each.n_delivered_answered:,} of {each.n_answered:,} answered"
            notes.append(
                f"{where}: sent to {sent}, {each.n_delivered_holdout:,} of {each.n_holdout:,} holdout."
            )
    return notes
