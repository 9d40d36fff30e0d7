"""Across: checks that compare declarations of different kinds. Each gives its faults, none raises."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from hetki.consent.purpose import category_of, closed_to
from hetki.decisions.action import Action
from hetki.decisions.contact import read_cap, read_quiet_hours
from hetki.declarations.read import Declared
from hetki.dialogues.destination import Destination
from hetki.dialogues.template import Template
from hetki.engine.about import no_account_trait, other_unit
from hetki.engine.files import TOML, Files, Folder, T
from hetki.errors import Fault, Invalid, NotFound, Unavailable, nearest, shown
from hetki.events.catalogue import Catalogue
from hetki.events.event import IDENTIFIED
from hetki.identity.policy import check_policy
from hetki.moments.context import Beside
from hetki.moments.moment import Moment
from hetki.patterns.aggregates import Aggregate
from hetki.patterns.condition import Condition, parse
from hetki.patterns.scope import ACCOUNT, CONTEXT, CUSTOMER
from hetki.patterns.segments import Segments
from hetki.patterns.tree import InSegment, Node, Trait, children
from hetki.settings import ADDRESS_BYTES_MAX, DAY, SECOND
from hetki.store.ports import Shelf

#: What Hetki itself is called as a source, and the candidate that is always there.
RESERVED = {"source": "hetki", "action": "nothing"}

_NAME = re.compile(r"[a-z][a-z0-9_]{0,59}")
_MUST_NAME = "a name of small letters, digits and _, such as late_order"


def check_toml(files: Files) -> list[Fault]:
    """`hetki.toml`: settings, names, destinations, and how often a customer may be contacted."""
    declared, faults = files.toml, []
    if declared.value is None:
        return []
    given = declared.value
    for table, names in (("purposes", given.purposes), ("destinations", given.destinations)):
        for name in names:
            if not _NAME.fullmatch(name):
                faults.append(Fault(declared.where(table, name), shown(name), _MUST_NAME))
    if not given.purposes:
        must = "at least one purpose, such as [purposes.service]"
        faults.append(Fault(f"{TOML}:[purposes]", "no purpose", must))
    if not 0 <= given.hetki.lateness_s <= DAY // SECOND:
        got, must = shown(given.hetki.lateness_s), "seconds from 0 to 86400"
        faults.append(Fault(declared.where("hetki", "lateness_s"), got, must))
    if not _is_zone(given.hetki.time_zone):
        must = "an IANA time zone such as Europe/Helsinki"
        faults.append(Fault(declared.where("hetki", "time_zone"), shown(given.hetki.time_zone), must))
    data = given.hetki.data
    if not data or data.startswith(("/", ".")) or ".." in data.split("/") or not data.isprintable():
        faults.append(Fault(declared.where("hetki", "data"), shown(data), "a folder inside the project"))
    for table, bounds in (("limits", given.hetki.limits), ("connections", given.hetki.connections)):
        for key in bounds.__struct_fields__:
            bound = getattr(bounds, key)
            if isinstance(bound, int) and bound < 1:
                faults.append(Fault(declared.where("hetki", table, key), "less than 1", "1 or more"))
    if given.hetki.limits.body_bytes_max > ADDRESS_BYTES_MAX:
        got = shown(given.hetki.limits.body_bytes_max)
        must = f"at most {ADDRESS_BYTES_MAX}, as all of one address together"
        faults.append(Fault(declared.where("hetki", "limits", "body_bytes_max"), got, must))
    for key in ("customer_weight", "business_weight"):
        if getattr(given.decisions, key) < 0:
            faults.append(Fault(declared.where("decisions", key), "a weight below 0", "0 or more"))
    contact = given.contact
    faults += _unreadable(contact.cap, declared.where("contact", "cap"), read_cap)
    faults += _unreadable(contact.quiet_hours, declared.where("contact", "quiet_hours"), read_quiet_hours)
    faults += check_policy(given.identity, declared.where)
    return faults + _destinations(declared.where, given.destinations)


def check_names(files: Files) -> list[Fault]:
    """Names are well formed, not reserved, and those of their files; events are declared once."""
    faults = _names(files.sources) + _names(files.initiatives) + _names(files.segments)
    faults += _names(files.moments) + _names(files.actions)
    first: dict[str, str] = {}
    for spec, declared in files.events.read():
        if spec.event in first:
            got, must = f"{shown(spec.event)} again", "declared in one file"
            faults.append(Fault(declared.where("event"), got, must, f"the other is {first[spec.event]}"))
        first.setdefault(spec.event, declared.path)
    return faults


def check_sources(files: Files) -> list[Fault]:
    """Sources name known purposes. Their keys are checked in `keys`, how long they keep in `retentions`."""
    faults: list[Fault] = []
    for source, declared in files.sources.read():
        for number, purpose in enumerate(source.purposes):
            faults.extend(_purpose(purpose, files, declared.where("purposes", number)))
    return faults


def check_actions(files: Files, templates: Mapping[str, Template]) -> list[Fault]:
    """Actions name a known purpose, destination and template; what is sent as e-mail has a subject."""
    faults: list[Fault] = []
    toml = files.toml.value
    destinations = toml.destinations if toml else {}
    for action, declared in files.actions.read():
        faults.extend(_purpose(action.purpose, files, declared.where("purpose")))
        if toml is not None:
            where = declared.where("destination")
            faults.extend(_known(action.destination, destinations, where, "destination"))
        faults.extend(_known(action.template, files.templates, declared.where("template"), "template"))
        faults.extend(_unreadable(action.cap, declared.where("cap"), read_cap))
        template = templates.get(action.template)
        destination = destinations.get(action.destination)
        if template and destination and destination.kind == "email" and not template.has_subject:
            must = "a first line 'Subject: ...' and a blank line, as it is sent by e-mail"
            faults.append(Fault(f"templates/{action.template}.liquid:1:1", "no subject", must))
    return faults


def check_moments(files: Files, moments: Mapping[str, Moment], disk: Shelf) -> list[Fault]:
    """Moments name a known purpose, initiative, answers and process, and leave time to answer."""
    faults: list[Fault] = []
    toml = files.toml.value
    for spec, declared in files.moments.read():
        faults.extend(_purpose(spec.purpose, files, declared.where("purpose")))
        if spec.initiative:
            faults.extend(other_unit(spec, declared, files))
            where = declared.where("initiative")
            faults.extend(_known(spec.initiative, files.initiatives.names, where, "initiative"))
        elif spec.moment in files.initiatives.names:
            must = "another name, or the initiative of this name"
            faults.append(Fault(declared.where("moment"), shown(spec.moment), must))
        for number, answer in enumerate(spec.design.answers):
            where = declared.where("design", "answers", number)
            if answer == RESERVED["action"]:
                faults.append(Fault(where, "'nothing'", "an action", "doing nothing is always a candidate"))
            else:
                faults.extend(_known(answer, files.actions.names, where, "action"))
        faults.extend(_document(spec.secure.process, declared.where("secure", "process"), disk))
        moment = moments.get(spec.moment)
        if moment and toml and moment.pattern.ending and moment.expires_s <= toml.hetki.lateness_s:
            where, got = declared.where("identify", "expires"), shown(spec.identify.expires)
            must = f"longer than the lateness of {toml.hetki.lateness_s} seconds, for which its end waits"
            faults.append(Fault(where, got, must))
        if moment and toml:
            for event in sorted(moment.listens):
                if spec.purpose in closed_to(toml.purposes, category_of(toml.categories), event):
                    must = f"events whose category the purpose {shown(spec.purpose)} uses"
                    hint = "add the event to one of its categories in hetki.toml"
                    faults.append(Fault(declared.where("purpose"), shown(event), must, hint))
    return faults


def check_segments(files: Files, segments: Segments, catalogue: Catalogue) -> list[Fault]:
    """Segments name a known purpose and traits of the catalogue."""
    faults: list[Fault] = []
    for spec, declared in files.segments.read():
        faults.extend(_purpose(spec.purpose, files, declared.where("purpose")))
        segment = segments.get(spec.segment)
        if segment is not None:
            faults.extend(_traits(segment.who, catalogue, declared, "who"))
            for each in segment.aggregates:
                if each.name.startswith(f"{spec.segment}."):
                    name = each.name.removeprefix(f"{spec.segment}.")
                    faults.extend(_aggregate_traits(each, catalogue, declared, "aggregates", name))
    return faults


def compile_eligible(
    files: Files, moments: Mapping[str, Moment], catalogue: Catalogue, beside: Beside
) -> tuple[dict[tuple[str, str], Condition], list[Fault]]:
    """The condition of each answer in each moment that has it, by (moment, action)."""
    compiled: dict[tuple[str, str], Condition] = {}
    found: dict[Fault, list[str]] = {}
    for action, declared in files.actions.read():
        if not action.eligible:
            continue
        for moment in _using(action, moments):
            own = [each for each in moment.aggregates if "." not in each.name]
            around = beside.later(own, moment.is_about_account)
            scope = replace(moment.pattern.scope(catalogue), around=around)
            condition, faults = parse(action.eligible, scope, _place(declared, "eligible"))
            if condition is not None:
                compiled[moment.name, action.action] = condition
                faults = _traits(condition, catalogue, declared, "eligible")
            for fault in faults:
                found.setdefault(fault, []).append(moment.name)
    return compiled, [_in_moments(fault, names) for fault, names in found.items()]


def check_templates(
    files: Files, moments: Mapping[str, Moment], templates: Mapping[str, Template], catalogue: Catalogue
) -> list[Fault]:
    """What a template prints exists in every moment whose answers use it."""
    found: dict[Fault, list[str]] = {}
    for action, _ in files.actions.read():
        template = templates.get(action.template)
        for moment in _using(action, moments) if template else ():
            scope = moment.pattern.scope(catalogue)
            for (root, field), where in (template.uses if template else {}).items():
                if root == CUSTOMER:
                    fault = _no_trait(field, where, catalogue)
                elif root == CONTEXT:
                    fault = _not_kept(field, where, moment)
                elif root == ACCOUNT:
                    fault = no_account_trait(field, where, moment, catalogue)
                elif root not in scope.steps:
                    hint = nearest(root, [*scope.steps, CUSTOMER, CONTEXT])
                    fault = Fault(
                        where, shown(root), "an event step of the moment, customer or context", hint
                    )
                elif not scope.of_step(root, field):
                    known = {name for event in scope.steps[root] for name in catalogue.fields(event)}
                    must = f"a field of {' or '.join(scope.steps[root])}"
                    fault = Fault(where, shown(field), must, nearest(field, known))
                else:
                    fault = None
                if fault is not None:
                    found.setdefault(fault, []).append(moment.name)
    return [_in_moments(fault, sorted(set(names))) for fault, names in found.items()]


def check_traits(files: Files, moments: Mapping[str, Moment], catalogue: Catalogue) -> list[Fault]:
    """Traits that the steps of moments ask for are in the catalogue; results never ask for one."""
    faults: list[Fault] = []
    for spec, declared in files.moments.read():
        moment = moments.get(spec.moment)
        if moment is None:
            continue
        if moment.pattern.who:
            faults.extend(_traits(moment.pattern.who, catalogue, declared, "identify", "who"))
        for step, entry in zip(moment.pattern.steps, moment.pattern.keys, strict=True):
            for choice in step.listens:
                if choice.where:
                    keys = ("identify", "steps", *entry)
                    faults.extend(_traits(choice.where, catalogue, declared, *keys))
        for each in moment.aggregates:
            if "." not in each.name:
                faults.extend(
                    _aggregate_traits(each, catalogue, declared, "identify", "aggregates", each.name)
                )
        for key, outcome in (("solved", moment.solved), ("business", moment.business)):
            for choice in outcome.choices if outcome else ():
                if choice.where and traits_of(choice.where):
                    must = "a condition on the event alone, without traits of the customer"
                    faults.append(Fault(declared.where("analyse", key), shown(choice.where.text), must))
    return faults


def _aggregate_traits(
    aggregate: Aggregate, catalogue: Catalogue, declared: Declared[T], *keys: str | int
) -> list[Fault]:
    faults = []
    for choice in aggregate.choices:
        if choice.where:
            faults += _traits(choice.where, catalogue, declared, *keys)
    return faults


def _not_kept(name: str, where: str, moment: Moment) -> Fault | None:
    if name in moment.declared:
        return None
    must = "an entry of the moment's identify: context"
    return Fault(where, shown(f"{CONTEXT}.{name}"), must, nearest(name, moment.declared))


def traits_of(condition: Condition) -> set[str]:
    """The customer's traits that a condition itself reads, without those of segments that it asks for."""
    return {node.name for node in _outside_segments(condition.tree) if isinstance(node, Trait)}


