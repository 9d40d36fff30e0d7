"""Review: records that are perhaps one customer's wait for a person, side by side, and the answer holds."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from console import EVIL, SEEN, House, browsing, serving, words

from hetki.cli import reviewing
from hetki.engine.advance import advance
from hetki.engine.commands import Matched, MatchedPair
from hetki.engine.rebuilding import rebuild
from hetki.errors import Conflict, Invalid, NotFound
from hetki.server.reviewing import fields_of
from hetki.server.waterfall import steps, waterfall_svg
from hetki.store.views import Views

TOLD = (("prior", -9.0), ("name", 7.5), ("born", 5.5), ("city", -1.0))


class Reviewed(House):
    """A house in which linkage has found pairs: each a name with records `crm:NAME` and `shop:NAME`."""

    def found(self, *names: str, weight: float = 3.0) -> list[str]:
        """Pairs of records, each a bit weaker than the last, as links that wait: their ids."""
        pairs = []
        for number, name in enumerate(names):
            a = self.record(f"crm:{name}", name=name.title(), born="1984-02-11", city="Espoo", tier=1)
            b = self.record(f"shop:{name}", name=f" {name} ", born="1984-02-11", city="Oulu", note=EVIL)
            pairs.append(MatchedPair(a, b, "possible", weight - number, TOLD))
        self.engine.acceptor.command(Matched("model-1", pairs, self.clock.now()))
        advance(self.engine)
        return [self.link("possible", f"crm:{name}", f"shop:{name}") for name in names]

    def link(self, kind: str, a: str, b: str) -> str:
        """The newest link of a kind between two records."""
        ends = sorted(bytes.fromhex(self.node("record", each)) for each in (a, b))
        row = self.engine.db.execute(
            "SELECT link_id FROM links WHERE kind = ? AND node_a = ? AND node_b = ? ORDER BY linked_at DESC",
            (kind, *ends),
        ).fetchone()
        return str(row[0].hex())

    def is_one(self, name: str) -> bool:
        return self.customer("record", f"crm:{name}") == self.customer("record", f"shop:{name}")

    def queue(self) -> list[str]:
        """The ids of the pairs that wait, in order, over all pages."""
        found: list[str] = []
        for page in range(1, 9):
            found += re.findall(r'<a href="/review/(\w{32})">', self.get(f"/review?page={page}").text)
        return found


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Reviewed:
    return Reviewed(tmp_path_factory.mktemp("review"))


def test_nothing_to_review_is_said(house: Reviewed) -> None:
    assert "Nothing waits for a person" in words(house.get("/review")) and house.queue() == []


def test_the_strongest_comes_first_and_a_long_list_is_turned(house: Reviewed) -> None:
    weak = house.found(*(f"w{number}" for number in range(28)), weight=2.0)
    strong = house.found("strong", weight=4.0)
    assert house.queue() == [*strong, *weak]
    assert "29 pairs to look at" in words(house.get("/review"))


def test_two_records_stand_side_by_side(house: Reviewed) -> None:
    (link,) = house.found("berit")
    house.record("crm:berit", name="Berit", born="1990-01-01", city="Espoo")
    advance(house.engine)
    page = house.get(f"/review/{link}")
    told = words(page)
    assert "record crm:berit" in told and "record shop:berit" in told and "model-1" in told
    assert "name Berit berit equal +7.5" in told or "name berit Berit equal +7.5" in told
    assert "1990-01-01" in told and "differs +5.5" in told, "what was told last counts"
    assert "not given" in told and "<script>" not in page.text and "&lt;script&gt;" in page.text
    assert "likely at 88.9 %" in told and "prior -9.0 name +7.5" in told and "together +3.0" in told


def test_a_yes_joins_and_can_be_undone(house: Reviewed) -> None:
    first, second = house.found("carin", "cecil", weight=9.0)
    done = house.post(f"/review/{first}/answer", answer="yes")
    assert (done.status_code, done.headers["location"]) == (303, f"/review/{second}?answered=1")
    assert "Your answer about the last pair is kept" in words(house.get(done.headers["location"]))
    advance(house.engine)
    assert house.is_one("carin") and first not in house.queue()
    page = f"/customers/{house.customer('record', 'crm:carin')}"
    told = words(house.get(f"{page}/identities"))
    assert "a person said that they are one customer said by Sami" in told
    assert "They are one customer by now" in words(house.get(f"/review/{first}"))
    house.post(f"{page}/undo", link=house.link("merge", "crm:carin", "shop:carin"))
    advance(house.engine)
    assert not house.is_one("carin") and first in house.queue(), "it waits for another answer"


def test_a_no_holds_them_apart_and_can_be_undone(house: Reviewed) -> None:
    (link,) = house.found("dagny", weight=8.0)
    house.post(f"/review/{link}/answer", answer="no", said_by=EVIL)
    advance(house.engine)
    assert not house.is_one("dagny") and link not in house.queue()
    ours, theirs = (house.customer("record", f"{each}:dagny") for each in ("crm", "shop"))
    why = house.get(f"/customers/{ours}/why?other={theirs}")
    assert "A person holds them apart" in words(why) and "<script>" not in why.text
    again = words(house.get(f"/review/{link}"))
    assert "Answered. The last answer counts" in again and "Your answer" in again
    done = house.post(f"/customers/{ours}/undo", link=house.link("cannot", "crm:dagny", "shop:dagny"))
    advance(house.engine)
    assert "They are no longer held apart." in words(house.get(done.headers["location"]))
    assert link in house.queue()


def test_who_changes_their_mind_is_believed(house: Reviewed) -> None:
    (link,) = house.found("egil", weight=7.0)
    for answer in ("no", "yes"):
        house.post(f"/review/{link}/answer", answer=answer)
        advance(house.engine)
        house.clock.move(house.clock.now() + 1_000_000)
    assert house.is_one("egil") and link not in house.queue()


def test_unsure_stays_at_the_end_of_the_list_and_is_marked(house: Reviewed) -> None:
    first, second = house.found("frida", "fredrik", weight=20.0)
    assert house.queue()[:2] == [first, second]
    house.post(f"/review/{first}/answer", answer="unsure")
    advance(house.engine)
    assert house.queue()[0] == second and house.queue()[-1] == first
    assert "of which somebody was unsure about 1" in words(house.get("/review"))
    assert "unsure Somebody could not say" in words(house.get(f"/review/{first}"))
    done = house.post(f"/review/{first}/answer", answer="unsure")
    assert done.headers["location"] == "/review?answered=1", "nothing comes after the last one"
    assert "Your answer is kept" in words(house.get(done.headers["location"]))


def test_two_user_ids_take_a_tick(house: Reviewed) -> None:
    (link,) = house.found("gro", weight=6.0)
    for name in ("crm:gro", "shop:gro"):
        house.record(name, user=f"user of {name}", name="Gro")
    advance(house.engine)
    assert "although both have user id of their own" in words(house.get(f"/review/{link}"))
    refused = house.post(f"/review/{link}/answer", answer="yes")
    assert refused.status_code == 409 and "both have a user id" in words(refused)
    assert house.post(f"/review/{link}/answer", answer="yes", despite_unique="yes").status_code == 303
    advance(house.engine)
    users = {house.customer("user_id", f"user of {each}:gro") for each in ("crm", "shop")}
    assert users == {house.customer("record", f"{each}:gro") for each in ("crm", "shop")}
    assert len(users) == 1 and link not in house.queue()


@pytest.mark.parametrize(("answer", "status"), [("", 400), ("perhaps", 400), (EVIL, 400)])
def test_only_three_answers_are_answers(house: Reviewed, answer: str, status: int) -> None:
    (link,) = house.found(f"nobody{len(answer)}")
    head = house.engine.journal.head()
    refused = house.post(f"/review/{link}/answer", answer=answer)
    assert refused.status_code == status and "yes, no or unsure" in words(refused)
    assert house.engine.journal.head() == head


@pytest.mark.parametrize("link", ["x", "0" * 32, "%3Cscript%3E"])
def test_a_pair_that_is_none_is_said_calmly(house: Reviewed, link: str) -> None:
    assert house.get(f"/review/{link}").status_code == 404
    assert house.post(f"/review/{link}/answer", answer="yes").status_code == 404


def test_a_link_that_does_not_wait_takes_no_answer(house: Reviewed) -> None:
    house.identify(userId="hild", anonymousId="hilds-browser")
    advance(house.engine)
    row = house.engine.db.execute("SELECT link_id FROM links WHERE kind = 'login'").fetchone()
    refused = house.post(f"/review/{row[0].hex()}/answer", answer="no")
    assert refused.status_code == 409 and "one that waits for a person" in words(refused)


def test_answers_are_made_again_from_the_journal(house: Reviewed) -> None:
    yes, no, unsure = house.found("ingrid", "ivar", "inger", weight=5.0)
    for link, answer in ((yes, "yes"), (no, "no"), (unsure, "unsure")):
        house.post(f"/review/{link}/answer", answer=answer)
    advance(house.engine)
    before = house.queue()
    rebuilt = rebuild(house.engine)
    assert rebuilt.before == rebuilt.after
    assert house.queue() == before


# Fields and figures


def test_fields_that_were_compared_come_first_and_equal_ones_are_marked() -> None:
    found = fields_of({"b": "X y", "a": 1, "z": ""}, {"b": " x  Y", "c": True, "z": ""}, {"b": 2.0, "q": 1.0})
    assert [(each.name, each.is_equal, each.bits) for each in found] == [
        ("b", True, 2.0), ("a", False, None), ("c", False, None), ("z", False, None)
    ]  # fmt: skip
    assert fields_of({}, {}, {}) == []


def test_a_waterfall_goes_from_nothing_to_the_weight() -> None:
    assert steps([("prior", -9.0), ("name", 7.5)], -1.5) == [("prior", 0.0, -9.0), ("name", -9.0, -1.5)]
    assert steps([("prior", -9.0)], 1.0)[-1] == ("all others", -9.0, 1.0)
    assert steps([], 2.0) == [("all fields", 0.0, 2.0)]
    assert steps([], 0.0) == []


def test_bars_lie_where_the_sums_are() -> None:
    drawn = waterfall_svg([("prior", -4.0), ("name", 6.0)], 2.0)
    bars = [
        (float(x), float(width))
        for x, width in re.findall(r'<rect x="([\d.]+)" y="\d+" width="([\d.]+)"', drawn)
    ]
    zero = float(re.findall(r'class="zero" x1="([\d.]+)"', drawn)[0])
    (prior_x, prior_w), (name_x, name_w), (sum_x, sum_w) = bars
    assert prior_x + prior_w == pytest.approx(zero) and name_x == prior_x
    assert name_w == pytest.approx(1.5 * prior_w) and sum_x == zero
    assert sum_x + sum_w == pytest.approx(name_x + name_w)
    assert re.findall(r'<g class="(\w+)">', drawn) == ["against", "for", "sum"]
    assert "<script" not in waterfall_svg([(EVIL, 1.0)], 1.0)


# The command line


def test_the_command_line_lists_and_answers(
    house: Reviewed, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(reviewing, "opened", lambda folder: house.engine)
    yes, no, unsure = house.found("jon", "jarl", "jens", weight=30.0)
    say: dict[str, Any] = {"despite_unique": False, "n_shown": 3, "project": Path()}
    reviewing.review("", "", "", "", **say)
    listed = capsys.readouterr().out.splitlines()
    assert re.fullmatch(rf"{yes}  \+30.0 bits  record \w+:jon = record \w+:jon", listed[0])
    assert listed[1] == "  prior -9.0, name +7.5, born +5.5, city -1.0"
    assert re.fullmatch(r"\d+ pairs to look at, \d+ of them unsure", listed[-1]) and len(listed) == 7
    reviewing.review(yes, "", "", "Sami", **say)
    reviewing.review("", no, "", "Sami", **say)
    reviewing.review("", "", unsure, "Sami", **say)
    assert house.is_one("jon") and not house.is_one("jarl")
    told = capsys.readouterr().out.splitlines()
    assert told[0] == f"now: {house.customer('record', 'crm:jon')}" and " and " in told[1]
    views = Views(house.disk)
    assert views.identities.review(1)[0].link.link_id.hex() != yes
    assert views.identities.review(1_000)[-1].link.link_id.hex() == unsure
    views.close()


@pytest.mark.parametrize(
    ("given", "error"),
    [
        (("a", "b", "", "Sami"), Invalid),
        (("a", "", "", ""), Invalid),
        (("", "", "", "Sami"), Invalid),
        (("x", "", "", "Sami"), NotFound),
        (("0" * 32, "", "", "Sami"), NotFound),
    ],
)
def test_the_command_line_says_what_is_wrong(
    house: Reviewed,
    monkeypatch: pytest.MonkeyPatch,
    given: tuple[str, str, str, str],
    error: type[Exception],
) -> None:
    monkeypatch.setattr(reviewing, "opened", lambda folder: house.engine)
    with pytest.raises(error):
        reviewing.review(*given, despite_unique=False, n_shown=3, project=Path())


def test_the_command_line_asks_twice_about_two_user_ids(
    house: Reviewed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reviewing, "opened", lambda folder: house.engine)
    for name in ("crm:kari", "shop:kari"):
        house.record(name, user=f"user of {name}")
    (link,) = house.found("kari")
    with pytest.raises(Conflict, match="--despite-unique"):
        reviewing.review(link, "", "", "Sami", False, 3, Path())
    reviewing.review(link, "", "", "Sami", True, 3, Path())
    assert house.is_one("kari")
    assert house.customer("user_id", "user of crm:kari") == house.customer("user_id", "user of shop:kari")


# A real browser


@pytest.fixture
def served(house: Reviewed) -> Iterator[str]:
    with serving(house) as address:
        yield address


def test_a_person_answers_a_review_and_sees_the_merge(house: Reviewed, served: str) -> None:
    first, second = house.found("liv", "lars", weight=50.0)
    with browsing() as browser:
        page = browser.new_page()
        complaints: list[str] = []
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.goto(f"{served}/sign-in?token={house.access.new_token()}")
        page.get_by_role("link", name="Review").click()
        page.get_by_role("link", name="Compare").first.click()
        page.wait_for_url(f"**{first}")
        page.set_viewport_size({"width": 360, "height": 740})
        seen = page.evaluate(SEEN)
        assert (seen["wide"], seen["tables"], seen["named"]) == (360, True, True)
        assert seen["headings"] == [1, 2, 2, 2] and len(seen["ids"]) == len(set(seen["ids"]))
        assert page.get_by_text(EVIL).count() == 1, "a hostile name is read, not run"
        page.get_by_label("Who says so").fill("Sami")
        page.keyboard.press("Enter")
        assert page.url.endswith(first), "Enter in the field answers nothing"
        page.get_by_role("button", name="Yes, one customer").focus()
        page.keyboard.press("Enter")
        page.get_by_text("This is the next one").wait_for()
        assert f"/review/{second}" in page.url
        assert page.get_by_label("Who says so").input_value() == "Sami"
        advance(house.engine)
        page.goto(f"{served}/customers/{house.customer('record', 'crm:liv')}/identities")
        page.get_by_role("img", name="2 identifiers and 2 links between them").wait_for()
        assert page.get_by_text("a person said that they are one customer").count() == 1
        assert complaints == []
    assert house.is_one("liv")
