"""What every data set's adapter answers: where it comes from, how it lies on disk, what it holds."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from sspa.shared.errors import UserError
from sspa.stage2_training.data.manifest import Manifest
from sspa.stage2_training.evaluation.protocol import Protocol


@dataclass(frozen=True)
class Published:
    """What a data set's paper or site says one split holds; None where it says nothing."""

    images: int | None = None
    positives: int | None = None


class Adapter(ABC):
    """Reads one data set in its own official layout into a manifest.

    Attributes:
        name: the word after `--data`.
        title: the data set's proper name.
        download: what to download, and where it is officially offered.
        layout: the files below the root, one a line.
        protocols: the names of its protocols, the default first.
        label_count: C, as published.
        published: by split; "trainval" is train and val together.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    download: ClassVar[str]
    layout: ClassVar[str]
    protocols: ClassVar[tuple[str, ...]]
    label_count: ClassVar[int]
    published: ClassVar[Mapping[str, Published]]

    def find_root(self, root: Path | None) -> Path:
        """The folder that manifest paths are relative to, found from what the user gave.

        Raises:
            UserError: none was given, it is no folder, or the data set is not in it.
        """
        if root is None:
            raise UserError(f"{self.name} needs the folder with the data: --root DIR (see: sspa-train data check)")
        if not root.is_dir():
            raise UserError(f"{root}: there is no such folder; give the folder with {self.title} as --root")
        return self.locate(root)

    @abstractmethod
    def locate(self, root: Path) -> Path:
        """The data root for an existing folder; UserError where the data set is not in it."""

    @abstractmethod
    def read(self, root: Path, protocol: Protocol) -> Manifest:
        """The manifest under a protocol; `root` comes from `find_root`.

        Raises:
            UserError: a file is missing or not as published; the message names it.
        """

    def missing(self, root: Path) -> list[str]:
        """Files and folders of the layout that are not below `root`."""
        return [line for line in self.layout.split("\n") if not (root / line).exists()]