def _outside_segments(node: Node) -> Iterator[Node]:
    yield node
    for child in () if isinstance(node, InSegment) else children(node):
        yield from _outside_segments(child)


def _traits(
    condition: Condition, catalogue: Catalogue, declared: Declared[T], *keys: str | int
) -> list[Fault]:
    faults = []
    for name in sorted(traits_of(condition)):
        fault = _no_trait(name, _trait_where(condition, name, declared, *keys), catalogue)
        if fault is not None:
            faults.append(fault)
    return faults


def _trait_where(condition: Condition, name: str, declared: Declared[T], *keys: str | int) -> str:
    """The place of a trait in the text under `keys`, of which the condition is the whole or a part."""
    node = declared.root
    for key in keys:
        node = node.child(key) if node else None
    found = re.search(rf"{CUSTOMER}\s*\.\s*{re.escape(name)}\b", condition.text)
    start = str(node.scalar).find(condition.text) if node else -1
    return declared.where(*keys, offset=start + found.start() if found and start >= 0 else 0)


def _no_trait(name: str, where: str, catalogue: Catalogue) -> Fault | None:
    traits = catalogue.events[IDENTIFIED].fields
    if name in traits:
        return None
    hint = nearest(name, traits) or f"add it to the fields of '{IDENTIFIED}' in a file in events/"
    return Fault(where, shown(f"customer.{name}"), "a trait of the catalogue", hint)


