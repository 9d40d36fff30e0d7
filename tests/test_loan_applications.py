"""Loan applications of a real bank: imported whole, backtested, and every count confirmed by plain SQL.

The queries below are written from the moments' definitions over the bank's own table (`c` application,
`a` activity, `t` time, `i` place in the log) and share nothing with the matcher.
"""

from __future__ import annotations

from pathlib import Path

import duckdb
import pytest

from hetki.engine.advance import advance
from hetki.engine.backtest import backtest
from hetki.engine.check import check
from hetki.engine.engine import Engine, open_engine
from hetki.engine.importing import Imported, import_file, load_map
from hetki.engine.project import load
from hetki.settings import DAY, SECOND
from hetki.simulation.world import MemoryDisk, SeededChance, SimulatedClock
from hetki.store.lake import open_lake, refresh
from hetki.store.system import SystemDisk

ROOT = Path(__file__).parent.parent
EXAMPLE = ROOT / "examples" / "loan_applications"
DATA = ROOT.parent / "shared" / "data" / "journeys"
FILE = "bpic2012.parquet"
N_EVENTS, N_APPLICATIONS = 262_200, 13_087

#: Each query gives one row per occurrence: the application, and when it occurred.
CONFIRMED = {
    "offer_unanswered": """
        SELECT c, t + INTERVAL 7 DAY FROM log s WHERE a = 'O_SENT' AND NOT EXISTS (
            SELECT 1 FROM log x WHERE x.c = s.c AND (x.t, x.i) > (s.t, s.i) AND x.t <= s.t + INTERVAL 7 DAY
            AND x.a IN ('O_SENT_BACK', 'O_ACCEPTED', 'O_CANCELLED', 'O_DECLINED',
                        'A_CANCELLED', 'A_DECLINED'))
    """,
    "papers_asked_thrice": """
        WITH call AS (SELECT c, t FROM log WHERE a = 'W_Nabellen incomplete dossiers'),
        two AS (SELECT one.c, one.t AS t1, min(x.t) AS t2 FROM call one JOIN call x
                ON x.c = one.c AND x.t >= one.t + INTERVAL 12 HOUR GROUP BY ALL),
        three AS (SELECT two.c, t1, t2, min(x.t) AS t3 FROM two JOIN call x
                  ON x.c = two.c AND x.t >= two.t2 + INTERVAL 12 HOUR GROUP BY ALL)
        SELECT c, min(t3) FROM three WHERE t3 <= t1 + INTERVAL 14 DAY GROUP BY c
    """,
    "signed_and_waiting": """
        SELECT c, t + INTERVAL 3 DAY FROM log s WHERE a = 'O_SENT_BACK' AND NOT EXISTS (
            SELECT 1 FROM log x WHERE x.c = s.c AND (x.t, x.i) > (s.t, s.i) AND x.t <= s.t + INTERVAL 3 DAY
            AND (x.a IN ('A_APPROVED', 'A_DECLINED', 'A_CANCELLED')
                 OR x.a IN ('W_Valideren aanvraag', 'W_Nabellen incomplete dossiers')
                 AND x.t > s.t + INTERVAL 1 MINUTE))
    """,
    "declined_after_signing": """
        SELECT s.c, min(x.t) FROM log s JOIN log x ON x.c = s.c AND (x.t, x.i) > (s.t, s.i)
        WHERE s.a = 'O_SENT_BACK' AND x.a = 'A_DECLINED' AND x.t <= s.t + INTERVAL 60 DAY AND NOT EXISTS (
            SELECT 1 FROM log y WHERE y.c = s.c AND y.a = 'A_APPROVED'
            AND (y.t, y.i) > (s.t, s.i) AND (y.t, y.i) < (x.t, x.i)) GROUP BY s.c
    """,
    "held_for_a_check": """
        SELECT c, min(t) + INTERVAL 5 DAY FROM log s WHERE a = 'W_Beoordelen fraude' AND NOT EXISTS (
            SELECT 1 FROM log x WHERE x.c = s.c AND (x.t, x.i) > (s.t, s.i) AND x.t <= s.t + INTERVAL 5 DAY
            AND x.a IN ('A_APPROVED', 'A_DECLINED', 'A_CANCELLED')) GROUP BY c
    """,
    "offers_pile_up": """
        WITH RECURSIVE sent AS (
            SELECT c, t AS t1, lead(t, 2) OVER (PARTITION BY c ORDER BY t, i) AS t3
            FROM log WHERE a = 'O_SENT'),
        third AS (SELECT c, t3 FROM sent WHERE t3 <= t1 + INTERVAL 14 DAY),
        fired AS (SELECT c, min(t3) AS t3 FROM third GROUP BY c UNION ALL
                  SELECT f.c, min(x.t3) FROM fired f JOIN third x
                  ON x.c = f.c AND x.t3 >= f.t3 + INTERVAL 14 DAY GROUP BY f.c, f.t3)
        SELECT c, t3 FROM fired
    """,
}


