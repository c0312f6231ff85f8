"""Holds images out, for val or as folds of a cross-validation, stratified over all labels."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sspa.shared.errors import UserError
from sspa.stage2_training.data.columns import Texts
from sspa.stage2_training.data.manifest import Manifest

DEFAULT_VAL_FRACTION = 0.1


@dataclass(frozen=True)
class Fold:
    """Fold `number`, counted from 1, of `count`."""

    number: int
    count: int

    def __str__(self) -> str:
        return f"fold {self.number} of {self.count}"

    @classmethod
    def parse(cls, text: str) -> "Fold":
        """Parse "1/3".

        Raises:
            ValueError: it is not such a pair, or there is no such fold.
        """
        number, slash, count = text.partition("/")
        if not slash or not number.isdecimal() or not count.isdecimal() or not 1 <= int(number) <= int(count) > 1:
            raise ValueError("is not a fold; write 1/3, 2/3 or 3/3 for one of three")
        return cls(int(number), int(count))


def stratified_mask(manifest: Manifest, fraction: float, seed: int) -> NDArray[np.bool_]:
    """(N,) bool: about `fraction` of the rows, with about that fraction of each label's positives.

    Iterative stratification (Sechidis et al., ECML 2011) from the package iterative-stratification. Images of one
    group stay together: a group counts as one image with all labels of its images. Images of which nothing is known
    measure nothing, and are never chosen.
    """
    from iterstrat.ml_stratifiers import MultilabelStratifiedShuffleSplit

    splitter = MultilabelStratifiedShuffleSplit(n_splits=1, test_size=fraction, random_state=seed)
    rows = _known_rows(manifest)
    group, targets = _of_groups(manifest.only(rows))
    with _columns_of(targets) as columns:
        _, chosen = next(splitter.split(np.zeros(len(targets)), columns))
    mask = np.zeros(len(manifest.ids), dtype=bool)
    mask[rows[np.isin(group, chosen)]] = True
    return mask


def stratified_folds(manifest: Manifest, count: int) -> NDArray[np.int64]:
    """(N,): the fold of every row, counted from 1; each has about its share of each label's positives.

    The same rows always give the same folds: a fold is part of the data, independent of a run's seed. Images of one
    group are in one fold; images of which nothing is known are in none (0).

    Raises:
        UserError: there are fewer images, or groups of them, than folds.
    """
    from iterstrat.ml_stratifiers import MultilabelStratifiedKFold

    splitter = MultilabelStratifiedKFold(n_splits=count, shuffle=True, random_state=0)
    rows = _known_rows(manifest)
    group, targets = _of_groups(manifest.only(rows))
    if len(targets) < count:
        what = "groups of images" if manifest.groups else "images"
        raise UserError(f"{len(targets)} {what} with labels do not make {count} folds; ask for fewer")
    folds = np.zeros(len(manifest.ids), dtype=np.int64)
    with _columns_of(targets) as columns:
        for number, (_, chosen) in enumerate(splitter.split(np.zeros(len(targets)), columns), start=1):
            folds[rows[np.isin(group, chosen)]] = number
    return folds


def _known_rows(manifest: Manifest) -> NDArray[np.int64]:
    return np.flatnonzero((manifest.targets != -1).any(axis=1))


def _of_groups(manifest: Manifest) -> tuple[NDArray[np.int64], NDArray[np.int8]]:
    """(N,) the group of every row, and (G, C) the labels that any image of a group has."""
    if not manifest.groups:
        return np.arange(len(manifest.ids)), manifest.targets
    names, group = np.unique(np.array(manifest.groups, dtype=object), return_inverse=True)
    targets = np.zeros((len(names), manifest.targets.shape[1]), dtype=np.int8)
    np.maximum.at(targets, group, (manifest.targets == 1).astype(np.int8))
    return group, targets


@contextmanager
def _columns_of(targets: NDArray[np.int8]) -> Iterator[NDArray[np.int64]]:
    """The targets as the package's splitters need them; its warnings about very rare labels are silenced."""
    # They need at least two columns and no all-zero row: the last column is "no label at all".
    present = targets == 1
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield np.column_stack([present, ~present.any(axis=1)]).astype(np.int64)


def with_drawn_splits(
    manifest: Manifest, val: float, test: float, seed: int, typical: NDArray[np.bool_] | None = None
) -> Manifest:
    """The manifest with fractions of its rows in val and test, and the rest in train, by iterative stratification.

    Args:
        val, test: of the rows of which something is known.
        seed: of the draw.
        typical: (N,), the rows that test is drawn from, all of them if they are fewer than that fraction; by default
            every row.

    Raises:
        UserError: the fractions leave nothing for one of the splits.
    """
    if not (0 < val < 1 and 0 < test < 1 and val + test < 1):
        raise UserError(f"the shares for val ({val}) and test ({test}) must be above 0 and leave some for training")
    known = int((manifest.targets != -1).any(axis=1).sum())
    if known * min(val, test) < 1:
        raise UserError(
            f"{known} images with labels are too few to draw {val:g} for val and {test:g} for test; name the splits"
        )
    splits = np.full(len(manifest.ids), "train", dtype=object)
    if typical is None:
        splits[stratified_mask(manifest, test, seed)] = "test"
    else:
        rows = np.flatnonzero(typical & (manifest.targets != -1).any(axis=1))
        share = test * known / len(rows)
        splits[rows if share >= 1 else rows[stratified_mask(manifest.only(rows), share, seed)]] = "test"
    rest = np.flatnonzero(splits == "train")
    left = known - int((splits == "test").sum())
    splits[rest[stratified_mask(manifest.only(rest), val * known / left, seed)]] = "val"
    return replace(manifest, splits=Texts(splits.tolist()))


def hold_out_val(manifest: Manifest, fraction: float | None, seed: int) -> Manifest:
    """The manifest with a val split taken from training, never from test.

    Args:
        manifest: with a split "train", and possibly "val".
        fraction: None keeps an existing val split, or holds out a tenth if there is none; a number redraws val
            from train and val together.
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
        raise UserError(f"{len(rows)} training images are too few to hold out {fraction} of them for val")
    held_out = stratified_mask(manifest.only(rows), fraction, seed)
    splits[rows] = np.where(held_out, "val", "train")
    return replace(manifest, splits=Texts(splits.tolist()))


def hold_out_fold(manifest: Manifest, fold: Fold) -> Manifest:
    """The manifest without its test images, scoring one fold of train and val in their place.

    This way settings are chosen by cross-validation and test stays untouched. Of the other folds, the same fraction
    is val as in the data set itself; if that has no val, there is none yet.

    Raises:
        UserError: see `stratified_folds`.
    """
    splits: NDArray[Any] = np.array(manifest.splits, dtype=object)
    rows = np.flatnonzero((splits == "train") | (splits == "val"))
    val_fraction = float((splits == "val").sum() / len(rows))
    remaining = manifest.only(rows)
    held_out = stratified_folds(remaining, fold.count) == fold.number
    remaining = replace(
        remaining,
        splits=Texts(np.where(held_out, "test", "train").tolist()),
        note=f"{manifest.note}; {fold} of its train and val in place of test, for choosing settings",
    )
    return hold_out_val(remaining, val_fraction, seed=0) if val_fraction else remaining
