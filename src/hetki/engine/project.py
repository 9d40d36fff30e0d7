"""Project: a CX project as the engine uses it. `load` reads a folder, checks all of it, and compiles it.

`files` reads each declaration alone, `across` compares them, and this file puts them together.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import time

from hetki.consent.purpose import Category, Controller, Purpose, purpose_faults
from hetki.consent.source import Source
from hetki.decisions.action import Action, ContactPolicy, Weights
from hetki.decisions.contact import read_cap, read_quiet_hours
from hetki.declarations.tree import in_order
from hetki.dialogues.destination import Destination
from hetki.dialogues.template import Template, parse
from hetki.engine import across
from hetki.engine.files import TOML, Files, Recording, read_files
from hetki.engine.keys import check_keys
from hetki.engine.retentions import check_retentions
from hetki.engine.site import check_site
from hetki.errors import Fault, Invalid
from hetki.events.catalogue import SHIPPED, Catalogue
from hetki.events.event import GROUPED, IDENTIFIED
from hetki.identity.household import Household, household_faults
from hetki.identity.policy import Policy, compile_policy
from hetki.identity.survival import REACH, Survival, survival_faults
from hetki.measurement.initiative import Initiative
from hetki.moments.context import Beside
from hetki.moments.moment import Moment, MomentSpec, compile_moment
from hetki.patterns.aggregates import Aggregate
from hetki.patterns.condition import Condition, asked, step_fields
from hetki.patterns.scope import ACCOUNT, CUSTOMER, RESERVED
from hetki.patterns.segments import Segment, Segments, compile_segments
from hetki.patterns.tree import Trait, walk
from hetki.settings import Server, Settings
from hetki.store.ports import Shelf


@dataclass(frozen=True, slots=True)
class Project:
    """Every declaration by name, checked and compiled. A moment without an initiative is one by itself.

    `eligible` holds the conditions of answers by (moment, action); caps read (n_max, period_s); `traits`
    are the customer's traits that anything refers to, `survival` the rules declared for some of them.
    `content_hash` changes with any byte of any file that can change a result (32 hex characters). `files`
    keeps what was read, with its places, and `texts` every file that was read, so that the same project can
    be loaded again (`Kept`).
    """

    settings: Settings
    server: Server
    purposes: dict[str, Purpose]
    categories: dict[str, Category]
    controller: Controller
    sources: dict[str, Source]
    destinations: dict[str, Destination]
    contact: ContactPolicy
    contact_cap: tuple[int, int] | None
    quiet_hours: tuple[time, time] | None
    weights: Weights
    catalogue: Catalogue
    initiatives: dict[str, Initiative]
    segments: dict[str, Segment]
    moments: dict[str, Moment]
    actions: dict[str, Action]
    action_caps: dict[str, tuple[int, int]]
    templates: dict[str, Template]
    eligible: dict[tuple[str, str], Condition]
    traits: frozenset[str]
    survival: dict[str, Survival]
    household: Household | None
    identity: Policy
    content_hash: str
    files: Files
    texts: dict[str, bytes] = field(repr=False)


def load(shelf: Shelf) -> Project:
    """The project in a folder. Raises `Invalid` with all faults of all files, `NotFound` if there is none."""
    disk = Recording(shelf)
    files = read_files(disk)
    faults = list(files.faults)
    catalogue = catalogue_of(files, faults)
    templates = _templates(files, faults)
    segments, found = compile_segments(files.segments.files.values(), files.segments.names, catalogue)
    faults += found
    purposes = tuple(files.toml.value.purposes) if files.toml.value else None
    beside = Beside(segments, purposes, tuple(catalogue.events[GROUPED].fields))
    moments = _moments(files, catalogue, templates, beside, faults)
    eligible, found = across.compile_eligible(files, moments, catalogue, beside)
    faults += found
    for check in (across.check_toml, check_site, across.check_names, across.check_sources):
        faults += check(files)
    faults += check_keys(files, catalogue) + check_retentions(files, catalogue)
    faults += across.check_actions(files, templates)
    faults += across.check_moments(files, moments, disk)
    faults += across.check_templates(files, moments, templates, catalogue)
    faults += across.check_segments(files, segments, catalogue)
    faults += across.check_traits(files, moments, catalogue)
    faults += _of_tables(files, catalogue)
    if faults:
        raise Invalid(*in_order(list(dict.fromkeys(faults))))
    toml = files.toml.value
    assert toml is not None, "a hetki.toml without faults has a value"
    actions = {spec.action: spec for spec, _ in files.actions.read()}
    cap, quiet = toml.contact.cap, toml.contact.quiet_hours
    return Project(
        settings=toml.hetki,
        server=toml.server,
        purposes=toml.purposes,
        categories=toml.categories,
        controller=toml.controller or Controller(toml.hetki.name),
        sources={spec.source: spec for spec, _ in files.sources.read()},
        destinations=toml.destinations,
        contact=toml.contact,
        contact_cap=read_cap(cap, TOML) if cap else None,
        quiet_hours=read_quiet_hours(quiet, TOML) if quiet else None,
        weights=toml.decisions,
        catalogue=catalogue,
        initiatives={spec.initiative: spec for spec, _ in files.initiatives.read()},
        segments={name: each for name, each in segments.items() if each is not None},
        moments=moments,
        actions=actions,
        action_caps={name: read_cap(each.cap, name) for name, each in actions.items() if each.cap},
        templates=templates,
        eligible=eligible,
        traits=_traits(moments, segments, eligible, templates)
        | toml.traits.keys()
        | _of_household(toml.household),
        survival=toml.traits,
        household=toml.household,
        identity=compile_policy(toml.identity),
        content_hash=files.content_hash,
        files=files,
        texts=disk.texts,
    )


def catalogue_of(files: Files, faults: list[Fault]) -> Catalogue:
    """The shipped catalogue with the project's additions, those without faults; `faults` grows."""
    catalogue = SHIPPED
    for spec, declared in files.events.read():
        try:
            catalogue = catalogue.extended([spec])
        except Invalid as error:
            for fault in error.faults:
                field = fault.where.removeprefix(f"{spec.event}.")
                freed = field.removeprefix("free.")
                if field != freed and freed in spec.free:
                    where = declared.where("free", spec.free.index(freed))
                elif field in spec.fields:
                    where = declared.key("fields", field)
                else:
                    where = declared.where("personal", spec.personal.index(field))
                faults.append(replace(fault, where=where))
    return catalogue


