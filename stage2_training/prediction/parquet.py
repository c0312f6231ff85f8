"""Predictions as one Parquet file, written in parts so that an interrupted job can resume."""

import hashlib
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sspa.shared.errors import UserError
from sspa.shared.files import replacing
from sspa.shared.holding import held
from sspa.shared.json_files import read_json
from sspa.shared.parquet_files import read_parquet
from sspa.shared.terminal import say

if TYPE_CHECKING:
    from sspa.stage2_training.inference.image_stream import Tagged
    from sspa.stage2_training.inference.tagger import Tagger

# Maximum images and rows per part: the cost of an interruption, and the memory needed.
_PART = 500
_ROWS = 1_000_000
# Names that SQL takes without quotes, unlike left and right.
SIDES = ("x_min", "y_min", "x_max", "y_max")
# In the finished file's metadata: the job that wrote it.
_JOB = b"sspa.job"


def parts_of(path: Path) -> Path:
    """The folder for the parts of an unfinished file."""
    return path.with_name(f".{path.name}.parts")


@contextmanager
def prediction_file(path: Path, tagger: "Tagger") -> Iterator["PredictionFile"]:
    """The file to add predictions to, held so that no second process writes it.

    After the block, whether it succeeded or not, what was added is on disk: the same job resumes from there.

    Args:
        path: the Parquet file.
        tagger: makes the predictions; parts of other weights, labels or thresholds are rejected.

    Raises:
        UserError: `path` exists, another process writes it, the parts beside it belong to another job, or it cannot be
            written.
    """
    with held(path, "wait for it, or choose another --out"):
        file = PredictionFile(path, tagger)
        try:
            yield file
        finally:
            file.flush()


class PredictionFile:
    """Collects predictions in parts beside `path`; `finish` joins them into one file. See `prediction_file`.

    One row per image and label. Columns: path, label, probability, above_threshold, and x_min, y_min, x_max, y_max: the
    box, in pixels, of the label's strongest region (null if the head has no regions).
    """

    def __init__(self, path: Path, tagger: "Tagger") -> None:
        self.path, self.tagger = path, tagger
        self.parts = parts_of(path)
        self._waiting: list[Tagged] = []
        job = job_of(tagger)
        self._schema = prediction_schema().with_metadata({_JOB: _digest(job)})
        if path.exists():
            self._delete_parts_of_finished()
            raise UserError(f"{path}: exists already; choose another name with --out, or remove it")
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
        """The paths of the images that were tagged before an interruption; damaged parts are deleted."""
        import pyarrow as pa

        paths: set[str] = set()
        for part in self._part_files():
            try:
                paths.update(self._read(part)["path"].to_pylist())
            except (UserError, pa.ArrowException, OSError):
                say(f"{part}: is damaged; its images are tagged again")
                part.unlink()
        return paths

    def add(self, tagged: "Tagged") -> None:
        """Add one image; every few hundred are written as a part."""
        self._waiting.append(tagged)
        if len(self._waiting) >= min(_PART, max(1, _ROWS // len(self.tagger.labels))):
            self.flush()

    def flush(self) -> None:
        """Write the pending images as another part.

        Raises:
            UserError: the disk is full, or the folder cannot be written; the parts so far are kept.
        """
        import pyarrow.parquet as pq

        if not self._waiting:
            return
        table, self._waiting = self._table(), []
        parts = self._part_files()
        number = int(parts[-1].stem) + 1 if parts else 0
        try:
            with replacing(self.parts / f"{number:06}.parquet") as beside:
                pq.write_table(table, beside, write_page_checksum=True)
        except UserError as error:
            raise UserError(f"{error}; fix that and run the same command again: it resumes") from error

    def finish(self) -> None:
        """Join the parts in order, and remove them.

        Raises:
            UserError: the file cannot be written; the parts are kept.
        """
        import pyarrow.parquet as pq

        self.flush()
        with (
            replacing(self.path) as beside,
            pq.ParquetWriter(beside, self._schema, compression="zstd", write_page_checksum=True) as writer,
        ):
            for part in self._part_files():
                writer.write_table(self._read(part).replace_schema_metadata(self._schema.metadata))
        shutil.rmtree(self.parts)

    def _delete_parts_of_finished(self) -> None:
        """Delete the parts if `path` was joined from them, by a process that was killed before it deleted them."""
        if self.parts.is_dir() and is_finished(self.path, self.tagger):
            shutil.rmtree(self.parts)

    def _part_files(self) -> list[Path]:
        return sorted(self.parts.glob("*.parquet"))

    def _read(self, part: Path) -> Any:
        def check(file: Any) -> None:
            if not file.schema_arrow.equals(self._schema):
                raise UserError(f"{part}: has other columns than predictions; remove {self.parts}")

        return read_parquet(part, check)[0]

    def _table(self) -> Any:
        """The pending images as a table, one row per image and label."""
        import pyarrow as pa

        images, labels = len(self._waiting), self.tagger.labels
        probabilities = np.stack([tagged.probabilities for tagged in self._waiting])  # (N, C)
        nothing: list[tuple[int | None, ...]] = [(None,) * len(SIDES)] * len(labels)
        boxes = [side for tagged in self._waiting for box in tagged.boxes or nothing for side in box]
        columns = {
            "path": [path for tagged in self._waiting for path in [tagged.name] * len(labels)],
            "label": [label.key for label in labels] * images,
            "probability": probabilities.ravel(),
            "above_threshold": (probabilities >= self.tagger.thresholds).ravel(),
            **{side: boxes[place :: len(SIDES)] for place, side in enumerate(SIDES)},
        }
        return pa.table(columns, self._schema)


def is_finished(path: Path, tagger: "Tagger") -> bool:
    """Whether `path` holds the finished predictions of this tagger, with these labels and thresholds."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return bool((pq.read_schema(path).metadata or {}).get(_JOB) == _digest(job_of(tagger)).encode())
    except (pa.ArrowException, OSError):
        return False  # there is none, or the user's own file


def _digest(job: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(job).encode()).hexdigest()


def job_of(tagger: "Tagger") -> dict[str, Any]:
    """What predictions depend on besides the image; parts of another job cannot be joined with ours."""
    return {
        "weights": tagger.identity,
        "labels": [label.key for label in tagger.labels],
        "knowledge": tagger.knowledge.content_hash,
        "thresholds": tagger.thresholds.tolist(),
    }


def prediction_schema() -> Any:
    """The columns of a prediction file, one row per image and label."""
    import pyarrow as pa

    return pa.schema(
        [
            pa.field("path", pa.string(), nullable=False),
            pa.field("label", pa.string(), nullable=False),
            pa.field("probability", pa.float32(), nullable=False),
            pa.field("above_threshold", pa.bool_(), nullable=False),
            *(pa.field(side, pa.int32()) for side in SIDES),
        ]
    )
