"""Pascal VOC XML: one file per image, as LabelImg, CVAT and Roboflow write it, beside the images or elsewhere."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from sspa.shared.errors import UserError
from sspa.stage2_training.data.custom.annotation_tools.finding import ImageFinder
from sspa.stage2_training.data.custom.annotation_tools.xml_files import outermost_tag, xml_root
from sspa.stage2_training.data.custom.rows import Row, make_row, split_of_path
from sspa.stage2_training.data.image_files import entries_of
from sspa.stage2_training.data.manifest import SPLITS

TAG = "annotation"
_FOLDERS = ("", "Annotations", "annotations", "xml")


def pascal_files(folder: Path) -> list[Path]:
    """The files of this form in a folder, or in its folder Annotations; empty if the first XML is something else."""
    for name in _FOLDERS:
        if (folder / name).is_dir():
            found = [entry for entry in entries_of(folder / name) if entry.suffix.lower() == ".xml"]
            if found and outermost_tag(found[0]) == TAG:
                return found
    return []


def pascal_rows(files: Sequence[Path], images: ImageFinder) -> Iterator[Row]:
    """An image per file; its labels are the names of its objects, difficult and truncated ones too.

    Splits are those of ImageSets/Main beside the files' folder, else folders called train, val or test.

    Raises:
        UserError: a file is not of this form.
    """
    listed = _listed_splits(files[0].parent)
    for file in files:
        # The outermost one: VOC's own files have another element of that name in their source.
        found = xml_root(file)
        if found.tag != TAG:
            raise UserError(f"{file}: holds no <{TAG}>; move it elsewhere, or annotate its image again")
        labels = [child.findtext("name") or "" for child in found.iter("object")]
        image = images.find(found.findtext("filename") or "", file.parent, str(file), file)
        split = listed.get(file.stem, "") if listed else split_of_path(image, images.root)
        yield make_row(str(file), str(image), dict.fromkeys(labels), split, "")


def _listed_splits(folder: Path) -> dict[str, str]:
    for lists in (folder / "ImageSets" / "Main", folder.parent / "ImageSets" / "Main"):
        found: dict[str, str] = {}
        for split in SPLITS:
            if (file := lists / f"{split}.txt").is_file():
                found |= {line.split()[0]: split for line in file.read_text("utf-8").splitlines() if line.strip()}
        if found:
            return found
    return {}
