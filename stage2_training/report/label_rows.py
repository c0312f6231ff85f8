"""The report's table of labels: how each is found, and what training changed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import nan
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sspa.stage2_training.runs.records import ResultRecord

# A change of AP, in points, that differs between seeds as well.
_NOTABLE = 2.0


@dataclass(frozen=True)
class LabelRow:
    """One label on the measured split.

    Attributes:
        positives: images that have it.
        ap, untrained: average precision in percent, after and before training; nan without a positive.
        threshold: tuned on val.
        precision, recall: in percent at that threshold, over known cells; nan where nothing is predicted, or present.
        missed: it is present, and never predicted.
    """

    text: str
    positives: int
    ap: float
    untrained: float
    threshold: float
    precision: float
    recall: float
    missed: bool

    @property
    def verdict(self) -> str:
        """ "bad" where training lowered AP or the label is never found, "good" where it raised AP, else ""."""
        change = self.ap - self.untrained
        return "bad" if self.missed or change < -_NOTABLE else "good" if change > _NOTABLE else ""


def label_rows(
    texts: Mapping[str, str],
    keys: Sequence[str],
    result: ResultRecord,
    thresholds: Mapping[str, float],
    probabilities: NDArray[np.floating[Any]],
    targets: NDArray[np.int8],
) -> list[LabelRow]:
    """A row per label, the lowest AP first, labels without a positive last.

    Args:
        texts: by key, as shown.
        keys: the C labels, in the order of the columns.
        thresholds: by key.
        probabilities, targets: (N, C) of the measured split; -1 in targets is unknown, and counts nowhere.
    """
    rows = []
    for column, key in enumerate(keys):
        present = targets[:, column] == 1
        predicted = (probabilities[:, column] >= thresholds[key]) & (targets[:, column] >= 0)
        found = int((present & predicted).sum())
        rows.append(
            LabelRow(
                text=texts[key],
                positives=int(present.sum()),
                ap=100 * result.test["both"].per_class.get(key, nan),
                untrained=100 * result.untrained_test["both"].per_class.get(key, nan),
                threshold=thresholds[key],
                precision=100 * found / predicted.sum() if predicted.any() else nan,
                recall=100 * found / present.sum() if present.any() else nan,
                missed=bool(present.any()) and not found,
            )
        )
    return sorted(rows, key=lambda row: (row.ap != row.ap, row.ap))
