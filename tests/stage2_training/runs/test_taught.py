from pathlib import Path

import duckdb
import numpy as np
import pytest

from sspa.shared.errors import UserError
from sspa.stage2_training.runs.records import TaughtRecord
from sspa.stage2_training.runs.taught import TaughtMarks, read_taught, write_taught

MARKS = np.array([[1, -1], [-1, -1], [0, 1]], dtype=np.int8)
ABOUT = TaughtRecord(teacher="self", weights="abc", images=2, present=2, absent=1)
IDS, KEYS = ["a", "b", "c"], ["image", "d.e"]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    write_taught(TaughtMarks(MARKS, ABOUT), IDS, KEYS, tmp_path / "taught.parquet")
    return tmp_path / "taught.parquet"


def test_what_was_written_is_read_and_can_be_queried(file: Path) -> None:
    found = read_taught(file, IDS, KEYS)
    assert (found.marks == MARKS).all()
    assert found.marks.dtype == np.int8
    assert found.about == ABOUT
    asked = duckdb.sql(f"SELECT image, marks.\"d.e\" FROM '{file}' WHERE marks.image IS NOT NULL ORDER BY image")
    assert asked.fetchall() == [("a", None), ("c", 1)]


@pytest.mark.parametrize(
    ("ids", "keys"), [(["a", "b"], KEYS), (["a", "c", "b"], KEYS), (IDS, ["image", "f"]), (IDS, ["d.e", "image"])]
)
def test_marks_of_other_images_or_labels_are_refused(file: Path, ids: list[str], keys: list[str]) -> None:
    with pytest.raises(UserError, match="is of other images"):
        read_taught(file, ids, keys)


def test_damage_is_noticed(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 4] ^= 255
    file.write_bytes(content)
    with pytest.raises(UserError, match=r"taught\.parquet: "):
        read_taught(file, IDS, KEYS)
