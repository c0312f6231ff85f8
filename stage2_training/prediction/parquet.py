"""Predictions as one Parquet file, written in parts so that an interrupted job goes on where it stopped."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sspa.shared.errors import UserError
from sspa.shared.files import replacing
from sspa.stage2_training.prediction.stream import Tagged
from sspa.stage2_training.tagger import Tagger

# Pictures a part: what an interruption can cost.
_PART = 500


class PredictionFile:
    """Collects tagged pictures beside `path`; `finish` makes the one file of them.

    Columns: path, label, probability, above_threshold, and left, top, right, bottom: the box in pixels of the
    region that spoke for the label most (null where the head has no regions). A row a picture and label.

    Args:
        path: the file to write.
        tagger: whose predictions; parts of another run, other labels or thresholds are refused.

    Raises:
        UserError: `path` exists, or the parts beside it are another job's.
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
            if json.loads(about.read_text(encoding="utf-8")) != job:
                raise UserError(
                    f"{self.parts}: holds the unfinished predictions of another run, other labels or thresholds; "
                    "finish those first, or remove that folder"
                )
        else:
            with replacing(about) as beside:
                beside.write_text(json.dumps(job), encoding="utf-8")

    def done(self) -> set[str]:
        """The paths of the pictures that earlier attempts tagged."""
        import pyarrow.parquet as pq

        return {
            path
            for part in self._part_files()
            for path in pq.read_table(part, columns=["path"], page_checksum_verification=True)["path"].to_pylist()
        }

    def add(self, tagged: Tagged) -> None:
        """Take one more picture; every few hundred are written."""
        self._waiting.append(tagged)
        if len(self._waiting) >= _PART:
            self.flush()

    def flush(self) -> None:
        """Write what is waiting as one more part."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        if self._waiting:
            rows = [row for tagged in self._waiting for row in self._rows(tagged)]
            with replacing(self.parts / f"{len(self._part_files()):06}.parquet") as beside:
                pq.write_table(pa.Table.from_pylist(rows, _schema()), beside, write_page_checksum=True)
            self._waiting = []

    def finish(self) -> None:
        """Join the parts, one after the other, and remove them."""
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

    def _rows(self, tagged: Tagged) -> Iterator[dict[str, Any]]:
        thresholds = self.tagger.thresholds
        for index, label in enumerate(self.tagger.labels):
            probability = float(tagged.probabilities[index])
            box = tagged.boxes[index] if tagged.boxes else (None,) * 4
            yield {
                "path": str(tagged.path),
                "label": label.key,
                "probability": probability,
                "above_threshold": probability >= thresholds[index],
                **dict(zip(("left", "top", "right", "bottom"), box, strict=True)),
            }


def _schema() -> Any:
    import pyarrow as pa

    sides = [pa.field(side, pa.int32()) for side in ("left", "top", "right", "bottom")]
    return pa.schema(
        [
            pa.field("path", pa.string(), nullable=False),
            pa.field("label", pa.string(), nullable=False),
            pa.field("probability", pa.float32(), nullable=False),
            pa.field("above_threshold", pa.bool_(), nullable=False),
            *sides,
        ]
    )
