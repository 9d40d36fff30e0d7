"""What is shipped: packages under licences that may be, locks with hashes, a bill of materials."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from typing import Any

import pytest
from syntax import ROOT
from test_house import DEPENDENCIES, locked

#: What a run-time package may be under; anything else is looked at by a person first, and written here.
MAY = {
    *("MIT", "MIT-0", "0BSD", "BSD-2-Clause", "BSD-3-Clause", "ISC", "Zlib", "PSF-2.0", "CC0-1.0"),
    *("Apache-2.0", "Apache-2.0 WITH LLVM-exception", "BSD License"),
}
#: Locked for platforms where the tests do not run.
OTHER_PLATFORMS = {"colorama"}
Bom = dict[str, list[dict[str, Any]]]
LOCKS = sorted(path.name for path in (ROOT / "requirements").glob("*.txt"))


def material() -> str:
    ran = subprocess.run(
        [sys.executable, ROOT / "scripts" / "sbom"], capture_output=True, text=True, check=True
    )
    return ran.stdout


@pytest.fixture(scope="module")
def bom() -> Bom:
    first, second = material(), material()
    assert first == second, "it depends on more than the locks and what is installed"
    found: Bom = json.loads(first)
    return found


def fits(terms: str) -> bool:
    """Whether one way to read an SPDX expression is all of licences that may be."""
    return any(all(part.strip(" ()") in MAY for part in way.split(" AND ")) for way in terms.split(" OR "))


def test_every_run_time_package_is_under_a_licence_that_may_be(bom: Bom) -> None:
    told = {
        each["name"]: [
            one.get("expression") or next(iter(one["license"].values())) for one in each["licenses"]
        ]
        for each in bom["components"]
        if each["licenses"]
    }
    assert [name for name, terms in told.items() if not any(map(fits, terms))] == []
    names = {each["name"] for each in bom["components"]}
    assert names - set(told) <= OTHER_PLATFORMS, "a package that says nothing of its terms"


def test_licences_are_read_as_they_are_written() -> None:
    assert fits("MIT") and fits("GPL-3.0-only OR MIT") and fits("BSD-3-Clause AND 0BSD")
    for terms in (
        "GPL-3.0-only",
        "AGPL-3.0-or-later AND MIT",
        "LGPL-3.0-only",
        "",
        "Proprietary",
        "SSPL-1.0",
    ):
        assert not fits(terms), terms


def test_the_bill_names_what_is_locked_and_who_needs_it(bom: Bom) -> None:
    versions: dict[str, set[str]] = {}
    for each in bom["components"]:
        versions.setdefault(each["name"], set()).add(each["version"])
        assert each["hashes"] and all(re.fullmatch("[0-9a-f]{64}", one["content"]) for one in each["hashes"])
    assert versions == locked("base.txt")
    names = {each["bom-ref"]: each["name"] for each in bom["components"]}
    edges = {each["ref"]: set(each["dependsOn"]) for each in bom["dependencies"]}
    [root] = set(edges) - set(names)
    assert {names[each] for each in edges[root]} == {name.replace(".", "-") for name in DEPENDENCIES}
    needed, left = set[str](), {root}
    while left:
        needed |= left
        left = set().union(*(edges[each] for each in left)) - needed
    assert {names[ref] for ref in set(names) - needed} <= OTHER_PLATFORMS, "a package that nothing needs"


@pytest.mark.parametrize("name", LOCKS)
def test_a_lock_has_hashes_and_no_host(name: str) -> None:
    text = (ROOT / "requirements" / name).read_text("utf-8")
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    assert not re.search(
        r"://|^-|\s-i\s|--(index|extra|find|trusted|editable)|\s@\s|git\+", "\n".join(lines), re.M
    )
    entries = re.split(r"\n(?=\S)", "\n".join(lines).strip())
    assert entries and all(re.match(r"[\w.-]+==\S+", each) for each in entries)
    assert all(re.search(r"--hash=sha256:[0-9a-f]{64}\b", each) for each in entries)


def test_it_is_installed_by_hashes_alone() -> None:
    """`make` installs what the lock says, and what the lock does not say it does not install."""
    makefile = (ROOT / "Makefile").read_text("utf-8")
    installs = [line for line in makefile.splitlines() if re.search(r"pip (sync|install)", line)]
    assert len(installs) == 3
    assert all(
        "--require-hashes" in line or "--no-deps --no-build-isolation -e ." in line for line in installs
    )
