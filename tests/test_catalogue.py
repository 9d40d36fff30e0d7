"""The catalogue: what is shipped, how a project adds to it, and what it may not change."""

from __future__ import annotations

import re

import pytest

from hetki.declarations.read import read
from hetki.errors import Invalid
from hetki.events import event as names
from hetki.events.catalogue import BUILT_IN, SHIPPED, Catalogue, EventSpec, parse_table

#: Names from Segment's published specs, beside the fields that DESIGN's and our examples lean on.
FROM_SEGMENT = {
    "Products Searched": ("query", "text"),
    "Product List Viewed": ("products", "list"),
    "Product Viewed": ("price", "number"),
    "Product Added": ("cart_id", "text"),
    "Product Removed": ("sku", "text"),
    "Cart Viewed": ("products", "list"),
    "Checkout Started": ("value", "number"),
    "Checkout Step Viewed": ("step", "number"),
    "Payment Info Entered": ("payment_method", "text"),
    "Order Completed": ("total", "number"),
    "Order Updated": ("affiliation", "text"),
    "Order Refunded": ("order_id", "text"),
    "Order Cancelled": ("currency", "text"),
    "Promotion Clicked": ("promotion_id", "text"),
    "Coupon Denied": ("reason", "text"),
    "Product Added to Wishlist": ("wishlist_id", "text"),
    "Product Shared": ("share_via", "text"),
    "Product Reviewed": ("rating", "text"),
    "Application Opened": ("from_background", "boolean"),
    "Application Updated": ("previous_version", "text"),
    "Install Attributed": ("campaign", "object"),
    "Push Notification Tapped": ("action", "text"),
    "Email Link Clicked": ("link_url", "text"),
    "Unsubscribed": ("list_id", "text"),
    "Live Chat Conversation Ended": ("conversation_duration", "number"),
    "Account Created": ("account_name", "text"),
    "Signed Up": ("type", "text"),
    "Invite Sent": ("invitee_role", "text"),
    "Trial Started": ("trial_end_date", "time"),
}


@pytest.mark.parametrize("name", FROM_SEGMENT)
def test_segments_names_and_fields_are_known(name: str) -> None:
    field, kind = FROM_SEGMENT[name]
    assert SHIPPED.field_type(name, field) == kind


def test_the_names_that_parsers_give_are_known() -> None:
    given = {names.IDENTIFIED, names.ALIASED, names.GROUPED, names.PAGE_VIEWED, names.SCREEN_VIEWED}
    assert given <= SHIPPED.events.keys()


def test_the_shipped_table_is_well_formed() -> None:
    assert len(SHIPPED.events) > 80
    for name, spec in SHIPPED.events.items():
        assert re.fullmatch(r"[A-Z][A-Za-z0-9-]*( [A-Za-z0-9-]+)*", name), name
        assert not set(spec.fields) & set(BUILT_IN), f"{name} shadows a built-in field"
        assert set(spec.personal) <= set(spec.fields)
        assert all(re.fullmatch(r"[a-z][a-z0-9_]*", field) for field in spec.fields), name


def test_personal_fields_are_marked() -> None:
    assert {"email", "phone", "first_name", "birthday"} <= set(SHIPPED.events["Customer Identified"].personal)
    assert SHIPPED.events["Help Searched"].personal == ["order_id", "query"]
    assert SHIPPED.events["Order Completed"].personal == ["checkout_id", "order_id"]


def test_every_shipped_field_is_personal_or_free_or_holds_what_nobody_declared() -> None:
    singled_out = re.compile(
        r"(user|group|previous|order|cart|message|contact|conversation|agent).*_id|.*(url|email|phone).*"
    )
    for name, spec in SHIPPED.events.items():
        assert not set(spec.personal) & set(spec.free), name
        assert {spec.fields[field] for field in spec.unsaid} <= {"list", "object"}, name
        for field in spec.free:
            assert (
                not singled_out.fullmatch(field) or spec.fields[field] == "boolean" or field == "image_url"
            ), (name, field)


