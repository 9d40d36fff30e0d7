"""The house rules, proved on the syntax tree of every file: order of rooms, sizes, ports, dependencies.

Each rule is a function from files to breaches; `test_the_house_keeps` runs it on the source and
`test_a_bad_example_is_caught` on a small bad example, so that no rule can pass by seeing nothing.
"""

from __future__ import annotations

import ast
import graphlib
import re
import subprocess
import tomllib
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, metadata

import pytest
from syntax import ROOT, File, house, parsed, uses

HALL = ("errors", "settings")
ROOMS = (
    "declarations",
    "events",
    "patterns",
    "identity",
    "consent",
    "journeys",
    "moments",
    "decisions",
    "dialogues",
    "measurement",
)
SHELL = ("store", "engine", "simulation", "server", "cli")
ORDER = ("", *HALL, *ROOMS, *SHELL, "__main__")  # "" is hetki/__init__.py

FILE_LINES_MAX = 400
FUNCTION_LINES_MAX = 60
NAMES_FORBIDDEN = {"utils", "util", "common", "core", "helpers", "helper", "manager", "base", "misc"}

#: Law 11. What makes a result depend on clock, chance, disk, network or environment: modules that are refused
#: whole (threads too: their order is the clock's) and single names.
MODULES_OUTSIDE = """
    time os shutil tempfile glob fcntl mmap sqlite3 ctypes secrets sys platform getpass signal webbrowser
    socket socketserver ssl select selectors http.client http.server urllib.request smtplib ftplib requests
    httpx subprocess multiprocessing threading asyncio concurrent queue sched importlib
""".split()
NAMES_OUTSIDE = """
    datetime.datetime.now datetime.datetime.utcnow datetime.datetime.today datetime.date.today
    random numpy.random uuid.uuid1 uuid.uuid4 open io.open pathlib.Path pathlib.Path() input print
    __import__ eval exec compile breakpoint
""".split()
#: Libraries that open files and sockets by themselves: the shell's tools, no room's.
SHELL_LIBRARIES = """
    duckdb.connect duckdb.sql duckdb.query duckdb.execute pyarrow.parquet pyarrow.csv pyarrow.dataset
    uvicorn starlette uvloop httptools typer rich
""".split()
#: Plain values, and chance that is a function of the seed it is given.
HARMLESS = {"numpy.random.Generator", "numpy.random.PCG64", "numpy.random.SeedSequence"}
SEEDED = {"numpy.random.default_rng", "random.Random"}

#: Refused even where their module is allowed, unless they are named themselves.
BY_NAME_ONLY = {"sqlite3.connect", "asyncio.sleep", "asyncio.open_connection"}
#: The exceptions, each with its why. A path ending in "/" means every file below it.
PORT = "hetki/store/system.py"
ALLOWED: dict[str, tuple[set[str], str]] = {
    PORT: ({*MODULES_OUTSIDE, *NAMES_OUTSIDE, *BY_NAME_ONLY}, "the real clock, chance and disk"),
    "hetki/store/wiping.py": (
        {"os", "sys", "sqlite3", "sqlite3.connect"},
        "a program of its own, which the disk runs on one of its files",
    ),
    "hetki/store/network.py": (
        {"socket", "ssl", "http.client", "smtplib", "threading", "queue", "time"},
        "the real network",
    ),
    "hetki/store/": ({"sqlite3"}, "types and errors of the connections that the Disk port opened"),
    "hetki/simulation/world.py": (
        {"sqlite3", "sqlite3.connect", "threading"},
        "the Disk port's twin in memory",
    ),
    "hetki/server/": (
        {"asyncio", "threading", "queue", "multiprocessing"},
        "requests come side by side, and the worker is a process of its own",
    ),
    "hetki/server/logs.py": ({"sys"}, "where a process says what nobody caught"),
    "hetki/server/serve.py": ({"signal", "socket"}, "it listens, and ends in order when it is told"),
    "hetki/server/worker.py": ({"signal"}, "it ends in order when it is told"),
    "hetki/cli/": (
        {"sys", "print", "pathlib.Path", "importlib"},
        "arguments in, text out, the root of the Disk port; a command's module is loaded when it is called",
    ),
}

