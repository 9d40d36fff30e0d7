"""What linkage proposes: pairs that hold clusters together, the grey zone, each pair's weight by field.

And what is new against what is known: the kept model, customers that stay, persons whom somebody parted.
"""

from __future__ import annotations

from collections import Counter
from random import Random

import duckdb
import msgspec
import numpy as np
import pyarrow as pa
import pytest
from test_linkage import another, graph, pairs_of, people, person

from hetki.identity.blocking import COMPARED_PER_RECORD, block, blocking_rules
from hetki.identity.clusters import CLUSTER_MAX, clustered, components
from hetki.identity.columns import typed
from hetki.identity.linkage import Linkage, Model, apply, link
from hetki.identity.proposals import POSSIBLE_OF_ONE_MAX, Proposal, Proposals, proposed

Found = tuple[duckdb.DuckDBPyConnection, Linkage, pa.Table, np.ndarray]


@pytest.fixture(scope="module")
def found() -> Found:
    table, truth = people(300)
    con = duckdb.connect()
    return con, link(con, table), table, truth


@pytest.fixture(scope="module")
def said(found: Found) -> Proposals:
    return proposed(found[0], found[1])


def of_kind(said: Proposals, kind: str) -> list[Proposal]:
    return [each for each in said.pairs if each.kind == kind]


def joined(n: int, pairs: list[Proposal]) -> np.ndarray:
    return components(n, np.array([p.left for p in pairs], int), np.array([p.right for p in pairs], int))


def test_the_weight_by_field_sums_to_the_weight(found: Found, said: Proposals) -> None:
    _, linkage, _, _ = found
    sides = (linkage.pairs.left.tolist(), linkage.pairs.right.tolist())
    weight = dict(zip(zip(*sides, strict=True), linkage.pairs.weight.tolist(), strict=True))
    names = ("prior", "given", "family", "born", "post", "town", "mail")
    assert len(said.pairs) > 500
    for each in said.pairs:
        assert tuple(name for name, _ in each.told) == names
        assert sum(bits for _, bits in each.told) == pytest.approx(each.weight)
        assert each.weight == pytest.approx(weight[each.left, each.right])


def test_a_rare_value_tells_more_than_a_common_one(found: Found, said: Proposals) -> None:
    """What the rarity of a value adds is in the weight of its field."""
    given = found[2]["given"].to_pylist()
    counts = Counter(given)
    bits = {given[p.left]: dict(p.told)["given"] for p in said.pairs if given[p.left] == given[p.right]}
    (common, _), *_, (rare, _) = [each for each in counts.most_common() if each[0] in bits]
    assert counts[rare] < counts[common] and bits[rare] > bits[common]


def test_probable_pairs_hold_each_cluster_together_and_no_more(found: Found, said: Proposals) -> None:
    linkage, tree = found[1], of_kind(said, "probable")
    n = len(linkage.clusters.cluster)
    assert pairs_of(joined(n, tree)) == pairs_of(linkage.clusters.cluster)
    assert len(tree) == n - len(np.unique(linkage.clusters.cluster))
    for each in tree[::50]:
        parted = joined(n, [other for other in tree if other != each])
        assert parted[each.left] != parted[each.right]


def test_a_tree_takes_the_strongest_pairs(found: Found, said: Proposals) -> None:
    """No pair of a cluster is stronger than the weakest one on its way through the tree."""
    linkage, tree = found[1], of_kind(said, "probable")
    for left, right, weight in list(
        zip(linkage.pairs.left, linkage.pairs.right, linkage.pairs.weight, strict=True)
    )[::40]:
        if linkage.clusters.cluster[left] == linkage.clusters.cluster[right]:
            as_strong = joined(len(linkage.clusters.cluster), [p for p in tree if p.weight >= weight - 1e-6])
            assert as_strong[left] == as_strong[right]


