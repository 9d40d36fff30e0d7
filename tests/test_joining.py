"""Why two identifiers are one customer's and why they are not: the chain, the words, and the picture."""

from __future__ import annotations

import re
from typing import get_args

import pytest

from hetki.dialogues.joining import (
    LINK_NAMES,
    LINK_WORDS,
    LOOK_WORDS,
    NOTHING,
    QUARANTINE_WORDS,
    REFUSAL_WORDS,
    why_words,
)
from hetki.events.event import LeafId
from hetki.identity.identifier import NodeId
from hetki.identity.joining import LOOKS, Answer, Judged, Look, path, strongest_first, why
from hetki.identity.link import LinkKind, make_link
from hetki.identity.resolve import Quarantine, Refusal
from hetki.server.graph import BOX_HEIGHT, BOX_WIDTH, NODES_MAX, Layout, layout
from hetki.server.graph_svg import graph_svg, legend_svg
from hetki.store.identity_views import Named


def node(name: str) -> NodeId:
    return NodeId(name.encode().ljust(16, b"_"))


def link(
    kind: LinkKind, a: str, b: str, at: int = 0, refusal: str = "", revoked_at: int | None = None
) -> Judged:
    made = make_link(kind, node(a), node(b), at, b"cause", once=str(at).encode())
    return Judged(made, refusal, revoked_at)


def asked(links: list[Judged], a: str, b: str, ours: str, theirs: str = "") -> Answer:
    """Identifiers are words; a customer is some of them in one text."""
    mine = {node(each) for each in ours.split()}
    return why(links, node(a), node(b), mine, {node(each) for each in theirs.split()} or mine)


def chain(links: list[Judged], a: str, b: str) -> list[LinkKind]:
    return [each.link.kind for each in path(links, node(a), node(b))]


# Why one


def test_the_chain_goes_by_the_strongest_evidence() -> None:
    links = [link("phone", "anna", "b"), link("login", "anna", "laptop"), link("alias", "laptop", "b")]
    assert chain(links, "anna", "b") == ["login", "alias"]
    assert chain(links[:1], "anna", "b") == ["phone"]
    assert chain(links, "b", "anna") == ["alias", "login"]


def test_only_what_stands_is_in_a_chain() -> None:
    broken = [
        link("login", "anna", "browser", 1, refusal="two_unique_ids"),
        link("merge", "anna", "browser", 2, revoked_at=9),
        link("cannot", "anna", "browser", 3),
    ]
    assert chain(broken, "anna", "browser") == []
    assert chain([*broken, link("email", "anna", "browser", 4)], "anna", "browser") == ["email"]


def test_the_order_of_links_changes_nothing() -> None:
    logins = [link("login", *pair.split(), at) for at, pair in enumerate(("a b", "b c", "c a"))]
    links = [*logins, link("email", "c", "d", 3), link("email", "d", "a", 4)]
    for turned in (links, links[::-1], links[2:] + links[:2]):
        assert path(turned, node("a"), node("d")) == path(links, node("a"), node("d"))
        assert strongest_first(turned) == strongest_first(links)
        assert layout([node("a")], strongest_first(turned)) == layout([node("a")], strongest_first(links))


def test_an_identifier_is_itself() -> None:
    told = asked([link("login", "anna", "browser")], "anna", "anna", "anna browser")
    assert told.is_one and told.path == []
    assert why_words(told, "user id anna", "user id anna", {}, "UTC") == [
        "user id anna and user id anna are the same identifier."
    ]


# Why not


def test_what_was_refused_between_two_customers_is_the_reason() -> None:
    refused = link("email", "ben", "a@x.fi", refusal="two_unique_ids")
    told = asked([refused, link("email", "anna", "a@x.fi")], "anna", "ben", "anna a@x.fi", "ben")
    assert (told.is_one, told.direct, told.apart, told.by_way) == (False, [refused], [], [])
    names = {node("anna"): "user id anna", node("ben"): "user id ben", node("a@x.fi"): "email a@x.fi"}
    lines = why_words(told, "user id anna", "user id ben", names, "UTC")
    assert lines[0] == "user id anna and user id ben are two customers'."
    assert "user id ben" in lines[2] and "the address came with this id" in lines[2]
    assert "refused: it would join two user ids" in lines[2]


def test_a_persons_word_that_they_are_two_comes_first() -> None:
    apart = link("cannot", "anna", "ben", 1)
    taken_back = link("merge", "anna", "ben", 2, revoked_at=60_000_000)
    told = asked([taken_back, apart], "anna", "ben", "anna", "ben")
    assert (told.apart, told.direct) == ([apart], [taken_back])
    lines = why_words(told, "anna", "ben", {}, "UTC")
    assert lines[1] == "A person holds them apart:" and "taken back Thu 1 Jan 1970, 00:01:00." in lines[4]


def test_a_value_that_both_are_linked_with_is_told_even_if_it_joins_nobody() -> None:
    mine, yours = (link("phone", each, "+358", refusal="two_unique_ids") for each in ("anna", "ben"))
    elsewhere = link("phone", "ben", "+46", refusal="two_unique_ids")
    told = asked([mine, yours, elsewhere], "anna", "ben", "anna", "ben")
    assert told.by_way == [(mine, yours)]
    assert "Both are linked with an identifier of neither:" in why_words(told, "a", "b", {}, "UTC")


