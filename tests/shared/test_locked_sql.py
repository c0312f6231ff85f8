"""SQL from anyone: it ends, it can be interrupted, and what it returns is bounded."""

import os
import signal
import subprocess
import sys
import time

import pyarrow as pa
import pytest

from sspa.shared import locked_sql
from sspa.shared.errors import UserError
from sspa.shared.locked_sql import run_locked

TABLES = {"t": pa.table({"n": [1, 2, 3], "text": ["a", "b", None]})}
ENDLESS = (
    "SELECT count(*) FROM range(1000000) a, range(1000000) b, range(1000000) c WHERE a.range + b.range = c.range + 7"
)


def test_rows_are_python_values() -> None:
    columns, rows = run_locked("SELECT n, text, n * 1.5 AS x, sum(n) OVER () AS s FROM t ORDER BY n", TABLES)
    assert columns == ["n", "text", "x", "s"]
    assert [(n, text, float(x), s) for n, text, x, s in rows] == [(1, "a", 1.5, 6), (2, "b", 3.0, 6), (3, None, 4.5, 6)]
    assert run_locked("SELECT * FROM t WHERE n > 5", TABLES) == (["n", "text"], [])
    assert run_locked(";", TABLES) == ([], [])


def test_a_query_that_does_not_end_is_stopped() -> None:
    with pytest.raises(UserError, match=r"query stopped after 0\.5 s; .*--seconds"):
        run_locked(ENDLESS, TABLES, seconds=0.5)


@pytest.mark.slow
def test_ctrl_c_stops_it() -> None:
    # The first statement imports what the second needs: within an import the signal may be lost.
    # A shell that starts the tests in the background has them ignore the signal.
    program = f"""
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)
import pyarrow as pa
from sspa.shared.locked_sql import run_locked
tables = {{"t": pa.table({{"n": [1]}})}}
run_locked("SELECT 1", tables)
print("starts", flush=True)
run_locked({ENDLESS!r}, tables, seconds=600)
"""
    command = subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert command.stdout
    command.stdout.readline()
    time.sleep(1)
    os.kill(command.pid, signal.SIGINT)
    try:
        _, messages = command.communicate(timeout=60)
    finally:
        command.kill()
    assert "KeyboardInterrupt" in messages


def test_what_is_fetched_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="more than 256,000,000 characters; add a LIMIT"):
        run_locked("SELECT repeat('a', 100000) FROM range(50000)", TABLES)
    monkeypatch.setattr(locked_sql, "MAX_ROWS", 1000)
    with pytest.raises(UserError, match="more than 1,000 rows"):
        run_locked("SELECT * FROM range(100000)", TABLES)


@pytest.mark.parametrize(
    "sql",
    [
        "COPY t TO 'x.csv'",
        "SELECT * FROM '/etc/passwd'",
        "SELECT * FROM read_text('/etc/passwd')",
        "ATTACH 'x.db'",
        "INSTALL httpfs",
        "SET memory_limit = '100GB'",
        "SELECT * FROM pa",
        "PRAGMA enable_external_access",
    ],
)
def test_nothing_else_is_reached(sql: str) -> None:
    with pytest.raises(UserError, match="query refused"):
        run_locked(sql, TABLES)
