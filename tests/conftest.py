"""What all tests share: how Hypothesis searches, what the collector of garbage may leave alone, which texts
were read already, and the process that commands are forked from."""

from __future__ import annotations

import gc
import os
from functools import lru_cache

import pytest
from hypothesis import settings
from line import ADDRESS
from serving import Forking

from hetki.declarations.read import read
from hetki.engine import files
from hetki.store.system import collect_rarely

settings.register_profile("desk", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "desk")

# The projects of the tests differ in a file or two, and a text read twice is the same: it is frozen.
files.read = lru_cache(4_000)(read)  # type: ignore[assignment]


def pytest_collection_finish() -> None:
    """What is loaded by now lasts until the end, so no collection needs to walk it: a million objects."""
    collect_rarely()
    gc.collect()
    gc.freeze()


def pytest_configure(config: pytest.Config) -> None:
    """One process forks the commands of all tests, those of every worker of the run; it loads them when the
    first is called."""
    config.add_cleanup(gc.unfreeze)
    if ADDRESS not in os.environ:  # a worker has it from whoever started it
        forking = Forking()
        os.environ[ADDRESS] = forking.address
        config.add_cleanup(forking.stop)
