"""Documentation is a contract: what the code offers is enumerated here, and its name must stand in the pages.

A new command, option, setting, field, path, gate, reason or status fails here until a page says what it is;
and what a page names (functions, files, reason codes) must exist. `test_docs.py` runs the code blocks.
"""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import click
import msgspec
import pytest
import ruamel.yaml
import typer.main
from markdown_it import MarkdownIt
from msgspec import inspect

from hetki.cli.main import COMMANDS, EXIT, program
from hetki.consent.statements import SPOKEN
from hetki.decisions.decide import GATES
from hetki.declarations.read import read, read_toml
from hetki.dialogues.message import Status
from hetki.dialogues.template import FILTERS, TAGS, parse
from hetki.engine.across import RESERVED
from hetki.engine.check import check
from hetki.engine.files import KINDS as DECLARED
from hetki.engine.files import ProjectFile
from hetki.engine.skeleton import skeleton
from hetki.errors import Fault, HetkiError
from hetki.events.catalogue import BUILT_IN, SHIPPED
from hetki.events.mapping import MapSpec, compile_map
from hetki.identity.resolve import Refusal
from hetki.server.ingest import KINDS as WAYS_IN
from hetki.server.roles import LEAST
from hetki.server.status import status_of
from hetki.simulation.world import MemoryDisk
from hetki.store.lake import EVENTS, SCHEMAS
from hetki.store.system import SystemDisk

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
SOURCE = ROOT / "src/hetki"
#: The kinds of declarations, and the heading under which a page says all of their fields.
HEADINGS = {
    "project": "hetki.toml",
    "event": "Events",
    "source": "Sources",
    "initiative": "Initiatives",
    "segment": "Segments",
    "moment": "Moments",
    "action": "Actions",
    "examples": "Examples",
    "map": "Maps",
}
FOLDERS = {"event": "events", "source": "sources", "initiative": "initiatives", "moment": "moments"}
FOLDERS |= {"action": "actions", "segment": "segments"}


def page(name: str) -> str:
    return (DOCS / name).read_text("utf-8")


def section(text: str, heading: str) -> str:
    """What stands under a heading of the second level, without the code blocks."""
    found = re.search(rf"^## {re.escape(heading)}\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
    assert found, f"no heading '## {heading}'"
    return re.sub(r"^```.*?^```$", "", found[1], flags=re.MULTILINE | re.DOTALL)


def names_in(text: str) -> set[str]:
    """Everything in backticks."""
    return {code.strip() for code in re.findall(r"`([^`\n]+)`", text)}


def blocks(text: str, language: str) -> list[str]:
    tokens = MarkdownIt().parse(text)
    return [each.content for each in tokens if each.type == "fence" and each.info.split()[:1] == [language]]


def commands() -> dict[str, click.Command]:
    """Every command with its words: `lake rebuild` -> the command."""
    found: dict[str, click.Command] = {}

    def walk(words: str, command: click.Command) -> None:
        if isinstance(command, click.Group) or hasattr(command, "commands"):
            if words and getattr(command, "invoke_without_command", False):
                found[words] = command
            for name, each in command.commands.items():
                walk(f"{words} {name}".strip(), each)
        else:
            found[words] = command

    for name in COMMANDS:
        walk("", typer.main.get_command(program([name])))
    return found


def fields(kind: type, seen: frozenset[type] = frozenset()) -> Iterator[str]:
    """Every field that a declaration of this kind may have, at any depth."""
    for field in inspect.type_info(kind).fields:
        yield field.encode_name
        yield from _below(field.type, seen | {kind})


def _below(found: inspect.Type, seen: frozenset[type]) -> Iterator[str]:
    if isinstance(found, inspect.StructType):
        if found.cls not in seen:
            yield from fields(found.cls, seen)
    elif isinstance(found, inspect.UnionType):
        for each in found.types:
            yield from _below(each, seen)
    elif isinstance(found, inspect.ListType):
        yield from _below(found.item_type, seen)
    elif isinstance(found, inspect.DictType):
        yield from _below(found.value_type, seen)


def reason_codes() -> set[str]:
    """The codes that decisions leave, as they stand in the source."""
    tree = ast.parse((SOURCE / "decisions/decide.py").read_text("utf-8"))
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and node.args]
    reasons = [node.args[0] for node in calls if getattr(node.func, "id", "") == "Reason"]
    return {each.value for each in reasons if isinstance(each, ast.Constant) and isinstance(each.value, str)}


