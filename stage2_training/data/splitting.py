"""Holding pictures out: stratified over many labels at once, by iterative stratification."""

import warnings
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sspa.shared.errors import UserError
from sspa.stage2_training.data.manifest import Manifest

DEFAULT_VAL_FRACTION = 0.1


def stratified_mask(targets: NDArray[np.int8], fraction: float, seed: int) -> NDArray[np.bool_]:
    """(N,) bool: about `fraction` of the rows, with about that share of every label's positives.

    Iterative stratification (Sechidis et al., ECML 2011) from the package iterative-stratification.
    """
    from iterstrat.ml_stratifiers import MultilabelStratifiedShuffleSplit

    splitter = MultilabelStratifiedShuffleSplit(n_splits=1, test_size=fraction, random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        # It wants at least two columns and no row of zeros only: the last column is "no label at all".
        present = targets == 1
        columns = np.column_stack([present, ~present.any(axis=1)]).astype(int)
        _, chosen = next(splitter.split(np.zeros(len(targets)), columns))
    mask = np.zeros(len(targets), dtype=bool)
    mask[chosen] = True
    return mask


def hold_out_val(manifest: Manifest, fraction: float | None, seed: int) -> Manifest:
    """The manifest with a val split that is a part of training, never of test.

    Args:
        manifest: with a split "train", and perhaps "val".
        fraction: None keeps an existing val split, or holds out a tenth where there is none; a number draws val
            anew from train and val together.
        seed: of the draw.

    Raises:
        UserError: the fraction is not between 0 and 1, or leaves one side empty.
    """
    splits: NDArray[Any] = np.array(manifest.splits, dtype=object)
    if fraction is None and ((splits == "val").any() or not (splits == "train").any()):
        return manifest
    fraction = DEFAULT_VAL_FRACTION if fraction is None else fraction
    if not 0 < fraction < 1:
        raise UserError(f"the part held out for val must be between 0 and 1, not {fraction}")
    rows = np.flatnonzero((splits == "train") | (splits == "val"))
    if len(rows) * min(fraction, 1 - fraction) < 1:
        raise UserError(f"{len(rows)} training pictures are too few to hold out {fraction} of them for val")
    held_out = stratified_mask(manifest.targets[rows], fraction, seed)
    splits[rows] = np.where(held_out, "val", "train")
    return replace(manifest, splits=tuple(splits))
