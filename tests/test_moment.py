"""Moments: read from YAML, compiled, said back; and ten faults at once, each with its line and column."""

from __future__ import annotations

import msgspec
import pytest

from hetki.declarations.read import Declared, read
from hetki.events.catalogue import SHIPPED, EventSpec
from hetki.events.event import Event, EventId, LeafId
from hetki.events.fields import Fields
from hetki.moments.moment import Moment, MomentSpec, Occurrence, compile_moment, occurrence_id
from hetki.moments.sentence import sentence
from hetki.patterns.run import Bound

CATALOGUE = SHIPPED.extended(
    [
        EventSpec("Order Arrived", fields={"order_id": "text"}),
    ]
)
TITLES = {"tell_new_time": "Tell the new time", "offer_voucher": "Offer a voucher"}

LATE = """\
moment: where_is_my_order
title: Late order; searches help on the phone and finds nothing
owner: delivery_team
initiative: keep_our_word
purpose: service
identify:
  need: "When will it come?"
  who: customer.plan = 'private'
  steps:
    - late: Delivery Delayed where n_minutes >= 15
    - searched: Help Searched where device = 'mobile' and n_results = 0 and order_id = late.order_id
    - no answered: Order Tracked or Chat Started, for 10 minutes after searched
  within: 1 day
  repeat: once per late.order_id
  expires: 20 minutes
design:
  answers: [tell_new_time, offer_voucher]
secure:
  process: docs/late_orders.md
analyse:
  solved: no Order Cancelled within 24 hours
  business: Order Completed where total > 10 within 60 days
  guardrails: [Order Refunded, Chat Started]
  expect: solved +8 points by 2027-03-31
  holdout: 10%
"""


def declared(identify: str) -> Declared[MomentSpec]:
    """A moment with another identify part."""
    before, _, rest = LATE.partition("identify:\n")
    _, _, after = rest.partition("design:\n")
    return read(f"{before}identify:\n  need: x\n{identify}design:\n{after}", "moments/x.yaml", MomentSpec)


def moment_of(given: Declared[MomentSpec]) -> Moment:
    assert not given.faults, "\n".join(map(str, given.faults))
    moment, faults = compile_moment(given, CATALOGUE, {("late", "n_minutes")})
    assert moment is not None, "\n".join(map(str, faults))
    return moment


def test_a_moment_is_compiled() -> None:
    moment = moment_of(read(LATE, "moments/late.yaml", MomentSpec))
    assert moment.name == "where_is_my_order" and moment.purpose == "service"
    assert moment.expires_s == 1200 and moment.holdout_share == 0.1
    assert moment.answers == ("tell_new_time", "offer_voucher")
    assert moment.pattern.events[0].captures == ("n_minutes", "order_id")
    assert moment.solved.negated and moment.solved.within_s == 86_400
    assert moment.business is not None and not moment.business.negated
    assert [each.choices[0].event for each in moment.guardrails] == ["Order Refunded", "Chat Started"]
    assert {each.within_s for each in moment.guardrails} == {86_400}
    assert moment.expect is not None
    assert (moment.expect.result, moment.expect.points, moment.expect.by) == ("solved", 8.0, "2027-03-31")


def test_an_outcome_fits_an_event_by_name_and_condition() -> None:
    business = moment_of(read(LATE, "moments/late.yaml", MomentSpec)).business
    assert business is not None

    def ordered(total: object) -> Fields:
        return Fields(
            Event("web", "m", "web", "Order Completed", 0, 0, {}, msgspec.json.encode({"total": total}))
        )

    assert business.fits("Order Completed", ordered(11))
    assert not business.fits("Order Completed", ordered(10))
    assert not business.fits("Order Completed", ordered(None))
    assert not business.fits("Order Cancelled", ordered(11))


