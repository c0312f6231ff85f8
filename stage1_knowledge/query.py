"""SQL over a knowledge file, read and verified first."""

from pathlib import Path
from typing import Any

from sspa.shared.knowledge_format import read_table
from sspa.shared.locked_sql import run_locked


def run_query(path: Path, sql: str) -> tuple[list[str], list[tuple[Any, ...]]]:
    """Run one SQL statement over the table `knowledge`: column names and rows.

    Raises:
        UserError: the file is damaged, or DuckDB refuses the statement.
    """
    table, _ = read_table(path)
    return run_locked(sql, {"knowledge": table})