def test_built_in_fields_belong_to_known_events_only() -> None:
    assert SHIPPED.field_type("Help Searched", "device") == "text"
    assert SHIPPED.field_type("Help Searched", "occurred_at") == "time"
    assert SHIPPED.field_type("Help Searched", "colour") is None
    assert SHIPPED.field_type("Help Serched", "device") is None


def test_a_project_adds_events_and_fields() -> None:
    spec = read(
        "event: Offer Sent\nfields: {amount: number}\npersonal: [amount]\n", "e.yaml", EventSpec
    ).value
    assert spec is not None
    more = SHIPPED.extended([spec, EventSpec("Help Searched", fields={"shop": "text"}, personal=["shop"])])
    assert more.field_type("Offer Sent", "amount") == "number"
    assert more.field_type("Help Searched", "shop") == "text"
    assert more.field_type("Help Searched", "n_results") == "integer"
    assert more.events["Help Searched"].personal == ["order_id", "query", "shop"]
    assert more.events["Help Searched"].title == "Help Searched"
    assert SHIPPED.field_type("Offer Sent", "amount") is None, "the shipped catalogue is left alone"


def test_nothing_is_free_unless_somebody_said_so_and_nobody_said_otherwise() -> None:
    added = EventSpec(
        "Offer Sent", fields={"a": "text", "b": "text", "c": "text"}, personal=["b"], free=["a"]
    )
    more = SHIPPED.extended([added, EventSpec("Help Searched", personal=["topic"])])
    assert [field for field in "abcd" if more.is_free("Offer Sent", field)] == ["a"]
    assert more.events["Offer Sent"].unsaid == ["c"]
    assert SHIPPED.is_free("Help Searched", "topic") and not more.is_free("Help Searched", "topic")
    assert not any(
        more.is_free("Offer Snet", field) or more.is_free("Offer Sent", field) for field in BUILT_IN
    )
    with pytest.raises(Invalid) as caught:
        more.extended(
            [
                EventSpec("Offer Sent", free=["b", "d", "channel"]),
                EventSpec("Order Completed", free=["products", "order_id", "total"]),
            ]
        )
    assert [(fault.where, fault.must) for fault in caught.value.faults] == [
        ("Offer Sent.free.b", "a field that is not personal"),
        ("Offer Sent.free.d", "a field of this event to be free"),
        ("Offer Sent.free.channel", "a field of this event to be free"),
        ("Order Completed.free.products", "a field with one value to be free"),
        ("Order Completed.free.order_id", "a field that is not personal"),
    ]


def test_what_a_project_may_not_change_is_said_at_once() -> None:
    with pytest.raises(Invalid) as caught:
        SHIPPED.extended(
            [
                EventSpec("Help Searched", fields={"n_results": "text", "channel": "text"}),
                EventSpec("Offer Sent", fields={"amount": "number"}, personal=["amuont"]),
            ]
        )
    assert [str(fault) for fault in caught.value.faults] == [
        "Help Searched.n_results: got text, must be integer, as the catalogue has it.",
        "Help Searched.channel: got 'channel', must be another name, as every event has a built-in field of "
        "this name.",
        "Offer Sent.amuont: got 'amuont', must be a field of this event to be personal.",
    ]


def test_the_short_form_of_the_table() -> None:
    table = parse_table("# words\n@pair: a b:n!\nThing Done: @pair c:t\n  d:l\nThing Left:\n")
    assert table == Catalogue(
        {
            "Thing Done": EventSpec(
                "Thing Done",
                "Thing Done",
                {"a": "text", "b": "number", "c": "time", "d": "list"},
                ["b"],
                ["a", "c"],
            ),
            "Thing Left": EventSpec("Thing Left", "Thing Left"),
        }
    )