SENTENCES = """
  who: customer.plan = 'private'
  steps:
    - late: Delivery Delayed where n_minutes >= 15
    - searched: Help Searched where device = 'mobile' and n_results = 0 and order_id = late.order_id
    - no answered: Order Tracked or Chat Started, for 10 minutes after searched
  within: 1 day
  repeat: once per late.order_id
  expires: 20 minutes
> For a customer whose plan is private: after Delivery Delayed (number of minutes is at least 15), then
> Help Searched (device is mobile, number of results is 0 and order id is that of Delivery Delayed) within
> 1 day of Delivery Delayed, then neither Order Tracked nor Chat Started for 10 minutes, answer within 20
> minutes with 'Tell the new time' or 'Offer a voucher', or not at all, once per order id of Delivery
> Delayed; 10% of customers are held out to measure the effect.

  steps:
    - left: Product Added
    - no bought: Order Completed, for 2 hours
  repeat: once per 7 days
  expires: 30 minutes
> For any customer: after Product Added, then no Order Completed for 2 hours, answer within 30 minutes with
> 'Tell the new time' or 'Offer a voucher', or not at all, at most once per 7 days; 10% of customers are
> held out to measure the effect.

  steps:
    - promised: Delivery Promised where promised_at - occurred_at <= interval '2 hours'
    - no arrived: Order Arrived or Order Cancelled or Order Refunded
        where order_id = promised.order_id, by promised.promised_at
  expires: 1 hour
> For any customer: after Delivery Promised (promised time minus time is at most 2 hours), then none of
> Order Arrived, Order Cancelled or Order Refunded (order id is that of Delivery Promised) by its promised
> time, answer within 1 hour with 'Tell the new time' or 'Offer a voucher', or not at all, every time; 10%
> of customers are held out to measure the effect.

  steps:
    - installed: Application Installed
    - no asked: Chat Started
    - ordered: Order Completed where channel in ('app', 'web') and (total > 20 or coupon is not null)
  within: 14 days
  expires: 1 day
> For any customer: after Application Installed, then Order Completed (channel is either app or web and
> (total is more than 20 or coupon is known)) within 14 days of Application Installed, without Chat Started
> in between, answer within 1 day with 'Tell the new time' or 'Offer a voucher', or not at all, every time;
> 10% of customers are held out to measure the effect.

  who: customer.plan <> 'company' and customer.language is null
  steps:
    - first: Help Searched where query like '%refund%'
    - second: Help Searched
        where query = first.query and occurred_at > first.occurred_at + interval '1 minute'
    - third: Help Searched where n_results between 1 and 3 and query not in ('a b', 'c')
  within: 1 day
  expires: 5 minutes
> For a customer whose plan is not company and language is missing: after 'first' (Help Searched where
> query contains 'refund'), then 'second' (Help Searched where query is that of 'first' and time is after
> time of 'first' plus 1 minute), then 'third' (Help Searched where number of results is between 1 and 3
> and query is neither 'a b' nor c) within 1 day of 'first', answer within 5 minutes with 'Tell the new
> time' or 'Offer a voucher', or not at all, every time; 10% of customers are held out to measure the
> effect.

  steps:
    - tried: Order Cancelled or Order Refunded where total >= 50 or Coupon Denied
    - no ordered: Order Completed, for 1 day
    - back: Page Viewed where path like '/offers%' and not lower(title) = 'home'
    - no helped: Chat Started where topic is not null or Order Completed, for 3 days after tried
  within: 7 days
  repeat: once per tried.order_id
  expires: 1 hour 30 minutes
> For any customer: after 'tried' (Order Cancelled or Order Refunded where total is at least 50 or Coupon
> Denied), then no Order Completed for 1 day, then Page Viewed (path starts with '/offers' and title in
> small letters is not home) within 7 days of 'tried', then none of Chat Started (topic is known) or Order
> Completed for 3 days after 'tried', answer within 1 hour 30 minutes with 'Tell the new time' or 'Offer a
> voucher', or not at all, once per order id of 'tried'; 10% of customers are held out to measure the
> effect.

  steps:
    - seen: Order Tracked
    - again: Order Tracked where order_id = seen.order_id and occurred_at - seen.occurred_at < 600
    - no arrived: Order Arrived where order_id = seen.order_id, for 1 hour after seen
  within: 1 hour
  expires: 10 minutes
> For any customer: after 'seen' (Order Tracked), then 'again' (Order Tracked where order id is that of
> 'seen' and time minus time of 'seen' is less than 10 minutes) within 1 hour of 'seen', then no Order
> Arrived (order id is that of 'seen') for 1 hour after 'seen', answer within 10 minutes with 'Tell the new
> time' or 'Offer a voucher', or not at all, every time; 10% of customers are held out to measure the
> effect.

  steps:
    - no visit: Store Visited, for 7 days before searched
    - searched: at least 3 times Help Searched where n_results = 0
    - then: next Chat Started within 1 hour of searched
    - failed: Order Cancelled
      late: Delivery Delayed where n_minutes > searched.n
  within: 1 day
  match: one_open
  expires: 10 minutes
> For any customer: after no Store Visited in the 7 days before Help Searched, then Help Searched (number of
> results is 0) at least 3 times, then as the very next Chat Started within 1 hour of Help Searched, then in
> any order Order Cancelled and Delivery Delayed (number of minutes is more than number of Help Searched)
> within 1 day of the first Help Searched, answer within 10 minutes with 'Tell the new time' or 'Offer a
> voucher', or not at all, every time, one try at a time; 10% of customers are held out to measure the
> effect.

  steps:
    - failed: Order Cancelled
      late: Delivery Delayed
    - wrote: Chat Started
  within: 1 day
  expires: 10 minutes
> For any customer: after in any order Order Cancelled and Delivery Delayed, then Chat Started within 1 day
> of the first of Order Cancelled and Delivery Delayed, answer within 10 minutes with 'Tell the new time' or
> 'Offer a voucher', or not at all, every time; 10% of customers are held out to measure the effect.

  steps:
    - failed: Order Cancelled
      late: Delivery Delayed
  within: 1 day
  expires: 10 minutes
> For any customer: after in any order Order Cancelled and Delivery Delayed within 1 day, answer within 10
> minutes with 'Tell the new time' or 'Offer a voucher', or not at all, every time; 10% of customers are
> held out to measure the effect.
"""


