"""Linkage of records in one table: what is found without labels, the guard against over-merge, bad tables.

Records come from a seeded maker of persons with known truth: typing errors, missing values, moves.
"""

from __future__ import annotations

from random import Random

import duckdb
import msgspec
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hetki.errors import Invalid
from hetki.identity.blocking import BLOCK_MAX
from hetki.identity.clusters import CLUSTER_MAX, DENSITY_MIN, Pairs, clustered, components
from hetki.identity.columns import typed, units
from hetki.identity.linkage import Linkage, Model, apply, link

FIRST = "anna matti liisa juha kaisa pekka sofia eero helmi onni venla otto aino leo ella niilo iida".split()
SYLLABLES = "la ki ma ra to ne vi sa hu pe ko li ja tu mi".split()
TOWNS = "helsinki espoo tampere vantaa oulu turku jyvaskyla kuopio lahti pori kouvola joensuu vaasa".split()


def person(chance: Random) -> dict[str, str]:
    first, last = chance.choice(FIRST), "".join(chance.choice(SYLLABLES) for _ in range(4)) + "nen"
    return {
        "given": first,
        "family": last,
        "born": f"{chance.randint(1930, 2005)}-{chance.randint(1, 12):02}-{chance.randint(1, 28):02}",
        "post": f"{chance.randint(10, 99)}{chance.randint(100, 999)}",
        "town": chance.choice(TOWNS),
        "mail": f"{first}.{last}{chance.randint(1, 99)}@example.com",
    }


def mistyped(chance: Random, value: str) -> str:
    place = chance.randrange(len(value))
    return value[:place] + chance.choice("abcdefgh12345") + value[place + 1 :]


def another(chance: Random, one: dict[str, str]) -> dict[str, str | None]:
    """The same person, as another system has it."""
    found: dict[str, str | None] = {}
    for name, value in one.items():
        draw = chance.random()
        found[name] = None if draw < 0.1 else mistyped(chance, value) if draw < 0.25 else value
    return found


def people(n: int, n_each: int = 3, seed: int = 1) -> tuple[pa.Table, np.ndarray]:
    """A table of records in random order, and the person of each."""
    chance = Random(seed)
    rows = [
        (who, another(chance, one)) for who in range(n) for one in [person(chance)] for _ in range(n_each)
    ]
    chance.shuffle(rows)
    return pa.Table.from_pylist([row for _, row in rows]), np.array([who for who, _ in rows])


def linked(table: pa.Table) -> Linkage:
    return link(duckdb.connect(), table)


def pairs_of(names: np.ndarray) -> set[tuple[int, int]]:
    return {
        (a, b)
        for name in np.unique(names)
        for a in np.flatnonzero(names == name)
        for b in np.flatnonzero(names == name)
        if a < b
    }


@pytest.fixture(scope="module")
def found() -> tuple[Linkage, pa.Table, np.ndarray]:
    table, truth = people(300)
    return linked(table), table, truth


def test_people_are_found_without_labels(found: tuple[Linkage, pa.Table, np.ndarray]) -> None:
    linkage, _, truth = found
    ours, real = pairs_of(linkage.clusters.cluster), pairs_of(truth)
    assert len(ours & real) >= 0.98 * len(ours) and len(ours & real) >= 0.95 * len(real)
    assert not linkage.quarantined and linkage.model.is_taught


def test_columns_are_typed_by_what_they_hold(found: tuple[Linkage, pa.Table, np.ndarray]) -> None:
    kinds = {column.name: column.kind for column in found[0].model.columns}
    expected = "given category, family text, born date, post code, town category, mail email"
    assert kinds == dict(each.split() for each in expected.split(", "))


def test_the_prior_comes_from_the_table(found: tuple[Linkage, pa.Table, np.ndarray]) -> None:
    linkage, table, truth = found
    real = len(pairs_of(truth)) / (table.num_rows * (table.num_rows - 1) / 2)
    share = linkage.model.settings["probability_two_random_records_match"]
    assert isinstance(share, float) and 0.8 * real <= share <= 1.2 * real


def test_a_model_kept_as_json_gives_the_same_without_training(
    found: tuple[Linkage, pa.Table, np.ndarray],
) -> None:
    linkage, table, _ = found
    model = msgspec.json.decode(msgspec.json.encode(linkage.model), type=Model)
    again = apply(duckdb.connect(), table, model)
    assert (again.clusters.cluster == linkage.clusters.cluster).all()
    assert (
        np.allclose(again.pairs.weight, linkage.pairs.weight)
        and (again.pairs.left == linkage.pairs.left).all()
    )
    assert model == linkage.model