def test_every_command_and_option_is_in_the_table() -> None:
    rows = {}
    for line in section(page("operations.md"), "Commands").splitlines():
        found = re.match(r"\| `hetki ([a-z ]+)` \|", line)
        if found:
            rows[found[1]] = names_in(line)
    assert set(rows) == set(commands())
    assert {each.split()[0] for each in rows} == set(COMMANDS)
    for words, command in commands().items():
        options = {name for each in command.params for name in (*each.opts, *each.secondary_opts)}
        options = {name for name in options if name.startswith("--")} - {"--project", "--help"}
        assert rows[words] - {f"hetki {words}"} >= options, words
        listed = {name for name in rows[words] if name.startswith("--")}
        assert listed == options, f"hetki {words}: the table names options that do not exist"


@pytest.mark.parametrize("kind", HEADINGS)
def test_every_field_of_a_declaration_is_said(kind: str) -> None:
    said = names_in(section(page("declarations.md"), HEADINGS[kind]))
    spec = MapSpec if kind == "map" else DECLARED[kind]
    assert set(fields(spec)) - said == set()


def test_every_kind_of_declaration_has_a_heading() -> None:
    assert set(HEADINGS) == {*DECLARED, "map"}
    assert set(DECLARED) <= names_in(page("declarations.md"))
    assert set(RESERVED.values()) <= names_in(page("declarations.md"))


def test_every_event_of_the_catalogue_is_listed_with_its_fields() -> None:
    listed = {}
    for line in page("catalogue.md").splitlines():
        found = re.match(r"- \*\*(.+?)\*\*", line)
        if found:
            told = re.findall(r"(\*?)`(\w+)`\*?(?: (\w+))?", line)
            listed[found[1]] = {name: (kind or "text", bool(star)) for star, name, kind in told}
    assert listed == {
        name: {field: (kind, field in spec.personal) for field, kind in spec.fields.items()}
        for name, spec in SHIPPED.events.items()
    }
    assert set(BUILT_IN) <= names_in(page("catalogue.md")) & names_in(page("declarations.md"))


def test_every_path_is_listed() -> None:
    ways_in = names_in(section(page("operations.md"), "Ways in"))
    assert {f"/v1/{name}" for name in (*WAYS_IN, "health")} <= ways_in
    rows = re.findall(
        r"^\| (`/.*?) \|.*\| ?(\S*) \|$", section(page("operations.md"), "Console"), re.MULTILINE
    )
    listed = {path: role or None for paths, role in rows for path in names_in(paths)}
    assert listed == LEAST


def test_every_code_of_an_error_is_said_with_its_statuses() -> None:
    errors = HetkiError.__subclasses__()
    codes = {each.code: str(status_of(each(Fault("a", "b", "c")))) for each in errors}
    assert set(EXIT) == set(codes)
    rows = re.findall(r"^\| (\d+) \| `(\w+)` \|", page("operations.md"), re.MULTILINE)
    assert {(str(status), code) for code, status in EXIT.items()} <= set(rows)
    assert {(status, code) for code, status in codes.items()} <= set(rows)


def test_every_gate_is_said_in_its_order_with_its_reason() -> None:
    text = section(page("declarations.md"), "Actions")
    table = text.partition("| gate |")[2]
    rows = re.findall(r"^\| `(\w+)` \|.*\| `(\w+)` \|$", table, re.MULTILINE)
    assert [gate for gate, _ in rows] == [name for name, _ in GATES]
    codes = reason_codes()
    assert len(codes) > 10
    assert {code for _, code in rows} <= codes
    assert codes <= names_in(text)


