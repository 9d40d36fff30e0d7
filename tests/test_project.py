"""A project: loaded whole or refused with all its faults, each at its place."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hetki.declarations.schema import schema
from hetki.declarations.walk import plain
from hetki.engine.check import check
from hetki.engine.files import KINDS, read_files
from hetki.engine.project import Project, load
from hetki.engine.skeleton import skeleton
from hetki.errors import Invalid, NotFound
from hetki.simulation.world import MemoryDisk
from hetki.store.system import SystemDisk

RESTAURANTS = Path(__file__).parent.parent / "examples" / "restaurants"
MOMENT = "moments/searched_in_vain.yaml"
CHAT = "actions/offer_chat.yaml"
GUIDE = "actions/send_guide.yaml"


def disk_of(files: dict[str, str]) -> MemoryDisk:
    disk = MemoryDisk()
    for path, text in files.items():
        disk.write(path, text.encode())
    return disk


def changed(path: str, old: str, new: str) -> dict[str, str]:
    files = skeleton()
    assert files[path].count(old) == 1, f"{old!r} stands in {path} {files[path].count(old)} times"
    return {**files, path: files[path].replace(old, new)}


def faults(files: dict[str, str]) -> list[str]:
    try:
        load(disk_of(files))
    except Invalid as error:
        return [str(fault) for fault in error.faults]
    return []


def loaded(files: dict[str, str]) -> Project:
    return load(disk_of(files))


def test_the_skeleton_loads() -> None:
    project = loaded(skeleton('Aino & "Co"\n[x]'))
    assert project.settings.name == 'Aino & "Co"[x]'
    assert list(project.purposes) == ["service", "marketing"]
    assert list(project.sources) == ["desk", "web"]
    assert project.moments["searched_in_vain"].answers == ("offer_chat", "send_guide")
    assert project.moments["searched_in_vain"].initiative == "better_help"
    assert project.contact_cap == (3, 7 * 86_400)
    assert project.action_caps == {"offer_chat": (1, 86_400)}
    assert list(project.eligible) == [("searched_in_vain", "offer_chat")]
    assert project.traits == {"first_name"}


def test_what_answers_read_is_captured_by_the_pattern() -> None:
    steps = {
        step.name: step.captures for step in loaded(skeleton()).moments["searched_in_vain"].pattern.events
    }
    assert steps == {"searched": ("query",), "again": ("device", "query")}


def test_a_moment_without_an_initiative_is_one_by_itself() -> None:
    project = loaded(changed(MOMENT, "initiative: better_help", 'initiative: ""'))
    assert project.moments["searched_in_vain"].initiative == "searched_in_vain"


def test_the_restaurants_load() -> None:
    if not RESTAURANTS.exists():
        pytest.skip("the restaurants are not here")
    project = load(SystemDisk(str(RESTAURANTS)))
    assert "where_is_my_order" in project.moments


def test_the_hash_covers_what_can_change_a_result() -> None:
    first = loaded(skeleton()).content_hash
    assert loaded(skeleton()).content_hash == first
    for path, text in skeleton().items():
        again = loaded({**skeleton(), path: text + "\n"}).content_hash
        assert (again == first) == path.startswith(("tests/", "docs/", ".gitignore")), path


def test_no_project_is_not_an_empty_one() -> None:
    with pytest.raises(NotFound, match=r"hetki\.toml"):
        load(MemoryDisk())


#: file, what stands there, what is put in its place, and how the one fault begins after the file's name.
ONE_FAULT = [
    (
        "hetki.toml",
        'basis = "contract"',
        'basis = "contrac"',
        ":[purposes.service].basis: got basis: ",
    ),
    (
        "hetki.toml",
        "lateness_s = 10 ",
        "lateness_s = -1 ",
        ":[hetki].lateness_s: got -1, must be ",
    ),
    (
        "hetki.toml",
        "[contact]",
        "[hetki.limits]\nbatch_events_max = 0\n[contact]",
        ":[hetki.limits].batch_events_max: got less than 1, must be 1 or more.",
    ),
    (
        "hetki.toml",
        "[contact]",
        "[hetki.limits]\nbody_bytes_max = 33554433\n[contact]",
        ":[hetki.limits].body_bytes_max: got 33554433, must be at most 33554432, ",
    ),
    (
        "hetki.toml",
        "[contact]",
        "[hetki.connections]\nhead_s = 0\n[contact]",
        ":[hetki.connections].head_s: got less than 1, must be 1 or more.",
    ),
    (
        "hetki.toml",
        '"UTC"',
        '"Europe/Helsingfors"',
        ":[hetki].time_zone: got 'Europe/Helsingfors', ",
    ),
    (
        "hetki.toml",
        'data = "data"',
        'data = "../data"',
        ":[hetki].data: got '../data', must be a folder",
    ),
    (
        "hetki.toml",
        "21:00-08:00",
        "21-8",
        ":[contact].quiet_hours: got '21-8', must be two local times",
    ),
    (
        "hetki.toml",
        "3 per 7 days",
        "3 a week",
        ":[contact].cap: got '3 a week', must be a number per ",
    ),
    (
        "hetki.toml",
        "3 per 7 days",
        "3 per 7 dais",
        ":[contact].cap: got '7 dais', must be a duration",
    ),
    (
        "hetki.toml",
        "http://localhost:8089",
        "http://example.com",
        ":[destinations.app].url: got ",
    ),
    (
        "hetki.toml",
        "env:APP_SECRET",
        "swordfish",
        ":[destinations.app].secret: got ",
    ),
    (
        "hetki.toml",
        "localhost:1025",
        "localhost",
        ":[destinations.mail].server: got 'localhost', ",
    ),
    (
        "hetki.toml",
        "[contact]",
        "[purposes.News-2]\ntitle = 'x'\nbasis = 'consent'\n[contact]",
        ":[purposes.News-2]: got 'News-2', must be a name of small letters",
    ),
    (
        "sources/web.yaml",
        "marketing]",
        "marketting]",
        ":5:21: got 'marketting', must be a declared purpose. Hint: did you mean 'marketing'.",
    ),
    (
        "sources/web.yaml",
        "24 months",
        "24 moons",
        ":6:12: got '24 moons', must be a duration",
    ),
    (
        "sources/web.yaml",
        "write_keys: []",
        f"write_keys: [{{digest: {64 * 'a'}}}, {{digest: {64 * 'a'}}}]",
        ":4:99: got a key that is declared already, must be a key of its own. Hint: the other is "
        "sources/web.yaml.",
    ),
    (
        "sources/web.yaml",
        "write_keys: []",
        "write_keys: [{digest: the-key-itself}]",
        ":4:23: got 14 characters, must be the SHA-256 of a key, as 64 hexadecimal digits. Hint: hetki key "
        "makes one.",
    ),
    (
        "sources/web.yaml",
        "write_keys: []",
        f"write_keys: [{{digest: {64 * 'a'}, expires: soon}}]",
        ":4:98: got 'soon', must be a date or a time in ISO 8601. Hint: write 2027-03-31.",
    ),
    (
        "sources/web.yaml",
        "write_keys: []",
        f"write_keys: [{{digest: {64 * 'a'}, events: [Help Search]}}]",
        ":4:98: got 'Help Search', must be an event of the catalogue. Hint: did you mean 'Help Searched'",
    ),
    (
        "sources/web.yaml",
        "source: web",
        "source: shop",
        ":1:9: got 'shop', must be 'web', as the file is called.",
    ),
    (
        "sources/web.yaml",
        "source: web",
        "source: hetki",
        ":1:9: got 'hetki', must be another name",
    ),
    (
        CHAT,
        "offer_chat\ntitle",
        "Offer Chat\ntitle",
        ":1:9: got 'Offer Chat', must be a name of small",
    ),
    (
        CHAT,
        "purpose: service",
        "purpose: servis",
        ":3:10: got 'servis', must be a declared purpose. Hint: did you mean 'service'.",
    ),
    (
        CHAT,
        "destination: app",
        "destination: apps",
        ":4:14: got 'apps', must be a declared destination. Hint: did you mean 'app'.",
    ),
    (
        CHAT,
        "template: offer_chat",
        "template: offer_chit",
        ":5:11: got 'offer_chit', must be a declared template. Hint: did you mean 'offer_chat'.",
    ),
    (
        CHAT,
        "cap: 1 per 1 day",
        "cap: once",
        ":9:6: got 'once', must be a number per duration. Hint: write",
    ),
    (
        CHAT,
        "again.device = 'mobile'",
        "again.devise = 'mobile'",
        ":8:17: got 'devise', must be a field of Help Searched (in searched_in_vain). Hint: did "
        "you mean 'device'.",
    ),
    (
        CHAT,
        "again.device = 'mobile'",
        "again.device > 3",
        ":8:11: got ",
    ),
    (
        CHAT,
        "again.device = 'mobile'",
        "again.device = 'mobile' and customer.plann = 'x'",
        ":8:39: got 'customer.plann', must be a trait of the catalogue (in searched_in_vain). "
        "Hint: did you mean 'plan'",
    ),
    (
        MOMENT,
        "purpose: service",
        "purpose: servic",
        ":5:10: got 'servic', must be a declared purpose. Hint: did you mean 'service'.",
    ),
    (
        MOMENT,
        "initiative: better_help",
        "initiative: better",
        ":4:13: got 'better', must be a declared initiative. Hint: did you mean 'better_help'.",
    ),
    (
        MOMENT,
        "[offer_chat, send_guide]",
        "[offer_chat, send_guid]",
        ":16:25: got 'send_guid', must be a declared action. Hint: did you mean 'send_guide'.",
    ),
    (
        MOMENT,
        "[offer_chat, send_guide]",
        "[offer_chat, nothing]",
        ":16:25: got 'nothing', must be an action. Hint: doing nothing is always a candidate.",
    ),
    (
        MOMENT,
        "docs/help.md",
        "docs/halp.md",
        ":18:12: got 'docs/halp.md', must be a file of the project. Hint: did you mean 'docs/help.md'.",
    ),
    (
        MOMENT,
        "docs/help.md",
        "../../secrets",
        ":18:12: got '../../secrets', must be a file of the ",
    ),
    (
        MOMENT,
        "expires: 30 minutes",
        "expires: 10 seconds",
        ":14:12: got '10 seconds', must be longer than the lateness of 10 seconds, for which its end waits.",
    ),
    (
        MOMENT,
        "holdout: 10%",
        "holdout: 60%",
        ":23:12: got '60%', must be a share of customers from 0%",
    ),
    (
        MOMENT,
        "Help Viewed or Chat Started within",
        "Help Viewed where customer.plan = 'x' within",
        ":20:11: got ",
    ),
    (
        MOMENT,
        "- again: Help Searched where n_results = 0",
        "- again: Help Searched where n_result = 0",
        ":10:34: got 'n_result', must be a field of Help Searched. Hint: did you mean 'n_results'",
    ),
    (
        MOMENT,
        "- again: Help Searched where",
        "- again: Help Serched where",
        ":10:14: got 'Help Serched', must be an event of the catalogue. Hint: did you mean 'Help Searched'",
    ),
    (
        MOMENT,
        "- again: Help Searched where",
        "- Help Searched where",
        ":10:7: got steps[1]: 'Help Searched where n_results = 0', must be a name and what happens, "
        "such as late: Delivery Delayed.",
    ),
    (
        "templates/offer_chat.liquid",
        "again.query",
        "agian.query",
        ":1:20: got 'agian', must be an event step of the moment, customer or context (in "
        "searched_in_vain). Hint: did you mean 'again'.",
    ),
    (
        "templates/offer_chat.fi.liquid",
        "again.query",
        "again.quary",
        ":1:12: got 'quary', must be a field of Help Searched (in searched_in_vain). Hint: did "
        "you mean 'query'.",
    ),
    (
        "templates/send_guide.liquid",
        "customer.first_name",
        "customer.frist_name",
        ":3:10: got 'customer.frist_name', must be a trait of the catalogue (in "
        "searched_in_vain). Hint: did you mean ",
    ),
]


@pytest.mark.parametrize(
    ("path", "old", "new", "said"), ONE_FAULT, ids=[f"{case[0]}{case[3]}"[:60] for case in ONE_FAULT]
)
def test_one_damage_is_one_fault_at_its_place(path: str, old: str, new: str, said: str) -> None:
    found = faults(changed(path, old, new))
    assert len(found) == 1, found
    assert found[0].startswith(path + said)


def test_an_email_without_a_subject_is_refused() -> None:
    files = {**skeleton(), "templates/send_guide.liquid": "Hi.\n", "templates/send_guide.fi.liquid": "Hei.\n"}
    assert faults(files) == [
        "templates/send_guide.liquid:1:1: got no subject, must be a first line 'Subject: ...' "
        "and a blank line, "
        "as it is sent by e-mail."
    ]


def test_two_destinations_that_are_one_are_refused() -> None:
    twin = (
        '\n[destinations.letters]\nkind = "email"\nserver = "localhost:1025"\n'
        'inside = ["localhost"]\nsender = "hello@example.com"\n'
    )
    files = {**skeleton(), "hetki.toml": skeleton()["hetki.toml"] + twin}
    assert faults(files) == [
        "hetki.toml:[destinations.letters]: got the same as 'mail', must be a place that no other "
        "destination has. Hint: use that one."
    ]


def test_events_are_added_and_clashes_are_placed() -> None:
    offer = "event: Offer Sent\nfields:\n  amount: number\n  channel: text\npersonal: [amuont]\n"
    help_ = "event: Help Searched\nfields: {n_results: text}\n"
    again = "event: Offer Sent\n"
    files = {**skeleton(), "events/a.yaml": offer, "events/b.yaml": help_, "events/c.yaml": again}
    assert [fault.partition(": got ")[0] for fault in faults(files)] == [
        "events/a.yaml:4:3",
        "events/a.yaml:5:12",
        "events/b.yaml:2:10",
        "events/c.yaml:1:8",
    ]
    good = {**skeleton(), "events/a.yaml": "event: Offer Sent\nfields: {amount: number}\n"}
    assert loaded(good).catalogue.field_type("Offer Sent", "amount") == "number"


def test_all_files_are_judged_at_once_and_a_broken_one_does_not_accuse_the_others() -> None:
    files = {
        **skeleton(),
        GUIDE: "action: [send_guide",
        "sources/web.yaml": "source: web\nchanel: web\npurposes: service\n",
        "moments/other.yaml": "moment: other\n",
        "moments/third.yml": "",
        "hetki.toml": skeleton()["hetki.toml"].replace('kind = "email"', 'kind = "post"'),
    }
    found = faults(files)
    assert list(dict.fromkeys(fault.partition(": got ")[0] for fault in found)) == [
        f"{GUIDE}:1:20",
        "hetki.toml:[destinations.mail].kind",
        "moments/other.yaml:1:1",
        "moments/third.yml",
        "sources/web.yaml:1:1",
        "sources/web.yaml:2:1",
        "sources/web.yaml:3:11",
    ]
    assert not any("send_guide" in fault and "declared" in fault for fault in found)


def test_bytes_that_are_no_text_are_one_fault() -> None:
    disk = disk_of(skeleton())
    disk.write(CHAT, b"action: a\ntitle: \xff\n")
    with pytest.raises(Invalid) as caught:
        load(disk)
    assert str(caught.value) == f"{CHAT}:2:1: got the byte b'\\xff', must be text in UTF-8."


PATHS = st.sampled_from(sorted(path for path in skeleton() if not path.startswith((".", "docs/"))))
PASTED = st.lists(
    st.sampled_from(
        ["{", "}", "[", "]", ": ", "- ", "'", "where ", " or ", "(", "\n", "  ", "{{ ", " }}", "0", "\0", "é"]
    ),
    max_size=8,
).map("".join) | st.text(max_size=6)


@settings(max_examples=100)
@given(PATHS, st.integers(0, 600), st.integers(0, 25), PASTED)
def test_no_damage_raises_anything_but_faults(path: str, start: int, length: int, pasted: str) -> None:
    text = skeleton()[path]
    damaged = (text[:start] + pasted + text[start + length :]).encode("utf-8", "surrogatepass")
    disk = disk_of(skeleton())
    disk.write(path, damaged)
    for fault in check(disk).faults:
        assert fault.where.startswith(
            (path, "hetki.toml", "moments/", "actions/", "tests/", "templates/", "sources/", "segments/")
        )
        assert str(fault).isprintable()


def conforms(value: object, schema: dict[str, Any], whole: dict[str, Any]) -> bool:
    """JSON Schema, as far as ours use it: an independent judge of what `read` accepts."""
    if "$ref" in schema:
        return conforms(value, whole["$defs"][schema["$ref"].rpartition("/")[2]], whole)
    if "anyOf" in schema:
        return any(conforms(value, each, whole) for each in schema["anyOf"])
    if "enum" in schema:
        return value in schema["enum"]
    kinds = {"string": str, "number": (int, float), "integer": int, "boolean": bool, "array": list}
    match schema.get("type"):
        case "object":
            if not isinstance(value, dict) or not set(schema.get("required", ())) <= value.keys():
                return False
            known, more = schema.get("properties", {}), schema.get("additionalProperties", True)
            return all(
                conforms(each, known[key], whole)
                if key in known
                else (conforms(each, more, whole) if isinstance(more, dict) else more)
                for key, each in value.items()
            )
        case "array":
            return isinstance(value, list) and all(conforms(each, schema["items"], whole) for each in value)
        case None:
            return True
        case kind:
            return isinstance(value, kinds[kind]) and (kind == "boolean" or not isinstance(value, bool))


def test_the_schemas_accept_the_examples_and_refuse_what_read_refuses() -> None:
    disks = [disk_of(skeleton())] + ([SystemDisk(str(RESTAURANTS))] if RESTAURANTS.exists() else [])
    n_files = 0
    for disk in disks:
        files = read_files(disk)
        kinds = {"event": files.events, "source": files.sources, "initiative": files.initiatives}
        kinds |= {
            "segment": files.segments,
            "moment": files.moments,
            "action": files.actions,
            "examples": files.examples,
        }
        roots = [(kind, each.root) for kind, folder in kinds.items() for each in folder.files.values()]
        for kind, root in [*roots, ("project", files.toml.root)]:
            assert root is not None
            document = json.loads(schema(KINDS[kind]))
            value = plain(root)
            assert isinstance(value, dict)
            assert conforms(value, document, document), (kind, value)
            assert not conforms({**value, "colour": "red"}, document, document)
            assert not conforms(dict(list(value.items())[1:]), document, document)
            n_files += 1
    assert n_files >= 8