def test_a_model_names_the_column_that_a_table_lacks(found: tuple[Linkage, pa.Table, np.ndarray]) -> None:
    linkage, table, _ = found
    with pytest.raises(Invalid, match="no column 'family'"):
        apply(duckdb.connect(), table.drop_columns(["family"]), linkage.model)


def test_two_runs_are_equal(found: tuple[Linkage, pa.Table, np.ndarray]) -> None:
    linkage, table, _ = found
    assert (linked(table).clusters.cluster == linkage.clusters.cluster).all()


def test_where_nobody_comes_twice_hardly_anybody_is_linked() -> None:
    table, _ = people(600, n_each=1)
    linkage = linked(table)
    assert len(pairs_of(linkage.clusters.cluster)) <= 3 and not linkage.model.is_taught


def test_a_few_who_come_twice_are_found_among_many_who_do_not() -> None:
    chance = Random(4)
    rows = [person(chance) for _ in range(600)]
    table = pa.Table.from_pylist(
        [*rows, *(row | {"mail": mistyped(chance, row["mail"])} for row in rows[:5])]
    )
    assert pairs_of(linked(table).clusters.cluster) == {(n, 600 + n) for n in range(5)}


def test_names_that_nobody_shares_are_still_compared() -> None:
    """No two records have one name, as each copy is mistyped: training on it fails, and takes nothing out."""
    table, truth = people(60, n_each=2, seed=3)
    families = table["family"].to_pylist()
    unique = [f"{name or 'q'}{chr(97 + n % 26)}{chr(97 + n // 26)}" for n, name in enumerate(families)]
    table = table.set_column(table.column_names.index("family"), "family", pa.array(unique))
    linkage = linked(table)
    settings = msgspec.convert(linkage.model.settings, dict[str, object])
    compared = msgspec.convert(settings["comparisons"], list[dict[str, object]])
    assert {column.name for column in linkage.model.columns} == set(table.column_names)
    assert {each["output_column_name"] for each in compared} == {each.key for each in linkage.model.columns}
    assert len(pairs_of(linkage.clusters.cluster) & pairs_of(truth)) >= 0.8 * len(pairs_of(truth))


def test_a_full_name_and_its_parts_are_one_comparison() -> None:
    table, _ = people(100)
    full = [f"{a} {b}" for a, b in zip(table["given"].to_pylist(), table["family"].to_pylist(), strict=True)]
    columns = typed(duckdb.connect(), table.append_column("name", pa.array(full)), "table").columns
    together = [[column.name for column in unit] for unit in units(columns) if len(unit) > 1]
    assert together == [["name", "family"]]