def test_statuses_refusals_statements_tags_and_filters_are_said() -> None:
    operations, declarations = names_in(page("operations.md")), page("declarations.md")
    assert set(get_args(Status)) <= operations
    assert set(get_args(Refusal)) <= names_in(page("identity.md"))
    assert names_in(declarations) >= SPOKEN
    templates = section(declarations, "Templates")
    assert names_in(templates) >= TAGS
    assert set(re.findall(r"\w+", templates)) >= FILTERS


def test_every_table_of_the_lake_is_described() -> None:
    tables = SCHEMAS | {"events": EVENTS}
    for name, schema in tables.items():
        rows = re.findall(r"^\| `(\w+)` \|", section(page("lake.md"), name), re.MULTILINE)
        assert rows == schema.names, name


def test_settings_in_the_pages_are_read() -> None:
    texts = blocks(page("declarations.md"), "toml")
    assert texts
    for text in texts:
        assert read_toml(text, "docs/declarations.md", ProjectFile).faults == []


def test_declarations_in_the_page_are_a_project_without_faults() -> None:
    text = page("declarations.md")
    files = skeleton() | {"templates/offer_guide.liquid": "Here is the guide."}
    maps = []
    for block in blocks(text, "yaml"):
        kind, name = next(iter(ruamel.yaml.YAML(typ="safe").load(block).items()))
        if kind == "import":
            maps.append(block)
        else:
            files[f"{FOLDERS[kind]}/{str(name).lower().replace(' ', '_')}.yaml"] = block
    disk = MemoryDisk()
    for path, content in files.items():
        disk.write(path, content.encode())
    checked = check(disk)
    assert checked.faults == []
    assert len(checked.sentences) >= 4
    assert maps
    for block in maps:
        _, faults = compile_map(read(block, "map.yaml", MapSpec), SHIPPED, ["web"])
        assert faults == []


def test_the_template_in_the_page_is_read() -> None:
    (text,) = blocks(page("declarations.md"), "liquid")
    template, faults = parse("late", {"": text})
    assert faults == []
    assert template is not None and template.has_subject


def test_steps_in_the_page_are_read() -> None:
    """Each row of the table of steps, behind the steps that it speaks of."""
    text = page("declarations.md")
    steps = re.findall(r"^\| `((?:no )?\w+): ([^`]+)` \|", text, re.MULTILINE)
    assert len(steps) == 18
    for name, words in steps:
        before = [{"late": "Delivery Delayed"}, {"left": "Cart Viewed"}, {"promised": "Delivery Promised"}]
        given = [*[each for each in before if name not in each], {name: words}]
        if " before " in words:
            given = [given[-1], *given[:-1]]
        if (name.startswith("no ") and "," not in words) or words.startswith("maybe "):
            given.append({"next": "Order Completed"})
        match = "all" if words.startswith("any ") else "first_per_start"
        moment = {
            "moment": "tried",
            "title": "Tried",
            "owner": "nobody",
            "purpose": "service",
            "identify": {"need": "?", "steps": given, "within": "1 day", "match": match, "expires": "1 hour"},
            "design": {"answers": ["offer_guide"]},
            "analyse": {"solved": "Help Viewed within 1 day"},
        }
        disk = MemoryDisk()
        files = skeleton() | {"moments/tried.yaml": msgspec.json.encode(moment).decode()}
        files |= {"templates/offer_guide.liquid": "Here.", "actions/offer_guide.yaml": GUIDE}
        for path, content in files.items():
            disk.write(path, content.encode())
        assert check(disk).faults == [], f"{name}: {words}"


