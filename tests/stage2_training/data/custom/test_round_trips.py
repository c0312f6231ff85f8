"""Random data, written in every form that is read, comes back as the same manifest."""

import csv
import io
import json
import shutil
import tempfile
import unicodedata
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from sspa.shared.label_sets import fold
from sspa.stage2_training.data.custom.reading import read_custom
from sspa.stage2_training.data.manifest import Manifest

PROPERTY = settings(
    max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow], database=None
)
# What a name can hold in every form: no separator of labels, and nothing that a form uses itself.
LETTERS = st.characters(codec="utf-8", categories=("L", "N"), include_characters=" _-'.+#&")
NOTHING = ("nan", "none", "null", "n/a", "#n/a", "-1", "0", "1", "true", "false", "1.0", "0.0", "-1.0")


def _as_kept(name: str) -> str:
    """Names are compared in one Unicode form, and with single spaces."""
    return " ".join(unicodedata.normalize("NFC", name).split())


NAMES = st.text(LETTERS, min_size=1, max_size=12).map(_as_kept).filter(lambda name: fold(name) not in ("", *NOTHING))
RESERVED = (
    *("path", "image", "image_path", "filename", "file_name", "file", "split", "subset", "set", "id", "image_id"),
    *("labels", "label", "tags", "tag", "classes", "class", "train", "training", "val", "valid", "validation", "test"),
    *("testing", "__macosx", "thumbs.db", "desktop.ini", "group"),
)


@dataclass(frozen=True)
class Data:
    """Labels, and for each image its split and a mark per label: 1, 0 or -1."""

    labels: tuple[str, ...]
    splits: tuple[str, ...]
    marks: tuple[tuple[int, ...], ...]

    def named(self, row: int, mark: int) -> list[str]:
        return [label for label, value in zip(self.labels, self.marks[row], strict=True) if value == mark]


@st.composite
def data(draw: st.DrawFn, marks: tuple[int, ...] = (0, 1, -1), bare: bool = True) -> Data:
    usable = NAMES.filter(lambda name: fold(name) not in RESERVED and name[0].isalnum() and not name.endswith("."))
    labels = draw(st.lists(usable, min_size=2, max_size=4, unique_by=lambda name: fold(name)))
    # No label made of others, and no two that differ only in an s, so that nothing is odd.
    rows = draw(st.lists(st.tuples(*[st.sampled_from(marks)] * len(labels)), min_size=3, max_size=7))
    rows = [row if bare or 1 in row else (1, *row[1:]) for row in rows]
    rows[0] = (1,) * len(labels)  # each label is somewhere
    splits = ["train", *draw(st.lists(st.sampled_from(("train", "val", "test")), min_size=len(rows) - 1,
                                      max_size=len(rows) - 1))]  # fmt: skip
    return Data(tuple(sorted(labels)), tuple(splits), tuple(rows))


@contextmanager
def images_of(found: Data, where: Callable[[int], str] = lambda row: f"{row}.png") -> Iterator[Path]:
    """A folder with an image of its own colour for each row."""
    root = Path(tempfile.mkdtemp())
    try:
        for row in range(len(found.marks)):
            path = root / where(row)
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (2, 2), (row * 20, 100, 200)).save(path)
        yield root
    finally:
        shutil.rmtree(root)


def expect(manifest: Manifest, found: Data, unknown: bool = True) -> None:
    """The same labels, and for each image (named after its row) the same split and marks."""
    assert manifest.labels.keys == found.labels
    read = {
        Path(path).stem.partition(" ")[0]: (split, tuple(marks))
        for path, split, marks in zip(manifest.paths, manifest.splits, manifest.targets.tolist(), strict=True)
    }
    assert read == {
        str(row): (split, marks if unknown else tuple(max(mark, 0) for mark in marks))
        for row, (split, marks) in enumerate(zip(found.splits, found.marks, strict=True))
    }


@PROPERTY
@given(
    found=data(),
    delimiter=st.sampled_from(",;\t"),
    encoding=st.sampled_from(("utf-8", "utf-8-sig", "utf-16")),
    ends=st.sampled_from(("\n", "\r\n")),
    header=st.sampled_from((str, str.upper, lambda name: f" {name.title()} ")),
    wide=st.booleans(),
    blanks=st.booleans(),
)
def test_tables(
    found: Data, delimiter: str, encoding: str, ends: str, header: Callable, wide: bool, blanks: bool
) -> None:
    text = io.StringIO()
    writer = csv.writer(text, delimiter=delimiter, lineterminator=ends)
    extra = ("",) if blanks else ()
    names = found.labels if wide else (header("labels"),)
    writer.writerow((header("filename"), *names, header("split"), *extra))
    for row, split in enumerate(found.splits):
        unknown = [f"?{label}" for label in found.named(row, -1)]
        cells = found.marks[row] if wide else (";".join([*found.named(row, 1), *unknown]),)
        writer.writerow((f"{row}.png", *cells, split, *extra))
        if blanks:
            text.write(ends)
    with images_of(found) as root:
        (root / "mine.csv").write_bytes(text.getvalue().encode(encoding))
        expect(read_custom("mine", root, root / "mine.csv"), found)