def test_what_says_nothing_is_left_out_with_its_reason() -> None:
    table, _ = people(50)
    n = table.num_rows
    for name, values in {
        "nothing": pa.nulls(n, pa.string()),
        "said_nothing": pa.array(["n/a", "NULL", " "] * (n // 3)),
        "country": pa.array(["FI"] * n),
        "id": pa.array(range(n)),
        "tags": pa.array([["a"]] * n),
        "photo": pa.array([b"\xff\xd8"] * n),
        'odd "name"; drop': pa.array(["x"] * n),
    }.items():
        table = table.append_column(name, values)
    ignored = {each.name: each.reason for each in typed(duckdb.connect(), table, "table").ignored}
    assert ignored == {
        "nothing": "empty",
        "said_nothing": "empty",
        "country": "one_value",
        "id": "an_id_of_the_record",
        "tags": "not_plain_values",
        "photo": "not_plain_values",
        'odd "name"; drop': "one_value",
    }


@pytest.mark.parametrize(
    ("table", "told"),
    [
        (pa.table({"a": ["x"], "b": ["y"]}), "got 1 records, must be 2 or more"),
        (pa.table({"a": pa.array([], pa.string())}), "got 0 records"),
        (
            pa.table({"a": pa.nulls(9, pa.string()), "b": ["x"] * 9}),
            r"left out: a \(empty\), b \(one_value\)",
        ),
        (pa.table({"a": ["x", "y"] * 5, "A": ["x", "y"] * 5}), "two columns 'a'"),
        (pa.table({f"c{n}": ["x", "y"] for n in range(201)}), "got 201 columns"),
        (pa.table({"a": ["x", "y", "y"] * 5}), "got 1 columns that tell people apart"),
        (
            pa.table({"a": ["x", "y", "y"] * 999, "b": ["u", "u", "v"] * 999}),
            "too coarse to tell 2997 records",
        ),
    ],
)
def test_a_table_that_cannot_be_linked_is_refused(table: pa.Table, told: str) -> None:
    with pytest.raises(Invalid, match=told):
        linked(table)


def test_a_broken_encoding_is_a_fault_with_its_column() -> None:
    broken = pa.Array.from_buffers(pa.string(), 2, pa.array([b"J\xe4rvi", b"x"]).buffers())
    with pytest.raises(Invalid, match=r"table: name: .* must be text in UTF-8"):
        linked(pa.table({"name": broken, "town": ["a", "b"]}))


def test_values_in_broken_text_are_compared_as_they_are() -> None:
    table, truth = people(150)
    names = ["�\0\t" + (name or "") for name in table["family"].to_pylist()]
    table = table.set_column(table.column_names.index("family"), "family", pa.array(names))
    assert len(pairs_of(linked(table).clusters.cluster) & pairs_of(truth)) >= 0.9 * len(pairs_of(truth))


@pytest.mark.parametrize("varied", [(), ("post",), ("post", "mail")])
def test_records_that_too_many_are_alike_to_are_in_quarantine(varied: tuple[str, ...]) -> None:
    table, truth = people(200)
    n = 5 * BLOCK_MAX
    chance = Random(5)
    one = person(chance)
    rows = [one | {name: mistyped(chance, one[name]) for name in varied} for _ in range(n)]
    linkage = linked(pa.concat_tables([table, pa.Table.from_pylist(rows)]))
    alike = [each.rows for each in linkage.quarantined if each.reason == "too_many_alike"]
    assert alike == [list(range(len(truth), len(truth) + n))]
    ours, real = pairs_of(linkage.clusters.cluster), pairs_of(truth)
    assert max(b for _, b in ours) < len(truth) and len(ours & real) >= 0.9 * len(real)


def test_a_person_with_many_records_is_in_quarantine_whole() -> None:
    table, truth = people(200)
    chance = Random(5)
    one = person(chance)
    many = pa.Table.from_pylist([one | {"town": chance.choice(TOWNS)} for _ in range(60)])
    linkage = linked(pa.concat_tables([table, many]))
    assert [(each.reason, each.rows) for each in linkage.quarantined] == [
        ("crowd", list(range(len(truth), len(truth) + 60)))
    ]


def graph(n: int, edges: list[tuple[int, int, float]]) -> Pairs:
    left, right = (np.array([edge[side] for edge in edges], np.int64) for side in (0, 1))
    return Pairs(left, right, np.array([edge[2] for edge in edges], float))


def clique(rows: range, weight: float) -> list[tuple[int, int, float]]:
    return [(a, b, weight) for a in rows for b in rows if a < b]


def test_one_wrong_pair_joins_no_two_persons() -> None:
    pairs = graph(8, [*clique(range(4), 9.0), *clique(range(4, 8), 9.0), (0, 4, 5.0)])
    assert clustered(8, pairs).cluster.tolist() == [0, 0, 0, 0, 1, 1, 1, 1]


def test_a_chain_falls_into_pieces() -> None:
    pairs = graph(200, [(n, n + 1, 3.0 + n % 7) for n in range(199)])
    assert np.bincount(clustered(200, pairs).cluster).max() <= 3


def test_a_crowd_is_in_quarantine_and_linked_with_nobody() -> None:
    kept = clustered(40, graph(40, [*clique(range(30), np.inf), (30, 31, 4.0)]))
    assert kept.crowd.tolist() == [0] * 30 + [-1] * 10
    assert len(np.unique(kept.cluster)) == 39 and kept.cluster[30] == kept.cluster[31]


weights = st.floats(-5, 40) | st.just(7.0)
edges = st.dictionaries(
    st.tuples(st.integers(0, 39), st.integers(0, 39)).filter(lambda pair: pair[0] < pair[1]),
    weights,
    max_size=300,
)


@given(edges, st.randoms(use_true_random=False))
def test_clusters_are_small_dense_connected_and_no_matter_of_order(
    found: dict[tuple[int, int], float], chance: Random
) -> None:
    listed = [(a, b, weight) for (a, b), weight in found.items()]
    kept = clustered(40, graph(40, listed))
    chance.shuffle(listed)
    assert (clustered(40, graph(40, listed)).cluster == kept.cluster).all()
    for name in np.unique(kept.cluster):
        rows = np.flatnonzero(kept.cluster == name)
        inside = [(a, b, w) for a, b, w in listed if a in rows and b in rows and w >= 0]
        assert len(rows) <= CLUSTER_MAX
        assert len(inside) >= DENSITY_MIN * len(rows) * (len(rows) - 1) / 2
        if len(rows) > 1:
            part = graph(40, inside)
            assert len(np.unique(components(40, part.left, part.right)[rows])) == 1
