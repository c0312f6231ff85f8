"""The input of training and evaluation: a Dataset of Splits, always created from a manifest."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import wraps
from itertools import chain
from pathlib import Path
from typing import ParamSpec

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from sspa.shared.errors import UserError
from sspa.shared.label_sets import LabelSet
from sspa.shared.terminal import say
from sspa.stage2_training.data.columns import Paths
from sspa.stage2_training.data.decoding import unreadable_images
from sspa.stage2_training.data.images_on_disk import check_images, in_root, missing_images
from sspa.stage2_training.data.manifest import (
    SPLITS,
    Manifest,
    check_manifest,
    read_manifest,
    under_protocol,
    without_images,
)
from sspa.stage2_training.data.splitting import Fold, hold_out_fold, hold_out_val, stratified_folds
from sspa.stage2_training.data.subsets import Subset, reduce_training, unseen_labels
from sspa.stage2_training.evaluation.own_protocol import find_protocol
from sspa.stage2_training.evaluation.protocol import Protocol

P = ParamSpec("P")

# Of the images that are left out.
_SHOWN = 10


@dataclass(frozen=True, eq=False)
class Split:
    """N images; targets (N, C) int8 with 1 present, 0 absent, -1 unknown.

    `within` are the data set's own splits that this one was drawn from, if any.
    """

    name: str
    ids: Sequence[str]
    paths: Sequence[Path]
    targets: NDArray[np.int8]
    within: "tuple[Split, ...]" = ()

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True)
class Dataset:
    """Splits by name (train, val, test), the labels of their columns, and the protocol they follow.

    `note` is what a result must state about the data; `content_hash` covers ids, paths, splits, targets and label keys;
    `unseen` names the labels deliberately masked in train and val.
    """

    name: str
    root: Path
    labels: LabelSet
    protocol: Protocol
    splits: Mapping[str, Split]
    content_hash: str
    note: str
    unseen: tuple[str, ...] = ()

    @property
    def measured(self) -> str:
        """The split that a run's figures are of: test, or where there is none the last that there is."""
        return next(name for name in (*reversed(SPLITS), *self.splits) if name in self.splits)

    def split(self, name: str) -> Split:
        """One of the splits.

        Raises:
            UserError: there is none of that name.
        """
        if name not in self.splits:
            raise UserError(f"{self.name}: has no split {name!r}; it has {', '.join(self.splits)}")
        return self.splits[name]


def _giving_memory_back(load: Callable[P, Dataset]) -> Callable[P, Dataset]:
    """Reading needs several times the memory of what is read, which Arrow would keep once it is free."""

    @wraps(load)
    def loading(*args: P.args, **kwargs: P.kwargs) -> Dataset:
        dataset = load(*args, **kwargs)
        pa.default_memory_pool().release_unused()
        return dataset

    return loading


@_giving_memory_back
def load_dataset(
    name: str,
    root: Path | None = None,
    protocol: str | Protocol | None = None,
    val_fraction: float | None = None,
    seed: int = 0,
    subset: Subset = Subset(),
    fold: Fold | None = None,
    leave_out_unreadable: bool = False,
) -> Dataset:
    """A data set by its adapter's name ("scenes", "voc2007", ...) or by the path of a manifest (*.parquet).

    Args:
        name: see above.
        root: the folder with the data; "scenes" needs none (it is created once, in the cache).
        protocol: one of the data set's protocols, also by its name or, if it is one's own, its file; None: the first.
        val_fraction: the share of training held out for val, stratified by label. None keeps the data set's own
            val list, or holds out a tenth if it has none.
        seed: of that hold-out, and of the subset.
        subset: reduces the training data; keeps all of it by default.
        fold: of train and val, scored instead of test; see `hold_out_fold`.
        leave_out_unreadable: every image is decoded first, and those that are missing or cannot be decoded are left
            out of their splits, which the note says; no draw depends on that.

    Raises:
        UserError: an unknown name or protocol, a root without the data, or data that fails a check.
    """
    manifest, found_root = load_manifest(name, root, protocol)
    whole = hold_out_val(manifest if fold is None else hold_out_fold(manifest, fold), val_fraction, seed)
    dataset = dataset_from_manifest(reduce_training(whole, subset, seed), found_root, leave_out_unreadable)
    dataset = replace(dataset, unseen=unseen_labels(manifest.labels.keys, subset.unseen, seed))
    if "test" not in dataset.splits:
        lacks = "there is no test split: figures are of val, which also chose the epoch"
        dataset = replace(dataset, note="; ".join(filter(None, (dataset.note, lacks))))
    drawn: tuple[str, ...]
    sources: tuple[str, ...]
    if fold is not None:
        dataset = replace(dataset, name=f"{dataset.name}-fold-{fold.number}-of-{fold.count}")
        drawn, sources = tuple(dataset.splits), ("train", "val")
    elif name.endswith(".parquet") and not (manifest.targets >= 0).any(axis=1).all():
        return _within_folder(dataset)
    elif whole is not manifest:
        drawn = sources = ("train", "val")
    elif subset.shots is not None:
        drawn = sources = ("train",)
    else:
        return dataset
    # Without what cannot be read, which has no features; that all images of the others exist is known by now.
    own = _splits(_readable(manifest, found_root) if leave_out_unreadable else manifest, found_root)
    within = tuple(own[name] for name in sources if name in own)
    splits = {name: replace(dataset.splits[name], within=within) for name in drawn}
    return replace(dataset, splits={**dataset.splits, **splits})


