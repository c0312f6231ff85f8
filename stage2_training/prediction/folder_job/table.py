"""The compact form of predictions: one row per image, whatever the number of labels.

Columns: `path`; `error`, why the image could not be read, else null; `probabilities`, float16, one per label in the
order of labels.csv, null if there is an error; `predicted`, the positions (from 1, as DuckDB counts) of the labels at
or above their thresholds; `boxes`, of each of these the left, top, right and bottom pixel of its strongest region, null
if the head has no regions.
"""

import csv
import io
from typing import TYPE_CHECKING, Any

import numpy as np

from sspa.stage2_training.inference.image_stream import Tagged, Unreadable
from sspa.stage2_training.inference.tagger import Tagger

if TYPE_CHECKING:
    import pyarrow as pa


def compact_schema(labels: int) -> "pa.Schema":
    """The columns of one output file; see the module."""
    import pyarrow as pa

    return pa.schema(
        [
            pa.field("path", pa.string(), nullable=False),
            pa.field("error", pa.string()),
            pa.field("probabilities", pa.list_(pa.float16(), labels)),
            pa.field("predicted", pa.list_(pa.int16())),
            pa.field("boxes", pa.list_(pa.list_(pa.int32(), 4))),
        ]
    )


def compact_row(tagger: Tagger, item: Tagged | Unreadable) -> dict[str, Any]:
    """One image as a row."""
    if isinstance(item, Unreadable):
        return {"path": item.name, "error": item.reason, "probabilities": None, "predicted": None, "boxes": None}
    # By the full probabilities: float16 may round across a threshold.
    predicted = np.flatnonzero(item.probabilities >= tagger.thresholds).tolist()
    return {
        "path": item.name,
        "error": None,
        "probabilities": item.probabilities.astype(np.float16),
        "predicted": [label + 1 for label in predicted],
        "boxes": None if item.boxes is None else [list(item.boxes[label]) for label in predicted],
    }


def parquet_bytes(rows: list[dict[str, Any]], labels: int) -> bytes:
    """Rows of so many labels as a Parquet file."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    file = io.BytesIO()
    table = pa.Table.from_pylist(rows, compact_schema(labels))
    pq.write_table(table, file, compression="zstd", write_page_checksum=True)
    return file.getvalue()


def label_lines(tagger: Tagger) -> str:
    """labels.csv: position (from 1), key, text, threshold."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(("position", "label", "text", "threshold"))
    for position, (label, threshold) in enumerate(zip(tagger.labels, tagger.thresholds.tolist(), strict=True), 1):
        writer.writerow((position, label.key, label.text, threshold))
    return file.getvalue()
