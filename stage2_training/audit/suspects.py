"""The marks that the model contradicts, the most doubtful first: as rows, as a Parquet table."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sspa.shared.files import replacing
from sspa.stage2_training.audit.marks import mark_qualities
from sspa.stage2_training.audit.out_of_fold import OutOfFold

_OPPOSITE = 0.5


@dataclass(frozen=True)
class Suspect:
    """One given mark that the model contradicts.

    Attributes:
        path: the image file.
        label: the label's key.
        mark: as given; 1 present, 0 absent.
        probability: that the label is present, by the model that did not see the image.
        quality: the probability of the mark as it is given.
        probably_wrong: whether it is among those that are expected to be wrong; see `probably_wrong` in `marks`.
        image, column: its place in the predictions.
    """

    path: str
    label: str
    mark: int
    probability: float
    quality: float
    probably_wrong: bool
    image: int
    column: int


def find_suspects(predicted: OutOfFold, wrong: NDArray[np.bool_]) -> list[Suspect]:
    """Every mark of which the model says the opposite, the most doubtful first.

    Args:
        wrong: (N, C), which of them are `probably_wrong`.
    """
    qualities = mark_qualities(predicted.probabilities, predicted.targets)
    rows, columns = np.nonzero(qualities < _OPPOSITE)
    order = np.argsort(qualities[rows, columns], kind="stable")
    return [
        Suspect(
            path=str(predicted.paths[row]),
            label=predicted.labels[column].key,
            mark=int(predicted.targets[row, column]),
            probability=float(predicted.probabilities[row, column]),
            quality=float(qualities[row, column]),
            probably_wrong=bool(wrong[row, column]),
            image=int(row),
            column=int(column),
        )
        for row, column in zip(rows[order], columns[order], strict=True)
    ]


def write_suspects(suspects: Sequence[Suspect], path: Path) -> None:
    """The table: path, label, mark, probability, quality, probably_wrong; the most doubtful first."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = pa.schema(
        [
            pa.field("path", pa.string(), nullable=False),
            pa.field("label", pa.string(), nullable=False),
            pa.field("mark", pa.int8(), nullable=False),
            pa.field("probability", pa.float32(), nullable=False),
            pa.field("quality", pa.float32(), nullable=False),
            pa.field("probably_wrong", pa.bool_(), nullable=False),
        ]
    )
    rows = [{name: value for name, value in asdict(suspect).items() if name in schema.names} for suspect in suspects]
    with replacing(path) as beside:
        pq.write_table(pa.Table.from_pylist(rows, schema=schema), beside)
