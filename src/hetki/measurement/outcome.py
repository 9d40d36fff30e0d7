"""Outcome: whether a decision was followed by what its moment calls a result, as a count per arm.

The path, in reading order: `CANDIDATES` fetches the events that could settle a result, `hits` keeps those
that do (the only place where a condition is evaluated), and `SUMS` turns decisions and hits into whole-number
sums per arm, which is all that `effect` ever sees.

The window of a result is `(decided_at, decided_at + within_s]`. A decision counts when its window has
elapsed, in both arms alike, so that nobody's result is judged early.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from hetki.events.event import Event
from hetki.events.fields import Fields
from hetki.moments.moment import Moment
from hetki.patterns.choices import Choice, EventWithin
from hetki.settings import SECOND


class Measured(msgspec.Struct, frozen=True):
    """What a moment is judged by: `solved`, `business`, then its guardrails by name, in the order shown."""

    moment: str
    initiative: str
    outcomes: dict[str, EventWithin]


class Rule(msgspec.Struct, frozen=True):
    """One outcome of one moment, as `SUMS` reads it. `settler` is a place in `settlers(...)`."""

    moment: str
    measure: str
    settler: int
    within_us: int
    negated: bool


class Hit(msgspec.Struct, frozen=True):
    """An event of a customer that settles what waits for it."""

    settler: int
    customer: str
    occurred_at: int


def measured(moment: Moment) -> Measured:
    """What a declared moment is judged by. Without an initiative it is one of its own."""
    outcomes = {"solved": moment.solved}
    if moment.business is not None:
        outcomes["business"] = moment.business
    for guardrail in moment.guardrails:
        outcomes[" or ".join(choice.event for choice in guardrail.choices)] = guardrail
    return Measured(moment.name, moment.initiative or moment.name, outcomes)


def settlers(moments: Sequence[Measured]) -> list[EventWithin]:
    """What outcomes wait for, each once: outcomes that wait for the same events share their hits."""
    return list(_first_by_choices(moments).values())


def rules(moments: Sequence[Measured]) -> list[Rule]:
    """Every outcome of every moment as one flat list."""
    place = {choices: number for number, choices in enumerate(_first_by_choices(moments))}
    return [
        Rule(each.moment, name, place[outcome.choices], outcome.within_s * SECOND, outcome.negated)
        for each in moments
        for name, outcome in each.outcomes.items()
    ]


def hits(waiting: Sequence[EventWithin], customer: str, event: Event) -> list[Hit]:
    """What this event settles for this customer."""
    fields = Fields(event)
    return [
        Hit(settler, customer, event.occurred_at)
        for settler, outcome in enumerate(waiting)
        if outcome.fits(event.name, fields)
    ]


def _first_by_choices(moments: Sequence[Measured]) -> dict[tuple[Choice, ...], EventWithin]:
    found: dict[tuple[Choice, ...], EventWithin] = {}
    for each in moments:
        for outcome in each.outcomes.values():
            found.setdefault(outcome.choices, outcome)
    return found


# Grain: one event with one of $names and one experiment's unit that it may be of, after the unit's first
# decision. The unit is the customer, or the account if the decision was about one; then `group_id` and
# `joined_at` are there to tell whether the event is the account's (`is_of`).
CANDIDATES = """
WITH decided AS (
    SELECT coalesce(d.account, c.customer, d.customer) AS unit, d.account IS NOT NULL AS is_account,
        min(epoch_us(d.decided_at)) AS decided_at
    FROM decisions d LEFT JOIN customers c ON c.leaf = d.leaf
    WHERE d.arm IN ('answered', 'holdout')
    GROUP BY ALL
),
owned AS (
    SELECT d.unit, d.decided_at, c.leaf, NULL::VARCHAR AS group_id, NULL::BIGINT AS joined_at
    FROM decided d JOIN customers c ON c.customer = d.unit WHERE NOT d.is_account
    UNION ALL
    SELECT d.unit, d.decided_at, c.leaf, a.group_id, epoch_us(m.joined_at)
    FROM decided d JOIN accounts a ON a.account = d.unit JOIN account_members m ON m.account = d.unit
    JOIN customers c ON c.customer = m.customer WHERE d.is_account AND m.is_folded
)
SELECT owned.unit, owned.group_id, owned.joined_at, e.source, e.message_id, e.channel, e.name,
    epoch_us(e.occurred_at) AS occurred_at, epoch_us(e.received_at) AS received_at, e.identifiers,
    e.properties, e.context, e.sequence, e.gpc
