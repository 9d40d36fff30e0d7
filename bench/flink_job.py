"""The job of `bench/flink.py` that runs in Flink's own environment: A, one or more B, C within an hour.

    python bench/flink_job.py EVENTS.csv FOLDER

Matches are written below the folder. The last line of the output is JSON: CPU-seconds of the Java process and
of this one, from before the job is submitted until it has ended, and since they were started (on Linux).
"""

import json
import os
import sys
from pathlib import Path

from pyflink.table import EnvironmentSettings, TableEnvironment

SOURCE = """
CREATE TABLE events (
    customer INT, id BIGINT, name STRING, at_ms BIGINT,
    told_at AS TO_TIMESTAMP_LTZ(at_ms, 3), WATERMARK FOR told_at AS told_at - INTERVAL '0.001' SECOND
) WITH ('connector' = 'filesystem', 'path' = '{path}', 'format' = 'csv')
"""
SINK = """
CREATE TABLE caught (a_id BIGINT, first_b BIGINT, last_b BIGINT, n_b BIGINT, c_id BIGINT)
WITH ('connector' = 'filesystem', 'path' = '{path}', 'format' = 'csv')
"""
JOB = """
INSERT INTO caught SELECT a_id, first_b, last_b, n_b, c_id FROM events MATCH_RECOGNIZE (
    PARTITION BY customer ORDER BY told_at
    MEASURES A.id AS a_id, FIRST(B.id) AS first_b, LAST(B.id) AS last_b, COUNT(B.id) AS n_b, C.id AS c_id
    ONE ROW PER MATCH AFTER MATCH SKIP PAST LAST ROW
    PATTERN (A B+ C) WITHIN INTERVAL '1' HOUR
    DEFINE A AS A.name = 'A', B AS B.name = 'B', C AS C.name = 'C')
"""


def main() -> None:
    events, folder = sys.argv[1:]
    settings = EnvironmentSettings.in_streaming_mode()
    table = TableEnvironment.create(settings)
    table.get_config().set("parallelism.default", "1")
    table.execute_sql(SOURCE.format(path=events))
    table.execute_sql(SINK.format(path=folder))
    before = cpu_s()
    table.execute_sql(JOB).wait()
    print(json.dumps({"job_s": cpu_s() - before, "whole_s": cpu_s()}))


def cpu_s() -> float:
    """CPU-seconds of this process and of its children, among them the Java process, since their start."""
    ticks = 0
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            _, _, fields = stat.read_text().rpartition(")")
        except OSError:
            continue  # it has ended
        _, parent, *others = fields.split()
        if os.getpid() in (int(stat.parent.name), int(parent)):
            ticks += int(others[9]) + int(others[10])
    return ticks / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    main()
