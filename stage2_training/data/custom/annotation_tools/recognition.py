"""Which tool's annotations a folder or file holds."""

from collections.abc import Iterator
from pathlib import Path

from sspa.shared.delimited_files import delimited_rows, folded
from sspa.shared.errors import UserError
from sspa.shared.json_files import read_json
from sspa.stage2_training.data.adapters.coco import Instances
from sspa.stage2_training.data.custom.annotation_tools.cvat import TAG as CVAT
from sspa.stage2_training.data.custom.annotation_tools.cvat import cvat_rows
from sspa.stage2_training.data.custom.annotation_tools.finding import ImageFinder
from sspa.stage2_training.data.custom.annotation_tools.instances import instance_rows
from sspa.stage2_training.data.custom.annotation_tools.label_studio import is_label_studio, label_studio_rows
from sspa.stage2_training.data.custom.annotation_tools.labelme import labelme_files, labelme_rows
from sspa.stage2_training.data.custom.annotation_tools.open_images import is_open_images, open_images_rows
from sspa.stage2_training.data.custom.annotation_tools.pascal_voc import TAG as PASCAL
from sspa.stage2_training.data.custom.annotation_tools.pascal_voc import pascal_files, pascal_rows
from sspa.stage2_training.data.custom.annotation_tools.xml_files import outermost_tag
from sspa.stage2_training.data.custom.annotation_tools.yolo import yolo_names_file, yolo_rows
from sspa.stage2_training.data.custom.json_lines import json_line_rows
from sspa.stage2_training.data.custom.rows import Row
from sspa.stage2_training.data.custom.tables import TableColumns, table_rows
from sspa.stage2_training.data.image_files import IMAGE_ENDINGS, entries_of

_ENDINGS = "a .csv, .tsv, .jsonl, .json, .xml or .yaml file, or a folder"


def file_rows(source: Path, images: ImageFinder, columns: TableColumns) -> Iterator[Row]:
    """The rows of a list of images, by its ending and content.

    Raises:
        UserError: another ending, or the content is of no form that is read.
    """
    ending = source.suffix.lower()
    if ending in (".csv", ".tsv", ".txt"):
        if ending == ".csv" and is_open_images(source):
            return open_images_rows(source, images)
        if yolo := _yolo(source.parent) if source.name in ("classes.txt", "obj.names") else None:
            return yolo_rows(yolo, images)
        return table_rows(source, columns)
    if ending == ".jsonl":
        return json_line_rows(source, columns)
    if ending == ".json":
        return _json_rows(source, images)
    if ending in (".yaml", ".yml"):
        return yolo_rows(source, images)
    if ending == ".xml":
        return _xml_rows(source, images)
    raise UserError(f"{source}: unknown form {source.suffix!r}; give {_ENDINGS}")


def annotated_folder_rows(folder: Path, images: ImageFinder, columns: TableColumns) -> Iterator[Row] | None:
    """The rows of a folder with the annotations of a tool; None if it holds none."""
    within = "" if folder.absolute() == images.root else f"{folder.absolute().as_posix()}/"
    # Roboflow's and Hugging Face's names for a list that lies among the images.
    if (file := folder / "_classes.csv").is_file() or _names_files(file := folder / "metadata.csv"):
        return table_rows(file, columns, within=within)
    if (file := folder / "metadata.jsonl").is_file():
        return json_line_rows(file, columns, within)
    if (file := folder / "_annotations.coco.json").is_file():
        return instance_rows(file, images)
    if (names := _yolo(folder)) is not None:
        return yolo_rows(names, images)
    if files := pascal_files(folder):
        return pascal_rows(files, images)
    if files := labelme_files(folder):
        return labelme_rows(files, images)
    return None


def _names_files(file: Path) -> bool:
    """Whether a metadata.csv is that of an image folder: other data sets have a file of that name, too."""
    if not file.is_file():
        return False
    _, lines = delimited_rows(file, ("file_name",))
    return bool(lines) and "file_name" in map(folded, lines[0][1])


def _yolo(folder: Path) -> Path | None:
    """The file with YOLO's names, if its text files are there too: other tools write a classes.txt as well."""
    names = yolo_names_file(folder)
    if names is None or names.suffix in (".yaml", ".yml") or (folder / "labels").is_dir():
        return names
    beside = (entry for entry in entries_of(folder) if entry.suffix.lower() in IMAGE_ENDINGS)
    return names if any(image.with_suffix(".txt").is_file() for image in beside) else None


def _json_rows(source: Path, images: ImageFinder) -> Iterator[Row]:
    content = read_json(source, largest=None)
    if is_label_studio(content):
        return label_studio_rows(content, source, images)
    if isinstance(content, dict) and "imagePath" in content:
        return labelme_rows([source], images)
    return instance_rows(source, images, Instances(content, source))


def _xml_rows(source: Path, images: ImageFinder) -> Iterator[Row]:
    tag = outermost_tag(source)
    if tag == PASCAL:
        return pascal_rows([source], images)
    if tag == CVAT:
        return cvat_rows(source, images)
    raise UserError(f"{source}: is neither CVAT's XML nor a Pascal VOC annotation; give {_ENDINGS}")
