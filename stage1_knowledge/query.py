"""SQL over a knowledge file, or two side by side, read and verified first."""

from pathlib import Path

from sspa.shared.knowledge_format import read_table
from sspa.shared.locked_sql import SECONDS, Rows, run_locked


def run_query(path: Path, sql: str, other: Path | None = None, seconds: float = SECONDS) -> Rows:
    """Run one SQL statement over the table `knowledge`, and `other` where a second file is given.

    Returns:
        Column names and rows.

    Raises:
        UserError: a file is damaged, or see `run_locked`.
    """
    files = {"knowledge": path} | ({"other": other} if other else {})
    return run_locked(sql, {name: read_table(file)[0] for name, file in files.items()}, seconds=seconds)