def _within_folder(dataset: Dataset) -> Dataset:
    """The data set, its images found among all of them in the order of their folder.

    In that order `review` has read the photos of which nothing is known, so that their features are there.
    """
    rows = [(split.paths[row], split, row) for split in dataset.splits.values() for row in range(len(split))]
    rows.sort(key=lambda found: found[0])
    ids, paths = [split.ids[row] for _, split, row in rows], [path for path, _, _ in rows]
    within = (Split("photos", ids, paths, np.stack([split.targets[row] for _, split, row in rows])),)
    return replace(dataset, splits={name: replace(split, within=within) for name, split in dataset.splits.items()})


def with_known_marks(dataset: Dataset) -> Dataset:
    """Without the training images of which nothing is known, which a message says."""
    train = dataset.split("train")
    known = np.flatnonzero((train.targets >= 0).any(axis=1))
    if len(known) == len(train):
        return dataset
    say(f"left out of training, since nothing is known of them: {len(train) - len(known):,} of {len(train):,} images")
    return replace(dataset, splits={**dataset.splits, "train": rows_of_split(train, known)})


def rows_of_split(split: Split, rows: NDArray[np.int64]) -> Split:
    """Some of a split's images; their features are found among its own."""
    ids, paths = ([values[row] for row in rows.tolist()] for values in (split.ids, split.paths))
    return Split(split.name, ids, paths, split.targets[rows], split.within or (split,))


def with_splits_in_train(dataset: Dataset, names: Sequence[str]) -> Dataset:
    """With these splits as part of train; their features are found where they were."""
    parts = [dataset.split(name) for name in ("train", *names)]
    sources = tuple(dict.fromkeys(source for part in parts for source in part.within or (part,)))
    ids = [*chain.from_iterable(part.ids for part in parts)]
    paths = [*chain.from_iterable(part.paths for part in parts)]
    train = Split("train", ids, paths, np.concatenate([part.targets for part in parts]), sources)
    others = {name: split for name, split in dataset.splits.items() if name not in names}
    return replace(dataset, splits={**others, "train": train})


def with_fold_as_test(dataset: Dataset, manifest: Manifest, fold: Fold) -> Dataset:
    """With one fold of train as test, in place of the data set's own.

    Args:
        manifest: the data set's, which knows what images belong together.

    Raises:
        UserError: see `stratified_folds`.
    """
    train = dataset.split("train")
    place = {id_: row for row, id_ in enumerate(manifest.ids)}
    folds = stratified_folds(manifest.only(np.array([place[id_] for id_ in train.ids])), fold.count)
    held_out = folds == fold.number
    kept, test = (rows_of_split(train, np.flatnonzero(mask)) for mask in (~held_out, held_out))
    return replace(dataset, splits={**dataset.splits, "train": kept, "test": replace(test, name="test")})


def load_manifest(name: str, root: Path | None, protocol: str | Protocol | None) -> tuple[Manifest, Path]:
    """The checked manifest of a data set, and the folder its paths are relative to; see `load_dataset`."""
    from sspa.stage2_training.data.adapters import adapter_names, get_adapter

    if name.endswith(".parquet"):
        manifest = read_manifest(Path(name))
        if protocol is not None:
            manifest = under_protocol(manifest, find_protocol(protocol), name)
        if manifest.dataset in adapter_names() and (root is None or not in_root(root, manifest.paths[0])):
            # The adapter locates the folder below `root` that its paths are relative to.
            return manifest, get_adapter(manifest.dataset).find_root(root)
        if root is None:
            raise UserError(f"{name}: a manifest holds relative paths; say where the images are with --root")
        return manifest, root
    adapter = get_adapter(name)
    rules = adapter.protocol(protocol)
    root = adapter.find_root(root)
    manifest = adapter.read(root, rules)
    check_manifest(manifest, str(root))
    return manifest, root


def dataset_from_manifest(manifest: Manifest, root: Path, leave_out_unreadable: bool = False) -> Dataset:
    """The Dataset of a checked manifest over the images under `root`.

    Raises:
        UserError: images are missing and not to be left out, or all would be left out.
    """
    content_hash = manifest.content_hash
    if leave_out_unreadable:
        manifest = _readable(manifest, root)
    check_images(manifest, root)
    return Dataset(
        name=manifest.dataset,
        root=root,
        labels=manifest.labels,
        protocol=manifest.protocol,
        splits=_splits(manifest, root),
        content_hash=content_hash,
        note=manifest.note,
    )


def _splits(manifest: Manifest, root: Path) -> dict[str, Split]:
    splits = {}
    for name in manifest.splits.distinct():
        own = manifest.only(manifest.rows_of(name))
        splits[name] = Split(name, own.ids, Paths(root, own.paths), own.targets)
    return splits


def _readable(manifest: Manifest, root: Path) -> Manifest:
    """The manifest without images that are missing or cannot be decoded, which its note and a message say."""
    gone = {path: f"{path}: is missing" for path in missing_images(manifest, root)}
    there = [path for relative in manifest.paths if (path := root / relative) not in gone]
    problems = gone | unreadable_images(there)
    if not problems:
        return manifest
    left = without_images(manifest, {path.relative_to(root).as_posix() for path in problems})
    counts = {
        split: f"{len(manifest.rows_of(split)) - len(left.rows_of(split))} of {len(manifest.rows_of(split))} {split}"
        for split in manifest.splits.distinct()
        if len(manifest.rows_of(split)) > len(left.rows_of(split))
    }
    lacks = f"without images that cannot be read: {', '.join(counts.values())}"
    shown = list(problems.values())[:_SHOWN]
    more = f"; and {len(problems) - _SHOWN} more (sspa-train data check --decode)" if len(problems) > _SHOWN else ""
    say(f"{lacks}: {'; '.join(shown)}{more}")
    return replace(left, note="; ".join(filter(None, (manifest.note, lacks))))