def told(block: str) -> tuple[str, str]:
    """The identify part of a moment, and what is said of it after `>`."""
    lines = block.strip("\n").splitlines()
    said = [line[2:] for line in lines if line.startswith("> ")]
    return "".join(f"{line}\n" for line in lines if not line.startswith("> ")), " ".join(said)


@pytest.mark.parametrize("block", SENTENCES.split("\n\n"))
def test_a_moment_is_said_back(block: str) -> None:
    identify, expected = told(block)
    assert sentence(moment_of(declared(identify)), TITLES) == expected


def test_an_action_without_a_title_and_a_moment_without_a_holdout() -> None:
    text = LATE.replace("holdout: 10%", "holdout: 0%")
    said = sentence(moment_of(read(text, "moments/late.yaml", MomentSpec)), {})
    assert "with 'tell_new_time' or 'offer_voucher', or not at all" in said
    assert said.endswith("; nobody is held out, so the effect cannot be measured.")


def test_an_occurrence_is_known_by_its_start() -> None:
    one = occurrence_id("late", EventId(bytes(16)))
    assert one == occurrence_id("late", EventId(bytes(16))) and len(one) == 32
    assert (
        len({one, occurrence_id("late", EventId(b"\1" * 16)), occurrence_id("early", EventId(bytes(16)))})
        == 3
    )


def test_an_occurrence_can_be_stored() -> None:
    bound = Bound("late", EventId(b"e" * 16), LeafId(b"l" * 16), 5, "web", 3, {"n_minutes": 20})
    occurrence = Occurrence("o1", "late", 5, 10, [bound], deadline=5)
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(occurrence), type=Occurrence) == occurrence


FAULTY = """\
moment: Where
title: x
owner: x
initiative: x
purpose: service
identify:
  need: x
  who: plan = 'private'
  steps:
    - late: Delivery Delayd where n_minutes >= 15
    - searched: Help Searched where device = 5
        and n_result = 0
    - no answered: Order Tracked, for 10 minuts after searched
  within: 1 day
  repeat: once per late.order_id
  expires: 0 minutes
design:
  answers: [a, a]
analyse:
  solved: no Chat Started where topi = 'x' within 24 hours
  business: Order Completed
  guardrails: [Order Refunded, Chat Strted]
  expect: solved by 2027
  holdout: 80%
"""

FAULTS = """
1:9 got 'Where', must be a name of small letters, digits and _, such as late_order.
8:8 got 'plan', must be a step's field or a customer's trait. Hint: did you mean customer.plan.
10:13 got 'Delivery Delayd', must be an event of the catalogue. Hint: did you mean 'Delivery Delayed' or 'Delivery Failed' or 'Delivery Promised'.
11:37 got text compared with number, must be two values of one type.
12:13 got 'n_result', must be a field of Help Searched. Hint: did you mean 'n_results'.
13:39 got '10 minuts', must be a duration such as '10 minutes' or '1 day 2 hours'. Hint: did you mean 'minute'.
16:12 got '0 minutes', must be longer than nothing.
18:16 got 'a', must be named once.
20:33 got 'topi', must be a field of Chat Started. Hint: did you mean 'topic'.
21:27 got nothing, must be within and a duration, as in: Order Completed within 7 days.
22:32 got 'Chat Strted', must be an event of the catalogue. Hint: did you mean 'Chat Started' or 'Contact Started' or 'Checkout Started'.
23:11 got 'solved by 2027', must be such as: solved +8 points by 2027-03-31.
24:12 got '80%', must be a share of customers from 0% to 50%, such as 10%.
"""  # noqa: E501


def test_all_faults_at_once_with_line_and_column() -> None:
    moment, faults = compile_moment(read(FAULTY, "moments/x.yaml", MomentSpec), CATALOGUE)
    assert moment is None
    lines = [str(fault).removeprefix("moments/x.yaml:").replace(": got", " got", 1) for fault in faults]
    assert sorted(lines, key=line_number) == FAULTS.strip().splitlines()


def line_number(line: str) -> int:
    return int(line.partition(":")[0])


def test_an_unknown_key_is_a_fault() -> None:
    given = read(LATE.replace("  within: 1 day", "  witin: 1 day"), "moments/x.yaml", MomentSpec)
    moment, faults = compile_moment(given, CATALOGUE)
    assert moment is None and "'witin'" in str(faults[0]) and "within" in faults[0].hint


def test_a_business_expectation_needs_a_business_result() -> None:
    text = LATE.replace("solved +8", "business +8").replace(
        "  business: Order Completed where total > 10 within 60 days\n", ""
    )
    faults = compile_moment(read(text, "moments/x.yaml", MomentSpec), CATALOGUE)[1]
    assert [fault.must for fault in faults] == ["about solved, as no business result is declared"]
