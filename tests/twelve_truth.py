"""What the twelve moments come to, in plain SQL.

Each query was written from what the moment says in plain words, over a table of the drawn events, and shares
nothing with the matcher: `e` has every event with its place `i` in the total order, `m` what may be read
for marketing. `$bound` is the time in the moment's words.
"""

from __future__ import annotations

from datetime import timedelta

import duckdb

#: `m`: from a source that is open to marketing, after the customer granted it and before they took it back.
VIEWS = """
CREATE TABLE e AS SELECT *, row_number() OVER (ORDER BY t, source, message_id) AS i FROM drawn;
CREATE TABLE m AS FROM e WHERE source IN ('web', 'app', 'stores')
    AND EXISTS (FROM e g WHERE g.c = e.c AND g.name = 'Consent Granted' AND g.i < e.i)
    AND NOT EXISTS (FROM e w WHERE w.c = e.c AND w.name = 'Consent Withdrawn' AND w.i < e.i);
CREATE TABLE failed AS FROM e
    WHERE name = 'Help Searched' AND n_results = 0 OR name = 'Help Viewed' AND NOT helpful;
CREATE TABLE contact AS FROM e WHERE name IN ('Contact Started', 'Chat Started');
CREATE TABLE asking AS FROM e WHERE name IN ('Contact Started', 'Chat Started', 'Help Searched');
CREATE TABLE settled AS FROM e WHERE name IN ('Contact Ended', 'Chat Ended') AND solved;
"""


def days(n: float) -> timedelta:
    return timedelta(days=n)


def minutes(n: float) -> timedelta:
    return timedelta(minutes=n)


