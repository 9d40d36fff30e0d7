"""The hostile stream: the same bytes for the same seed, what is switched off is off, and how truth judges."""

from __future__ import annotations

from collections import Counter

import pytest
from world import ORIGIN

from hetki.engine.stitching import stitch
from hetki.events.event import event_id
from hetki.identity.link import evidence
from hetki.identity.policy import compile_policy
from hetki.settings import DAY
from hetki.simulation.adversary import events, stream
from hetki.simulation.adversary_people import DAYS, KINDS, NONE, Hostility, people
from hetki.simulation.adversary_truth import closure, judged, misplaced
from hetki.simulation.world import MemoryDisk
from hetki.store.sqlite import transaction
from hetki.store.state import FILE, State

KEY = b"k" * 32


def test_the_same_seed_tells_the_same_bytes() -> None:
    told = stream(1, 60, ORIGIN, Hostility().times(5))
    assert told == stream(1, 60, ORIGIN, Hostility().times(5)) != stream(2, 60, ORIGIN, Hostility().times(5))
    assert [each.arrives_at for each in told] == sorted(each.arrives_at for each in told)
    assert len({each.message_id for each in told}) == len(told) == len(list(events(told)))


@pytest.mark.parametrize("kind", KINDS)
def test_each_hostility_is_switched_by_itself(kind: str) -> None:
    quiet, loud = stream(3, 60, ORIGIN), stream(3, 60, ORIGIN, Hostility().times(50).only(kind))
    assert {each.kind for each in quiet} == {""} != set(loud)
    assert set(loud) != set(quiet)
    assert {each.kind for each in loud} <= {"", kind}
    assert quiet == stream(3, 60, ORIGIN, NONE)


def test_a_number_is_given_to_another_person_more_than_a_year_later() -> None:
    everyone = people(1, 100, Hostility(recycled_phone=0.1))
    holders = Counter(number for each in everyone for number, _, _ in each.phones)
    assert sorted(holders.values())[-11:] == [1] + [2] * 10
    for person in everyone[:10]:
        old, given_up = person.phones[0][0], person.phones[0][2]
        (heir,) = [each for each in everyone if each.number >= 90 and each.phones[1][0] == old]
        assert heir.phones[1][1] > given_up + 365 * DAY and heir.phone(DAYS * DAY) == old


def test_customers_are_judged_by_the_majority_of_their_events() -> None:
    found = judged("aaabbbbcd", [1, 1, 2, 3, 3, 4, 4, 1, 2])
    # a holds two events of 1 and one of 2; b is half of 3, half of 4; c and d hold one person each
    assert (found.n_events, found.n_customers, found.n_persons) == (9, 4, 4)
    assert (found.n_misplaced, found.n_touched, found.n_found) == (1 + 4, 3 + 4, 2 + 1 + 2 + 2)
    assert misplaced("aaab", [1, 1, 2, 3]) == [False, False, True, False]


def test_plain_closure_joins_whatever_hangs_together() -> None:
    told = [
        evidence(KEY, event, event_id(KEY, event.source, event.message_id))
        for event, _ in events(stream(1, 60, ORIGIN, Hostility().times(5)))
    ]
    joined = closure(told)
    assert all(joined[each.node_a] == joined[each.node_b] for every in told for each in every.links)
    leaves = {every.leaf.node for every in told}
    assert 1 < len({joined[leaf] for leaf in leaves}) < len(leaves)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_hardly_anybody_is_taken_for_another_and_nobody_for_two_users(seed: int) -> None:
    told = list(events(stream(seed, 800, ORIGIN, Hostility())))
    found = [evidence(KEY, event, event_id(KEY, event.source, event.message_id)) for event, _ in told]
    persons, leaves = [each.person for _, each in told], [each.leaf.node for each in found]
    state = State(MemoryDisk().connect(FILE))
    with transaction(state.db):
        stitch(state, compile_policy({}), found, [])
    customers = state.customers_of(set(leaves))
    ours = judged([customers[leaf] for leaf in leaves], persons)
    joined = closure(found)
    plain = judged([joined[leaf] for leaf in leaves], persons)
    two_ids = state.db.execute(
        "SELECT customer FROM nodes WHERE namespace = 'user_id' GROUP BY 1 HAVING count(*) > 1"
    )
    assert two_ids.fetchall() == []
    assert ours.misplaced_share <= 0.005 < 0.1 < plain.misplaced_share
    assert ours.touched_share < plain.touched_share / 5
    assert ours.recall > 0.8 and plain.recall - ours.recall < 0.05