def test_the_grey_zone_is_between_clusters_and_bounded() -> None:
    """Families at one address: alike enough to ask, too many to ask everything."""
    rows = []
    table, _ = people(80, seed=3)
    for family in table.to_pylist()[::9]:
        for number in range(8):
            rows.append(
                family | {"given": f"given{number}", "born": f"19{number}0-01-0{number + 1}", "mail": None}
            )
    con = duckdb.connect()
    linkage = link(con, pa.concat_tables([table, pa.Table.from_pylist(rows, table.schema)]))
    said = proposed(con, linkage)
    asked = of_kind(said, "possible")
    cluster = linkage.clusters.cluster
    of_one = Counter(int(cluster[row]) for each in asked for row in (each.left, each.right))
    assert asked and said.n_unasked > 0 and max(of_one.values()) == POSSIBLE_OF_ONE_MAX
    between = [tuple(sorted((int(cluster[p.left]), int(cluster[p.right])))) for p in asked]
    assert len(set(between)) == len(between) and all(a != b for a, b in between)


def new_last(n: int, n_new: int) -> np.ndarray:
    return np.arange(n) >= n - n_new


def test_new_records_join_the_customers_who_are_there_without_training() -> None:
    table, truth = people(150, seed=2)
    n, n_new = table.num_rows, 90
    before = link(duckdb.connect(), table.slice(0, n - n_new))
    alone = before.clusters.cluster.max() + 1 + np.arange(n_new)
    customer = np.concatenate([before.clusters.cluster, alone])
    con = duckdb.connect()
    linkage = apply(con, table, before.model, is_new=new_last(n, n_new), customer=customer)
    said = proposed(con, linkage, customer)
    assert all(p.right >= n - n_new for p in said.pairs), "nothing is said of two known records"
    assert pairs_of(before.clusters.cluster) <= pairs_of(linkage.clusters.cluster), "customers stay"
    ours, real = pairs_of(linkage.clusters.cluster), pairs_of(truth)
    assert len(ours & real) >= 0.98 * len(ours) and len(ours & real) >= 0.95 * len(real)
    for each in said.pairs:
        assert sum(bits for _, bits in each.told) == pytest.approx(each.weight)


def test_one_new_record_finds_its_customer(found: Found) -> None:
    _, linkage, table, _ = found
    n = table.num_rows
    one = table.slice(0, 1).to_pylist()[0]
    more = pa.concat_tables([table, pa.Table.from_pylist([one], table.schema)])
    con = duckdb.connect()
    customer = np.append(linkage.clusters.cluster, n)
    again = apply(con, more, linkage.model, is_new=new_last(n + 1, 1), customer=customer)
    (pair,) = of_kind(proposed(con, again, customer), "probable")
    assert pair.right == n and linkage.clusters.cluster[pair.left] == linkage.clusters.cluster[0]


def test_what_one_customer_has_already_needs_no_pair(found: Found) -> None:
    con, linkage, _, _ = found
    said = proposed(con, linkage, linkage.clusters.cluster)
    assert of_kind(said, "probable") == [] and of_kind(said, "possible")


def test_whom_somebody_parted_is_not_joined_by_way_of_others(found: Found, said: Proposals) -> None:
    con, linkage, _, _ = found
    cluster = linkage.clusters.cluster
    size = np.bincount(cluster)
    apart = next((p.left, p.right) for p in of_kind(said, "probable") if size[cluster[p.left]] > 2)
    again = proposed(con, linkage, apart=[apart])
    names = joined(len(cluster), of_kind(again, "probable"))
    assert names[apart[0]] != names[apart[1]]
    members = np.flatnonzero(cluster == cluster[apart[0]])
    assert not [p for p in of_kind(again, "possible") if p.left in members and p.right in members]
    others = cluster != cluster[apart[0]]
    assert pairs_of(names[others]) == pairs_of(cluster[others])


def test_a_customer_of_many_records_takes_in_no_other() -> None:
    edges = [(0, 40, 30.0), (41, 42, 9.0)]
    customer = np.array([*[0] * CLUSTER_MAX, *range(CLUSTER_MAX, 45)])
    kept = clustered(45, graph(45, edges), customer).cluster
    assert len(set(kept[:CLUSTER_MAX].tolist())) == 1 and kept[40] != kept[0] and kept[41] == kept[42]