def _using(action: Action, moments: Mapping[str, Moment]) -> list[Moment]:
    return [moment for moment in moments.values() if action.action in moment.answers]


def _in_moments(fault: Fault, names: list[str]) -> Fault:
    return Fault(fault.where, fault.got, f"{fault.must} (in {', '.join(names)})", fault.hint)


def _document(name: str, where: str, disk: Shelf) -> list[Fault]:
    if not name:
        return []
    try:
        disk.read(name)
    except (NotFound, Invalid, Unavailable):
        beside = disk.names(f"{name.rpartition('/')[0]}/*") if "/" in name else disk.names("*")
        return [Fault(where, shown(name), "a file of the project", nearest(name, beside))]
    return []


def _place(declared: Declared[T], key: str) -> Callable[[int], str]:
    return lambda offset: declared.where(key, offset=offset)


def _purpose(name: str, files: Files, where: str) -> list[Fault]:
    toml = files.toml.value
    return _known(name, toml.purposes, where, "purpose") if toml else []


def _known(name: str, known: Iterable[str], where: str, kind: str) -> list[Fault]:
    known = list(known)
    return [] if name in known else [Fault(where, shown(name), f"a declared {kind}", nearest(name, known))]


def _names(folder: Folder[T]) -> list[Fault]:
    faults = []
    for spec, declared in folder.read():
        name, where = str(getattr(spec, folder.field)), declared.where(folder.field)
        stem = declared.path.rpartition("/")[2].removesuffix(".yaml")
        if not _NAME.fullmatch(name):
            faults.append(Fault(where, shown(name), _MUST_NAME))
        elif name == RESERVED.get(folder.field):
            faults.append(Fault(where, shown(name), "another name, as this one is Hetki's own"))
        elif name != stem:
            faults.append(Fault(where, shown(name), f"{shown(stem)}, as the file is called"))
    return faults


def _unreadable(text: str, where: str, reader: Callable[[str, str], object]) -> list[Fault]:
    """The faults of a written bound, moved to its place; an absent one has none."""
    if not text:
        return []
    try:
        reader(text, where)
    except Invalid as error:
        return [Fault(where, fault.got, fault.must, fault.hint) for fault in error.faults]
    return []


def _is_zone(name: str) -> bool:
    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return False
    return True


def _destinations(where: Callable[..., str], destinations: Mapping[str, Destination]) -> list[Fault]:
    faults: list[Fault] = []
    seen: dict[tuple[str, ...], str] = {}
    for name, given in destinations.items():
        place = where("destinations", name)
        faults.extend(given.faults(place))
        target = (given.kind, given.url, given.server, given.sender)
        if target in seen:
            must = "a place that no other destination has"
            faults.append(Fault(place, f"the same as {shown(seen[target])}", must, "use that one"))
        seen.setdefault(target, name)
    return faults
