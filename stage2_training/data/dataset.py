"""The input of training and evaluation: a Dataset of Splits, always created from a manifest."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sspa.shared.errors import UserError
from sspa.shared.label_sets import LabelSet
from sspa.stage2_training.data.manifest import Manifest, check_manifest, in_root, read_manifest, resolve_paths
from sspa.stage2_training.data.splitting import Fold, hold_out_fold, hold_out_val
from sspa.stage2_training.data.subsets import Subset, reduce_training, unseen_labels
from sspa.stage2_training.evaluation.protocol import Protocol
from sspa.stage2_training.evaluation.protocols import get_protocol


@dataclass(frozen=True)
class Split:
    """N images; targets (N, C) int8 with 1 present, 0 absent, -1 unknown.

    `within` are the data set's own splits that this one was drawn from, if any.
    """

    name: str
    ids: tuple[str, ...]
    paths: tuple[Path, ...]
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


def load_dataset(
    name: str,
    root: Path | None = None,
    protocol: str | None = None,
    val_fraction: float | None = None,
    seed: int = 0,
    subset: Subset = Subset(),
    fold: Fold | None = None,
) -> Dataset:
    """A data set by its adapter's name ("scenes", "voc2007", ...) or by the path of a manifest (*.parquet).

    Args:
        name: see above.
        root: the folder with the data; "scenes" needs none (it is created once, in the cache).
        protocol: the name of one of the data set's protocols; if None, the first.
        val_fraction: the share of training held out for val, stratified by label. None keeps the data set's own
            val list, or holds out a tenth if it has none.
        seed: of that hold-out, and of the subset.
        subset: reduces the training data; keeps all of it by default.
        fold: of train and val, scored instead of test; see `hold_out_fold`.

    Raises:
        UserError: an unknown name or protocol, a root without the data, or data that fails a check.
    """
    manifest, found_root = load_manifest(name, root, protocol)
    whole = hold_out_val(manifest if fold is None else hold_out_fold(manifest, fold), val_fraction, seed)
    dataset = dataset_from_manifest(reduce_training(whole, subset, seed), found_root)
    dataset = replace(dataset, unseen=unseen_labels(manifest.labels.keys, subset.unseen, seed))
    if fold is not None:
        own = dataset_from_manifest(manifest, found_root).splits
        within = tuple(split for name, split in own.items() if name != "test")
        splits = {name: replace(split, within=within) for name, split in dataset.splits.items()}
        return replace(dataset, name=f"{dataset.name}-fold-{fold.number}-of-{fold.count}", splits=splits)
    if subset.shots is not None:
        own = dataset_from_manifest(whole, found_root).splits
        train = replace(dataset.splits["train"], within=(own["train"],))
        return replace(dataset, splits={**dataset.splits, "train": train})
    return dataset


def load_manifest(name: str, root: Path | None, protocol: str | None) -> tuple[Manifest, Path]:
    """The checked manifest of a data set, and the folder its paths are relative to; see `load_dataset`."""
    from sspa.stage2_training.data.adapters import adapter_names, get_adapter

    if name.endswith(".parquet"):
        manifest = read_manifest(Path(name))
        if protocol not in (None, manifest.protocol):
            raise UserError(f"{name} was prepared under {manifest.protocol}, not {protocol}; prepare it again")
        if manifest.dataset in adapter_names() and (root is None or not in_root(root, manifest.paths[0])):
            # The adapter locates the folder below `root` that its paths are relative to.
            return manifest, get_adapter(manifest.dataset).find_root(root)
        if root is None:
            raise UserError(f"{name}: a manifest holds relative paths; say where the images are with --root")
        return manifest, root
    adapter = get_adapter(name)
    rules = get_protocol(protocol or adapter.protocols[0])
    if rules.name not in adapter.protocols:
        raise UserError(f"{rules.name} is no protocol of {name}; its protocols are {', '.join(adapter.protocols)}")
    root = adapter.find_root(root)
    manifest = adapter.read(root, rules)
    check_manifest(manifest, str(root))
    return manifest, root


def dataset_from_manifest(manifest: Manifest, root: Path) -> Dataset:
    """The Dataset of a checked manifest over the images under `root`."""
    paths = np.array(resolve_paths(manifest, root), dtype=object)
    ids = np.array(manifest.ids, dtype=object)
    splits = {}
    for split in dict.fromkeys(manifest.splits):
        rows = manifest.rows_of(split)
        splits[split] = Split(split, tuple(ids[rows]), tuple(paths[rows]), manifest.targets[rows])
    return Dataset(
        name=manifest.dataset,
        root=root,
        labels=manifest.labels,
        protocol=get_protocol(manifest.protocol),
        splits=splits,
        content_hash=manifest.content_hash,
        note=manifest.note,
    )
