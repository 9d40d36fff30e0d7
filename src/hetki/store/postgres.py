"""PostgreSQL: a customer table read whole, through ADBC, as Arrow.

A place is `env:NAME#schema.table`, where the environment variable NAME holds the server's address with its
password, so that no password stands on a command line; or `postgresql://host/database#schema.table` where the
server asks for none (or libpq finds it, as in ~/.pgpass).
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import pyarrow as pa
from adbc_driver_manager import Error
from adbc_driver_postgresql import dbapi

from hetki.errors import Fault, HetkiError, Invalid, NotFound, Unavailable
from hetki.store.tables import Table, as_rows, gathered, plain_columns

_PLACE = re.compile(r"(env:[^#]+|postgres(?:ql)?://[^#]+)(?:#(.*))?", re.DOTALL)
_PASSWORD = re.compile(r"//[^/@]*:[^/]*@|[?&]password=")
_FORM = "env:NAME#schema.table"
#: How long a server may take to let us in.
CONNECT_S = 10
#: What PostgreSQL's own codes mean to who asked for a table.
_CODES = {
    "42P01": ("no such table", "an existing table", "name its schema too"),
    "3F000": ("no such schema", "an existing schema", ""),
    "42501": ("no right to read it", "a table that this user may read", "GRANT SELECT"),
}


def is_place(name: str) -> bool:
    """Whether a table's name is a place in PostgreSQL rather than a file."""
    return _PLACE.fullmatch(name) is not None


def read_postgres(place: str, environment: Mapping[str, str]) -> Table:
    """A table of a PostgreSQL server, read in one transaction.

    Raises `Invalid` for a place that is none, `NotFound` for a table or variable that is not there,
    `Unavailable` if the server cannot be reached or breaks off.
    """
    found = _PLACE.fullmatch(place)
    assert found is not None, "the caller has asked whether it is a place"
    address, named = found[1], found[2] or ""
    name = f"{_without_secrets(address)}#{named}"
    schema, dot, table = named.rpartition(".")
    if not table or (dot and not schema):
        raise Invalid(Fault(name, "no table", f"the name of a table behind #, as {_FORM}"))
    url = _url(address, environment)
    query = "SELECT * FROM " + ".".join(_quoted(each) for each in filter(None, (schema, table)))
    try:
        with dbapi.connect(url) as connection, connection.cursor() as cursor:
            cursor.execute("SET TRANSACTION READ ONLY")
            cursor.execute(query)
            reader: pa.RecordBatchReader = cursor.fetch_record_batch()
            plain, literal, left_out = plain_columns(reader.schema)
            return gathered(name, plain, literal, left_out, as_rows(reader, name))
    except (Error, pa.ArrowException, OSError) as error:
        raise _explained(name, getattr(error, "sqlstate", None)) from None


def _explained(name: str, code: str | None) -> HetkiError:
    """What went wrong, in our words: what a server says may repeat the address with its password."""
    if code in _CODES:
        got, must, hint = _CODES[code]
        return NotFound(Fault(name, got, must, hint))
    if code is not None:
        return Unavailable(Fault(name, f"the server's error {code}", "a table that can be read"))
    hint = "is the address right, does the server run, does it let this user in"
    return Unavailable(Fault(name, "no connection that holds", "a PostgreSQL server that answers", hint))


def _url(address: str, environment: Mapping[str, str]) -> str:
    """The server's address, which waits no longer than it must. Raises `NotFound`, `Invalid`."""
    kind, _, variable = address.partition(":")
    if kind != "env":
        if _PASSWORD.search(address):
            hint = "others see command lines, and histories keep them"
            must = f"in an environment variable: {_FORM}"
            raise Invalid(Fault(_without_secrets(address), "a password on the command line", must, hint))
        url = address
    elif variable not in environment:
        raise NotFound(
            Fault(address, "no such variable", "an environment variable with the server's address")
        )
    else:
        url = environment[variable]
    if not url.startswith(("postgresql://", "postgres://")):
        raise Invalid(Fault(address, "another kind of address", "postgresql://user:password@host/database"))
    if "connect_timeout=" in url:
        return url
    return f"{url}{'&' if '?' in url else '?'}connect_timeout={CONNECT_S}"


def _without_secrets(address: str) -> str:
    """An address as it may be shown: without user and password, and without parameters."""
    return re.sub(r"//[^/]*@", "//", address).partition("?")[0]


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
