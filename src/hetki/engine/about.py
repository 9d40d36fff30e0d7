"""About: checks of moments about accounts, and of what is said of accounts in others."""

from __future__ import annotations

from hetki.declarations.read import Declared
from hetki.engine.files import Files
from hetki.errors import Fault, nearest, shown
from hetki.events.catalogue import Catalogue
from hetki.events.event import GROUPED
from hetki.moments.moment import Moment, MomentSpec
from hetki.patterns.scope import ACCOUNT


def other_unit(spec: MomentSpec, declared: Declared[MomentSpec], files: Files) -> list[Fault]:
    """Arms are drawn once for each unit of an initiative, so that its moments must be about one kind."""
    others = sorted(
        other.moment
        for other, _ in files.moments.read()
        if other.initiative == spec.initiative and other.identify.about == "customer"
    )
    if spec.identify.about == "customer" or not others:
        return []
    must = f"in an initiative of moments about accounts alone, and {shown(others[0])} is about customers"
    hint = "give it another initiative, or none: arms are drawn for accounts there, and for customers here"
    return [Fault(declared.where("initiative"), shown(spec.initiative), must, hint)]


def no_account_trait(name: str, where: str, moment: Moment, catalogue: Catalogue) -> Fault | None:
    """Why a template cannot print a trait of the account in a moment; None if it can."""
    if not moment.is_about_account:
        must = "a step, customer or context, as this moment is not about an account"
        return Fault(where, shown(f"{ACCOUNT}.{name}"), must)
    traits = catalogue.events[GROUPED].fields
    if name in traits:
        return None
    hint = nearest(name, traits) or f"add it to the fields of '{GROUPED}' in a file in events/"
    return Fault(where, shown(f"{ACCOUNT}.{name}"), "a trait of an account in the catalogue", hint)