DEPENDENCIES = {
    "adbc-driver-manager",
    "adbc-driver-postgresql",  # customer tables of PostgreSQL, as Arrow
    "cryptography",  # AES-GCM, HKDF
    "duckdb",  # the lake's queries
    "httptools",  # uvicorn's fast parser
    "jinja2",  # the console's pages
    "msgspec",  # wire decoding, typed specs, JSON Schema
    "numba",  # the fast form of the matcher, in machine code
    "numpy",
    "pyarrow",  # the lake's files
    "python-liquid",  # message templates
    "rich",  # progress, tables
    "ruamel.yaml",  # declarations with positions
    "scipy",
    "splink",  # linkage
    "sqlglot",  # the parser of conditions
    "starlette",
    "tea-tasting",  # effects and intervals
    "typer",
    "uvicorn",
    "uvloop",
}


Files = list[File]
Rule = Callable[[Files], list[str]]


def order_is_kept(files: Files) -> list[str]:
    """A room imports itself and what stands left of it."""
    breaches = [f"{file.path}: no room is called {file.room!r}" for file in files if file.room not in ORDER]
    for file in files:
        for node, name in file.imports():
            parts = name.split(".")
            to = parts[1] if len(parts) > 1 and parts[1] in ORDER else ""
            if parts[0] == "hetki" and file.room in ORDER and ORDER.index(to) > ORDER.index(file.room):
                breaches.append(
                    f"{file.path}:{node.lineno}: {file.room} imports {name}, which is to its right"
                )
    return breaches


def imports_are_in_sight(files: Files) -> list[str]:
    """Imports stand at the top level of the module: not in a function, a class, an `if` or a `try`."""
    return [
        f"{file.path}:{node.lineno}: the import of {name} is hidden"
        for file in files
        for node, name in file.imports()
        if node not in file.tree.body
    ]


def no_cycle(files: Files) -> list[str]:
    """No module imports itself by way of others, inside a room neither."""
    modules = {file.module for file in files}
    graph: dict[str, set[str]] = {}
    for file in files:
        targets = graph.setdefault(file.module, set())
        for _, name in file.imports():
            target = name if name in modules else name.rpartition(".")[0]
            if target in modules and (target != file.module or name == target):
                targets.add(target)
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        return [" imports ".join(reversed(error.args[1]))]
    return []


def sizes_are_kept(files: Files) -> list[str]:
    breaches = []
    for file in files:
        if (n_lines := file.text.count("\n")) > FILE_LINES_MAX:
            breaches.append(f"{file.path}: {n_lines} lines, must be {FILE_LINES_MAX} at most")
        for function in file.functions():
            assert function.end_lineno is not None
            if (n_lines := function.end_lineno - function.lineno + 1) > FUNCTION_LINES_MAX:
                breaches.append(f"{file.path}:{function.lineno}: {function.name} has {n_lines} lines")
    return breaches


def modules_say_what_they_are(files: Files) -> list[str]:
    return [f"{file.path}: no module docstring" for file in files if not ast.get_docstring(file.tree)]


def names_say_something(files: Files) -> list[str]:
    return [
        f"{f.path}: a name that says nothing" for f in files if NAMES_FORBIDDEN & set(f.module.split("."))
    ]


def public_functions_are_typed(files: Files) -> list[str]:
    """Rooms: every public function names the types of what it takes and returns, and none is `Any`."""
    breaches = []
    for file in files:
        for function in file.functions() if file.room in HALL + ROOMS else ():
            if function.name.startswith("_"):
                continue
            args = function.args
            named = [*args.posonlyargs, *args.args, *args.kwonlyargs]
            notes = [arg.annotation for arg in named if arg.arg not in ("self", "cls")] + [function.returns]
            if None in notes:
                breaches.append(f"{file.path}:{function.lineno}: {function.name} is not fully annotated")
            elif any(
                isinstance(n, ast.Name) and n.id == "Any" for note in notes if note for n in ast.walk(note)
            ):
                breaches.append(f"{file.path}:{function.lineno}: {function.name} has Any in its signature")
    return breaches


def within(name: str, prefixes: set[str] | list[str]) -> bool:
    return any(name == prefix or name.startswith(prefix + ".") for prefix in prefixes)


def ports_are_the_only_way_out(files: Files) -> list[str]:
    """Law 11: clock, chance, disk, network and environment are touched by the port alone."""
    breaches = []
    for file in files:
        outside = [*MODULES_OUTSIDE, *NAMES_OUTSIDE, *(SHELL_LIBRARIES if file.room in HALL + ROOMS else [])]
        found = {(node.lineno, name) for node, name in file.imports() if within(name, MODULES_OUTSIDE)}
        for line, name, is_given in uses(file):
            is_seeded = name in SEEDED and is_given
            if within(name, outside) and name not in HARMLESS and not is_seeded:
                found.add((line, name))
        lets = [
            path for path in ALLOWED if file.path == path or (path[-1] == "/" and file.path.startswith(path))
        ]
        allowed = {name for path in lets for name in ALLOWED[path][0]}
        for line, name in sorted(found):
            if not (name in allowed if within(name, BY_NAME_ONLY) else within(name, allowed)):
                breaches.append(f"{file.path}:{line}: {name} belongs behind a port")
    return breaches


