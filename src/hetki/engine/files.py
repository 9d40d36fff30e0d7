"""Files: every declaration of a CX project as it is written, typed, with its places.

Nothing is compared here.

    hetki.toml   events/*.yaml  sources/*.yaml  initiatives/*.yaml  segments/*.yaml  moments/*.yaml
    actions/*.yaml   templates/<name>[.<locale>].liquid   tests/*.yaml
"""

from __future__ import annotations

from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Generic, Iterator, TypeVar

import msgspec

from hetki.consent.purpose import Category, Controller, Purpose
from hetki.consent.source import Source
from hetki.decisions.action import Action, ContactPolicy, Weights
from hetki.declarations.read import Declared, read, read_toml
from hetki.dialogues.destination import Destination
from hetki.errors import Fault, Invalid, NotFound, Unavailable, shown
from hetki.events.catalogue import EventSpec
from hetki.identity.household import Household
from hetki.identity.policy import NamespaceSpec
from hetki.identity.survival import Survival
from hetki.measurement.initiative import Initiative
from hetki.moments.moment import MomentSpec
from hetki.patterns.segments import SegmentSpec
from hetki.settings import Server, Settings
from hetki.store.ports import Shelf
from hetki.store.system import listed

TOML = "hetki.toml"
FILES_MAX = 10_000
#: The folders of declarations, and how their files end.
FOLDERS = {
    "events": ".yaml",
    "sources": ".yaml",
    "initiatives": ".yaml",
    "segments": ".yaml",
    "moments": ".yaml",
    "actions": ".yaml",
    "tests": ".yaml",
    "templates": ".liquid",
}

T = TypeVar("T")


class ProjectFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`hetki.toml` as a whole."""

    hetki: Settings
    purposes: dict[str, Purpose]
    categories: dict[str, Category] = {}
    controller: Controller | None = None
    destinations: dict[str, Destination] = {}
    traits: dict[str, Survival] = {}
    household: Household | None = None
    contact: ContactPolicy = ContactPolicy()
    identity: dict[str, NamespaceSpec] = {}
    decisions: Weights = Weights()
    server: Server = Server()


class Case(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One example: events at offsets from its start, and the offsets at which the moment fires.

    An event has `at`, `name`, fields of the catalogue, and if it matters `source` and the other built-ins.
    """

    name: str
    events: list[dict[str, object]]
    fires: list[str]


