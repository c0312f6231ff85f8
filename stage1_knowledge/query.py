"""SQL over a knowledge file: DuckDB, reading only this file, locked down."""

from pathlib import Path
from typing import Any

from sspa.shared.errors import UserError
from sspa.shared.knowledge_format import read_table

MEMORY = "1GB"
THREADS = 2


def run_query(path: Path, sql: str) -> tuple[list[str], list[tuple[Any, ...]]]:
    """Run one SQL statement over the table `knowledge`.

    The file is read and verified first and handed over in memory; DuckDB itself may then open no file,
    reach no network, load no extension, and change none of these settings.

    Returns:
        Column names and rows.

    Raises:
        UserError: the file is damaged, or DuckDB refuses the statement.
    """
    import duckdb

    table, _ = read_table(path)
    with duckdb.connect(":memory:") as database:
        database.register("knowledge", table)
        database.execute("SET enable_external_access = false")
        database.execute(f"SET memory_limit = '{MEMORY}'")
        database.execute(f"SET threads = {THREADS}")
        database.execute("SET lock_configuration = true")
        try:
            result = database.execute(sql)
            if result.description is None:
                return [], []
            return [column[0] for column in result.description], result.fetchall()
        except duckdb.Error as error:
            message = " ".join(str(error).split())
            raise UserError(f"query refused: {message[:300]}; the table is called knowledge") from error
