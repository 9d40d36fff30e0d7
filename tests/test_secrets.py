"""Secrets show nothing of themselves: however what holds one is printed, formatted, raised or logged.

Every object that an open project leads to is walked, with secrets that are known here; and every type whose
fields are called like a secret must be among those that were, or say why it is none.
"""

from __future__ import annotations

import dataclasses
import importlib
import logging
import pkgutil
import re
from collections.abc import Collection, Iterator, Mapping

import pytest
from world import SECRET, TOML, World, project

import hetki
from hetki.dialogues.destination import Destination
from hetki.engine.accept import Keys
from hetki.engine.engine import Engine
from hetki.engine.files import Kept
from hetki.engine.keys import Made
from hetki.engine.project import load
from hetki.errors import Fault, Invalid
from hetki.server.ingest import WriteKey
from hetki.server.logs import Line
from hetki.server.mine import Opened
from hetki.simulation.world import MemoryDisk

TOKEN = "t0ken" * 12
ADDRESS = "http://localhost:9/app?token=in-the-address"
#: Names of fields that may hold a secret.
LIKE_A_SECRET = re.compile(r"(.*_)?(secrets?|token|password|key|keys|environment|url)")
#: Types with such a field that holds none, and why.
NO_SECRET = {
    "hetki.consent.source.Source": "digests of write keys",
    "hetki.engine.backup.BackedUp": "the name of a folder",
    "hetki.engine.manifests.Manifest": "a public key",
    "hetki.engine.manifests.SecretsManifest": "names of files, and a public key",
    "hetki.engine.receipts.Receipt": "a public key",
    "hetki.engine.restoring.Opened": "names of files",
    "hetki.identity.blocking.Rule": "names of columns",
    "hetki.identity.columns.Column": "the name of a column",
    "hetki.moments.fold.Folded": "by which events are ordered",
    "hetki.patterns.run.Seen": "by which events are ordered",
    "hetki.patterns.run.Match": "the field by which repeats are told",
    "hetki.patterns.sequence.Pattern": "names of fields",
    "hetki.patterns.staffing.Report": "by which events are ordered",
    "hetki.patterns.texts.Reading": "names of fields",
    "hetki.patterns.tree.Known": "the name of a field",
}
#: Types that hold a secret, and show none.
HOLDERS = (Destination, Engine, Made, Opened, WriteKey)


def shown(thing: object) -> Iterator[str]:
    """All the ways in which a thing is put into words."""
    yield repr(thing)
    yield str(thing)
    yield f"{thing}"
    yield "%r %s" % (thing, thing)  # noqa: UP031
    try:
        raise ValueError(thing)
    except ValueError as error:
        caught = (type(error), error, error.__traceback__)
        record = logging.LogRecord("hetki.a", logging.ERROR, "a.py", 1, "a=%s", (thing,), caught)
        yield logging.Formatter().format(record)
        yield Line().format(record)


def reached(thing: object, seen: dict[int, object]) -> Iterator[object]:
    """What is ours among all that a thing leads to by its fields and members."""
    if id(thing) in seen or isinstance(thing, str | bytes | int | float | type):
        return
    seen[id(thing)] = thing
    inner: Collection[object] = ()
    if isinstance(thing, Mapping):
        inner = [*thing.keys(), *thing.values()]
    elif isinstance(thing, list | tuple | set | frozenset):
        inner = thing
    elif type(thing).__module__.startswith("hetki."):
        yield thing
        names = {*getattr(thing, "__dict__", ()), *getattr(thing, "__struct_fields__", ())}
        for kind in type(thing).__mro__:
            slots = kind.__dict__.get("__slots__", ())
            names |= {slots} if isinstance(slots, str) else set(slots)
        inner = [getattr(thing, name) for name in names if hasattr(thing, name)]
    for each in inner:
        yield from reached(each, seen)


@pytest.fixture(scope="module")
def engine() -> Engine:
    toml = TOML.replace('url = "http://localhost:9/app"', f'url = "{ADDRESS}"')
    world = World(project({"hetki.toml": toml}))
    world.environment["APP_SECRET"] = TOKEN
    world.live("10:00 web u=anna mail=anna@kauppa.fi Help Searched n_results=0")
    return world.engine


def forms(engine: Engine) -> set[str]:
    """Every secret, in the words in which it might be seen."""
    raw = [engine.keys.event, engine.keys.node]
    raw += [row[0] for row in engine.journal.secrets._db.execute("SELECT secret FROM leaves")]
    raw += [row[0] for row in engine.journal.secrets._db.execute("SELECT secret FROM periods")]
    assert len(raw) >= 4
    told = {SECRET, SECRET.removeprefix("whsec_"), TOKEN, "in-the-address"}
    return told | {each.hex() for each in raw} | {repr(each)[2:-1] for each in raw}


def test_nothing_that_holds_a_secret_shows_it(engine: Engine) -> None:
    secrets, seen = forms(engine), dict[int, object]()
    disk = MemoryDisk()
    for name, text in engine.project.texts.items():
        disk.write(name, text)
    roots = [
        *(engine, load(disk), Kept(engine.project.texts), engine.journal.secrets),
        *(Made(TOKEN, "a.yaml", engine.project.sources["web"]), Opened(TOKEN, b""), WriteKey(TOKEN)),  # type: ignore[arg-type]
    ]
    n = 0
    for root in roots:
        for thing in reached(root, seen):
            n += 1
            for text in shown(thing):
                assert not [each for each in secrets if each in text], type(thing)
    found = {type(each) for each in seen.values()}
    assert n > 300 and {*HOLDERS, Keys, Kept} <= found
    assert ADDRESS in [each.url for each in seen.values() if isinstance(each, Destination)]
    for told in ({"secret": SECRET}, Fault("a", SECRET, "b"), Invalid(Fault("a", SECRET, "b"))):
        assert any(SECRET in text for text in shown(told)), "not every way in words was looked at"


def test_every_type_with_a_field_like_a_secret_was_looked_at() -> None:
    found = set()
    for info in pkgutil.walk_packages(hetki.__path__, "hetki."):
        module = importlib.import_module(info.name) if not info.name.endswith("__main__") else hetki
        for name, kind in vars(module).items():
            if not isinstance(kind, type) or kind.__module__ != info.name:
                continue
            fields = set(getattr(kind, "__struct_fields__", ()))
            fields |= (
                {each.name for each in dataclasses.fields(kind)} if dataclasses.is_dataclass(kind) else set()
            )
            if any(LIKE_A_SECRET.fullmatch(each) for each in fields):
                found.add(f"{info.name}.{name}")
    assert found == {*NO_SECRET, *(f"{each.__module__}.{each.__qualname__}" for each in HOLDERS)}


@pytest.mark.parametrize("secret", ["whsec_c2hvcnQ=", "plain password", "env:", f"{SECRET} whsec_?"])
def test_a_secret_that_is_refused_is_not_said_back(secret: str) -> None:
    toml = TOML.replace(SECRET, secret)
    with pytest.raises(Invalid) as refused:
        project({"hetki.toml": toml})
    assert secret not in str(refused.value) and SECRET not in str(refused.value)
