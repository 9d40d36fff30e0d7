"""Acting: what the console writes: commands into the journal, and nothing else.

A command is durable when the browser is answered, and in force when the worker has folded it.
"""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from hetki.engine.commands import Merge, Unmerge
from hetki.errors import Conflict, Fault, NotFound
from hetki.errors import shown as quoted
from hetki.server.desk import Desk, leaf_in
from hetki.server.forms import Form, answered, speaker
from hetki.server.people import QUERY_CHARS_MAX, found_by, present_of


def undo(desk: Desk, request: Request, form: Form) -> Response:
    """Take a link back."""
    name, text = speaker(form), form.get("link", "")
    link_id = leaf_in(text)
    with desk.views() as views:
        customer = present_of(views, request.path_params["customer"])
        found = views.identities.link(bytes(link_id)) if link_id else None
    if found is None:
        raise NotFound(Fault("link", quoted(text), "the id of a link", "open the page again"))
    if found.revoked_at is not None:
        raise Conflict(Fault("undo", "a link that was taken back before", "one that was not"))
    position = desk.acceptor().command(Unmerge(text, name, desk.engine.clock.now()))
    return answered(request, f"/customers/{customer.hex()}/identities?after={position}&link={text}", name)


def merge(desk: Desk, request: Request, form: Form) -> Response:
    """Say that another customer is this one."""
    name, asked = speaker(form), form.get("other", "").strip()[:QUERY_CHARS_MAX]
    with desk.views() as views:
        customer = present_of(views, request.path_params["customer"])
        others = {each.customer for each in found_by(desk, views, asked)}
    if not others:
        hint = "search by an exact identifier"
        raise NotFound(Fault("the same customer as", quoted(asked), "a name that some event has told", hint))
    if len(others) > 1:
        hint = "give our id, which stands on the customer's page"
        raise Conflict(
            Fault(
                "the same customer as",
                f"{quoted(asked)}, by which more than one is known",
                "one customer",
                hint,
            )
        )
    (other,) = others
    if other == customer:
        raise Conflict(
            Fault("the same customer as", f"{quoted(asked)}, who is this customer already", "another")
        )
    despite_unique = form.get("despite_unique") == "yes"
    now = desk.engine.clock.now()
    position = desk.acceptor().command(Merge(customer.hex(), other.hex(), name, now, despite_unique))
    return answered(
        request, f"/customers/{customer.hex()}/identities?after={position}&other={other.hex()}", name
    )


#: Every path that changes something, and what does it. A form of ours stands behind each.
ACTIONS = {
    "/customers/{customer}/undo": undo,
    "/customers/{customer}/merge": merge,
}
