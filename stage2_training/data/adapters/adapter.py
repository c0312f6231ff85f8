"""The contract of the data set adapters: where a data set comes from, its layout on disk, its contents."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from sspa.shared.errors import UserError
from sspa.shared.label_sets import Label, LabelSet, built_in_label_set, fold
from sspa.stage2_training.data.columns import Texts
from sspa.stage2_training.data.manifest import Manifest
from sspa.stage2_training.evaluation.own_protocol import find_protocol
from sspa.stage2_training.evaluation.protocol import Protocol


@dataclass(frozen=True)
class Published:
    """The size of a split according to the data set's paper or site; None where it says nothing."""

    images: int | None = None
    positives: int | None = None


@dataclass(frozen=True)
class Block:
    """The images of one split as found by an adapter; targets (N, C) int8."""

    split: str
    ids: Sequence[str]
    paths: Sequence[str]
    targets: NDArray[np.int8]


class Adapter(ABC):
    """Reads one data set in its own official layout into a manifest.

    Attributes:
        name: its name on the command line (`--data`).
        title: the data set's proper name.
        download: what to download, and from which official site.
        layout: the files and folders below the root, one per line; "a | b" where either is accepted.
        protocols: the names of its protocols, the default first.
        label_set: the built-in label set with the labels' texts.
        label_count: C, as published.
        published: the published counts by split; "trainval" is train and val together.
        published_labelled: the same for images with at least one label, if protocols differ in that.
        usual_folders: subfolders of the given folder at which the layout may start.
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

    def protocol(self, name_or_file: str | Protocol | None) -> Protocol:
        """One of the data set's protocols, or one's own that is based on one of them; by default the first.

        Raises:
            UserError: there is no such protocol, or it belongs to other data.
        """
        rules = find_protocol(name_or_file or self.protocols[0])
        if rules.built_in not in self.protocols:
            problem = f"{rules.name} is based on {rules.based_on}, which" if rules.based_on else rules.name
            raise UserError(f"{problem} is no protocol of {self.name}; its protocols are {', '.join(self.protocols)}")
        return rules

    def find_root(self, root: Path | None) -> Path:
        """The folder that manifest paths are relative to, located from what the user gave.

        Raises:
            UserError: nothing was given, it is not a folder, or the data set is not in it.
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
            UserError: a file is missing or differs from the published form; the message names it.
        """

    def missing(self, root: Path) -> list[str]:
        """The lines of the layout that are missing below `root`."""
        return [line for line in self.layout.split("\n") if not any((root / way).exists() for way in line.split(" | "))]

    def contradictions(self, root: Path, manifest: Manifest) -> list[str]:
        """Where the data set's own files disagree with each other; listed by the check command."""
        return []

    def published_under(self, protocol: Protocol) -> Mapping[str, Published]:
        """The published counts of the images that a protocol keeps."""
        return self.published_labelled if protocol.unlabelled_images == "drop" else self.published

    def labels(self, keys: Sequence[str]) -> LabelSet:
        """The built-in labels in the order of the data set's own names for them, so that knowledge about them fits.

        Names are matched ignoring case and punctuation ("BaseballField", "baseball field"). If at least five match and
        all of these are at their expected position, the others (a misspelling corrected in one copy, an omitted
        prefix) are matched by position. An unmatched name is its own text.
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
        """The manifest of all blocks, without unlabelled images if the protocol drops them."""
        kept = [_labelled(block) if protocol.unlabelled_images == "drop" else block for block in blocks]
        splits = tuple(block.split for block in kept for _ in block.ids)
        return Manifest(
            dataset=self.name,
            labels=labels,
            protocol=protocol,
            note=self._note(splits, protocol),
            ids=Texts(key for block in kept for key in block.ids),
            paths=Texts(path for block in kept for path in block.paths),
            splits=Texts(splits),
            targets=np.concatenate([block.targets for block in kept]).astype(np.int8),
        )

    def _note(self, splits: Sequence[str], protocol: Protocol) -> str:
        """What a result must state if the data set is incomplete: that this is only part of it."""
        parts = []
        for split, counted in self.published_under(protocol).items():
            found = sum(name == split or (split == "trainval" and name in ("train", "val")) for name in splits)
            if counted.images is not None and found != counted.images:
                parts.append(f"{found:,} of {counted.images:,} {split} images")
        return f"a cut of {self.title}: {', '.join(parts)}" if parts else ""


def read_lines(path: Path) -> list[str]:
    """The non-empty lines of a data set's text file.

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


def splits_present(lists: Mapping[str, Path]) -> list[str]:
    """The splits to read: all, or only test, or all but test, where the others' lists are all missing.

    A copy for evaluation has only test, and one without test can be trained on; the manifest's note says what is
    missing. A list of train or val missing by itself is a damaged copy: then all splits are named, so that reading
    says so.
    """
    there = [split for split, file in lists.items() if file.is_file()]
    return there if set(there) in ({"test"}, set(lists) - {"test"}) else list(lists)


def first_existing(root: Path, *ways: str) -> Path:
    """The first of several paths below `root` that exists; a UserError if none does."""
    for way in ways:
        if (root / way).exists():
            return root / way
    raise UserError(f"{root / ways[0]}: is missing; is the archive unpacked completely?")


def _letters(name: str) -> str:
    return "".join(character for character in fold(name) if character.isalnum())


def _labelled(block: Block) -> Block:
    rows = np.flatnonzero((block.targets == 1).any(axis=1))
    return Block(block.split, [block.ids[i] for i in rows], [block.paths[i] for i in rows], block.targets[rows])
