"""Changing: what of one project's meaning another one keeps, so that only the rest is folded again.

Compared is what the declarations say, not their bytes: titles, texts and comments mean nothing to the fold.
What is not known to mean nothing is taken to change everything.
"""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from hetki.engine.engine import compile_program
from hetki.engine.files import FOLDERS
from hetki.engine.project import Project, asked_of, captures
from hetki.moments.fold import Folded, Program
from hetki.moments.moment import Moment

#: Folders whose files say nothing to the fold, or are compared by what they say.
_FOLDERS = {"moments", "actions", "templates", "initiatives", "sources", "segments", "tests"}
#: The same of the tables of `hetki.toml`, and of the settings in it.
_TABLES = {"hetki", "purposes", "controller", "destinations", "household", "contact", "decisions", "server"}
_SETTINGS = {"name", "data", "limits", "connections", "holdout_salt"}


@dataclass(frozen=True, slots=True)
class Target:
    """Declarations that are to be taken up instead of others.

    `kept` are the moments whose runs and occurrences stay as they are. `only_adds`: those are all that there
    were. `is_same`: there is nothing to fold.
    """

    project: Project
    program: Program
    instead_of: str
    kept: frozenset[str] = frozenset()
    only_adds: bool = False
    is_same: bool = False

    @property
    def not_kept(self) -> set[str]:
        """The moments that are folded again."""
        return self.project.moments.keys() - self.kept

    def joined(self, before: Folded, changed: Folded) -> Folded | None:
        """The state under the whole program, of the one before and of that under `changed`.

        None if that cannot be told: what time alone has settled may be of a moment that is no more.
        """
        settled_at = changed.settled_at
        if before.settled_at is not None and (settled_at is None or before.settled_at > settled_at):
            if not self.only_adds:
                return None
            settled_at = before.settled_at
        runs = {name: run for name, run in before.runs.items() if name in self.kept}
        return msgspec.structs.replace(changed, runs={**runs, **changed.runs}, settled_at=settled_at)


def target(project: Project, program: str, old: Project | None) -> Target:
    """A project to be taken up in a state under `program`, whose declarations are `old` if they are known."""
    compiled = compile_program(project)
    if old is None or _frame(old) != _frame(project):
        return Target(project, compiled, program)
    was = {name: _meaning(old, moment) for name, moment in old.moments.items()}
    now = {name: _meaning(project, moment) for name, moment in project.moments.items()}
    kept = frozenset(name for name in now if was.get(name) == now[name])
    lives_as_before = _of_household(old) == _of_household(project)
    is_same = was == now and old.traits == project.traits and lives_as_before
    return Target(project, compiled, program, kept, was.keys() <= kept, is_same)


def _of_household(project: Project) -> list[str]:
    return project.household.same if project.household else []


def _meaning(project: Project, moment: Moment) -> object:
    """All of a moment that the fold can tell."""
    identify = msgspec.structs.replace(moment.spec.identify, need="")
    wanted = captures(project.files, moment.spec, project.templates)
    return identify, moment.purpose, wanted, asked_of(project.files, moment.spec, project.templates)


def _frame(project: Project) -> object:
    """All that is common to the moments of a project, and more than that."""
    toml = project.files.toml.value
    assert toml is not None, "a project has settings"
    purposes = {
        # The vocabulary's term is no mere word: by it an objection closes the purpose or does not.
        name: msgspec.structs.replace(each, title="")
        for name, each in project.purposes.items()
    }
    contracts = {name: sorted(set(each.purposes)) for name, each in project.sources.items()}
    tables = {name: getattr(toml, name) for name in toml.__struct_fields__ if name not in _TABLES}
    hetki = project.settings
    settings = {name: getattr(hetki, name) for name in hetki.__struct_fields__ if name not in _SETTINGS}
    segments = sorted(
        msgspec.json.encode(msgspec.structs.replace(spec, title=""))
        for spec, _ in project.files.segments.read()
    )
    folders = FOLDERS.keys() - _FOLDERS
    others = {name: text for name, text in project.texts.items() if name.partition("/")[0] in folders}
    return purposes, contracts, segments, tables, settings, others
