"""Ten times overload against the true server: `make torture` runs the whole of `bench/overload.py`.

Its small form, in one process, is in `test_ingest.py`.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
MINUTES = 10 * float(os.environ.get("HETKI_TORTURE", "0"))


@pytest.mark.skipif(not MINUTES, reason="minutes of load; make torture")
def test_the_server_bears_ten_times_what_it_takes() -> None:
    words = [sys.executable, str(ROOT / "bench/overload.py"), "--minutes", str(max(0.5, MINUTES))]
    ran = subprocess.run(words, capture_output=True, text=True)
    print(ran.stdout)
    assert ran.returncode == 0, ran.stdout + ran.stderr
