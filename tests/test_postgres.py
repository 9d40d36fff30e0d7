"""Customer tables of PostgreSQL, from a real server that is started for these tests.

`scripts/install-test-tools` installs it; where it is missing these tests are skipped and say so.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from adbc_driver_postgresql import dbapi
from test_linking import as_csv, in_systems
from world import World, project, source

from hetki.engine.linking import Wanted, link_tables
from hetki.errors import HetkiError, Invalid, NotFound, Unavailable
from hetki.store.postgres import is_place, read_postgres
from hetki.store.system import SystemDisk


def tool(name: str) -> str | None:
    """A program of the newest PostgreSQL that Debian has installed, or that is on the path."""
    found = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), key=lambda path: int(path.parts[4]))
    return str(found[-1]) if found else shutil.which(name)


@pytest.fixture(scope="module")
def server() -> Iterator[dict[str, str]]:
    """A server that listens on a socket of its own, and the variable that names it."""
    initdb, pg_ctl = tool("initdb"), tool("pg_ctl")
    if initdb is None or pg_ctl is None:
        pytest.skip("no PostgreSQL server here: scripts/install-test-tools installs one")
    as_user = ["runuser", "-u", "postgres", "--"] if os.getuid() == 0 else []
    with tempfile.TemporaryDirectory(prefix="pg", ignore_cleanup_errors=True) as folder:
        os.chmod(folder, 0o777)
        data = f"{folder}/data"
        made = [*as_user, initdb, "-D", data, "-U", "hetki", "-A", "trust", "-N"]
        subprocess.run(made, check=True, capture_output=True)
        options = f"-k {folder} -c listen_addresses='' -F"
        started = [*as_user, pg_ctl, "-D", data, "-o", options, "-w", "-l", f"{folder}/log", "start"]
        subprocess.run(started, check=True, capture_output=True)
        try:
            yield {"CRM_DB": f"postgresql://hetki@/postgres?host={folder}"}
        finally:
            stopped = [*as_user, pg_ctl, "-D", data, "-m", "immediate", "stop"]
            subprocess.run(stopped, check=True, capture_output=True)


def run(server: dict[str, str], *statements: str) -> None:
    with dbapi.connect(server["CRM_DB"]) as connection, connection.cursor() as cursor:
        for statement in statements:
            cursor.execute(statement)
        connection.commit()


def test_plain_columns_are_read_as_text_and_others_are_left_out(server: dict[str, str]) -> None:
    run(
        server,
        'CREATE SCHEMA "Sales"',
        """CREATE TABLE "Sales"."Kunden" (id bigint, name text, born date, paid numeric(9,2), is_new boolean,
        code uuid, age float8, at timestamptz, tags text[], doc jsonb, photo bytea)""",
        """INSERT INTO "Sales"."Kunden" VALUES (1, 'Åke', '1980-01-02', 12.50, true,
        'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11', 40, '2026-03-02T10:00Z', '{a}', '{}', 'x')""",
        """INSERT INTO "Sales"."Kunden" (id, name) VALUES (2, '')""",
    )
    table = read_postgres("env:CRM_DB#Sales.Kunden", server)
    assert table.name == "env:CRM_DB#Sales.Kunden" and table.left_out == ["tags", "doc", "photo"]
    assert table.literal == {"id", "is_new", "age"}
    one, two = table.texts.to_pylist()
    assert one == {
        "id": "1",
        "name": "Åke",
        "born": "1980-01-02",
        "paid": "12.50",
        "is_new": "true",
        "code": "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11",
        "age": "40",
        "at": "2026-03-02T10:00:00+00:00",
    }
    assert {name for name, value in two.items() if value} == {"id"}


def test_a_table_is_linked_as_a_file_is(server: dict[str, str], tmp_path: Path) -> None:
    (rows,) = in_systems(20, 3, "id=C{}")
    (tmp_path / "crm.csv").write_text(as_csv(rows))
    names = ", ".join(f"{name} text" for name in rows[0])
    values = ", ".join(
        "(" + ", ".join("NULL" if v is None else "'" + v.replace("'", "''") + "'" for v in row.values()) + ")"
        for row in rows
    )
    run(server, f"CREATE TABLE crm ({names})", f"INSERT INTO crm VALUES {values}")
    disk, world = SystemDisk(tmp_path), World(project(source("crm", "service")))
    wanted = Wanted([read_postgres("env:CRM_DB#crm", server)], "crm")
    done = link_tables(world.engine, disk, wanted, lambda *_: None)
    assert (done.taken[0].n_new, done.taken[0].roles.row_id) == (20, "id") and done.linked is not None
    found = world.rows("SELECT count(*) FROM nodes WHERE namespace = 'record' AND value LIKE 'crm:C%'")
    assert found == [(20,)]


@pytest.mark.parametrize(
    ("place", "kind", "told"),
    [
        ("env:CRM_DB#nobody", NotFound, "env:CRM_DB#nobody: got no such table"),
        ("env:CRM_DB#no.such", NotFound, "no such table"),
        ('env:CRM_DB#a"; DROP TABLE crm; --', NotFound, "no such table"),
        ("env:CRM_DB", Invalid, "got no table, must be the name of a table behind #"),
        ("env:OTHER_DB#crm", NotFound, "env:OTHER_DB: got no such variable"),
        ("env:FILE#crm", Invalid, "another kind of address"),
        ("env:DEAD#crm", Unavailable, "no connection that holds"),
        ("postgresql://anna:secret@localhost/crm#t", Invalid, "postgresql://localhost/crm: got a password"),
        ("postgresql://localhost/crm?password=secret#t", Invalid, "got a password on the command line"),
    ],
)
def test_what_cannot_be_read_is_told_without_any_password(
    server: dict[str, str], place: str, kind: type[HetkiError], told: str
) -> None:
    dead = "postgresql://anna:secret@localhost:1/crm?connect_timeout=2"
    with pytest.raises(kind) as caught:
        read_postgres(place, {**server, "FILE": "secret.db", "DEAD": dead})
    assert told in str(caught.value) and "secret" not in str(caught.value)


def test_a_table_without_rows_or_without_right_is_told(server: dict[str, str]) -> None:
    run(server, "CREATE TABLE empty (id int)", "CREATE TABLE mine (id int)", "CREATE ROLE guest LOGIN")
    with pytest.raises(Invalid, match="got no rows"):
        read_postgres("env:CRM_DB#empty", server)
    as_guest = {"CRM_DB": server["CRM_DB"].replace("hetki@", "guest@")}
    with pytest.raises(NotFound, match="no right to read it"):
        read_postgres("env:CRM_DB#public.mine", as_guest)


def test_a_place_is_told_from_a_file() -> None:
    assert is_place("env:CRM_DB#t") and is_place("postgresql://localhost/crm#public.t")
    assert not is_place("crm.csv") and not is_place("folder/env/crm.parquet")
