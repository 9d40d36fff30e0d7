"""Acting: what the console writes: commands, and what customers ask for, into the journal, and nothing else.

It is durable when the browser is answered, and in force when the worker has folded it.
"""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from hetki.engine.commands import Unmerge
from hetki.engine.reviewing import command_of, merge_of
from hetki.errors import Conflict, Fault, NotFound
from hetki.errors import shown as quoted
from hetki.events.event import LeafId
from hetki.identity.identifier import NodeId
from hetki.server.desk import Desk, leaf_in
from hetki.server.forms import Form, answered, speaker
from hetki.server.people import QUERY_CHARS_MAX, found_by, present_of
from hetki.server.reviewing import link_of
from hetki.server.rights import object_to, rectify, restrict

TICK = "go back and tick 'although both have ...' if it is one person with two accounts"


def undo(desk: Desk, request: Request, form: Form) -> Response:
    """Take a link back."""
    name, text = speaker(request, form), form.get("link", "")
    link_id = leaf_in(text)
    with desk.views() as views:
        customer = present_of(views, request.path_params["customer"])
        found = views.identities.link(bytes(link_id)) if link_id else None
    if found is None:
        raise NotFound(Fault("link", quoted(text), "the id of a link", "open the page again"))
    if found.revoked_at is not None:
        raise Conflict(Fault("undo", "a link that was taken back before", "one that was not"))
    with desk.acceptor() as acceptor:
        position = acceptor.command(Unmerge(text, name, desk.engine.clock.now()))
    return answered(request, f"/customers/{customer.hex()}/identities?after={position}&link={text}", name)


def merge(desk: Desk, request: Request, form: Form) -> Response:
    """Say that another customer is this one."""
    name, asked = speaker(request, form), form.get("other", "").strip()[:QUERY_CHARS_MAX]
    with desk.views() as views:
        customer = present_of(views, request.path_params["customer"])
        other = _other(customer, asked, {each.customer for each in found_by(desk, views, asked)})
        ends = NodeId(customer), NodeId(other)
        policy, now = desk.engine.project.identity, desk.engine.clock.now()
        command = merge_of(views.state, policy, ends, name, now, _is_ticked(form), TICK)
    with desk.acceptor() as acceptor:
        position = acceptor.command(command)
    address = f"/customers/{customer.hex()}/identities?after={position}&other={other.hex()}"
    return answered(request, address, name)


def _other(customer: LeafId, asked: str, others: set[LeafId]) -> LeafId:
    """The one customer who is meant besides this one. Raises `NotFound` or `Conflict`."""
    where = "the same customer as"
    if not others:
        must, hint = "a name that some event has told", "search by an exact identifier"
        raise NotFound(Fault(where, quoted(asked), must, hint))
    if len(others) > 1:
        got = f"{quoted(asked)}, by which more than one is known"
        raise Conflict(Fault(where, got, "one customer", "give our id, which stands on the customer's page"))
    (other,) = others
    if other == customer:
        raise Conflict(Fault(where, f"{quoted(asked)}, who is this customer already", "another"))
    return other


def _is_ticked(form: Form) -> bool:
    return form.get("despite_unique") == "yes"


def answer(desk: Desk, request: Request, form: Form) -> Response:
    """Say whether two records that wait for review are one customer's, and go on to the next pair."""
    name, policy = speaker(request, form), desk.engine.project.identity
    with desk.views() as views:
        asked = link_of(views, request.path_params["link"])
        now, given = desk.engine.clock.now(), form.get("answer", "")
        command = command_of(views.state, policy, asked, given, name, now, _is_ticked(form), TICK)
        following = views.identities.review_after(asked.link.link_id)
    with desk.acceptor() as acceptor:
        acceptor.command(command)
    address = f"/review/{following.hex()}" if following else "/review"
    return answered(request, f"{address}?answered=1", name)


#: Every path that changes something, and what does it. A form of ours stands behind each.
ACTIONS = {
    "/customers/{customer}/undo": undo,
    "/customers/{customer}/merge": merge,
    "/customers/{customer}/restrict": restrict,
    "/customers/{customer}/object": object_to,
    "/customers/{customer}/rectify": rectify,
    "/review/{link}/answer": answer,
}
