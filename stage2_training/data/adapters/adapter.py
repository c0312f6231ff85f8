"""What every data set's adapter answers: where it comes from, how it lies on disk, what it holds."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from sspa.shared.errors import UserError
from sspa.shared.label_sets import Label, LabelSet, built_in_label_set, fold
from sspa.stage2_training.data.manifest import Manifest
from sspa.stage2_training.evaluation.protocol import Protocol


@dataclass(frozen=True)
class Published:
    """What a data set's paper or site says one split holds; None where it says nothing."""

    images: int | None = None
    positives: int | None = None


@dataclass(frozen=True)
class Block:
    """The images of one split, as an adapter found them; targets (N, C) int8."""

    split: str
    ids: Sequence[str]
    paths: Sequence[str]
    targets: NDArray[np.int8]


class Adapter(ABC):
    """Reads one data set in its own official layout into a manifest.

    Attributes:
        name: the word after `--data`.
        title: the data set's proper name.
        download: what to download, and where it is officially offered.
        layout: the files and folders below the root, one a line; "a | b" where either will do.
        protocols: the names of its protocols, the default first.
        label_set: the built-in label set with the labels' texts.
        label_count: C, as published.
        published: by split; "trainval" is train and val together.
        published_labelled: the same for images with at least one label, where protocols differ in that.
        usual_folders: folders below what the user gave in which the layout may begin.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    download: ClassVar[str]
    layout: ClassVar[str]
    protocols: ClassVar[tuple[str, ...]]
    label_set: ClassVar[str]
    label_count: ClassVar[int]
    published: ClassVar[Mapping[str, Published]]
    published_labelled: ClassVar[Mapping[str, Published]] = {}
    usual_folders: ClassVar[tuple[str, ...]] = ()

    def find_root(self, root: Path | None) -> Path:
        """The folder that manifest paths are relative to, found from what the user gave.

        Raises:
            UserError: none was given, it is no folder, or the data set is not in it.
        """
        if root is None:
            raise UserError(f"{self.name} needs the folder with the data: --root DIR (see: sspa-train data list)")
        if not root.is_dir():
            raise UserError(f"{root}: there is no such folder; give the folder with {self.title} as --root")
        return self.locate(root)

    def locate(self, root: Path) -> Path:
        """The data root for an existing folder; UserError where the data set is not in it."""
        for candidate in (root, *(root / folder for folder in self.usual_folders)):
            if len(self.missing(candidate)) < len(self.layout.split("\n")):
                return candidate
        wanted = self.layout.replace("\n", ", ")
        raise UserError(f"{root}: holds no {self.title} (looked for: {wanted}); download: {self.download}")

    @abstractmethod
    def read(self, root: Path, protocol: Protocol) -> Manifest:
        """The manifest under a protocol; `root` comes from `find_root`.

        Raises:
            UserError: a file is missing or not as published; the message names it.
        """

    def missing(self, root: Path) -> list[str]:
        """The lines of the layout of which nothing is below `root`."""
        return [line for line in self.layout.split("\n") if not any((root / way).exists() for way in line.split(" | "))]

    def contradictions(self, root: Path, manifest: Manifest) -> list[str]:
        """Places where the data set's own files disagree with each other; the check command lists them."""
        return []

    def published_under(self, protocol: Protocol) -> Mapping[str, Published]:
        """The published counts of what a protocol keeps."""
        return self.published_labelled if protocol.unlabelled_images == "drop" else self.published

    def labels(self, keys: Sequence[str]) -> LabelSet:
        """The built-in labels in the order of the data set's own names for them, so that knowledge about them fits.

        Names that differ in case and punctuation only are one ("BaseballField", "baseball field"). Where at least five
        are known and all of these stand at their own place, the others (a misspelling corrected in one copy, a prefix
        left out) are known by theirs. A name that stays unknown is its own text.
        """
        known = built_in_label_set(self.label_set)
        place = {_letters(label.key): number for number, label in enumerate(known.labels)}
        places = [place.get(_letters(key)) for key in keys]
        in_order = all(found in (None, number) for number, found in enumerate(places))
        if len(keys) == len(known.labels) and in_order and len(keys) - places.count(None) >= 5:
            return known
        labels = [
            Label(key, key) if found is None else known.labels[found] for key, found in zip(keys, places, strict=True)
        ]
        return replace(known, labels=tuple(labels))

    def manifest(self, labels: LabelSet, protocol: Protocol, blocks: Sequence[Block]) -> Manifest:
        """The manifest of all blocks, without unlabelled images where the protocol drops them."""
        kept = [_labelled(block) if protocol.unlabelled_images == "drop" else block for block in blocks]
        splits = tuple(block.split for block in kept for _ in block.ids)
        return Manifest(
            dataset=self.name,
            labels=labels,
            protocol=protocol.name,
            note=self._note(splits, protocol),
            ids=tuple(key for block in kept for key in block.ids),
            paths=tuple(path for block in kept for path in block.paths),
            splits=splits,
            targets=np.concatenate([block.targets for block in kept]).astype(np.int8),
        )

    def _note(self, splits: Sequence[str], protocol: Protocol) -> str:
        """What a result must say: that this is only a part of the data set."""
        parts = []
        for split, counted in self.published_under(protocol).items():
            found = sum(name == split or (split == "trainval" and name in ("train", "val")) for name in splits)
            if counted.images is not None and found != counted.images:
                parts.append(f"{found:,} of {counted.images:,} {split} images")
        return f"a cut of {self.title}: {', '.join(parts)}" if parts else ""


def read_lines(path: Path) -> list[str]:
    """The lines of a data set's text file that are not empty.

    Raises:
        UserError: it cannot be read or is empty.
    """
    try:
        lines = [line for line in path.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); is the archive unpacked completely?") from None
    if not lines:
        raise UserError(f"{path}: is empty; unpack the archive again")
    return lines


def first_existing(root: Path, *ways: str) -> Path:
    """The first of several places below `root` that exists; UserError where none does."""
    for way in ways:
        if (root / way).exists():
            return root / way
    raise UserError(f"{root / ways[0]}: is missing; is the archive unpacked completely?")


def _letters(name: str) -> str:
    return "".join(character for character in fold(name) if character.isalnum())


def _labelled(block: Block) -> Block:
    rows = np.flatnonzero((block.targets == 1).any(axis=1))
    return Block(block.split, [block.ids[i] for i in rows], [block.paths[i] for i in rows], block.targets[rows])