def test_steps_in_the_page_of_moments_do_what_their_cases_say() -> None:
    """Each block of `steps` as a moment of the example, tried on the block of `cases` behind it."""
    example = SystemDisk(ROOT / "examples" / "twelve_moments")
    folders = ("events", "sources", "segments")
    names = ["hetki.toml", *(name for each in folders for name in example.names(f"{each}/*"))]
    files = {name: example.read(name).decode() for name in names}
    files |= {"templates/offer_guide.liquid": "Here.", "actions/offer_guide.yaml": GUIDE}
    yaml = ruamel.yaml.YAML(typ="safe")
    given = [yaml.load(block) for block in blocks(page("moments.md"), "yaml")]
    given = [each for each in given if "steps" in each or list(each) == ["cases"]]
    assert len(given) >= 20
    for identify, cases in zip(given[::2], given[1::2], strict=True):
        moment = {
            "moment": "tried",
            "title": "Tried",
            "owner": "nobody",
            "purpose": "service",
            "identify": {"need": "?", "expires": "1 hour", **identify},
            "design": {"answers": ["offer_guide"]},
            "analyse": {"solved": "Help Viewed within 1 day"},
        }
        files["moments/tried.yaml"] = msgspec.json.encode(moment).decode()
        files["tests/tried.yaml"] = msgspec.json.encode({"moment": "tried", **cases}).decode()
        disk = MemoryDisk()
        for path, content in files.items():
            disk.write(path, content.encode())
        checked = check(disk)
        assert checked.faults == [] and checked.n_cases >= 1, identify["steps"]


GUIDE = """
action: offer_guide
title: Guide
purpose: service
destination: app
template: offer_guide
value: {customer: 1}
"""


@pytest.mark.parametrize("name", ["architecture.md", "design.md"])
def test_functions_that_a_page_names_exist(name: str) -> None:
    defined = {
        node.name
        for path in SOURCE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef))
    }
    named = {code[:-2].split(".")[-1] for code in names_in(page(name)) if code.endswith("()")}
    assert named - defined == set()


def test_files_that_the_architecture_names_exist() -> None:
    files = {path.relative_to(SOURCE).as_posix() for path in SOURCE.rglob("*.py")}
    known = files | {each.rpartition("/")[2] for each in files}
    named = {code for code in names_in(page("architecture.md")) if code.endswith(".py")}
    assert {code for code in named if code not in known and not (ROOT / code).exists()} == set()


def test_architecture_tells_of_every_room() -> None:
    told = set(re.findall(r"^\*\*(\w+)/\*\*", page("architecture.md"), re.MULTILINE))
    assert told == {path.parent.name for path in SOURCE.glob("*/__init__.py")}


def test_dependencies_are_named_in_the_design() -> None:
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["dependencies"]
    text = section(page("design.md"), "The house").lower()
    for each in listed:
        name = re.match(r"[\w.-]+", each)
        assert name and name[0].lower() in text, each


def test_changelog_names_the_version() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["version"]
    assert f"## {version}" in (ROOT / "CHANGELOG.md").read_text("utf-8")


def test_a_missing_name_is_noticed() -> None:
    """The tools of this file see: fields at depth, commands of commands, a section without its code."""
    assert {"customer_weight", "per_s", "gpc", "depth_max"} <= set(fields(ProjectFile))
    assert {"column", "format", "zone", "names", "type", "import"} <= set(fields(MapSpec))
    assert {"lake rebuild", "rejected", "rejected replay", "init"} <= set(commands())
    assert names_in(section("## A\n`a`\n```text\n`b`\n```\n## B\n`c`", "A")) == {"a"}


@pytest.mark.parametrize("name", ["trust.md", "threats.md"])
def test_tests_that_a_page_names_exist(name: str) -> None:
    defined = {
        node.name
        for path in (ROOT / "tests").glob("*.py")
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.FunctionDef)
    }
    named = {code for code in names_in(page(name)) if re.fullmatch(r"test_\w+", code)}
    assert named and named - defined == set()
