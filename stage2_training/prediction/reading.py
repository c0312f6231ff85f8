"""Reads the file that `sspa-train predict --out` wrote, image by image."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sspa.shared.errors import UserError
from sspa.shared.parquet_files import read_parquet
from sspa.stage2_training.data.export_forms.marked_images import MarkedImage, MarkedImages
from sspa.stage2_training.prediction.parquet import SIDES, prediction_schema


def _former_schema() -> Any:
    """The columns as they were called before 0.2."""
    import pyarrow as pa

    former = dict(zip(SIDES, ("left", "top", "right", "bottom"), strict=True))
    return pa.schema([field.with_name(former.get(field.name, field.name)) for field in prediction_schema()])


def predicted_images(path: Path) -> MarkedImages:
    """The images of a prediction file; their labels are those above the threshold.

    Raises:
        UserError: it is damaged, or no prediction file.
    """

    def check(file: Any) -> None:
        if not any(file.schema_arrow.equals(schema) for schema in (prediction_schema(), _former_schema())):
            raise UserError(f"{path}: is neither a manifest nor a file of predictions; `predict --out` writes one")

    table = read_parquet(path, check)[0]
    table = table.rename_columns(prediction_schema().names)
    labels = tuple(dict.fromkeys(table["label"].to_pylist()))

    def images() -> Iterator[MarkedImage]:
        # One row per image and label, images one after the other.
        for start in range(0, table.num_rows, len(labels)):
            rows = table.slice(start, len(labels)).to_pylist()
            if [row["label"] for row in rows] != list(labels) or len({row["path"] for row in rows}) != 1:
                raise UserError(f"{path}: an image lacks some labels near row {start:,}; make the file again")
            yield MarkedImage(
                rows[0]["path"],
                tuple(row["label"] for row in rows if row["above_threshold"]),
                probabilities={row["label"]: row["probability"] for row in rows},
                boxes={
                    row["label"]: tuple(row[side] for side in SIDES)
                    for row in rows
                    if row["above_threshold"] and row[SIDES[0]] is not None
                },
            )

    return MarkedImages(labels, images(), predicted=True)