FROM events e JOIN owned ON owned.leaf = e.leaf
WHERE e.name IN (SELECT unnest($names)) AND epoch_us(e.occurred_at) > owned.decided_at
"""

# Grain: initiative, moment (NULL: the whole initiative), measure, arm, declared holdout share, `left_out`.
# Reads the lake's decisions, customers, deliveries and `restricted`, and `hetki_rules` and `hetki_hits`.
# `assigned`: a decision, under the customer that its leaf belongs to now, or the account that it is about:
# an account is one unit, and in every column below it is called the customer.
# `stands`: a customer's arm in an initiative is that of the first assignment; `crossed`: there were two.
# `left_out`: a customer whose processing is restricted, or was in the window of any of their decisions in the
# initiative: what was done meanwhile is not used, and without it a result would be guessed. Both arms alike;
# of these rows only `n_customers` means anything.
# `judged`: a mature decision under a rule; the first hit after it decides.
SUMS = """
WITH assigned AS (
    SELECT d.decision_id, d.moment, d.initiative, d.arm, d.holdout_share,
        coalesce(d.account, c.customer, d.customer) AS customer, epoch_us(d.decided_at) AS decided_at,
        d.decision_id IN (SELECT decision_id FROM deliveries WHERE status = 'sent') AS delivered
    FROM decisions d LEFT JOIN customers c ON c.leaf = d.leaf
    WHERE d.arm IN ('answered', 'holdout')
),
interrupted AS (
    SELECT DISTINCT a.initiative, a.customer
    FROM assigned a JOIN restricted t ON t.unit = a.customer JOIN hetki_rules r ON r.moment = a.moment
    WHERE t.lifted_at IS NULL OR (epoch_us(t.lifted_at) > a.decided_at
        AND epoch_us(t.restricted_at) <= a.decided_at + r.within_us)
),
stands AS (
    SELECT initiative, customer, count(DISTINCT arm) > 1 AS crossed,
        arg_min(arm, (decided_at, decision_id)) AS arm,
        arg_min(holdout_share, (decided_at, decision_id)) AS holdout_share,
        (initiative, customer) IN (FROM interrupted) AS left_out
    FROM assigned GROUP BY initiative, customer
),
mature AS (
    SELECT a.*, r.measure, r.settler, r.negated, a.decided_at + r.within_us AS ended_at
    FROM assigned a JOIN hetki_rules r ON r.moment = a.moment
    WHERE a.decided_at + r.within_us <= $until
),
judged AS (
    SELECT m.initiative, m.moment, m.measure, m.customer, m.delivered,
        (coalesce(h.occurred_at <= m.ended_at, false) <> m.negated)::INTEGER AS good
    FROM mature m ASOF LEFT JOIN hetki_hits h
        ON h.settler = m.settler AND h.customer = m.customer AND m.decided_at < h.occurred_at
),
per_customer AS (
    SELECT initiative, moment, measure, customer,
        count(*) AS n, sum(good) AS g, count(*) FILTER (delivered) AS n_delivered
    FROM judged
    GROUP BY GROUPING SETS ((initiative, moment, measure, customer), (initiative, measure, customer))
)
SELECT p.initiative, p.moment, p.measure, s.arm, s.holdout_share, s.left_out,
    count(*) AS n_customers, sum(p.n) AS n_decisions, sum(p.g) AS n_good,
    sum(p.n * p.n) AS nn, sum(p.n * p.g) AS ng, sum(p.g * p.g) AS gg,
    count(*) FILTER (p.g > 0) AS n_with_good, count(*) FILTER (p.g < p.n) AS n_with_bad,
    sum(p.n_delivered) AS n_delivered, count(*) FILTER (s.crossed) AS n_crossed
FROM per_customer p JOIN stands s ON s.initiative = p.initiative AND s.customer = p.customer
GROUP BY ALL
ORDER BY ALL
"""
