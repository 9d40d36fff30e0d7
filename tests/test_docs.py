"""Every code block in README, CONTRIBUTING and docs is a test; every room and every link they name exists.

One test per page: its blocks run in order, Python in one namespace, commands in one temporary folder that
holds a copy of `examples/`. CONTRIBUTING says how to write a block.
"""

from __future__ import annotations

import importlib
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from dataclasses import dataclass, field
from pathlib import Path

import liquid
import pytest
import ruamel.yaml
import sqlglot
from markdown_it import MarkdownIt

ROOT = Path(__file__).parent.parent
PAGES = [
    p
    for p in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md")))
    if p.exists()
]
#: Where programs are found: `hetki` among those of the tests, the others beside the Python that runs.
BIN = f"{ROOT / 'tests/bin'}{os.pathsep}{Path(sys.executable).parent}"
COMMAND_S_MAX = 120
KINDS = ("moment", "segment", "action", "initiative", "event", "source", "examples")


@dataclass(frozen=True, slots=True)
class Block:
    """One fenced block: where it begins, its language, the words after it, its text."""

    where: str
    language: str
    words: tuple[str, ...]
    text: str


@dataclass(slots=True)
class Page:
    """What the blocks of one page share."""

    folder: Path
    names: dict[str, object] = field(default_factory=lambda: {"__name__": "page"})


def blocks(text: str, path: str) -> list[Block]:
    found = []
    for token in MarkdownIt().parse(text):
        assert token.type != "code_block", f"{path}: an indented block is no test: fence it:\n{token.content}"
        if token.type == "fence":
            assert token.map is not None
            language, *words = token.info.split() or [""]
            found.append(Block(f"{path}:{token.map[0] + 1}", language, tuple(words), token.content))
    return found


def commands(block: Block) -> list[tuple[str, str]]:
    """The commands of a console block, each with the output that is shown below it."""
    found: list[tuple[str, str]] = []
    for line in block.text.splitlines():
        if found and found[-1][0].endswith("\\") and not found[-1][1]:
            found[-1] = (f"{found[-1][0]}\n{line}", "")
        elif line.startswith("$ "):
            found.append((line[2:], ""))
        else:
            assert found, f"{block.where}: a console block begins with a command: $ ..."
            found[-1] = (found[-1][0], f"{found[-1][1]}{line}\n")
    return found


def fits(shown: str, output: str) -> bool:
    """Whether output is as shown; `...` stands for anything, and nothing shown fits everything."""
    tidy = ["\n".join(line.rstrip() for line in text.strip().splitlines()) for text in (shown, output)]
    pattern = ".*?".join(re.escape(part) for part in tidy[0].split("..."))
    return not tidy[0] or re.fullmatch(pattern, tidy[1], re.DOTALL) is not None


def environment(folder: Path) -> dict[str, str]:
    path = os.pathsep.join([BIN, os.environ.get("PATH", ""), str(ROOT / ".uv/bin")])
    return {
        **os.environ,
        "PATH": path,
        "COLUMNS": "110",
        "NO_COLOR": "1",
        "TERM": "dumb",
        "HOME": str(folder),
    }


def run(command: str, folder: Path) -> tuple[int, str]:
    """A command's exit code and its output, errors included."""
    done = subprocess.run(
        ["bash", "-c", command],
        cwd=folder,
        env=environment(folder),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        timeout=COMMAND_S_MAX,
        check=False,
    )
    return done.returncode, done.stdout


def check_console(block: Block, page: Page) -> None:
    """Run each command; `fails` says that it must not succeed, `shown` that it is too long to run here."""
    if "shown" in block.words:
        return check_shown(block, page)
    after = page.folder / ".folder"
    for command, shown in commands(block):
        code, output = run(
            f"{command}\nstatus=$?; pwd > '{after}'; exit $status", page.folder / folder_now(after)
        )
        said = f"{block.where}: $ {command}\n(exit {code})\n{output}"
        assert (code != 0) == ("fails" in block.words), said
        assert fits(shown, output), f"{said}\n-- but the page shows:\n{shown}"
    return None


def folder_now(after: Path) -> str:
    """Where the command before ended up: `cd` lasts to the end of the page."""
    return after.read_text("utf-8").strip() if after.exists() else "."


def check_shown(block: Block, page: Page) -> None:
    """The commands exist: make targets, programs, subcommands of hetki and their options."""
    for command, _ in commands(block):
        words = shlex.split(command, comments=True)
        if words[0] == "make":
            targets = [word for word in words[1:] if "=" not in word and not word.startswith("-")]
            rules = (ROOT / "Makefile").read_text("utf-8")
            missing = [
                each for each in targets if not re.search(rf"^{re.escape(each)}:", rules, re.MULTILINE)
            ]
            assert not missing, f"{block.where}: the Makefile has no target {missing}"
        elif words[0] == "hetki":
            subcommands = [word for word in words[1:2] if re.fullmatch(r"[a-z-]+", word)]
            code, text = run(f"COLUMNS=200 hetki {' '.join(subcommands)} --help", page.folder)
            assert code == 0, f"{block.where}: $ {command}\n{text}"
            missing = [word for word in words if word.startswith("--") and word.partition("=")[0] not in text]
            assert not missing, f"{block.where}: {' '.join(['hetki', *subcommands])} has no option {missing}"
        elif words[0] != "cd":
            is_file = (ROOT / words[0]).is_file()
            assert is_file or shutil.which(words[0], path=environment(page.folder)["PATH"]), (
                f"{block.where}: {words[0]}"
            )