RULES: dict[Rule, dict[str, str]] = {
    order_is_kept: {
        "hetki/events/a.py": "if TYPE_CHECKING:\n    from hetki.store import ports",
        "hetki/consent/a.py": "def f():\n    import hetki.moments.fold",
        "hetki/store/a.py": "from ..engine import accept",
        "hetki/errors.py": "from hetki import settings",
        "hetki/garage/a.py": "",
    },
    imports_are_in_sight: {
        "hetki/events/a.py": "def f():\n    import json",
        "hetki/events/b.py": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import json",
        "hetki/events/c.py": "try:\n    import json\nexcept ImportError:\n    json = None",
    },
    sizes_are_kept: {
        "hetki/events/a.py": "x = 1\n" * 401,
        "hetki/events/b.py": "class C:\n    def f(self):\n" + "        x = 1\n" * 60,
    },
    modules_say_what_they_are: {
        "hetki/events/__init__.py": "",
        "hetki/events/a.py": "# A comment is none.\nx = 1",
    },
    names_say_something: {"hetki/events/utils.py": "", "hetki/helpers/a.py": ""},
    public_functions_are_typed: {
        "hetki/events/a.py": "def f(x) -> int: ...",
        "hetki/events/b.py": "def f(x: int): ...",
        "hetki/events/c.py": "from typing import Any\ndef f(x: dict[str, Any]) -> int: ...",
    },
    ports_are_the_only_way_out: {
        "hetki/events/clock.py": "from datetime import datetime as dt\nx = dt.now()",
        "hetki/events/clock2.py": "import datetime\nx = datetime.date.today",
        "hetki/engine/clock3.py": "from time import monotonic",
        "hetki/events/disk.py": "def f(p): return open(p)",
        "hetki/engine/disk2.py": "def f(p): return p.read_text()",
        "hetki/store/disk3.py": "import sqlite3\nx = sqlite3.connect('a')",
        "hetki/engine/disk4.py": "import sqlite3",
        "hetki/events/disk5.py": "import pyarrow.parquet as pq\nx = pq.read_table('a')",
        "hetki/events/chance.py": "import numpy as np\nx = np.random.default_rng()",
        "hetki/events/chance2.py": "import numpy as np\nx = np.random.rand(3)",
        "hetki/simulation/chance5.py": "from random import Random\nx = Random()",
        "hetki/engine/chance3.py": "import uuid\nx = uuid.uuid4()",
        "hetki/events/chance4.py": "from os import urandom",
        "hetki/moments/net.py": "import urllib.request",
        "hetki/server/net2.py": "import http.client",
        "hetki/cli.py": "import os\nx = os.environ",
        "hetki/decisions/thread.py": "from threading import Lock",
        "hetki/patterns/code.py": "x = eval('1')",
    },
}

GOOD = {
    "hetki/measurement/a.py": """"A pure module."
import re
import numpy as np
from datetime import datetime
from pathlib import PurePath
from hetki.errors import Fault
def f(seed: int, time: int, clock: Clock) -> int:
    x = np.random.default_rng(seed), time, clock.now(), re.compile("a")
    return datetime.fromtimestamp(0, UTC)
""",
    PORT: """"The port."
import sqlite3
import time
x = sqlite3.connect("a"), time.time(), open("b")
""",
    "hetki/simulation/a.py": "'A seed.'\nfrom random import Random\ndef f() -> Random:\n    return Random(7)",
    "hetki/server/a.py": "'A lock.'\nimport asyncio\nx = asyncio.Lock()",
}


@pytest.mark.parametrize("rule", [*RULES, no_cycle], ids=lambda rule: rule.__name__)
def test_the_house_keeps(rule: Rule) -> None:
    breaches = rule(house())
    assert not breaches, "\n".join(breaches)


@pytest.mark.parametrize(
    ("rule", "path"),
    [(rule, path) for rule, bad in RULES.items() for path in bad],
    ids=lambda x: getattr(x, "__name__", x),
)
def test_a_bad_example_is_caught(rule: Rule, path: str) -> None:
    assert rule([parsed(path, RULES[rule][path])])


