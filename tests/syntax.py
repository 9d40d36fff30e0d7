"""The package as syntax trees: what the house rules in `test_house.py` read."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parent.parent
#: Reading and writing through a Path is the Disk port's work, wherever the Path comes from.
PATH_METHODS = {"read_text", "read_bytes", "write_text", "write_bytes", "unlink", "mkdir", "rmdir", "touch"}


@dataclass(frozen=True, slots=True)
class File:
    """One module: its path from the folder that holds the package, its text, its syntax tree."""

    path: str
    text: str
    tree: ast.Module

    @property
    def module(self) -> str:
        return self.path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")

    @property
    def room(self) -> str:
        return [*self.module.split("."), ""][1]

    def functions(self) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
        return (n for n in ast.walk(self.tree) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef))

    def imports(self) -> Iterator[tuple[ast.Import | ast.ImportFrom, str]]:
        """Every imported dotted name, those for types only and those inside functions included."""
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Import):
                yield from ((node, alias.name) for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                package = (
                    self.module.split(".")
                    if self.path.endswith("__init__.py")
                    else self.module.split(".")[:-1]
                )
                above = package[: len(package) - node.level + 1] if node.level else []
                start = ".".join([*above, *([node.module] if node.module else [])])
                yield from ((node, f"{start}.{alias.name}") for alias in node.names)


def parsed(path: str, text: str) -> File:
    return File(path, text, ast.parse(text, path))


@cache
def house() -> list[File]:
    """Every module of the package, as it lies on the disk now."""
    paths = sorted((ROOT / "src").rglob("*.py"))
    files = [parsed(path.relative_to(ROOT / "src").as_posix(), path.read_text("utf-8")) for path in paths]
    assert len(files) > 20, "the house was not found"
    return files


def aliases(file: File) -> dict[str, str]:
    """What each imported local name stands for, as a dotted name."""
    known = {}
    for node, name in file.imports():
        for alias in node.names:
            if isinstance(node, ast.ImportFrom) and name.rpartition(".")[2] == alias.name:
                known[alias.asname or alias.name] = name
            elif isinstance(node, ast.Import) and name == alias.name:
                known[alias.asname or name.partition(".")[0]] = (
                    name if alias.asname else name.partition(".")[0]
                )
    return known


def annotations(file: File) -> set[int]:
    """The ids of all nodes that only name a type."""
    notes: list[ast.expr | None] = []
    for node in ast.walk(file.tree):
        if isinstance(node, ast.arg | ast.AnnAssign):
            notes.append(node.annotation)
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            notes.append(node.returns)
    return {id(inner) for note in notes if note for inner in ast.walk(note)}


def uses(file: File) -> Iterator[tuple[int, str, bool]]:
    """Every use of an imported or built-in name not as a type: line, dotted name, has arguments."""
    known = aliases(file)
    local = {n.id for n in ast.walk(file.tree) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
    local |= {n.arg for n in ast.walk(file.tree) if isinstance(n, ast.arg)}
    given = {id(n.func) for n in ast.walk(file.tree) if isinstance(n, ast.Call) and (n.args or n.keywords)}
    inner = {id(n.value) for n in ast.walk(file.tree) if isinstance(n, ast.Attribute)} | annotations(file)
    for node in ast.walk(file.tree):
        if id(node) in inner or not isinstance(node, ast.Name | ast.Attribute):
            continue
        dotted, head = [], node
        while isinstance(head, ast.Attribute):
            dotted.append(head.attr)
            head = head.value  # type: ignore[assignment]
        if isinstance(head, ast.Name) and (head.id in known or head.id not in local):
            yield node.lineno, ".".join([known.get(head.id, head.id), *reversed(dotted)]), id(node) in given
        if dotted and dotted[0] in PATH_METHODS:
            yield node.lineno, f"pathlib.Path().{dotted[0]}", True  # any value: its type is not known here
