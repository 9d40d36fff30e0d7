"""Retentions: checks of how long sources and purposes say that events are kept."""

from __future__ import annotations

from hetki.consent.statements import SPOKEN
from hetki.declarations.durations import seconds
from hetki.engine.files import Files
from hetki.errors import Fault, Invalid, nearest, shown
from hetki.events.catalogue import Catalogue


def check_retentions(files: Files, catalogue: Catalogue) -> list[Fault]:
    """Retentions are durations, of events that the catalogue has and that are no statements of consent."""
    faults: list[Fault] = []
    if files.toml.value is not None:
        for name, purpose in files.toml.value.purposes.items():
            if purpose.retention:
                faults += _faults(purpose.retention, files.toml.where("purposes", name, "retention"))
    for source, declared in files.sources.read():
        faults += _faults(source.retention, declared.where("retention"))
        for name, kept in source.retention_of.items():
            faults += _faults(kept, declared.where("retention_of", name))
            where = declared.key("retention_of", name)
            if name not in catalogue.events:
                hint = nearest(name, catalogue.events)
                faults.append(Fault(where, shown(name), "an event of the catalogue", hint))
            elif name in SPOKEN:
                must, hint = "an event that may be forgotten", "what customers say of consent is kept"
                faults.append(Fault(where, shown(name), must, hint))
    return faults


def _faults(text: str, where: str) -> list[Fault]:
    try:
        if seconds(text, where) > 0:
            return []
    except Invalid as error:
        return list(error.faults)
    return [Fault(where, shown(text), "longer than nothing")]