def _templates(files: Files, faults: list[Fault]) -> dict[str, Template]:
    parsed: dict[str, Template] = {}
    for name, texts in files.templates.items():
        template, found = parse(name, texts)
        faults.extend(found)
        if template is not None:
            parsed[name] = template
    return parsed


def _moments(
    files: Files,
    catalogue: Catalogue,
    templates: Mapping[str, Template],
    beside: Beside,
    faults: list[Fault],
) -> dict[str, Moment]:
    compiled: dict[str, Moment] = {}
    for spec, declared in files.moments.read():
        wanted = captures(files, spec, templates)
        asked = asked_of(files, spec, templates)
        moment, found = compile_moment(declared, catalogue, wanted, beside, asked)
        faults.extend(found)
        if moment is not None:
            compiled[moment.name] = replace(moment, initiative=moment.initiative or moment.name)
    return compiled


def _of_tables(files: Files, catalogue: Catalogue) -> list[Fault]:
    """What is wrong with the tables of `hetki.toml` that name events or their fields."""
    given, where = files.toml.value, files.toml.where
    if given is None:
        return []
    fields = {**dict.fromkeys(REACH, "text"), **catalogue.events[IDENTIFIED].fields}
    return [
        *survival_faults(given.traits, fields, files.sources.names, where),
        *household_faults(given.household, fields, where),
        *purpose_faults(given.purposes, given.categories, catalogue.events, where),
    ]


def captures(files: Files, spec: MomentSpec, templates: Mapping[str, Template]) -> set[tuple[str, str]]:
    """The fields of steps that the answers of a moment read, in conditions and templates."""
    wanted: set[tuple[str, str]] = set()
    for action, _ in files.actions.read():
        if action.action in spec.design.answers:
            wanted |= set(step_fields(action.eligible)) if action.eligible else set()
            if action.template in templates:
                wanted |= {use for use in templates[action.template].uses if use[0] not in RESERVED}
    return wanted


def asked_of(files: Files, spec: MomentSpec, templates: Mapping[str, Template]) -> list[str]:
    """What a moment's answers ask for beside steps and traits, in conditions and of the account."""
    actions = [each for each, _ in files.actions.read() if each.action in spec.design.answers]
    found = {name for each in actions for name in asked(each.eligible)}
    for each in actions:
        uses = templates[each.template].uses if each.template in templates else {}
        found |= {f"{root}.{field}" for root, field in uses if root == ACCOUNT}
    return sorted(found)


def _of_household(household: Household | None) -> frozenset[str]:
    return frozenset(household.same if household else ())


def _traits(
    moments: Mapping[str, Moment],
    segments: Segments,
    eligible: Mapping[tuple[str, str], Condition],
    templates: Mapping[str, Template],
) -> frozenset[str]:
    """The customer's traits that any declaration refers to: no other is kept."""
    trees = [condition.tree for condition in eligible.values()]
    aggregates: list[Aggregate] = []
    for moment in moments.values():
        trees += moment.trees
    for segment in segments.values():
        trees += [segment.who.tree] if segment else []
        aggregates += segment.aggregates if segment else []
    trees += [choice.where.tree for each in aggregates for choice in each.choices if choice.where]
    named = {node.name for tree in trees for node in walk(tree) if isinstance(node, Trait)}
    printed = {field for each in templates.values() for root, field in each.uses if root == CUSTOMER}
    return frozenset(named | printed)