def test_no_evidence_is_an_answer_too() -> None:
    told = asked([link("email", "anna", "a@x.fi")], "anna", "ben", "anna a@x.fi", "ben")
    assert why_words(told, "anna", "ben", {}, "UTC") == ["anna and ben are two customers'.", NOTHING]


def test_every_kind_every_refusal_and_every_look_has_words() -> None:
    assert set(LINK_WORDS) == set(LINK_NAMES) == set(get_args(LinkKind))
    assert set(REFUSAL_WORDS) == set(get_args(Refusal))
    assert set(QUARANTINE_WORDS) == {*get_args(Quarantine), "too_many_alike"} - {""}
    assert set(LOOK_WORDS) == set(LOOKS) == set(get_args(Look))


# The picture


def star(n_nodes: int) -> list[Judged]:
    return [link("login", "user", f"b{number}", number) for number in range(n_nodes - 1)]


def line(n_nodes: int) -> list[Judged]:
    return [link("email", f"n{number}", f"n{number + 1}", number) for number in range(n_nodes - 1)]


def bush(n_nodes: int) -> list[Judged]:
    return [link("email", f"n{(number - 1) // 2}", f"n{number}", number) for number in range(1, n_nodes)]


def drawn(links: list[Judged], n_max: int = NODES_MAX) -> Layout:
    ends = sorted(each for one in links for each in one.ends)
    return layout([max(ends, key=ends.count)], strongest_first(links), n_max)


@pytest.mark.parametrize("n_nodes", [2, 3, 10, 60])
@pytest.mark.parametrize("shape", [star, line, bush])
def test_no_box_lies_on_another_and_all_lie_in_the_picture(shape: object, n_nodes: int) -> None:
    found = drawn(shape(n_nodes))  # type: ignore[operator]
    boxes = list(found.boxes.values())
    assert len(boxes) == n_nodes and found.n_left_out == 0 and len(found.ties) == n_nodes - 1
    for place, one in enumerate(boxes):
        assert BOX_WIDTH / 2 <= one.x <= found.width - BOX_WIDTH / 2
        assert BOX_HEIGHT / 2 <= one.y <= found.height - BOX_HEIGHT / 2
        for other in boxes[:place]:
            assert abs(one.x - other.x) >= BOX_WIDTH or abs(one.y - other.y) >= BOX_HEIGHT


def test_the_middle_of_a_star_stands_in_the_middle() -> None:
    found = drawn(star(9))
    middle = found.boxes[node("user")]
    sides = [box.x < middle.x for box in found.boxes.values() if box is not middle]
    assert sides.count(True) == sides.count(False) == 4


def test_above_the_bound_the_strongest_part_is_drawn() -> None:
    strong = [link("login", "user", f"s{number}", number) for number in range(4)]
    weak = [link("phone", "user", f"w{number}", number) for number in range(4)]
    refused = [link("login", "user", f"r{number}", number, refusal="two_unique_ids") for number in range(4)]
    found = drawn([*refused, *weak, *strong], 7)
    names = {each.rstrip(b"_").decode() for each in found.boxes}
    assert names == {"user", "s0", "s1", "s2", "s3", "w0", "w1"} and found.n_left_out == 6


def test_what_became_of_a_link_is_not_told_by_colour_alone() -> None:
    links = [
        link("login", "anna", "b1", 1),
        link("cannot", "anna", "b2", 2),
        link("email", "anna", "b3", 3, refusal="needs_review"),
        link("email", "anna", "b4", 4, refusal="two_unique_ids"),
        link("email", "anna", "b1", 5, revoked_at=6),
    ]
    found = drawn(links)
    numbers = {each.link.link_id: number for number, each in enumerate(strongest_first(links), 1)}
    picture = graph_svg(found, {}, numbers, {node("anna"), node("b1")})
    told = re.findall(r'<text class="word"[^>]*>([^<]*)<', picture)
    assert sorted(told) == [
        "1 · login", "2 · not one", "3 · e-mail, waits", "4 · e-mail, refused", "5 · e-mail, taken back"
    ]  # fmt: skip
    strokes = re.findall(r'<path class="tie (\w+)"', picture)
    assert sorted(strokes) == sorted(LOOKS)
    assert picture.count('<g class="own">') == 2
    assert picture.count("identifier, another&#39;s") == 3
    assert all(f"tie {look}" in legend_svg(look) for look in LOOKS)


def test_names_in_the_picture_are_text() -> None:
    evil = "<script>alert(1)</script>"
    known = {node("anna"): Named(node("anna"), "user_id", evil, LeafId(node("anna")))}
    picture = graph_svg(drawn([link("login", "b1", "anna")]), known, {}, [])
    assert "<script" not in picture and "&lt;script&gt;" in picture


def test_many_links_between_two_are_counted_where_there_is_no_room() -> None:
    links = [link("merge", "anna", "ben", at, revoked_at=at + 1) for at in range(6)]
    picture = graph_svg(drawn(links), {}, {}, [])
    assert picture.count('class="tie') == 1 and "and 4 more" in picture
