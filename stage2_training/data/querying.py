"""SQL over a manifest, with DuckDB locked to that one file."""

from pathlib import Path

from sspa.shared.errors import UserError
from sspa.stage2_training.data.manifest import read_manifest


def query_manifest(path: Path, sql: str) -> tuple[list[str], list[tuple[object, ...]]]:
    """Column names and rows of a query.

    Tables: `manifest` (id, path, split, labels), `labels` (position, key, text; positions count from 1, as DuckDB's
    lists do), and `marks` with a row for each picture and label (id, split, key, mark).

    Raises:
        UserError: no such manifest, or SQL that DuckDB refuses; it can read and write nothing but the manifest.
    """
    import duckdb
    import pyarrow.parquet as pq

    head = read_manifest(path)
    connection = duckdb.connect()
    connection.register("manifest_rows", pq.read_table(path))
    connection.execute("CREATE TABLE manifest AS SELECT * FROM manifest_rows")
    connection.execute("CREATE TABLE labels (position INTEGER, key VARCHAR, text VARCHAR)")
    named = [(number, label.key, label.text) for number, label in enumerate(head.labels.labels, start=1)]
    connection.executemany("INSERT INTO labels VALUES (?, ?, ?)", named)
    connection.execute(
        "CREATE VIEW marks AS SELECT id, split, key, manifest.labels[position] AS mark FROM manifest, labels"
    )
    connection.unregister("manifest_rows")
    # SQL is the user's, but it may have been copied from somewhere: no files, no network, no way back.
    connection.execute("SET enable_external_access = false; SET lock_configuration = true")
    try:
        result = connection.execute(sql)
        if result.description is None:
            return [], []
        return [column[0] for column in result.description], result.fetchall()
    except duckdb.Error as error:
        raise UserError(f"the query failed: {str(error).splitlines()[0]}") from None
    finally:
        connection.close()
