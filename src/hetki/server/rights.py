"""Rights: what the console enters for a customer who restricts, objects or has something corrected."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from hetki.engine.rights import Entered, correction, enter, leaves_of, objection, restriction
from hetki.errors import Fault, Invalid, shown
from hetki.server.desk import Desk
from hetki.server.forms import Form, answered, speaker
from hetki.server.people import present_of


def restrict(desk: Desk, request: Request, form: Form) -> Response:
    """Restrict all processing, or lift a restriction."""
    name, what = speaker(request, form), form.get("what", "restrict")
    if what not in ("restrict", "lift"):
        raise Invalid(Fault("what", shown(what), "restrict or lift"))
    return _entered(desk, request, name, restriction(name, form.get("reason", ""), what == "lift"))


def object_to(desk: Desk, request: Request, form: Form) -> Response:
    """Enter an objection, against one purpose or all that may be objected to."""
    name, purposes = speaker(request, form), desk.engine.project.purposes
    what = objection(purposes, form.get("purpose", ""), name, form.get("reason", ""))
    return _entered(desk, request, name, what)


def rectify(desk: Desk, request: Request, form: Form) -> Response:
    """Correct a trait, or take its corrections back."""
    name, value = speaker(request, form), form.get("value", "").strip()
    text = None if form.get("undo") == "yes" else value
    what = correction(desk.engine.project, form.get("trait", "").strip(), text, name)
    return _entered(desk, request, name, what)


def _entered(desk: Desk, request: Request, name: str, what: Entered) -> Response:
    with desk.views() as views:
        customer = present_of(views, request.path_params["customer"])
        leaves = leaves_of(views, customer)
    position = enter(desk.acceptor().accept, desk.engine.clock, desk.engine.chance, leaves, what)
    return answered(request, f"/customers/{customer.hex()}?after={position}", name)
