"""SQL over in-memory tables, with DuckDB locked down: a query may be the user's own, or copied from anywhere."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from sspa.shared.errors import UserError

if TYPE_CHECKING:
    import pyarrow as pa

MEMORY = "1GB"
THREADS = 2
# Fetched rows no longer count towards DuckDB's memory limit.
MAX_ROWS = 1_000_000


def run_locked(
    sql: str, tables: Mapping[str, "pa.Table"], views: Mapping[str, str] | None = None
) -> tuple[list[str], list[tuple[Any, ...]]]:
    """Run one SQL statement over the tables, and over views made from them.

    DuckDB cannot open files (not even to spill), reach the network, load extensions or change these settings.

    Returns:
        Column names and rows.

    Raises:
        UserError: DuckDB rejects the statement, or it returns more than `MAX_ROWS` rows.
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
            result = database.execute(sql)
            if result.description is None:
                return [], []
            columns = [column[0] for column in result.description]
            rows = result.fetchmany(MAX_ROWS + 1)
        except duckdb.Error as error:
            message = " ".join(str(error).split())
            there = ", ".join((*tables, *(views or {})))
            raise UserError(f"query refused: {message[:300]}; tables: {there}") from error
    if len(rows) > MAX_ROWS:
        raise UserError(f"query returns more than {MAX_ROWS:,} rows; add a LIMIT or a WHERE")
    return columns, rows