def test_the_project_keeps_every_rule_and_its_examples_fire() -> None:
    checked = check(SystemDisk(EXAMPLE))
    assert checked.faults == [] and checked.notes == []
    assert set(checked.sentences) == set(CONFIRMED) and checked.n_cases >= 2 * len(CONFIRMED)


def test_the_whole_log_is_imported_and_every_moment_is_confirmed(tmp_path: Path) -> None:
    if not (DATA / FILE).exists():
        pytest.skip(
            f"{FILE} is not beside the project: examples/loan_applications/README.md says where it is"
        )
    log = duckdb.connect()
    log.execute("SET TimeZone = 'UTC'")  # else a day is not 24 hours when clocks change
    log.execute(f"CREATE TABLE log AS SELECT * FROM '{DATA / FILE}'")
    engine = imported(tmp_path)
    progress = engine.state.progress()
    assert progress is not None
    found = backtest(open_lake(engine.disk), engine.program, progress.advance_to)
    n_found = {}
    for moment, query in CONFIRMED.items():
        rows = log.sql(f"SELECT c, epoch_us(told_at) FROM ({query}) told(c, told_at)").fetchall()
        told = sorted((whose(engine, each.customer), each.occurrence.occurred_at) for each in found[moment])
        assert told == sorted(rows), moment
        n_found[moment] = len(rows)
    assert n_found == {
        "declined_after_signing": 754,
        "held_for_a_check": 75,
        "offer_unanswered": 4132,
        "offers_pile_up": 275,
        "papers_asked_thrice": 709,
        "signed_and_waiting": 1395,
    }
    live = engine.db.execute("SELECT moment, count(*) FROM occurrences GROUP BY 1").fetchall()
    assert dict(live) == n_found, "what was folded while importing is the same"


def imported(folder: Path) -> Engine:
    """The whole log, through the map, the journal and the fold, into the lake."""
    example = SystemDisk(EXAMPLE)
    project = load(example)
    clock = SimulatedClock(1_356_998_400 * SECOND)  # the year after
    engine = open_engine(project, MemoryDisk(str(folder)), clock, SeededChance(1), {})
    plan = load_map(example, "map.yaml", project)
    assert import_file(engine, SystemDisk(DATA), FILE, plan) == Imported(N_EVENTS, N_EVENTS, 0, 0)
    clock.sleep(DAY // SECOND)
    advance(engine)
    assert engine.state.db.execute("SELECT count(*) FROM customers").fetchone() == (N_APPLICATIONS,)
    assert refresh(engine.disk, engine.journal, engine.state).n_events == N_EVENTS
    return engine


def whose(engine: Engine, customer: bytes) -> str:
    rows = engine.db.execute("SELECT value FROM nodes WHERE customer = ?", (customer,)).fetchall()
    return str(rows[0][0])
