"""Declarations: text in, a typed value or all faults with exact places out."""

from __future__ import annotations

import json
from typing import Literal

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hetki.declarations.durations import seconds, spoken
from hetki.declarations.read import FILE_BYTES_MAX, Declared, read, read_toml
from hetki.declarations.schema import schema
from hetki.declarations.walk import FAULTS_MAX
from hetki.errors import Invalid


class Worth(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    customer: float
    business: float = 0.0


class Answer(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    action: str
    title: str
    basis: Literal["consent", "contract"]
    value: Worth
    steps: list[str | dict[str, str]] = []
    purpose: str | list[str] = ""
    transactional: bool = False
    n_max: int | None = None
    more: dict[str, object] = {}


GOOD = """\
# A comment
action: tell_new_time
title: 'It''s late'
basis: contract
value: {customer: 4, business: 0.5}
steps:
  - late: Delivery Delayed
      where n_minutes >= 15
  - Help Searched
purpose: [service, marketing]
n_max: ~
more: {until: 2027-03-31, no: [1, 2.5, true, null]}
"""

TEN_FAULTS = """\
action: [tell]
titel: Tell
basis: contrat
value: {customer: many, busines: 1}
steps:
  - 7
  - late: Delivery Delayed
    late: Help Searched
transactional: yes
n_max: 1.5
more: &all {a: !!str b}
"""

NOTHING = "a.yaml:1:1: got nothing, must be a mapping with action, title, basis, value."


def faults(text: str) -> list[str]:
    return [str(fault) for fault in read(text, "a.yaml", Answer).faults]


def test_a_good_file_becomes_a_typed_value() -> None:
    declared = read(GOOD, "actions/tell.yaml", Answer)
    assert declared.faults == []
    assert declared.value == Answer(
        action="tell_new_time",
        title="It's late",
        basis="contract",
        value=Worth(4.0, 0.5),
        steps=[{"late": "Delivery Delayed where n_minutes >= 15"}, "Help Searched"],
        purpose=["service", "marketing"],
        more={"until": "2027-03-31", "no": [1, 2.5, True, None]},
    )


def test_ten_faults_are_all_told_each_at_its_place() -> None:
    assert faults(TEN_FAULTS) == [
        "a.yaml:1:1: got no 'title', must be given: text.",
        "a.yaml:1:9: got action: a list, must be text.",
        "a.yaml:2:1: got the unknown field 'titel', must be a field of an answer. "
        "Hint: did you mean 'title'.",
        "a.yaml:3:8: got basis: 'contrat', must be one of 'consent', 'contract'. "
        "Hint: did you mean 'contract'.",
        "a.yaml:4:19: got customer: 'many', must be a number.",
        "a.yaml:4:25: got the unknown field 'busines', "
        "must be a field of a worth. Hint: did you mean 'business'.",
        "a.yaml:6:5: got steps[0]: 7, must be text or a mapping of names to text. Hint: put it in quotes.",
        "a.yaml:8:5: got 'late' a second time, must be given once. Hint: the first is in line 7.",
        "a.yaml:9:16: got transactional: 'yes', must be true or false.",
        "a.yaml:10:8: got n_max: 1.5, must be a whole number.",
        "a.yaml:11:7: got '&all', must be a value without references. Hint: write it out.",
        "a.yaml:11:16: got the tag 'tag:yaml.org,2002:str', must be a value without a tag.",
    ]


def test_a_value_exists_exactly_without_faults() -> None:
    declared = read(TEN_FAULTS, "a.yaml", Answer)
    assert declared.value is None and len(declared.faults) == 12


@pytest.mark.parametrize("field", Answer.__struct_fields__)
def test_every_misspelt_field_is_answered_with_the_right_one(field: str) -> None:
    misspelt = field[:-1] + "q" if len(field) > 3 else field + "s"
    found = [fault for fault in read(f"{misspelt}: a\n", "a.yaml", Answer).faults if misspelt in fault.got]
    assert [fault.where for fault in found] == ["a.yaml:1:1"]
    assert repr(field) in found[0].hint


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", NOTHING),
        ("# only a comment\n", NOTHING),
        ("- a\n", NOTHING.replace("nothing", "a list")),
        ("a: 1\nb: \0\n", r"a.yaml:2:4: got '\x00', must be text without control characters."),
        ("a: b: c\n", "a.yaml:1:5: got broken YAML (mapping values are not allowed here), "
                      "must be well-formed YAML. "
                      "Hint: text that holds ': ' needs quotes."),
        ("a: 'open\n", "a.yaml:2:1: got broken YAML (found unexpected end of stream), "
                      "must be well-formed YAML. "
                       "Hint: a quote or a bracket is not closed."),
        ("action: \"\\0\"\ntitle: a\nbasis: consent\nvalue: {customer: 1}\n",
         r"a.yaml:1:9: got '\x00', must be text without NUL and half characters."),
        ("a: 1\n---\nb: 2\n", "a.yaml:2:1: got a second document, must be one document per file."),
        ("action: " + "x" * 3_000 + "\ntitle: a\nbasis: consent\nvalue: {customer: 1}\n",
         "a.yaml:1:9: got 3000 characters, must be a text of at most 2000 characters."),
        ("action: a\ntitle: a\nbasis: consent\nvalue: {customer: 1}\nsteps: [" + "a, " * 1_001 + "]\n",
         "a.yaml:5:8: got 1001 entries, must be at most 1000."),
        ("[" * 100, "a.yaml:1:17: got deeper nesting, must be at most 16 levels deep."),
        ("a: " + "x" * FILE_BYTES_MAX, f"a.yaml: got {FILE_BYTES_MAX + 3} characters, "
                                       f"must be a file of at most {FILE_BYTES_MAX} characters."),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_one_fault(text: str, said: str) -> None:
    assert faults(text) == [said]


def test_an_alias_bomb_is_refused_and_not_unfolded() -> None:
    rows = ["more:", "  a: &a [x, x]"] + [
        f"  {b}: &{b} [{', '.join([f'*{a}'] * 9)}]" for a, b in zip("abcdefgh", "bcdefghi", strict=True)
    ]
    said = faults("\n".join(rows))
    assert sum("must be a value without references" in each for each in said) == 9 + 8 * 9


def test_huge_numbers_and_endless_faults_are_bounded() -> None:
    assert any(
        each.startswith("a.yaml:1:8: got '99") and "18 digits" in each
        for each in faults("n_max: " + "9" * 5000)
    )
    many = read("".join(f"unknown_{i}: 1\n" for i in range(900)), "a.yaml", Answer).faults
    assert len(many) == FAULTS_MAX + 1
    assert "100 faults or more" in str(many)


def test_where_finds_values_items_and_characters() -> None:
    declared = read(GOOD, "a.yaml", Answer)
    assert declared.where("value", "business") == "a.yaml:5:32"
    assert declared.where("steps", 0) == "a.yaml:7:5"
    assert declared.where("steps", 0, "late") == "a.yaml:7:11"
    assert declared.where("steps", 0, "late", offset=len("Delivery ")) == "a.yaml:7:20"
    folded = "Delivery Delayed where n_minutes"
    assert declared.where("steps", 0, "late", offset=folded.index("n_minutes")) == "a.yaml:8:13"
    assert declared.where("title", offset=0) == "a.yaml:3:8"
    assert declared.where("title", offset=len("It's ")) == "a.yaml:3:15"
    assert declared.where("steps", 7) == "a.yaml:7:3"
    assert declared.where("nowhere") == "a.yaml:2:1"
    assert declared.key("value", "business") == "a.yaml:5:22"
    assert declared.key("steps", 1) == "a.yaml:9:5"


@pytest.mark.parametrize(
    ("scalar", "value", "line", "column"),
    [
        ("one two", "one two", 1, 13),
        ("'one two'", "one two", 1, 14),
        ('"o\\u006Ee \\"two"', 'one "two', 1, 21),
        ("one\n   two", "one two", 2, 4),
        ("|\n  one\n  two\n", "one\ntwo\n", 3, 3),
        (">-\n  one\n  two\n", "one two", 3, 3),
    ],
)
def test_characters_are_found_in_every_style_of_text(scalar: str, value: str, line: int, column: int) -> None:
    declared = read(f"action: {scalar}", "a.yaml", Answer)
    assert declared.root is not None and declared.root.entries["action"].scalar == value
    assert declared.where("action", offset=value.index("two")) == f"a.yaml:{line}:{column}"


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    name: str
    ports: list[int] = []
    purposes: dict[str, Worth] = {}


def toml(text: str) -> Declared[Settings]:
    return read_toml(text, "hetki.toml", Settings)


def test_toml_is_read_the_same_way_and_placed_by_table() -> None:
    good = toml('name = "x"\nports = [1, 2]\n[purposes.service]\ncustomer = 1\n')
    assert good.value == Settings("x", [1, 2], {"service": Worth(1.0)})
    bad = toml('ports = [1, "two"]\n[purposes.service]\ncustomer = "4 points"\nbusines = 1\n')
    assert [str(fault) for fault in bad.faults] == [
        "hetki.toml:ports[1]: got ports[1]: 'two', must be a whole number.",
        "hetki.toml:[purposes.service].customer: got customer: '4 points', must be a number. "
        "Hint: write the number alone, without quotes and unit.",
        "hetki.toml:[purposes.service].busines: got the unknown field 'busines', "
        "must be a field of a worth. Hint: did you mean 'business'.",
        "hetki.toml: got no 'name', must be given: text.",
    ]
    assert bad.where("purposes", "service", "customer") == "hetki.toml:[purposes.service].customer"


@pytest.mark.parametrize(
    "text", ["name = ", "a" + ".a" * 100_000 + "=1", "x=" + "[" * 100_000, "x=" + "1" * 9999, "\0"]
)
def test_hostile_toml_is_one_fault(text: str) -> None:
    assert len(toml(text).faults) == 1


WORDS = st.sampled_from(
    [
        *"{}[]:,-?&*!|>'\"%@`#\n\t \\~<",
        "\n  ",
        ": ",
        "- ",
        "a",
        "1",
        "null",
        "---",
        "\r\n",
        "\u2028",
        "\ud800",
        "é",
    ]
)
PIECES = st.lists(WORDS | st.text(max_size=3), max_size=60).map("".join)


@settings(max_examples=400)
@given(PIECES)
def test_no_text_raises_anything(text: str) -> None:
    for declared in (read(text, "a.yaml", Answer), toml(text)):
        assert (declared.value is None) == bool(declared.faults)
        assert all(
            fault.where.startswith(declared.path) and str(fault).isprintable() for fault in declared.faults
        )


@settings(max_examples=300)
@given(st.integers(0, len(TEN_FAULTS) - 1), st.integers(0, 30), PIECES)
def test_no_damage_to_a_real_file_raises_anything(start: int, length: int, pasted: str) -> None:
    text = GOOD[:start] + pasted + GOOD[start + length :]
    declared = read(text, "a.yaml", Answer)
    assert (declared.value is None) == bool(declared.faults)


PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**17), 10**17)
    | st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text("abcdé -", min_size=1, max_size=5), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(st.dictionaries(st.text("abcxyz_", min_size=1, max_size=8), PLAIN, max_size=4))
