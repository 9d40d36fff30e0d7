"""Machine: functions that numba turns into machine code when they are first called, and keeps on disk.

They take whole numbers and arrays, and make no arrays: so nothing is counted, and nothing is freed.
"""

from __future__ import annotations

from typing import Any, Callable, TypeVar

from numba import njit

F = TypeVar("F", bound=Callable[..., object])


def entry(function: F) -> F:
    """A function that Python calls."""
    made: F = njit(cache=True, _nrt=False)(function)  # type: ignore[call-overload]
    return made


def inner(function: F) -> F:
    """A function that only such functions call. It needs no door from Python, which takes longest to make;
    and it is put where it is called, as otherwise every call would copy all that stands in the tables."""
    doorless: dict[str, Any] = {"no_cpython_wrapper": True, "no_cfunc_wrapper": True, "_nrt": False}
    made: F = njit(forceinline=True, **doorless)(function)
    return made
