"""SQL over in-memory tables, with DuckDB locked down: a query may be the user's own, or copied from anywhere."""

import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from sspa.shared.errors import UserError

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa

MEMORY = "1GB"
THREADS = 2
SECONDS = 60.0
# Fetched rows no longer count towards DuckDB's memory limit.
MAX_ROWS = 1_000_000
MAX_CHARACTERS = 256_000_000
_CHUNK = 100
# Of a value that is no text, about.
_CELL = 16

Rows = tuple[list[str], list[tuple[Any, ...]]]


def run_locked(
    sql: str, tables: Mapping[str, "pa.Table"], views: Mapping[str, str] | None = None, seconds: float = SECONDS
) -> Rows:
    """Run one SQL statement over the tables, and over views made from them.

    DuckDB cannot open files (not even to spill), reach the network, load extensions or change these settings. Ctrl-C
    interrupts it at once.

    Returns:
        Column names and rows.

    Raises:
        UserError: DuckDB rejects the statement, it takes longer than `seconds`, or it returns more than `MAX_ROWS` rows
            or `MAX_CHARACTERS` of text.
    """
    import duckdb

    with duckdb.connect(":memory:") as database:
        for name, table in tables.items():
            database.register(name, table)
        for name, definition in (views or {}).items():
            database.execute(f"CREATE VIEW {name} AS {definition}")
        database.execute("SET temp_directory = ''")
        database.execute("SET python_enable_replacements = false")
        database.execute("SET enable_external_access = false")
        database.execute(f"SET memory_limit = '{MEMORY}'")
        database.execute(f"SET threads = {THREADS}")
        database.execute("SET lock_configuration = true")
        try:
            return _interruptible(database, sql, seconds)
        except duckdb.Error as error:
            message = " ".join(str(error).split())
            there = ", ".join((*tables, *(views or {})))
            raise UserError(f"query refused: {message[:300]}; tables: {there}") from error


def _interruptible(database: "duckdb.DuckDBPyConnection", sql: str, seconds: float) -> Rows:
    """Run the statement in a thread of its own: in the main one, Ctrl-C would wait for DuckDB to come back."""
    found: list[Rows] = []
    failed: list[BaseException] = []

    def work() -> None:
        try:
            found.append(_fetched(database, sql))
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        thread.join(seconds)
        late = thread.is_alive()
    finally:
        # Repeated, since an interrupt before the statement has begun is lost.
        while thread.is_alive():
            database.interrupt()
            thread.join(0.1)
    if late:
        raise UserError(f"query stopped after {seconds:g} s; make it simpler, or raise the limit with --seconds")
    if failed:
        raise failed[0]
    return found[0]


def _fetched(database: "duckdb.DuckDBPyConnection", sql: str) -> Rows:
    result = database.execute(sql)
    if result is None or result.description is None:  # nothing but semicolons, or nothing to return
        return [], []
    columns = [column[0] for column in result.description]
    rows: list[tuple[Any, ...]] = []
    size = 0
    while chunk := result.fetchmany(_CHUNK):
        rows += chunk
        size += sum(len(value) if isinstance(value, str | bytes) else _CELL for row in chunk for value in row)
        if len(rows) > MAX_ROWS:
            raise UserError(f"query returns more than {MAX_ROWS:,} rows; add a LIMIT or a WHERE")
        if size > MAX_CHARACTERS:
            raise UserError(f"query returns more than {MAX_CHARACTERS:,} characters; add a LIMIT or name columns")
    return columns, rows
