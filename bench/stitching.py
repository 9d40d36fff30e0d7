"""Live stitching: how well it stands a hostile stream, beside plain closure, and how fast it is.

    python bench/stitching.py mixed --people 3000 --seeds 1 2 3 --times 1 3
    python bench/stitching.py kinds --people 3000 --seeds 1 2 3
    python bench/stitching.py speed --known 1000000 --hot 100000 --seconds 60

`mixed` sends the stream of `simulation/adversary.py` through the real stitching, on a state in memory, and
through plain transitive closure of the same links; "leaves" joins nothing and shows what no stitching can
repair: events of two people under one anonymous id. `kinds` does it with one hostility at a time, ten
times as much of it as the default. Shares are of events:

  misplaced   the customer holds events of another person too, and the event's own has no more than half
  touched     the customer holds events of two people, whichever has more
  recall      events in the customer that holds most events of their person

`speed` measures evidence and stitching with its commit, in memory, in seconds of CPU, so that other work on
the machine is left out: ordinary traffic until so many identifiers are known, then hot spots, each on a state
of its own. The rate of the first and of the last tenth shows the slope; latencies are of one event by itself
at the end, and of batches in the second half. A hot spot ends after --seconds; the table says how far.
"""

from __future__ import annotations

import argparse
import time
from collections import Counter
from collections.abc import Callable, Hashable, Iterator, Sequence
from itertools import count, islice
from random import Random

from hetki.engine.stitching import stitch
from hetki.events.event import Event, event_id
from hetki.identity.link import Evidence, evidence
from hetki.identity.policy import compile_policy
from hetki.simulation.adversary import events, stream
from hetki.simulation.adversary_people import KINDS, Hostility
from hetki.simulation.adversary_truth import closure, judged, misplaced
from hetki.simulation.world import MemoryDisk
from hetki.store.sqlite import transaction
from hetki.store.state import FILE, State
from hetki.store.system import collect_rarely

KEY = b"hetki: bench of stitching: a key"
STARTED_AT = 1_700_000_000_000_000
BATCH = 1_000
POLICY = compile_policy({})
MANY = 10.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("what", choices=("mixed", "kinds", "speed"))
    parser.add_argument("--people", type=int, default=3_000)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--times", type=float, nargs="+", default=[1.0], help="of every hostile share")
    parser.add_argument("--known", type=int, default=1_000_000, help="identifiers at the end")
    parser.add_argument("--hot", type=int, default=100_000, help="events of one hot spot")
    parser.add_argument("--seconds", type=float, default=60.0, help="at most for one hot spot")
    given = parser.parse_args()
    if given.what == "speed":
        speed(given.known, given.hot, given.seconds)
    elif given.what == "kinds":
        print(HEAD)
        for kind in ("", *KINDS):
            for seed in given.seeds:
                hostility = Hostility().times(MANY).only(kind)
                mixed(seed, given.people, hostility, kind or "nothing hostile")
    else:
        for times in given.times:
            for seed in given.seeds:
                print(HEAD)
                mixed(seed, given.people, Hostility().times(times), f"all, {times:g} times", tell=True)


# -- mixed customers

HEAD = f"{'':40}{'events':>9}{'customers':>10}{'two ids':>8}{'misplaced':>10}{'touched':>9}{'recall':>8}"


def mixed(seed: int, n_people: int, hostility: Hostility, name: str, tell: bool = False) -> None:
    """One stream: leaves alone, plain closure, and the stitching, judged by the truth."""
    told = list(events(stream(seed, n_people, STARTED_AT, hostility)))
    evidences = [evidence(KEY, event, event_id(KEY, event.source, event.message_id)) for event, _ in told]
    persons, kinds = [each.person for _, each in told], [each.kind for _, each in told]
    leaves = [each.leaf.node for each in evidences]
    joined = closure(evidences)
    state = stitched(evidences)
    found = state.customers_of(set(leaves))
    users = {each.node for every in evidences for each in every.identifiers if each.namespace == "user_id"}
    ours = [found[leaf] for leaf in leaves]
    rows: list[tuple[str, Sequence[Hashable], int]] = [
        ("leaves", leaves, 0),
        ("closure", [joined[leaf] for leaf in leaves], n_shared(joined[user] for user in users)),
        ("hetki", ours, state.db.execute(TWO_IDS).fetchone()[0]),
    ]
    for which, customers, n_two in rows:
        got = judged(customers, persons)
        print(
            f"{name[:22]:22} seed {seed:<4} {which:8}{got.n_events:9,}{got.n_customers:10,}{n_two:8,}"
            f"{got.misplaced_share:10.3%}{got.touched_share:9.2%}{got.recall:8.1%}"
        )
    if tell:
        wrong = Counter(
            kind or "ordinary" for kind, bad in zip(kinds, misplaced(ours, persons), strict=True) if bad
        )
        print("  misplaced events by what they are of:", told_counts(wrong))
        print("  refused links:", told_counts(dict(state.db.execute(REFUSED))))


TWO_IDS = (
    "SELECT count(*) FROM (SELECT 1 FROM nodes WHERE namespace = 'user_id'"
    " GROUP BY customer HAVING count(*) > 1)"
)
REFUSED = "SELECT refusal, count(*) FROM links WHERE refusal <> '' GROUP BY 1 ORDER BY 2 DESC"


def stitched(evidences: Sequence[Evidence]) -> State:
    """The state after all evidence, in micro-batches."""
    state = State(MemoryDisk().connect(FILE))
    for start in range(0, len(evidences), BATCH):
        with transaction(state.db):
            stitch(state, POLICY, evidences[start : start + BATCH], [])
    return state


