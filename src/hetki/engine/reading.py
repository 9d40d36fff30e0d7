"""Reading: JSON objects of many events -> the few fields that conditions ask for, all at once.

One text with all objects is decoded in one go, by the same decoder that `events.fields` uses. It skips what
nobody asks for, and what it skips it does not judge: a number out of range anywhere in an object makes the
whole unreadable, so objects with a very long or very large number are decoded one by one.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from operator import attrgetter
from typing import Final

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from hetki.events.fields import json_object
from hetki.patterns.machine import entry, inner

#: Objects in one text.
OBJECTS_MAX: Final = 50_000
#: Digits of a number, and of its exponent, from which on it may be out of range.
LONG_DIGITS: Final = 150

Values = list[object]


def read_fields(texts: pa.Array, names: Sequence[str]) -> list[Values]:
    """The values of some fields of JSON objects, field by field; `None` for one that is missing."""
    columns: list[Values] = [[] for _ in names]
    for start in range(0, len(texts), OBJECTS_MAX):
        for column, values in zip(columns, _read(texts.slice(start, OBJECTS_MAX), tuple(names)), strict=True):
            column += values
    return columns


def _read(texts: pa.Array, names: tuple[str, ...]) -> list[Values]:
    keys, decoder = _decoder(names)
    joined = pc.binary_join(pa.ListArray.from_arrays([0, len(texts)], texts), ",")[0].as_buffer()
    try:
        objects = decoder.decode(b"[" + joined.to_pybytes() + b"]")
    except (msgspec.MsgspecError, RecursionError):
        return _one_by_one(texts, names)
    if len(objects) != len(texts):
        return _one_by_one(texts, names)
    columns = [list(map(attrgetter(key), objects)) for key in keys]
    places = large_numbers(np.frombuffer(joined, np.uint8))
    if len(places):
        ends = np.cumsum(pc.binary_length(texts).to_numpy(zero_copy_only=False) + 1)
        for row in np.unique(np.searchsorted(ends, places, side="right")).tolist():
            read = json_object(texts[row].as_py().encode())
            for column, name in zip(columns, names, strict=True):
                column[row] = read.get(name)
    return columns


def _one_by_one(texts: pa.Array, names: tuple[str, ...]) -> list[Values]:
    objects = [json_object(each.encode()) for each in texts.to_pylist()]
    return [[each.get(name) for each in objects] for name in names]


@lru_cache(maxsize=256)
def _decoder(names: tuple[str, ...]) -> tuple[list[str], msgspec.json.Decoder[list[msgspec.Struct]]]:
    keys = [f"f{number}" for number in range(len(names))]
    fields = [(key, object, None) for key in keys]
    read = msgspec.defstruct("Read", fields, rename=dict(zip(keys, names, strict=True)), gc=False)
    return keys, msgspec.json.Decoder(list[read])  # type: ignore[valid-type]


def large_numbers(text: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Where digits with an exponent of three digits or more, or very many digits, stand in a text."""
    n = _large(text, np.zeros(0, np.int64))
    places = np.zeros(n, np.int64)
    _large(text, places)
    return places


@entry
def _large(text: NDArray[np.uint8], places: NDArray[np.int64]) -> int:
    """How many there are; as many as there is room for are written down."""
    n = 0
    for place in range(1, len(text) - 4):
        if (text[place] | 32) == 101 and _is_digit(text[place - 1]):
            after = place + 2 if text[place + 1] == 43 else place + 1
            if _is_digit(text[after]) and _is_digit(text[after + 1]) and _is_digit(text[after + 2]):
                if n < len(places):
                    places[n] = place
                n += 1
    for place in range(0, len(text) - LONG_DIGITS, LONG_DIGITS // 2):
        run = 0
        while run < LONG_DIGITS // 2 and _is_digit(text[place + run]):
            run += 1
        if run == LONG_DIGITS // 2:
            if n < len(places):
                places[n] = place
            n += 1
    return n


@inner
def _is_digit(byte: int) -> bool:
    return 48 <= byte <= 57
