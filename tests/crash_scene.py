"""The scene of lives on the faulty disk: people, what they tell, declarations, and what a life is about."""

from __future__ import annotations

from functools import cache

import pytest
from world import World, action, event, moment, project

from hetki.engine.advance import advance
from hetki.engine.engine import compile_program, open_engine, version_of
from hetki.engine.files import Kept
from hetki.engine.project import Project, load
from hetki.events.event import Event
from hetki.events.wire import Parsed
from hetki.moments.fold import Program
from hetki.simulation.world import MemoryDisk, SeededChance, SimulatedClock
from hetki.store.ledger import Ledger

BEGINS = "10:00"
#: Once Vera has taken her consent back, nothing may be sent to her for marketing.
VERA, HER_WITHDRAWAL = "vera-kanerva", "withdrawn"
MARKETING = "remind"
PEOPLE, BROWSERS = ("anna-kataja", "bertta-pihlaja"), ("browser-koivu", "browser-paju")
#: Words that are long enough to be found in bytes by nothing but what was told: names, and e-mail addresses.
MAILS = {VERA: "sinivuokko@kauppa.fi", PEOPLE[0]: "kielo.talo@kauppa.fi", PEOPLE[1]: "orvokki@kauppa.fi"}
STRANGER = "browser-tammi"
CANARIES = (VERA, *PEOPLE, *BROWSERS, STRANGER, *MAILS.values())
#: (weight, what is told); `u=` and `a=` say who.
WORDS = (
    (5, "u={u} Help Searched n_results=0"),
    (2, "u={u} a={a} Help Searched n_results=0"),
    (3, "a={a} Help Searched n_results=0"),
    (4, "u={u} Chat Started"),
    (7, "u={u} Product Viewed product_id=p1"),
    (2, "a={a} Product Viewed product_id=p1"),
    (2, "u={u} a={a} Product Added product_id=p1"),
    (1, "u={u} Order Completed order_id=o1"),
    (1, "u={u} a={a} Customer Identified email={m}"),
    (1, "a={a} mail={m} Help Searched n_results=0"),
    (1, "u={u} Consent Granted purpose=marketing"),
)
#: What is told of whom a life erases: by name, or by an address from a browser that may be anybody's.
HERS = (
    "u={u} Product Viewed product_id=p1",
    "u={u} Help Searched n_results=0",
    "u={u} a={a} Product Viewed product_id=p1",
    "a={a} mail={m} Product Viewed product_id=p1",
    "a={a} mail={m} Product Viewed product_id=p1",
)
#: What a life is about, by its seed: it begins like this, and the first strike is aimed at that operation.
STORIES = {
    "tell": "",
    "advance": "tell views",
    "withdraw": "views advance withdraw deliver",
    "late": "searches advance deliver late advance deliver",
    "deliver": "views views advance deliver",
    "said": "tell advance said advance",
    "declare": "views searches advance declare advance",
    "replay": "reject advance replay replay",
    "refresh": "views advance refresh views advance refresh refresh",
    "rebuild": "views advance rebuild",
    "erase": "hers hers advance erase addressed hers deliver advance deliver",
    "forget": "hers advance refresh erase",
    "backup": "hers advance backup views advance restore",
    "restore": "hers views advance backup erase backup views advance deliver restore deliver",
}
#: By name: so a name is in what is waiting to be sent.
GREETED = "Subject: hello\n\nHello, {{ customer.name }}."
GREETING = dict.fromkeys(("templates/call.liquid", "templates/remind.liquid"), GREETED)
AGAIN = moment("again", "a: Product Viewed | b: Product Viewed", "remind", "marketing", "within: 2 hours")
AFTER = moment("after", "m: Message Sent where action = 'call' | no a: Order Tracked, for 5 minutes", "note")


def read_once(patch: pytest.MonkeyPatch) -> None:
    """Have declarations read and compiled once: in each process anew they would come to the same."""
    programs: dict[str, Program] = {}

    def known(ledger: Ledger, version: str) -> Project | None:
        return kept(version) if ledger.declarations(version) is not None else None

    def compiled(project: Project) -> Program:
        version = version_of(project)
        if version not in programs:
            programs[version] = compile_program(project)
        return programs[version]

    def loaded(shelf: Kept) -> Project:
        return next((each for each in projects() if each.texts == shelf.texts), None) or load(shelf)

    patch.setattr("hetki.engine.warming.kept_project", known)
    patch.setattr("hetki.engine.restoring.load", loaded)
    patch.setattr("hetki.engine.engine.compile_program", compiled)
    patch.setattr("hetki.engine.changing.compile_program", compiled)


def merge_early(patch: pytest.MonkeyPatch) -> None:
    """Have two small files of the lake be too many, as a life writes only a few."""
    patch.setattr("hetki.store.lake_files.SMALL_MAX", 1)


def kept(version: str) -> Project | None:
    """The declarations of a version."""
    return next((each for each in projects() if version_of(each) == version), None)


@cache
def projects() -> tuple[Project, Project]:
    """The declarations, and others that have one moment more, one less and one that means something else."""
    help_later = moment("help", "a: Help Searched where n_results = 0 | no c: Chat Started, for 6 minutes")
    files = {**AFTER, **action("note"), **AGAIN, **GREETING}
    seen = moment("seen", "a: Product Viewed", "note", more="repeat: once per 10 minutes")
    return project(files), project({**files, **help_later, **seen, "moments/basket.yaml": None})


@cache
def began() -> tuple[Event, ...]:
    """Who they are, and that they agree to marketing."""
    words = (
        "mail={m} Customer Identified email={m} name={u}",
        "Consent Granted purpose=marketing",
    )
    return tuple(
        event(f"{BEGINS} web u={u} {each.format(u=u, m=MAILS[u])}") for u in (VERA, *PEOPLE) for each in words
    )


@cache
def empty() -> MemoryDisk:
    """Databases with tables and nothing in them."""
    disk = MemoryDisk()
    open_engine(projects()[0], disk, SimulatedClock(0), SeededChance(0), {})
    disk.connect("secrets.db").execute("DELETE FROM keys")
    return disk


@cache
def prepared() -> MemoryDisk:
    """A disk on which everything is made and little has happened: most lives begin here."""
    disk = MemoryDisk()
    engine = World(projects()[0], disk=disk, starts=BEGINS).engine
    engine.acceptor.accept([Parsed(list(began()), [])])
    advance(engine)
    return disk


def repaired(rejected_id: str) -> str:
    """The message id under which a rejected body is told again."""
    return f"r{rejected_id[:8]}"