class Examples(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One `tests/*.yaml`: what must and must not fire a moment."""

    moment: str
    cases: list[Case]


@dataclass(frozen=True, slots=True)
class Folder(Generic[T]):
    """The files of one kind, by path."""

    field: str
    files: dict[str, Declared[T]]

    @property
    def names(self) -> list[str]:
        """The names that files stand for, those of faulty files too: one fault does not make others."""
        stems = [path.rpartition("/")[2].removesuffix(".yaml") for path in self.files]
        return sorted({*stems, *(str(getattr(spec, self.field)) for spec, _ in self.read())})

    def read(self) -> Iterator[tuple[T, Declared[T]]]:
        """Every spec without faults, with its file."""
        for declared in self.files.values():
            if declared.value is not None:
                yield declared.value, declared


@dataclass(frozen=True, slots=True)
class Files:
    """All declarations as read. `templates` holds texts by name and locale ("" if the file has none)."""

    toml: Declared[ProjectFile]
    events: Folder[EventSpec]
    sources: Folder[Source]
    initiatives: Folder[Initiative]
    segments: Folder[SegmentSpec]
    moments: Folder[MomentSpec]
    actions: Folder[Action]
    examples: Folder[Examples]
    templates: dict[str, dict[str, str]]
    faults: list[Fault]
    content_hash: str


class Recording:
    """A shelf that remembers what was read of it. Documents that moments name are remembered as empty."""

    def __init__(self, shelf: Shelf) -> None:
        self._shelf = shelf
        self.texts: dict[str, bytes] = {}

    def read(self, name: str) -> bytes:
        data = self._shelf.read(name)
        is_declaration = name == TOML or name.partition("/")[0] in FOLDERS
        self.texts[name] = data if is_declaration else b""
        return data

    def names(self, pattern: str) -> list[str]:
        return self._shelf.names(pattern)


@dataclass(frozen=True, slots=True)
class Kept:
    """A shelf of files that were kept with their bytes."""

    texts: dict[str, bytes] = field(repr=False)

    def read(self, name: str) -> bytes:
        if name not in self.texts:
            raise NotFound(Fault(name, "no such file", "a file that was kept"))
        return self.texts[name]

    def names(self, pattern: str) -> list[str]:
        return sorted(name for name in self.texts if listed(name, pattern))


#: The kinds of declarations, by the name of their schema: `schema(KINDS["moment"])`.
KINDS: dict[str, type] = {
    "project": ProjectFile,
    "event": EventSpec,
    "source": Source,
    "initiative": Initiative,
    "segment": SegmentSpec,
    "moment": MomentSpec,
    "action": Action,
    "examples": Examples,
}


def fingerprint(shelf: Shelf) -> bytes:
    """A hash of every declaration as it lies there, read or not: whoever watches a folder asks for it."""
    found = blake2b(digest_size=16)
    names = [name for name in shelf.names("*/*") if name.partition("/")[0] in FOLDERS]
    for name in [TOML, *names[:FILES_MAX]]:
        found.update(name.encode() + b"\0" + blake2b(shelf.read(name), digest_size=16).digest())
    return found.digest()


def read_files(disk: Shelf) -> Files:
    """Read every declaration; raises `NotFound` only where there is no `hetki.toml`."""
    reader = _Reader(disk)
    text = reader.text(TOML)
    toml = read_toml(text or "", TOML, ProjectFile)
    names = [name for name in disk.names("*/*") if name.partition("/")[0] in FOLDERS]
    if len(names) > FILES_MAX:
        reader.faults.append(Fault("project", f"{len(names)} files", f"at most {FILES_MAX} declarations"))
        names = names[:FILES_MAX]
    for name in names:
        folder, _, rest = name.partition("/")
        if not rest.endswith(FOLDERS[folder]) and not rest.endswith((".md", ".txt")):
            hint = "rename it" if rest.endswith(".yml") else ""
            reader.faults.append(Fault(name, shown(rest), f"a file that ends in {FOLDERS[folder]}", hint))
    files = Files(
        toml,
        reader.folder(names, "events", EventSpec, "event"),
        reader.folder(names, "sources", Source, "source"),
        reader.folder(names, "initiatives", Initiative, "initiative"),
        reader.folder(names, "segments", SegmentSpec, "segment"),
        reader.folder(names, "moments", MomentSpec, "moment"),
        reader.folder(names, "actions", Action, "action"),
        reader.folder(names, "tests", Examples, "moment"),
        reader.templates(names),
        reader.faults,
        reader.digest(),
    )
    if text is not None:
        reader.faults.extend(toml.faults)
    return files


class _Reader:
    """Reads files, keeping the faults and a hash of what was read."""

    def __init__(self, disk: Shelf) -> None:
        self.disk = disk
        self.faults: list[Fault] = []
        self.hashes: list[bytes] = []

    def text(self, name: str) -> str | None:
        try:
            data = self.disk.read(name)
        except (Invalid, Unavailable) as error:
            self.faults.extend(error.faults)
            return None
        if not name.startswith("tests/"):
            self.hashes.append(blake2b(name.encode() + b"\0" + data, digest_size=16).digest())
        try:
            return data.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            line = data.count(b"\n", 0, error.start) + 1
            byte = data[error.start : error.start + 1]
            self.faults.append(Fault(f"{name}:{line}:1", f"the byte {byte!r}", "text in UTF-8"))
            return None

    def folder(self, names: list[str], folder: str, spec: type[T], field: str) -> Folder[T]:
        found: dict[str, Declared[T]] = {}
        for name in names:
            if not name.startswith(f"{folder}/") or not name.endswith(".yaml"):
                continue
            text = self.text(name)
            if text is None:
                found[name] = Declared(name, "", None, [])
            else:
                found[name] = read(text, name, spec)
                self.faults.extend(found[name].faults)
        return Folder(field, found)

    def templates(self, names: list[str]) -> dict[str, dict[str, str]]:
        found: dict[str, dict[str, str]] = {}
        for name in names:
            if name.startswith("templates/") and name.endswith(".liquid"):
                stem, _, locale = name.removeprefix("templates/").removesuffix(".liquid").partition(".")
                text = self.text(name)
                if text is not None:
                    found.setdefault(stem, {})[locale] = text
        return found

    def digest(self) -> str:
        return blake2b(b"".join(sorted(self.hashes)), digest_size=16).hexdigest()
