"""Households: which customers share one, as their states say. Reads only."""

from __future__ import annotations

import sqlite3

import msgspec

from hetki.events.event import LeafId


class Sharing(msgspec.Struct, frozen=True):
    """Those who share a customer's household, the customer included; none where nobody else does.

    Too many are no household: `is_one` says so, and `customers` are the first of them.
    """

    household: bytes
    customers: list[LeafId]
    is_one: bool


def household_of(db: sqlite3.Connection, customer: LeafId, members_max: int) -> Sharing | None:
    """Who shares the household of a customer; None if nobody does."""
    row = db.execute("SELECT household FROM customers WHERE customer = ?", (customer,)).fetchone()
    if row is None or row[0] is None:
        return None
    rows = db.execute(
        "SELECT customer FROM customers WHERE household = ? ORDER BY customer LIMIT ?",
        (row[0], members_max + 1),
    ).fetchall()
    found = [LeafId(each[0]) for each in rows]
    return Sharing(row[0], found[:members_max], len(found) <= members_max) if len(found) > 1 else None
