"""Which image an annotation file is about: tools name it by a path on another machine, or only by its name."""

from collections import defaultdict
from functools import cached_property
from pathlib import Path, PurePosixPath

from sspa.shared.errors import UserError
from sspa.stage2_training.data.image_files import files_below


class ImageFinder:
    """The images below the data root, by their names."""

    def __init__(self, root: Path) -> None:
        self.root = root.absolute()

    def find(self, named: str, beside: Path, where: str, stem: str = "") -> Path:
        """The image that an annotation means, absolute; where there is none, the path at which it was expected.

        Args:
            named: its path or name in the annotation.
            beside: the annotation's folder.
            where: the annotation's place, for messages.
            stem: a name without ending that the image may have instead, such as the annotation file's own.

        Raises:
            UserError: several images have that name.
        """
        path = named.strip().replace("\\", "/")
        name = PurePosixPath(path).name
        beside = beside.absolute()
        for candidate in (beside / path, self.root / path, beside / name):
            if name and is_file(candidate):
                return candidate
        for found in (self._by_name.get(name, []), self._by_stem.get(stem or PurePosixPath(name).stem, [])):
            if found:
                return self._nearest(found, beside, where)
        return self.root / path if path and not path.startswith("/") else beside / (name or stem)

    @property
    def images(self) -> list[Path]:
        """All images below the root, absolute."""
        return self._listed

    @cached_property
    def _listed(self) -> list[Path]:
        return files_below(self.root)[0]

    @cached_property
    def _by_name(self) -> dict[str, list[Path]]:
        found: dict[str, list[Path]] = defaultdict(list)
        for image in self._listed:
            found[image.name].append(image)
        return found

    @cached_property
    def _by_stem(self) -> dict[str, list[Path]]:
        found: dict[str, list[Path]] = defaultdict(list)
        for image in self._listed:
            found[image.stem].append(image)
        return found

    def _nearest(self, found: list[Path], beside: Path, where: str) -> Path:
        """The one that shares the most folders with the annotation, as in train/labels and train/images."""
        parts = set(beside.parts)
        shared = [len(parts & set(image.parent.parts)) for image in found]
        best = [image for image, count in zip(found, shared, strict=True) if count == max(shared)]
        if len(best) > 1:
            raise UserError(f"{where}: {best[0]} and {best[1]} could both be meant; rename one, or move one elsewhere")
        return best[0]


def is_file(path: Path) -> bool:
    """Whether there is such a file; a path that no file can have is none."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        # Longer than a path can be, or with a zero byte.
        return False