def n_shared(customers: Iterator[Hashable]) -> int:
    return sum(n > 1 for n in Counter(customers).values())


def told_counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{name} {n:,}" for name, n in sorted(counts.items(), key=lambda x: -x[1])) or "none"


# -- speed

ROW = "{:34}{:>9}{:>12}{:>12}{:>10}{:>10}{:>11}{:>11}"


def speed(n_known: int, n_hot: int, seconds: float) -> None:
    """Rates and latencies, on ordinary traffic and on hot spots."""
    collect_rarely()  # as every command does
    print(ROW.format("", "events", "first 1/10", "last 1/10", "1: p50", "1: p99", "1000: p50", "1000: p99"))
    rng = Random(1)
    measure("ordinary", ordinary(rng), n_known, seconds * 10, by_known=True)
    for name, hot in HOT.items():
        measure(name, map(hot, count(1)), n_hot, seconds)


def measure(
    name: str, traffic: Iterator[dict[str, str]], n: int, seconds: float, by_known: bool = False
) -> None:
    """Stitch `n` events (or until `n` identifiers are known) in batches, then some one by one."""
    state = State(MemoryDisk().connect(FILE))
    took: list[float] = []
    began, number, n_known = time.perf_counter(), 0, 0
    while (n_known if by_known else number) < n and time.perf_counter() - began < seconds:
        body = made(traffic, BATCH, number)
        took.append(once(state, body))
        number += len(body)
        if by_known and len(took) % 10 == 0:
            n_known = state.db.execute("SELECT count(*) FROM nodes").fetchone()[0]
    if by_known:
        name += f", {n_known:,} identifiers"
    ones: list[float] = []
    began = time.perf_counter()
    while len(ones) < 3_000 and time.perf_counter() - began < seconds / 2:
        ones.append(once(state, made(traffic, 1, number)))
        number += 1
    tenth = max(len(took) // 10, 1)
    first, last = (BATCH * tenth / sum(part) for part in (took[:tenth], took[-tenth:]))
    figures = [
        f"{1e3 * at(each, q):.2f} ms" for each in (ones, took[-10 * tenth // 2 :]) for q in (0.5, 0.99)
    ]
    print(ROW.format(name, f"{number:,}", f"{first:,.0f}/s", f"{last:,.0f}/s", *figures), flush=True)


def once(state: State, body: Sequence[Event]) -> float:
    """Seconds of CPU for the evidence and the stitching of some events in one transaction."""
    began = time.process_time()
    found = [evidence(KEY, event, event_id(KEY, event.source, event.message_id)) for event in body]
    with transaction(state.db):
        stitch(state, POLICY, found, [])
    return time.process_time() - began


def at(took: list[float], share: float) -> float:
    return sorted(took)[min(len(took) - 1, int(share * len(took)))]


def made(traffic: Iterator[dict[str, str]], n: int, number: int) -> list[Event]:
    """The next events, a second apart."""
    return [
        Event("web", f"m{number + i}", "web", "Page Viewed", when, when, names)
        for i, names in enumerate(islice(traffic, n))
        for when in [STARTED_AT + (number + i) * 1_000_000]
    ]


def ordinary(rng: Random) -> Iterator[dict[str, str]]:
    """People who come again: most look around, some log in, some order; a third is new."""
    n_people = n_calls = 0
    while True:
        n_calls += 1
        if rng.random() < 0.33 or not n_people:
            n_people += 1
            yield {"anonymous_id": f"a{n_people}-0"}
            continue
        person, draw = rng.randrange(n_people), rng.random()
        device = {"anonymous_id": f"a{person}-{min(int(rng.expovariate(1.5)), 4)}"}
        if draw < 0.55:
            yield device
        elif draw < 0.85:
            yield {**device, "user_id": f"u{person}"}
        else:
            yield {**device, "email": f"p{person}@mail.example"}


def turning(n: int) -> dict[str, str]:
    if n % 2:
        return {"anonymous_id": f"a{n // 2}", "email": f"p{n // 10}@mail.example"}
    return {"user_id": f"u{n}", "email": f"p{n // 10}@mail.example", "phone": f"+35840{n // 14:07}"}


#: The identifiers of the n-th event. In the chain each call names an old anonymous id and the next person's
#: address; in the last, a growing crowd, ever new addresses turn out to be shared by several users.
HOT: dict[str, Callable[[int], dict[str, str]]] = {
    "kiosk: 1 anonymous id, new users": lambda n: {"anonymous_id": "kiosk", "user_id": f"u{n}"},
    "listed junk e-mail, new anonymous": lambda n: {"anonymous_id": f"a{n}", "email": "test@test.com"},
    "unlisted junk e-mail, new anonymous": lambda n: {"anonymous_id": f"a{n}", "email": "hello@shop.example"},
    "unlisted shared e-mail, new users": lambda n: {"user_id": f"u{n}", "email": "hello@shop.example"},
    "crawler: 1 user, new anonymous": lambda n: {"anonymous_id": f"a{n}", "user_id": "crawler"},
    "thief: 1 anonymous id, new e-mails": lambda n: {"anonymous_id": "thief", "email": f"p{n}@mail.example"},
    "one endless chain": lambda n: {
        "anonymous_id": f"a{n // 2}",
        "email": f"p{(n + 1) // 2}@mail.example",
    },
    "a crowd of addresses that turn": turning,
}


if __name__ == "__main__":
    main()