def test_two_customers_are_one_only_if_most_of_their_records_match() -> None:
    customer = np.array([0, 0, 0, 1, 1, 1])
    one = clustered(6, graph(6, [(0, 3, 9.0)]), customer).cluster
    all_of_them = clustered(
        6, graph(6, [(a, b, 9.0) for a in range(3) for b in range(3, 6)]), customer
    ).cluster
    assert one.tolist() == [0, 0, 0, 1, 1, 1] and all_of_them.tolist() == [0] * 6


def families(n: int, seed: int) -> tuple[pa.Table, np.ndarray]:
    """Two to four persons with one last name, address and telephone, each with one to three records."""
    chance = Random(seed)
    rows, truth = [], []
    for _ in range(n):
        home = person(chance) | {"phone": f"0{chance.randrange(10**8)}"}
        for _ in range(chance.randint(2, 4)):
            one = home | {name: person(chance)[name] for name in ("given", "born", "mail")}
            who = len(set(truth))
            for _ in range(chance.randint(1, 3)):
                rows.append(another(chance, one) | {"mail": None})
                truth.append(who)
    return pa.Table.from_pylist(rows), np.array(truth)


def test_a_family_is_not_one_person() -> None:
    """Name, address and telephone are one's; what tells them apart is held against what they share."""
    table, truth = families(90, 2)
    con = duckdb.connect()
    linkage = link(con, table)
    ours, real = pairs_of(linkage.clusters.cluster), pairs_of(truth)
    assert linkage.model.related is not None
    assert len(ours & real) >= 0.9 * len(ours) and len(ours & real) >= 0.65 * len(real)
    kept = msgspec.json.decode(msgspec.json.encode(linkage.model), type=Model)
    is_new = new_last(table.num_rows, 40)
    again = apply(con, table, kept, is_new=is_new, customer=np.arange(table.num_rows))
    said = proposed(con, again).pairs
    sides = (again.pairs.left.tolist(), again.pairs.right.tolist())
    weight = dict(zip(zip(*sides, strict=True), again.pairs.weight.tolist(), strict=True))
    assert said and [name for name, _ in said[0].told][-1] == "related"
    for each in said:
        assert sum(bits for _, bits in each.told) == pytest.approx(each.weight)
        assert each.weight == pytest.approx(weight[each.left, each.right], abs=1e-3)


def test_who_moved_is_no_relative(found: Found) -> None:
    """Where no date tells pairs apart, nothing is taken from their weight."""
    table, truth = people(150, seed=8)
    chance = Random(8)
    rows = [
        row | ({name: person(chance)[name] for name in ("post", "town")} if chance.random() < 0.4 else {})
        for row in table.to_pylist()
    ]
    linkage = link(duckdb.connect(), pa.Table.from_pylist(rows))
    ours, real = pairs_of(linkage.clusters.cluster), pairs_of(truth)
    assert linkage.model.related is None and found[1].model.related is None
    assert len(ours & real) >= 0.9 * len(real)


def test_columns_that_vary_together_do_not_multiply_the_work() -> None:
    """Blocks as large as they may be, for every rule: the rules that are too much bring nothing together."""
    chance = np.random.default_rng(1)
    n, n_blocks = 6_000, 22
    place = chance.integers(0, n_blocks, n)
    table = pa.table(
        {f"place{k}": [f"{chr(97 + k) * 3}{b * (k + 3)} w{k} {b}q{b % 7}" for b in place] for k in range(4)}
        | {"name": [f"{a} {b}" for a, b in chance.integers(0, 3_000, (n, 2))]}
    )
    con = duckdb.connect()
    columns = typed(con, table, "table").columns
    rules = blocking_rules(columns, n)
    assert len(rules) > 2
    found = block(con, columns, rules, "table")
    n_pairs = [
        con.sql(
            f"select coalesce(sum(n * (n - 1) / 2), 0) from (select count(*)::double as n from blocked"
            f" where block{k} is not null group by block{k})"
        ).fetchall()[0][0]
        for k in range(len(rules))
    ]
    assert found.idle and sum(n_pairs) <= COMPARED_PER_RECORD * n and max(n_pairs) > 0
    assert all((n_pairs[k] == 0) == (k in found.idle) for k in range(len(rules)))
