"""`hetki check`: faults, sentences and examples of a project, as a person meets them."""

from __future__ import annotations

from pathlib import Path

import pytest

from hetki.dialogues.template import render
from hetki.engine.check import check, run_examples
from hetki.engine.project import load
from hetki.engine.skeleton import skeleton
from hetki.errors import NotFound
from hetki.simulation.world import MemoryDisk
from hetki.store.system import SystemDisk

PROJECTS = sorted(each.parent for each in (Path(__file__).parent.parent / "examples").glob("*/hetki.toml"))
CASES = "tests/searched_in_vain.yaml"


def disk_of(files: dict[str, str]) -> MemoryDisk:
    disk = MemoryDisk()
    for path, text in files.items():
        disk.write(path, text.encode())
    return disk


def examined(cases: str, **more: str) -> list[str]:
    """What running these cases of the skeleton's moment says."""
    text = "moment: searched_in_vain\ncases:\n" + cases
    project = load(disk_of({**skeleton(), CASES: text, **more}))
    return [str(fault) for fault in run_examples(project)]


TWICE = """\
  - name: two searches
    events:
      - {at: 0 minutes, name: Help Searched, n_results: 0}
      - {at: 2 minutes, name: Help Searched, n_results: 0}
"""


def test_the_skeleton_passes() -> None:
    checked = check(disk_of(skeleton()))
    assert checked.faults == [] and checked.notes == []
    assert checked.n_cases == 3
    assert list(checked.sentences) == ["searched_in_vain"]
    assert "10 minutes" in checked.sentences["searched_in_vain"]


def test_the_skeletons_templates_can_be_sent() -> None:
    templates = load(disk_of(skeleton())).templates
    values = {"searched": {"query": "gift card"}, "again": {}, "customer": {"first_name": "Aino"}}
    letter = render(templates["send_guide"], "fi-FI", values)
    assert letter.subject == "Mitä etsit" and letter.body.startswith("Hei Aino,")
    assert "had no answer" in render(templates["offer_chat"], "sv", values).body


@pytest.mark.parametrize("folder", PROJECTS, ids=lambda folder: folder.name)
def test_the_shipped_examples_pass(folder: Path) -> None:
    checked = check(SystemDisk(str(folder)))
    assert checked.faults == []
    assert checked.n_cases >= 4 and len(checked.sentences) >= 4


def test_faults_are_given_and_nothing_is_run() -> None:
    checked = check(disk_of({**skeleton(), "actions/offer_chat.yaml": "action: offer_chat\n"}))
    assert len(checked.faults) == 5 and checked.sentences == {} and checked.n_cases == 0


def test_no_project_is_said() -> None:
    with pytest.raises(NotFound):
        check(MemoryDisk())


def test_a_case_that_holds_says_nothing() -> None:
    assert examined(TWICE + "    fires: [12 minutes]\n") == []


@pytest.mark.parametrize(
    ("fires", "must"),
    [
        ("[]", "never fires"),
        ("[11 minutes]", "fires after 11 minutes"),
        ("[12 minutes, 1 hour]", "fires after 12 minutes and 1 hour"),
    ],
)
def test_a_case_that_fails_says_what_fired_and_what_must(fires: str, must: str) -> None:
    assert examined(TWICE + f"    fires: {fires}\n") == [
        f"{CASES}:7:12: got a moment that fires after 12 minutes, must be one that {must} "
        "(case 'two searches')."
    ]


def test_a_moment_that_stays_silent_is_said_too() -> None:
    one = "  - {name: one, events: [{at: 0 min, name: Help Searched, n_results: 0}], fires: [10 min]}\n"
    assert examined(one) == [
        f"{CASES}:3:82: got a moment that never fires, must be one that fires after 10 minutes (case 'one')."
    ]


def test_consent_holds_in_examples_too() -> None:
    refused = TWICE + "      - {at: 3 minutes, name: Consent Refused, purpose: service}\n"
    assert examined(refused + "    fires: []\n") == []


def test_a_sources_contract_holds_in_examples_too() -> None:
    closed = skeleton()["sources/web.yaml"].replace("[service, marketing]", "[marketing]")
    from_web = TWICE.replace("n_results: 0}", "n_results: 0, source: web}")
    assert examined(from_web + "    fires: [12 minutes]\n") == []
    assert examined(from_web + "    fires: []\n", **{"sources/web.yaml": closed}) == []


