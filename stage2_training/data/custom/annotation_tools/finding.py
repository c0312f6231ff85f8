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

    def find(self, named: str, beside: Path, where: str, own_file: Path | None = None) -> Path:
        """The image that an annotation means, absolute; where there is none, the path at which it was expected.

        It is looked for elsewhere by its name only if its own folder is not here: beside images, or in a folder that
        exists, an image that is not there is missing, and one of that name in another split is another image.

        Args:
            named: its path or name in the annotation.
            beside: the annotation's folder.
            where: the annotation's place, for messages.
            own_file: the annotation's file, where each image has one: the image may have its name instead.

        Raises:
            UserError: several images have that name.
        """
        path = named.strip().replace("\\", "/")
        name = PurePosixPath(path).name
        beside = beside.absolute()
        for candidate in (beside / path, self.root / path, beside / name):
            if name and is_file(candidate):
                return candidate
        stem = own_file.stem if own_file else PurePosixPath(name).stem
        of_stem = self._by_stem.get(stem, [])
        if here := [image for image in of_stem if image.parent == beside]:
            return self._nearest(here, beside, where)
        folder = PurePosixPath(path).parent.as_posix()
        known = [base / folder for base in (beside, self.root) if folder != "." and _is_folder(base / folder)]
        if not known and not (own_file and beside in self._folders):
            for found in (self._by_name.get(name, []), of_stem):
                if found:
                    return self._nearest(found, beside, where)
        return known[0] / name if known else beside / (name or stem)

    @cached_property
    def images(self) -> list[Path]:
        """All images below the root, absolute."""
        return files_below(self.root)[0]

    @cached_property
    def _by_name(self) -> dict[str, list[Path]]:
        found: dict[str, list[Path]] = defaultdict(list)
        for image in self.images:
            found[image.name].append(image)
        return found

    @cached_property
    def _by_stem(self) -> dict[str, list[Path]]:
        found: dict[str, list[Path]] = defaultdict(list)
        for image in self.images:
            found[image.stem].append(image)
        return found

    @cached_property
    def _folders(self) -> frozenset[Path]:
        return frozenset(image.parent for image in self.images)

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


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except (OSError, ValueError):
        return False
