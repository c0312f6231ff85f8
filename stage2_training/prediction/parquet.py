"""Predictions as one Parquet file, written in parts so that an interrupted job can resume."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np

from sspa.shared.errors import UserError
from sspa.shared.files import replacing
from sspa.shared.json_files import read_json
from sspa.stage2_training.inference.image_stream import Tagged
from sspa.stage2_training.inference.tagger import Tagger

# Maximum images and rows per part: the cost of an interruption, and the memory needed.
_PART = 500
_ROWS = 1_000_000
_SIDES = ("left", "top", "right", "bottom")


class PredictionFile:
    """Collects predictions in parts beside `path`; `finish` joins them into one file.

    One row per image and label. Columns: path, label, probability, above_threshold, and left, top, right, bottom: the
    box, in pixels, of the label's strongest region (null if the head has no regions).

    Args:
        path: the file to write.
        tagger: makes the predictions; parts of another run, other labels or thresholds are rejected.

    Raises:
        UserError: `path` exists, or the parts beside it belong to another job.
    """

    def __init__(self, path: Path, tagger: Tagger) -> None:
        self.path, self.tagger = path, tagger
        self.parts = path.with_name(f".{path.name}.parts")
        self._waiting: list[Tagged] = []
        if path.exists():
            raise UserError(f"{path}: exists already; choose another name with --out, or remove it")
        job = {
            "run": str(tagger.folder.path.resolve()),
            "weights_changed": tagger.folder.file("weights.safetensors").stat().st_mtime_ns,
            "labels": [label.key for label in tagger.labels],
            "knowledge": tagger.knowledge.content_hash,
            "thresholds": tagger.thresholds.tolist(),
        }
        about = self.parts / "job.json"
        if about.is_file():
            if read_json(about) != job:
                raise UserError(
                    f"{self.parts}: holds the unfinished predictions of another run, other labels or thresholds; "
                    "finish those first, or remove that folder"
                )
        else:
            with replacing(about) as beside:
                beside.write_text(json.dumps(job), encoding="utf-8")

    def done(self) -> set[str]:
        """The paths of the images that were tagged before an interruption."""
        import pyarrow.parquet as pq

        return {
            path
            for part in self._part_files()
            for path in pq.read_table(part, columns=["path"], page_checksum_verification=True)["path"].to_pylist()
        }

    def add(self, tagged: Tagged) -> None:
        """Add one image; every few hundred are written as a part."""
        self._waiting.append(tagged)
        if len(self._waiting) >= min(_PART, max(1, _ROWS // len(self.tagger.labels))):
            self.flush()

    def flush(self) -> None:
        """Write the pending images as another part."""
        import pyarrow.parquet as pq

        if self._waiting:
            with replacing(self.parts / f"{len(self._part_files()):06}.parquet") as beside:
                pq.write_table(self._table(), beside, write_page_checksum=True)
            self._waiting = []

    def finish(self) -> None:
        """Join the parts in order, and remove them."""
        import pyarrow.parquet as pq

        self.flush()
        with (
            replacing(self.path) as beside,
            pq.ParquetWriter(beside, _schema(), compression="zstd", write_page_checksum=True) as writer,
        ):
            for part in self._part_files():
                writer.write_table(pq.read_table(part, page_checksum_verification=True))
        shutil.rmtree(self.parts)

    def _part_files(self) -> list[Path]:
        return sorted(self.parts.glob("*.parquet"))

    def _table(self) -> Any:
        """The pending images as a table, one row per image and label."""
        import pyarrow as pa

        images, labels = len(self._waiting), self.tagger.labels
        probabilities = np.stack([tagged.probabilities for tagged in self._waiting])  # (N, C)
        nothing: list[tuple[int | None, ...]] = [(None,) * len(_SIDES)] * len(labels)
        boxes = [side for tagged in self._waiting for box in tagged.boxes or nothing for side in box]
        columns = {
            "path": [path for tagged in self._waiting for path in [str(tagged.path)] * len(labels)],
            "label": [label.key for label in labels] * images,
            "probability": probabilities.ravel(),
            "above_threshold": (probabilities >= self.tagger.thresholds).ravel(),
            **{side: boxes[place :: len(_SIDES)] for place, side in enumerate(_SIDES)},
        }
        return pa.table(columns, _schema())


def _schema() -> Any:
    import pyarrow as pa

    return pa.schema(
        [
            pa.field("path", pa.string(), nullable=False),
            pa.field("label", pa.string(), nullable=False),
            pa.field("probability", pa.float32(), nullable=False),
            pa.field("above_threshold", pa.bool_(), nullable=False),
            *(pa.field(side, pa.int32()) for side in _SIDES),
        ]
    )