@pytest.mark.parametrize("rule", [*RULES, no_cycle], ids=lambda rule: rule.__name__)
def test_a_good_example_passes(rule: Rule) -> None:
    assert rule([parsed(path, text) for path, text in GOOD.items()]) == []


def test_a_cycle_inside_a_room_is_caught() -> None:
    a = parsed("hetki/events/a.py", "from hetki.events.b import x")
    b = parsed("hetki/events/b.py", "from hetki.events import a")
    assert no_cycle([a, b]) and not no_cycle([a, parsed("hetki/events/b.py", "")])


REGISTRY = re.compile(r"(pypi|pythonhosted|npmjs)\.(org|com|io)")
MACHINE_PATH = re.compile(r"(?<![\w.*<>{}-])/(work/|tmp/|home/\w+/|Users/\w+/|root/\.)\w")
LEFT_OPEN = re.compile(r"\b(TO" r"DO|FIX" r"ME|NotImplemented" r"Error)\b|mark\.(skip|xfail)\b")


def unwanted(text: str) -> list[str]:
    """What a tracked file must not hold: registry hosts, paths of one machine, work left open."""
    return [found[0] for pattern in (REGISTRY, MACHINE_PATH, LEFT_OPEN) for found in pattern.finditer(text)]


def test_tracked_files_hold_nothing_unwanted() -> None:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("not a git checkout: which files are tracked is not known")
    paths = [ROOT / name for name in listed.stdout.split("\0") if name]
    found = {
        str(path.relative_to(ROOT)): bad
        for path in paths
        if path.is_file() and (bad := unwanted(path.read_bytes().decode("utf-8", "replace")))
    }
    assert not found


def test_unwanted_text_is_caught() -> None:
    for bad in (
        "https://pypi" + ".org/simple",
        "cd /wo" + "rk/main",
        "# TO" + "DO later",
        "pytest.mark" + ".skip",
    ):
        assert unwanted(bad), bad
    assert not unwanted("https://example.com/work/late a/tmp/b")


def declared(requirement: str) -> str:
    """The name in a requirement: `uvloop>=0.23; sys_platform != 'win32'` is `uvloop`."""
    return re.split(r"[^\w.-]", requirement)[0]


def locked(name: str) -> dict[str, set[str]]:
    """The versions that a lock holds, per package; every entry must carry hashes."""
    entries = re.split(r"\n(?=\S)", "\n" + (ROOT / "requirements" / name).read_text("utf-8"))
    versions: dict[str, set[str]] = {}
    for entry in entries:
        if pin := re.match(r"([\w.-]+)==([^\s;\\]+)", entry):
            assert "--hash=sha256:" in entry, f"{pin[1]} has no hash"
            versions.setdefault(pin[1], set()).add(pin[2])
    return versions


def test_run_time_dependencies_are_the_ones_decided() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    assert {declared(each) for each in project["dependencies"]} == DEPENDENCIES


def test_locks_hold_every_dependency_and_agree() -> None:
    base, dev = locked("base.txt"), locked("dev.txt")
    assert {name.replace(".", "-") for name in DEPENDENCIES} <= set(base)
    assert base.items() <= dev.items()


def copyleft(expression: str | None, classifiers: list[str], text: str | None) -> bool:
    """Whether a package's own terms are GPL or AGPL (LGPL, and what it only bundles, are not meant)."""
    own = [expression] if expression else classifiers or [(text or "").strip().partition("\n")[0]]
    return any(re.search(r"(?<!L)GPL|(?<!Lesser )General Public License", each) for each in own)


def test_no_run_time_dependency_is_under_the_gpl() -> None:
    found = []
    for name in locked("base.txt"):
        try:
            about = metadata(name)
        except PackageNotFoundError:
            continue  # locked for another platform
        classifiers = [each for each in about.get_all("Classifier", []) if each.startswith("License")]
        if copyleft(about.get("License-Expression"), classifiers, about.get("License")):
            found.append(name)
    assert not found


def test_gpl_is_recognised() -> None:
    assert copyleft("AGPL-3.0-only", [], None) and copyleft(None, [], "GPLv3\nand a long text")
    assert copyleft(None, ["License :: OSI Approved :: GNU General Public License v3 (GPLv3)"], None)
    assert not copyleft("MIT", [], "GPL") and not copyleft("LGPL-3.0-only", [], None)