def test_json_is_read_back_as_it_is(data: dict[str, object]) -> None:
    """JSON is YAML: an independent writer, and equality all the way."""
    answer = {"action": "a", "title": "b", "basis": "consent", "value": {"customer": 1}, "more": data}
    declared = read(json.dumps(answer), "a.yaml", Answer)
    assert declared.value is not None, declared.faults
    assert declared.value.more == data


def test_the_schema_of_a_spec_says_what_read_demands() -> None:
    document = json.loads(schema(Answer))
    answer = document["$defs"]["Answer"]
    assert answer["required"] == ["action", "title", "basis", "value"]
    assert answer["additionalProperties"] is False
    assert set(answer["properties"]) == set(Answer.__struct_fields__)
    assert answer["properties"]["basis"]["enum"] == ["consent", "contract"]


@pytest.mark.parametrize(
    ("text", "total_s"),
    [
        ("10 minutes", 600),
        ("1 day 2 hours", 93_600),
        ("24 hours", 86_400),
        ("0 min", 0),
        ("90s", 90),
        ("2 weeks", 14 * 86_400),
        ("24 months", 720 * 86_400),
        ("1 Hour, 30 Minutes", 5_400),
    ],
)
def test_durations(text: str, total_s: int) -> None:
    assert seconds(text) == total_s


@pytest.mark.parametrize(
    "text", ["", "10", "minutes", "-1 day", "1.5 hours", "10 minuten", "200 years", "9" * 300 + " s"]
)
def test_bad_durations(text: str) -> None:
    with pytest.raises(Invalid) as caught:
        seconds(text, "a.yaml:1:1")
    assert str(caught.value).startswith("a.yaml:1:1: got ")


def test_a_misspelt_unit_is_answered_with_the_right_one() -> None:
    with pytest.raises(Invalid, match="did you mean 'minute'"):
        seconds("10 minuten")


@given(st.integers(0, 10**9))
def test_spoken_durations_read_back(total_s: int) -> None:
    assert seconds(spoken(total_s)) == total_s
