"""Telling: what the words about decisions and moments need of the project and the stores. Reads only."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from hetki.consent.record import Declared, Record, records
from hetki.decisions.question import Decision
from hetki.dialogues.explaining import Used
from hetki.dialogues.joining import why_words
from hetki.dialogues.wording import PLAIN, Titles, survival_words
from hetki.engine.engine import Engine
from hetki.engine.folding import load_histories, read_event
from hetki.engine.history import only
from hetki.engine.project import Project
from hetki.errors import Fault, NotFound, shown
from hetki.events.event import EventId, LeafId
from hetki.identity.account import AccountId, account_id, normalised_group
from hetki.identity.identifier import KNOWN_BY, NodeId, identifier
from hetki.identity.joining import Answer
from hetki.identity.joining import why as why_joined
from hetki.identity.survival import Survival, Word
from hetki.moments.fold import Fact, Folded, Program
from hetki.moments.sentence import step_names
from hetki.moments.why import Why, why
from hetki.patterns.words import words
from hetki.store.accounts import groups_of
from hetki.store.identity_views import Named
from hetki.store.journal import Journal
from hetki.store.views import Views, reading


def titles(project: Project) -> Titles:
    """How everything that the project declares is spoken."""
    conditions = {
        condition.text: words(condition.tree, step_names(project.moments[moment].pattern))
        for (moment, _), condition in project.eligible.items()
    }
    return Titles(
        moments={name: each.title for name, each in project.moments.items()},
        initiatives={name: each.title for name, each in project.initiatives.items()},
        actions={name: each.title for name, each in project.actions.items()},
        purposes={name: each.title for name, each in project.purposes.items()},
        sources={name: each.title or name for name, each in project.sources.items()},
        conditions=conditions,
        time_zone=project.settings.time_zone,
    )


def used_events(views: Views, journal: Journal, decision: Decision) -> list[Used]:
    """The events that a decision rests on, in its order; those that were erased are left out."""
    ids = [EventId(bytes.fromhex(each)) for each in decision.question.data_used]
    places = views.state.places_of(ids)
    stored = journal.entries([places[each] for each in ids if each in places])
    owners = views.identities.nodes(NodeId(each.leaf) for each in stored)
    used = []
    for each in stored:
        event = read_event(each)
        if event is not None:
            owner = owner_words(owners.get(NodeId(each.leaf)))
            used.append(Used(event.name, event.source, event.occurred_at, owner))
    return used


def why_moment(engine: Engine, unit: LeafId, name: str) -> Why:
    """What one moment made of a customer's or an account's whole history, up to the engine's time.

    Raises `NotFound` for a moment that is not declared, or that is not about such a one.
    """
    program = only(engine.program, [name])
    progress = engine.state.progress()
    advance_to = progress.advance_to if progress is not None else 0
    for _, of_unit, whole in load_histories(engine.journal, engine.state, program, [unit]):
        if not of_unit.moments:
            about = "customers" if of_unit.account else "accounts"
            must = "a moment about " + ("accounts" if of_unit.account else "customers")
            raise NotFound(Fault("moment", f"{shown(name)}, which is about {about}", must))
        return why(of_unit, whole.batch, advance_to, whole.staffing)
    return why(program, [], advance_to)


def find_account(engine: Engine, name: str) -> AccountId:
    """The account that a group id or a hex id names. Raises `NotFound`."""
    group = normalised_group(name)
    ids = [account_id(engine.keys.node, group)] if group else []
    try:
        ids.append(AccountId(bytes.fromhex(name)))
    except ValueError:
        pass
    for found in groups_of(engine.db, ids):
        return found
    hint = "hetki account lists the largest"
    raise NotFound(Fault("account", shown(name), "a group id that some event has told", hint))


class Trait(msgspec.Struct, frozen=True):
    """What is known of one trait of a customer: the word that stands (None: all is taken back) and by which
    rule, and the `others`, the latest first, of which `n_dropped` are not kept."""

    name: str
    word: Word | None
    rule: str
    others: list[Word]
    n_dropped: int


def known_traits(program: Program, folded: Folded, titles: Titles = PLAIN) -> list[Trait]:
    """The traits of a customer with who told them, by name."""
    found = []
    for name, heard in sorted(folded.heard.items()):
        others = [each for each in reversed(heard.words) if each is not heard.word]
        rule = survival_words(program.traits.get(name, Survival()), titles)
        if heard.word is not None and heard.word.is_correction:
            rule = "corrected, over what sources tell"
        found.append(Trait(name, heard.word, rule, others, heard.n_dropped))
    return found


def answer(views: Views, a: Named, b: Named) -> Answer:
    """Why two identifiers are one customer's, or are not."""
    members = views.state.members([a.customer, b.customer])
    ours, theirs = (set(members.get(each.customer, {})) for each in (a, b))
    is_one = b.node in ours
    links = views.identities.links(ours) if is_one else views.identities.links_between(ours, theirs)
    return why_joined(links, a.node, b.node, ours, theirs)


def why_one(engine: Engine, a: NodeId, b: NodeId) -> list[str]:
    """The same in words. Raises `KeyError` for nodes that are not known."""
    with reading(engine.disk) as views:
        named = views.identities.nodes([a, b])
        told = answer(views, named[a], named[b])
        nodes = {node for each in told.links for node in each.ends}
        names = {node: owner_words(each) for node, each in views.identities.nodes({a, b, *nodes}).items()}
    return why_words(told, names[a], names[b], names, engine.project.settings.time_zone)


def meant(engine: Engine, text: str) -> list[NodeId]:
    """The identifiers that a person may mean by a text: in every namespace that the project knows, best
    known first, and our own id."""
    spaces = dict.fromkeys((*KNOWN_BY, *engine.project.identity.rules))
    found = [each.node for space in spaces if (each := identifier(engine.keys.node, space, text))]
    try:
        return [*found, NodeId(bytes.fromhex(text.strip()))]
    except ValueError:
        return found


def history_of(engine: Engine, views: Views, facts: Sequence[Fact]) -> list[Record]:
    """Every statement of a customer's events, in order, as records of consent."""
    owners = views.identities.nodes({NodeId(fact.leaf) for fact in facts})
    words = {leaf: owner_words(owner) for leaf, owner in owners.items()}
    told = [
        (words.get(NodeId(fact.leaf), fact.leaf.hex()), fact.event_id.hex(), fact.event)
        for fact in sorted(facts, key=lambda fact: fact.order_key)
    ]
    return records(told, Declared(engine.project.purposes, engine.project.controller))


def owner_words(owner: Named | None) -> str:
    """Whose data it is, by the identifier that owns it."""
    if owner is None or owner.namespace == "event":
        return "nobody who is known"
    return f"{owner.namespace.replace('_', ' ')} {owner.value}"