def test_traits_and_times_are_written_as_people_say_them() -> None:
    moment = """\
moment: late
title: Late
owner: me
initiative: better_help
purpose: service
identify:
  need: Where is it?
  who: customer.plan = 'private'
  steps:
    - promised: Delivery Promised
    - no came: Order Delivered, by promised.promised_at
  expires: 1 hour
design: {answers: [send_guide]}
analyse: {solved: Order Delivered within 1 day}
"""
    cases = """\
moment: late
cases:
  - name: with an offset
    events:
      - {at: 1 day, name: Customer Identified, plan: private}
      - {at: 1 day 1 minute, name: Delivery Promised, promised_at: 1 day 45 minutes}
    fires: [1 day 45 minutes]
  - name: with an instant
    events:
      - {at: 0 minutes, name: Customer Identified, plan: private}
      - {at: 1 minute, name: Delivery Promised, promised_at: 2026-01-05T09:30:00Z}
    fires: [30 minutes]
  - name: for another plan
    events:
      - {at: 0 minutes, name: Customer Identified, plan: business}
      - {at: 1 minute, name: Delivery Promised, promised_at: 45 minutes}
    fires: []
"""
    letter = "Subject: Sorry\n\nIt is late.\n"
    files = {**skeleton(), "moments/late.yaml": moment, "tests/late.yaml": cases}
    files |= {"templates/send_guide.liquid": letter, "templates/send_guide.fi.liquid": letter}
    checked = check(disk_of(files))
    assert checked.faults == []
    assert checked.n_cases == 6


BROKEN = """\
  - name: all wrong
    events:
      - {at: soon, name: Help Searched}
      - {name: Help Searched}
      - {at: 1 min, name: Help Serched}
      - {at: 1 min, name: Help Searched, n_result: 0}
      - {at: 1 min, name: Help Searched, n_results: "0"}
      - {at: 1 min, name: Help Searched, n_results: true}
      - {at: 1 min, name: Help Searched, source: wep}
      - {at: 1 min, name: Delivery Promised, promised_at: tomorrow}
    fires: [5]
"""


def test_every_fault_of_a_case_is_told_at_its_place() -> None:
    said = [fault.split(" Hint: ") for fault in examined(BROKEN.replace("[5]", "[five]"))]
    assert [each[0] for each in said] == [
        f"{CASES}:5:14: got 'soon', must be a duration such as '10 minutes' or '1 day 2 hours'.",
        f"{CASES}:6:9: got no offset, must be an offset from the start of the case, such as at: 5 minutes.",
        f"{CASES}:7:27: got 'Help Serched', must be name: an event of the catalogue.",
        f"{CASES}:8:42: got 'n_result', must be a field of Help Searched.",
        f"{CASES}:9:53: got n_results: '0', must be integer, as the catalogue has Help Searched.n_results.",
        f"{CASES}:10:53: got n_results: True, must be integer, as the catalogue has Help Searched.n_results.",
        f"{CASES}:11:50: got 'wep', must be a declared source.",
        f"{CASES}:12:59: got 'tomorrow', must be a duration such as '10 minutes' or '1 day 2 hours'.",
        f"{CASES}:13:13: got 'five', must be a duration such as '10 minutes' or '1 day 2 hours'.",
    ]
    hints = {each[0].split(":")[1]: each[1] for each in said if len(each) > 1 and "did you" in each[1]}
    assert hints == {
        "7": "did you mean 'Help Searched' or 'Help Viewed'.",
        "8": "did you mean 'n_results'.",
        "11": "did you mean 'web'.",
    }


def test_an_example_of_an_unknown_moment_is_told() -> None:
    text = skeleton()[CASES].replace("moment: searched_in_vain", "moment: searched_in_vein")
    faults = check(disk_of({**skeleton(), CASES: text})).faults
    assert [str(fault) for fault in faults] == [
        f"{CASES}:1:9: got 'searched_in_vein', must be a declared moment. "
        "Hint: did you mean 'searched_in_vain'."
    ]


def test_a_purpose_that_no_source_allows_is_noted() -> None:
    closed = {path: text for path, text in skeleton().items() if not path.startswith("sources/")}
    web = skeleton()["sources/web.yaml"].replace("[service, marketing]", "[marketing]")
    assert check(disk_of({**closed, "sources/web.yaml": web})).notes == [
        "moments/searched_in_vain.yaml: no source may be used for its purpose"
    ]


def test_notes_name_what_nothing_uses() -> None:
    files = {path: text for path, text in skeleton().items() if path != CASES}
    spare = skeleton()["actions/send_guide.yaml"].replace("action: send_guide", "action: spare")
    files |= {"actions/spare.yaml": spare, "templates/old.liquid": "Hello.\n"}
    checked = check(disk_of(files))
    assert checked.faults == []
    assert checked.notes == [
        "moments/searched_in_vain.yaml: no example in tests/ tries it",
        "actions/spare.yaml: no moment uses it",
        "templates/old.liquid: no answer uses it",
    ]