def check_python(block: Block, page: Page) -> None:
    path, _, line = block.where.rpartition(":")
    code = compile("\n" * int(line) + block.text, str(ROOT / path), "exec")
    exec(code, page.names)


def check_yaml(block: Block, page: Page) -> None:
    """It parses, and a declaration passes the reader of its kind."""
    value = ruamel.yaml.YAML(typ="safe").load(block.text)
    kind = next(iter(value)) if isinstance(value, dict) else None
    kind = "examples" if kind == "moment" and "cases" in value else kind
    if kind in KINDS:
        specs = importlib.import_module("hetki.engine.files").KINDS
        read = importlib.import_module("hetki.declarations.read").read
        declared = read(block.text, block.where, specs[kind])
        assert not declared.faults, "\n".join(str(fault) for fault in declared.faults)


CHECKS = {
    "console": check_console,
    "bash": check_console,
    "python": check_python,
    "yaml": check_yaml,
    "toml": lambda block, page: tomllib.loads(block.text),
    "json": lambda block, page: json.loads(block.text),
    "sql": lambda block, page: sqlglot.parse(block.text, read="duckdb"),
    "liquid": lambda block, page: liquid.Environment().from_string(block.text),
    "text": lambda block, page: None,
}


def check(block: Block, page: Page) -> None:
    assert block.language in CHECKS, f"{block.where}: a block is one of {', '.join(CHECKS)}"
    CHECKS[block.language](block, page)
    if block.words and block.language not in ("console", "bash"):
        write(block, page)


def write(block: Block, page: Page) -> None:
    """A block with a path behind its language is that file, where the commands before ended up."""
    folder = page.folder / folder_now(page.folder / ".folder")
    (path,) = block.words
    target = (folder / path).resolve()
    assert target.is_relative_to(page.folder.resolve()), f"{block.where}: {path} is outside of the page"
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(block.text, "utf-8")


def new_page(folder: Path) -> Page:
    if (ROOT / "examples").is_dir():
        shutil.copytree(ROOT / "examples", folder / "examples", ignore=shutil.ignore_patterns("data"))
    return Page(folder)


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_page(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    page = new_page(tmp_path)
    for block in blocks(path.read_text("utf-8"), str(path.relative_to(ROOT))):
        check(block, page)


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_of_a_page_lead_somewhere(path: Path) -> None:
    inline = [
        child for token in MarkdownIt().parse(path.read_text("utf-8")) for child in token.children or ()
    ]
    targets = [str(token.attrs.get("href") or token.attrs.get("src") or "") for token in inline]
    files = [target.partition("#")[0] for target in targets if target and ":" not in target]
    missing = [target for target in files if target and not (path.parent / target).exists()]
    assert not missing


def test_contributing_names_every_room() -> None:
    page = (ROOT / "CONTRIBUTING.md").read_text("utf-8")
    rooms = {path.parent.name for path in (ROOT / "src/hetki").glob("*/__init__.py")}
    named = set(re.findall(r"^\| `(\w+)/` \|", page, re.MULTILINE))
    assert named == rooms


def test_glossary_is_one_sentence_per_word() -> None:
    lines = (ROOT / "docs/glossary.md").read_text("utf-8").splitlines()
    words = [line for line in lines if line.startswith("- **")]
    assert len(words) > 30
    assert [line for line in words if not re.fullmatch(r"- \*\*[^*]+\*\*: [^.]+(\.\w[^.]*)*\.", line)] == []


BAD = {
    "a failing command": "```console\n$ false\n```",
    "a success that should fail": "```console fails\n$ true\n```",
    "other output": "```console\n$ echo one; echo two\none\nthree\n```",
    "more output": "```console\n$ echo one; echo two\none\n```",
    "output without a command": "```console\none\n```",
    "no such target": "```console shown\n$ make coffee\n```",
    "no such program": "```bash shown\n$ hetky demo\n```",
    "a wrong assertion": "```python\nassert 1 == 2\n```",
    "broken YAML": "```yaml\na: [\n```",
    "broken TOML": "```toml\na = \n```",
    "broken JSON": "```json\n{\n```",
    "broken SQL": "```sql\nselect from where\n```",
    "broken Liquid": "```liquid\n{% if %}\n```",
    "an unknown language": "```cobol\n```",
    "a file outside": "```text ../a.txt\na\n```",
    "no language": "```\na\n```",
    "an indented block": "a\n\n    b\n",
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_block_is_caught(name: str, tmp_path: Path) -> None:
    with pytest.raises(Exception):  # noqa: B017 - each language has an error of its own
        for block in blocks(BAD[name], "page.md"):
            check(block, Page(tmp_path))


def test_a_good_page_passes(tmp_path: Path) -> None:
    text = """
```console
$ mkdir shop && cd shop
$ echo one; echo two; \\
  echo three
one
...
three
$ basename "$PWD"
shop
```
```console fails
$ ls nowhere
ls: ...
```
```bash shown
$ make test ARGS="-k one" # a comment
```
```yaml
a: [1, two]
```
```toml
a = 1
```
```json
{"a": 1}
```
```sql
select a from b
```
```liquid
{% if a %}{{ a.b }}{% endif %}
```
```text
anything
```
```text notes/it.txt
It.
```
```console
$ cat notes/it.txt
It.
```
```python
one = 1
```
```python
assert one == 1
```
"""
    page = Page(tmp_path)
    for block in blocks(text, "page.md"):
        check(block, page)
    assert page.names["one"] == 1
