"""Accounts: moments about all members of a business customer together, and never a merge of them."""

from __future__ import annotations

import random
import shutil
import tempfile
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_backtest import backtested
from test_backtest import live as caught_live
from test_fold_property import command
from world import ORIGIN, World, action, moment, project

from hetki.engine.project import Project
from hetki.events.event import Event
from hetki.settings import SECOND
from hetki.simulation.world import MemoryDisk

PRICING = (
    "one: Help Searched where topic = 'pricing'"
    " | two: Help Searched where topic = 'pricing' and member <> one.member"
    " | three: Help Searched where topic = 'pricing' and member <> one.member and member <> two.member"
)


def about_account(name: str, steps: str, answers: str = "call", more: str = "", **rest: str) -> dict[str, str]:
    """A moment about an account, in no initiative but its own."""
    files = moment(name, steps, answers, more="about: account\n" + more, **rest)
    return {path: text.replace("initiative: keep_our_word\n", "") for path, text in files.items()}


BUYING = about_account("buying", PRICING, more="within: 7 days\nrepeat: once per 30 days")
QUIET = about_account("quiet", "in: Signed In | no more: Signed In, for any 14 days")
PROJECT = project({**BUYING, **QUIET})
JOIN = """
    09:00 web u=anna g=kone Account Joined plan=pro
    09:00 web u=bert g=kone Account Joined
    09:00 web u=cleo g=kone Account Joined
    09:00 web u=dora g=nokia Account Joined
"""
SEARCH = "Help Searched topic=pricing n_results=1"


def test_three_people_of_an_account_search_for_pricing_within_a_week() -> None:
    world = World(PROJECT)
    world.live(JOIN)
    world.live(f"10:00 web u=anna {SEARCH}\n10:05 web u=anna id=again {SEARCH}\n2/10:00 web u=bert {SEARCH}")
    world.live(f"2/11:00 web u=dora {SEARCH}")
    assert world.occurrences("buying") == [], "two people, and one of another account"
    world.live(f"5/10:00 web u=cleo {SEARCH}")
    assert world.occurrences("buying") == ["5/10:00 buying kone: 10:00 2/10:00 5/10:00"]
    assert world.decisions() == ["5/10:00 buying cleo answered call"], "whose event completed it"
    assert world.outbox() == ["5/10:00 call to cleo: waiting"]
    (record,) = world.records()
    assert (record.question.group, record.question.n_members) == ("kone", 3)
    assert len(world.customers()) == 4, "nobody was merged"
    world.assert_rebuilds()