#: The bound of each moment; how often it may be at most (once in so long); and a query that gives whose and
#: when, one row for each time that it is so.
CONFIRMED: dict[str, tuple[timedelta, timedelta | None, str]] = {
    # In the cart on the phone; the same product searched within an hour; nothing ordered in between.
    "cart_and_searched_again": (
        minutes(60),
        None,  # but once for a product
        """
        SELECT a.c, min(s.t) FROM m a JOIN m s ON s.c = a.c AND s.product_id = a.product_id
            AND s.i > a.i AND s.t <= a.t + $bound
        WHERE a.name = 'Product Added' AND a.device = 'mobile' AND s.name = 'Products Searched'
            AND NOT EXISTS (FROM m o WHERE o.c = a.c AND o.name = 'Order Completed'
                            AND o.i BETWEEN a.i AND s.i)
        GROUP BY a.c, a.product_id
        """,
    ),
    # A contact whose third-last failure before it is at most a day ago, the first since the last failure.
    "helped_self_in_vain": (
        days(1),
        days(1),
        """
        SELECT c, t FROM contact k
        WHERE (SELECT f.t FROM failed f WHERE f.c = k.c AND f.i < k.i ORDER BY f.i DESC LIMIT 1 OFFSET 2)
            >= k.t - $bound
        AND (SELECT max(f.i) FROM failed f WHERE f.c = k.c AND f.i < k.i)
            > coalesce((SELECT max(b.i) FROM contact b WHERE b.c = k.c AND b.i < k.i), 0)
        """,
    ),
    # Ordered on the marketplace, the first promise for it, nothing delivered by then; the first negative
    # post after then and within 48 hours, at most a month after the order.
    "marketplace_order_late": (
        days(2),
        None,  # but once for an order
        """
        WITH ordered AS (
            SELECT c, order_id, t, (SELECT min(i) FROM e p WHERE p.c = o.c AND p.order_id = o.order_id
                                    AND p.name = 'Delivery Promised' AND p.i > o.i) AS promise
            FROM e o WHERE name = 'Order Completed' AND affiliation = 'marketplace'),
        late AS (
            SELECT o.c, o.order_id, o.t, p.i, p.promised_at FROM ordered o JOIN e p ON p.i = o.promise
            WHERE NOT EXISTS (FROM e d WHERE d.c = o.c AND d.order_id = o.order_id AND d.i > p.i
                              AND d.name = 'Order Delivered' AND d.t <= p.promised_at))
        SELECT l.c, min(x.t) FROM late l JOIN e x ON x.c = l.c AND x.i > l.i
            AND x.t > l.promised_at AND x.t <= l.promised_at + $bound AND x.t <= l.t + INTERVAL 30 DAY
        WHERE x.name = 'Post Noticed' AND x.mood = 'negative' GROUP BY l.c, l.order_id
        """,
    ),
    # An answer of 0 to 6; then for a week no answer from us, and neither order, visit nor contact.
    "detractor_unheard": (
        days(7),
        days(30),
        """
        SELECT c, t + $bound FROM e s WHERE name = 'Survey Answered' AND nps <= 6 AND NOT EXISTS (
            FROM e x WHERE x.c = s.c AND x.i > s.i AND x.t <= s.t + $bound AND x.name IN
            ('Feedback Answered', 'Order Completed', 'Store Visited', 'Contact Started', 'Chat Started'))
        """,
    ),
    # Paid, and this order not confirmed in ten minutes.
    "paid_unconfirmed": (
        minutes(10),
        None,  # but once for an order
        """
        SELECT c, min(t + $bound) FROM e p WHERE name = 'Order Paid' AND NOT EXISTS (
            FROM e x WHERE x.c = p.c AND x.i > p.i AND x.t <= p.t + $bound
            AND x.name = 'Order Confirmed' AND x.order_id = p.order_id)
        GROUP BY c, coalesce(order_id, i::VARCHAR)
        """,
    ),
    # Asked on a topic, and in two hours three channels asked on it, the first among them, nothing settled.
    "sent_round_channels": (
        minutes(120),
        days(1),
        """
        SELECT f.c, min(x.t) FROM asking f JOIN asking x
            ON x.c = f.c AND x.topic = f.topic AND x.i > f.i AND x.t <= f.t + $bound
        WHERE 3 = (SELECT count(DISTINCT y.channel) FROM asking y
                   WHERE y.c = f.c AND y.topic = f.topic AND y.i BETWEEN f.i AND x.i)
        AND NOT EXISTS (FROM settled y WHERE y.c = f.c AND y.topic = f.topic AND y.i BETWEEN f.i AND x.i)
        GROUP BY f.c, f.i
        """,
    ),
    # The fourth look at one price, counted from any look, within three days and with none of it in the cart.
    "price_watched": (
        days(3),
        days(7),
        """
        WITH looks AS (
            SELECT c, product_id, i, t, lead(i, 3) OVER later AS fourth, lead(t, 3) OVER later AS fourth_at
            FROM m WHERE name = 'Product Viewed' AND price IS NOT NULL
            WINDOW later AS (PARTITION BY c, product_id ORDER BY i))
        SELECT c, fourth_at FROM looks l WHERE fourth_at <= t + $bound AND NOT EXISTS (
            FROM m a WHERE a.c = l.c AND a.product_id = l.product_id AND a.name = 'Product Added'
            AND a.i BETWEEN l.i AND l.fourth)
        """,
    ),
    # The last answer of the year was 9 or 10; at least three orders in 90 days, and this one is 40 % or more
    # below their mean, said in whole numbers.
    "promoter_spends_less": (
        days(90),
        days(30),
        """
        WITH bought AS (FROM e WHERE name = 'Order Completed' AND total IS NOT NULL)
        SELECT c, t FROM bought o
        WHERE (SELECT s.nps FROM e s WHERE s.c = o.c AND s.name = 'Survey Answered' AND s.nps IS NOT NULL
               AND s.i < o.i AND s.t >= o.t - INTERVAL 365 DAY ORDER BY s.i DESC LIMIT 1) >= 9
        AND (SELECT count(*) >= 3 AND o.total * 10 * count(*) <= 6 * sum(b.total) FROM bought b
             WHERE b.c = o.c AND b.i < o.i AND b.t >= o.t - $bound)
        """,
    ),
    # Handed over, and for two minutes nobody joined this conversation, nor was it ended.
    "handover_unanswered": (
        minutes(2),
        None,  # but once for a conversation
        """
        SELECT c, min(t + $bound) FROM e h WHERE name = 'Handover Requested' AND NOT EXISTS (
            FROM e x WHERE x.c = h.c AND x.i > h.i AND x.t <= h.t + $bound
            AND x.name IN ('Agent Joined', 'Live Chat Conversation Ended')
            AND x.conversation_id = h.conversation_id)
        GROUP BY c, coalesce(conversation_id, i::VARCHAR)
        """,
    ),
    # A complaint is opened, and what was last told of it is that it was solved, at most 14 days before.
    "complaint_reopened": (
        days(14),
        None,
        """
        SELECT c, t FROM (
            SELECT *, lag(name) OVER earlier AS last_name, lag(t) OVER earlier AS last_at FROM e
            WHERE name IN ('Complaint Opened', 'Complaint Solved') AND complaint_id IS NOT NULL
            WINDOW earlier AS (PARTITION BY c, complaint_id ORDER BY i))
        WHERE name = 'Complaint Opened' AND last_name = 'Complaint Solved' AND t <= last_at + $bound
        """,
    ),
    # A failed delivery or a wait of more than ten minutes, and the first of the other kind in the hour after.
    "failed_and_waited": (
        minutes(60),
        days(1),
        """
        WITH either AS (
            SELECT c, i, t, name FROM e WHERE name = 'Delivery Failed'
            UNION ALL SELECT c, i, t, name FROM e WHERE name = 'Contact Ended' AND n_waiting_s > 600)
        SELECT one.c, min(other.t) FROM either one JOIN either other ON other.c = one.c
            AND other.name <> one.name AND other.i > one.i AND other.t <= one.t + $bound
        GROUP BY one.c, one.i
        """,
    ),
    # From the e-mail of a campaign, the first visit within a week to a store that reported last that staff
    # are missing.
    "visit_understaffed": (
        days(7),
        days(1),
        """
        WITH short AS (
            FROM m v WHERE name = 'Store Visited' AND (
                SELECT r.n_present < r.n_planned AND r.n_planned > 0 FROM e r WHERE r.i < v.i
                AND r.name = 'Staffing Reported' AND r.pool = v.store_id ORDER BY r.i DESC LIMIT 1))
        SELECT k.c, min(v.t) FROM m k JOIN short v ON v.c = k.c AND v.i > k.i AND v.t <= k.t + $bound
        WHERE k.name = 'Email Link Clicked' AND k.campaign_id IS NOT NULL GROUP BY k.c, k.i
        """,
    ),
}

#: They occur when their bound is over.
ENDS_IN_SILENCE = {"detractor_unheard", "handover_unanswered", "paid_unconfirmed"}

#: Grain: one row per occurrence that is left when a customer has at most one in each period.
ONCE_IN = """
WITH RECURSIVE found(c, t) AS ({query}),
kept AS (SELECT c, min(t) AS t FROM found GROUP BY c
         UNION ALL SELECT k.c, min(f.t) FROM kept k JOIN found f ON f.c = k.c AND f.t >= k.t + $period
         GROUP BY k.c, k.t)
FROM kept
"""


def confirmed(
    drawn: duckdb.DuckDBPyConnection, moment: str, more: timedelta = timedelta()
) -> list[tuple[str, int]]:
    """Whose and when, by SQL; with the bound by `more` longer."""
    bound, period, query = CONFIRMED[moment]
    given = {"bound": bound + more}
    if period is not None:
        query, given = ONCE_IN.format(query=query), {**given, "period": period}
    return sorted(drawn.sql(f"SELECT c, epoch_us(t) FROM ({query}) _(c, t)", params=given).fetchall())
