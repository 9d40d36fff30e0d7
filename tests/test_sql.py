"""No user string becomes SQL: every statement is a constant, or composed of parts that are known one by one.

Shown on the syntax tree of every file, and at run time: hostile names and values, and no statement that
SQLite or DuckDB was given has any of them.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

import pytest
from syntax import File, house, parsed

#: What runs SQL, whatever it is called on.
RUNS = {"execute", "executemany", "executescript", "sql"}
#: Functions whose result may stand in a statement: question marks, figures, a constant filled with such.
MAKES = {"chunks", "round", "len", "members_query", "_quoted"}
#: Functions of ours that take a part of a statement: where they are called, which argument, and its name
#: there. Every caller's must be ours, too.
TAKE = {
    "members_query": ("hetki/", 0, "where"),
    "prepare": ("hetki/", 2, "script"),
    "opened": ("hetki/store/", 2, "script"),
    "_answer": ("hetki/store/sqlite.py", 1, "query"),
    "_change": ("hetki/store/staff.py", 1, "statement"),
    "_standing": ("hetki/store/views.py", 0, "where"),
    "_rows_at": ("hetki/store/identities.py", 1, "condition"),
    "_number": ("hetki/store/views.py", 0, "query"),
    "_part": ("hetki/engine/parts.py", 1, "query"),
    "keep_out": ("hetki/store/", 1, "events"),
}
COLUMNS, BLOCKING = "hetki/identity/columns.py", "hetki/identity/blocking.py"
LINKAGE, PROPOSALS = "hetki/identity/linkage.py", "hetki/identity/proposals.py"
KEY, FIGURE, SPLINKS = (
    "c0, c1, ... and part_of_c0",
    "a number that was counted here",
    "Splink names its tables",
)
#: What else may: (file, expression) and why. An entry that nothing needs fails.
KNOWN: dict[tuple[str, str], str] = {
    ("hetki/engine/parts.py", "n"): FIGURE,
    ("hetki/store/sqlite.py", "wait_ms"): "SQLite's own answer, a number",
    ("hetki/store/wiping.py", "version"): "SQLite's own answer, a number",
    ("hetki/store/identities.py", "only"): "a Refusal, one of a few words of ours",
    ("hetki/store/postgres.py", "'.'.join((_quoted(each) for each in filter(None, (schema, table))))"): (
        "names that the operator gives, quoted"
    ),
    ("hetki/store/lake_tables.py", "query"): "of TABLES, which are constants",
    ("hetki/store/lake.py", "listed"): "paths of our own files, quoted",
    ("hetki/store/sharing.py", "', '.join(columns)"): "of FREE, which are constants",
    ("hetki/store/sharing.py", "_ROWS[name]"): "a constant",
    ("hetki/engine/backup.py", "query"): "of ABOUT, which are constants",
    ("hetki/engine/restoring.py", "table"): "asserted to be one of ours",
    ("hetki/engine/restoring.py", "', '.join('?' * len(values))"): "question marks",
    ("hetki/store/secrets.py", "query"): "of COPIED, which are constants",
    ("hetki/store/secrets.py", "name"): "asserted to be one of ours",
    ("hetki/store/secrets.py", "', '.join('?' * len(row))"): "question marks",
    ("hetki/store/chain.py", "columns"): "of COLUMNS, which is a constant",
    ("hetki/store/sqlite.py", "pragma"): "names of tables that the callers write out",
    (COLUMNS, "values"): KEY,
    (COLUMNS, "texts"): "names of columns, quoted",
    (COLUMNS, "key"): KEY,
    (COLUMNS, "column.coarse_sql"): KEY,
    (COLUMNS, "shares"): KEY,
    (BLOCKING, "coarse"): KEY,
    (BLOCKING, "keys"): KEY,
    (BLOCKING, "counts"): KEY,
    (BLOCKING, "blocks"): KEY,
    (BLOCKING, "large"): KEY,
    (BLOCKING, "known_keys"): KEY,
    (BLOCKING, "shown"): KEY,
    (BLOCKING, "number"): FIGURE,
    (LINKAGE, "names"): SPLINKS,
    (LINKAGE, "scored[0].physical_name"): SPLINKS,
    (LINKAGE, "each.physical_name"): SPLINKS,
    (PROPOSALS, "parts"): SPLINKS,
    (PROPOSALS, "scored.physical_name"): SPLINKS,
}
CONSTANT = re.compile(r"_?[A-Z][A-Z0-9_]*")


class Function:
    """A function of a file, and what its names may hold."""

    def __init__(self, file: File, node: ast.AST) -> None:
        self.file = file
        self.taken = taken(file.path, getattr(node, "name", ""))[1]
        self.assigned: dict[str, list[ast.expr]] = {}
        self.known: set[tuple[str, str]] = set()
        for each in ast.walk(node):
            if isinstance(each, ast.Assign):
                for target in each.targets:
                    self._keep(target, each.value)
            elif isinstance(each, ast.AugAssign | ast.AnnAssign) and each.value is not None:
                self._keep(each.target, each.value)
            elif isinstance(each, ast.For | ast.comprehension):
                self._iterate(each.target, each.iter)

    def _keep(self, target: ast.expr, value: ast.expr) -> None:
        if isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple):
            for one, other in zip(target.elts, value.elts, strict=True):
                self._keep(one, other)
        elif isinstance(target, ast.Name):
            self.assigned.setdefault(target.id, []).append(value)

    def _iterate(self, target: ast.expr, over: ast.expr) -> None:
        """What a loop over constants, or over chunks of values, gives to its names."""
        if isinstance(over, ast.Tuple | ast.List):
            for each in over.elts:
                self._keep(target, each)
        elif isinstance(target, ast.Tuple) and isinstance(target.elts[0], ast.Name):
            self._keep(target.elts[0], over)  # of pairs the first: question marks, a number, a name
        else:
            self._keep(target, over)

    def is_ours(self, node: ast.expr, seen: frozenset[str] = frozenset()) -> bool:
        """Whether what an expression gives is text of ours, or a figure."""
        if isinstance(node, ast.Constant):
            return True
        key = (self.file.path, ast.unparse(node))
        if key in KNOWN:
            self.known.add(key)
            return True
        if isinstance(node, ast.JoinedStr):
            parts = [each.value for each in node.values if isinstance(each, ast.FormattedValue)]
            return all(self.is_ours(each, seen) for each in parts)
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add | ast.Mult):
            return self.is_ours(node.left, seen) and self.is_ours(node.right, seen)
        if isinstance(node, ast.IfExp):
            return self.is_ours(node.body, seen) and self.is_ours(node.orelse, seen)
        if isinstance(node, ast.Call):
            return self._is_made_by_us(node, seen)
        if isinstance(node, ast.Attribute):
            return CONSTANT.fullmatch(node.attr) is not None
        if isinstance(node, ast.Name):
            if CONSTANT.fullmatch(node.id) or node.id == self.taken:
                return True
            held = self.assigned.get(node.id, [])
            return bool(held) and (
                node.id in seen or all(self.is_ours(each, seen | {node.id}) for each in held)
            )
        return False

    def _is_made_by_us(self, node: ast.Call, seen: frozenset[str]) -> bool:
        name = ast.unparse(node.func)
        if name in MAKES:
            return True
        if name in ("enumerate", "range") or name.endswith((".items", ".keys")):
            return name in ("enumerate", "range") or self.is_ours(node.func.value, seen)  # type: ignore[attr-defined]
        if isinstance(node.func, ast.Attribute) and node.func.attr in ("format", "replace", "join"):
            given = [*node.args, *(each.value for each in node.keywords)]
            return all(self.is_ours(each, seen) for each in (node.func.value, *given))
        return False


def composed(files: list[File]) -> tuple[list[str], set[tuple[str, str]], int]:
    """Statements not ours in every part, the entries of `KNOWN` that were needed, how many were seen."""
    breaches: list[str] = []
    needed: set[tuple[str, str]] = set()
    n_seen = 0
    for file in files:
        for function in (file.tree, *file.functions()):
            told = Function(file, function)
            for call in calls(function, file.path):
                n_seen += 1
                given = part_of(call, file.path)
                if given is not None and not told.is_ours(given):
                    breaches.append(f"{file.path}:{call.lineno}: {ast.unparse(given)[:160]}")
            needed |= told.known
    return breaches, needed, n_seen


def calls(function: ast.AST, path: str) -> Iterator[ast.Call]:
    """Calls that run SQL or take a part of it in a function, those of functions within it left out."""
    for child in ast.iter_child_nodes(function):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        if isinstance(child, ast.Call) and part_of(child, path) is not None:
            yield child
        yield from calls(child, path)


def taken(path: str, name: str) -> tuple[int, str]:
    """Which argument of a function is a part of a statement, and its name."""
    where, place, parameter = TAKE.get(name, ("", 0, ""))
    return (place, parameter) if path.startswith(where) else (0, "")


def part_of(call: ast.Call, path: str) -> ast.expr | None:
    """What a call is given as a statement or a part of one."""
    name = getattr(call.func, "attr", getattr(call.func, "id", ""))
    if name in RUNS and isinstance(call.func, ast.Attribute):
        return call.args[0] if call.args else None
    place, parameter = taken(path, name)
    named = [each.value for each in call.keywords if each.arg == parameter]
    return call.args[place] if parameter and len(call.args) > place else (named or [None])[0]


def test_every_statement_is_ours() -> None:
    breaches, needed, n_seen = composed(house())
    assert breaches == []
    assert n_seen > 200, "the statements were not found"
    assert set(KNOWN) - needed == set(), "an exception that nothing needs"


@pytest.mark.parametrize(
    "planted",
    [
        "def f(db, name): db.execute(f'SELECT * FROM {name}')",
        "def f(db, name): db.execute('SELECT ' + name)",
        "def f(db, name): db.execute('SELECT %s' % name)",
        "def f(db, name): db.execute('SELECT {}'.format(name))",
        "def f(db, names):\n    for name in names: db.execute(f'DELETE FROM {name}')",
        "def f(db, event):\n    query = f\"SELECT '{event.name}'\"\n    db.sql(query)",
        "def f(db, query): db.executescript(query)",
        "def f(self, name): self._standing(f'o.moment = {name}', [], 1, 0)",
        "def f(db, name): members_query(where=name)",
        "class A:\n    def f(self, name): self.db.executemany('A'.replace('A', name), [])",
    ],
)
def test_a_statement_with_a_string_of_others_is_found(planted: str) -> None:
    assert composed([parsed("hetki/store/views.py", planted)])[0]
