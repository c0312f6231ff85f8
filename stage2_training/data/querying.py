"""SQL over a manifest, which is read and checked first."""

from pathlib import Path

from sspa.shared.locked_sql import SECONDS, Rows, run_locked
from sspa.stage2_training.data.manifest import manifest_table, read_manifest


def query_manifest(path: Path, sql: str, seconds: float = SECONDS) -> Rows:
    """Column names and rows of one SQL statement.

    Tables: `manifest` (id, path, split, labels), `labels` (position, key, text; positions count from 1, as DuckDB's
    lists do), and `marks` with one row per image and label (id, split, key, mark).

    Raises:
        UserError: no such manifest, or see `run_locked`.
    """
    import pyarrow as pa

    manifest = read_manifest(path)
    labels = [
        {"position": number, "key": label.key, "text": label.text}
        for number, label in enumerate(manifest.labels.labels, start=1)
    ]
    marks = "SELECT id, split, key, manifest.labels[position] AS mark FROM manifest, labels"
    tables = {"manifest": manifest_table(manifest), "labels": pa.Table.from_pylist(labels)}
    return run_locked(sql, tables, {"marks": marks}, seconds)