@PROPERTY
@given(
    found=data(marks=(0, 1), bare=False), spelling=st.sampled_from(("{}.png", "./{}.png", ".//{}.PNG", "x/../{}.png"))
)
def test_tables_with_a_row_per_label(found: Data, spelling: str) -> None:
    lines = ["path,label,split"]
    for row, split in enumerate(found.splits):
        lines += [f'{spelling.format(row)},"{label}",{split}' for label in found.named(row, 1)]
    with images_of(found) as root:
        (root / "mine.csv").write_text("\n".join(lines), encoding="utf-8")
        expect(read_custom("mine", root, root / "mine.csv"), found)


@PROPERTY
@given(found=data(), name=st.sampled_from(("path", "file_name", "image")), ascii_only=st.booleans())
def test_json_lines(found: Data, name: str, ascii_only: bool) -> None:
    lines = [
        json.dumps(
            {name: f"{row}.png", "labels": [*found.named(row, 1), *(f"?{label}" for label in found.named(row, -1))],
             "split": split, "note": "\u2028"},
            ensure_ascii=ascii_only,
        )
        for row, split in enumerate(found.splits)
    ]  # fmt: skip
    with images_of(found) as root:
        (root / "mine.jsonl").write_text("\n".join(lines), encoding="utf-8")
        expect(read_custom("mine", root, root / "mine.jsonl"), found)


@PROPERTY
@given(found=data(marks=(0, 1)), ids=st.sampled_from((int, str, lambda row: f"x{row}")), first=st.integers(0, 5))
def test_coco_in_the_folder_of_each_split(found: Data, ids: Callable, first: int) -> None:
    with images_of(found, lambda row: f"{found.splits[row]}/{row}.png") as root:
        for split in dict.fromkeys(found.splits):
            rows = [row for row, name in enumerate(found.splits) if name == split]
            content = {
                "images": [{"id": ids(row), "file_name": f"{row}.png"} for row in rows],
                # In another order, with gaps.
                "categories": [{"id": ids(first + 3 * place), "name": label}
                               for place, label in reversed(list(enumerate(found.labels)))],
                "annotations": [{"image_id": ids(row), "category_id": ids(first + 3 * found.labels.index(label))}
                                for row in rows for label in found.named(row, 1) * 2],
            }  # fmt: skip
            (root / split / "_annotations.coco.json").write_text(json.dumps(content))
        expect(read_custom("mine", root), found)


@PROPERTY
@given(found=data(marks=(0, 1), bare=False), deep=st.booleans(), linked=st.booleans())
def test_a_folder_for_each_label_below_one_for_each_split(found: Data, deep: bool, linked: bool) -> None:
    """An image of several labels lies in each one's folder: as copies, or as links."""
    with images_of(found, lambda row: f".all/{row}.png") as root:
        for split in ("train", "val", "test"):  # a single folder would be a label
            (root / split).mkdir()
        for row, split in enumerate(found.splits):
            for label in found.named(row, 1):
                folder = root / split / label / ("more" if deep else ".")
                folder.mkdir(parents=True, exist_ok=True)
                if linked:
                    (folder / f"{row} of {label}.png").symlink_to(root / ".all" / f"{row}.png")
                else:
                    shutil.copy(root / ".all" / f"{row}.png", folder / f"{row}.png")
        (root / "train" / ".DS_Store").touch()
        (root / "__MACOSX").mkdir()
        expect(read_custom("mine", root), found)


@PROPERTY
@given(found=data(marks=(0, 1)), boxes=st.integers(1, 2))
def test_pascal_voc_beside_the_images(found: Data, boxes: int) -> None:
    from xml.sax.saxutils import escape

    with images_of(found, lambda row: f"{found.splits[row]}/{row}.png") as root:
        for split in ("train", "val", "test"):
            (root / split).mkdir(exist_ok=True)
        for row, split in enumerate(found.splits):
            objects = "".join(f"<object><name>{escape(name)}</name></object>" for name in found.named(row, 1) * boxes)
            text = f"<annotation><filename>{row}.png</filename>{objects}</annotation>"
            (root / split / f"{row}.xml").write_text(text, encoding="utf-8")
        for split in ("train", "val", "test"):
            if not any((root / split).iterdir()):
                (root / split).rmdir()
        expect(read_custom("mine", root), found)


@PROPERTY
@given(found=data(marks=(0, 1)))
def test_yolo(found: Data) -> None:
    with images_of(found, lambda row: f"images/{found.splits[row]}/{row}.png") as root:
        for row, split in enumerate(found.splits):
            file = root / "labels" / split / f"{row}.txt"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text("".join(f"{found.labels.index(label)} 0.5 0.5 1 1\n" for label in found.named(row, 1)))
        (root / "classes.txt").write_text("".join(f"{label}\n" for label in found.labels), encoding="utf-8")
        expect(read_custom("mine", root), found)
