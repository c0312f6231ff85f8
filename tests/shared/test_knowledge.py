"""The knowledge file: it round-trips, and any defect is reported in one line."""

import dataclasses
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sspa.shared import parquet_files
from sspa.shared.errors import UserError
from sspa.shared.knowledge import read_knowledge
from sspa.shared.knowledge_format import (
    SCHEMA_VERSION,
    arrow_schema,
    content_hash,
    knowledge_table,
    read_table,
    write_knowledge,
)
from sspa.shared.label_sets import Label

ROWS = [
    {
        "label": "tvmonitor",
        "text": "tv monitor",
        "sample": 0,
        "description": "A flat screen in a dark frame.",
    },
    {"label": "tvmonitor", "text": "tv monitor", "sample": 1, "description": "A screen on a stand."},
    {
        "label": "cat",
        "hint": "the animal",
        "description": "A small animal with pointed ears.",
        "verdict": "doubtful",
    },
    {"label": "dog", "description": "An animal with a snout – often on a lead."},
]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "voc.parquet"
    write_knowledge(path, ROWS)
    return path


def test_what_is_written_is_read(path: Path) -> None:
    knowledge = read_knowledge(path)
    assert knowledge.labels == (
        Label("tvmonitor", "tv monitor"),
        Label("cat", "cat", "the animal"),
        Label("dog", "dog"),
    )
    assert knowledge.domain == "natural"
    assert knowledge.descriptions["tvmonitor"] == ("A flat screen in a dark frame.", "A screen on a stand.")
    assert knowledge.descriptions["dog"] == ("An animal with a snout – often on a lead.",)
    with pytest.raises(dataclasses.FrozenInstanceError):
        knowledge.domain = "pedestrian"  # type: ignore[misc]


def test_what_a_person_wrote_is_known_also_in_another_order(tmp_path: Path) -> None:
    write_knowledge(tmp_path / "k.parquet", [ROWS[0], {**ROWS[1], "origin": "human"}, *ROWS[2:]])

    knowledge = read_knowledge(tmp_path / "k.parquet")

    assert knowledge.by_hand == {("tvmonitor", 1)}
    assert knowledge.for_labels(["dog", "tvmonitor"]).by_hand == {("tvmonitor", 1)}
    assert knowledge.with_labels({Label("ox", "ox"): "It has horns."}).by_hand == {("tvmonitor", 1)}


def test_any_reader_sees_plain_columns(path: Path) -> None:
    import duckdb

    found = duckdb.sql(f"select label, description from '{path}' where verdict = 'doubtful'").fetchall()
    assert found == [("cat", "A small animal with pointed ears.")]


def test_labels_can_be_asked_for_in_another_order(path: Path) -> None:
    knowledge = read_knowledge(path)
    same = knowledge.for_labels(["dog", "tvmonitor", "cat"])
    assert [label.key for label in same.labels] == ["dog", "tvmonitor", "cat"]
    assert list(same.descriptions) == ["dog", "tvmonitor", "cat"]
    assert same.content_hash == knowledge.content_hash
    fewer = knowledge.for_labels(["dog"])
    assert fewer.content_hash != knowledge.content_hash
    with pytest.raises(UserError, match=r"voc.parquet: has no knowledge about cow, Dog;.*sspa-knowledge generate"):
        knowledge.for_labels(["cat", "cow", "Dog"])


def test_same_rows_same_bytes_and_same_hash(path: Path, tmp_path: Path) -> None:
    again = tmp_path / "again.parquet"
    digest = write_knowledge(again, ROWS)
    assert again.read_bytes() == path.read_bytes()
    assert read_knowledge(again).content_hash == digest == read_table(again)[1]


@pytest.mark.parametrize(
    ("column", "value", "changes"),
    [
        ("label", "wolf", True),
        ("text", "hound", True),
        ("description", "Another description.", True),
        ("verdict", "doubtful", False),
        ("model", "another/model", False),
        ("seed", 7, False),
        ("attempts", 3, False),
    ],
)
def test_the_hash_covers_labels_texts_and_sentences_only(
    path: Path, tmp_path: Path, column: str, value: str | int, changes: bool
) -> None:
    changed = write_knowledge(tmp_path / "changed.parquet", [*ROWS[:3], {**ROWS[3], column: value}])
    assert (changed != read_knowledge(path).content_hash) == changes


def test_the_hash_keeps_fields_apart() -> None:
    assert content_hash(["ab"], ["c"], [0], ["d"]) != content_hash(["a"], ["bc"], [0], ["d"])


def test_every_flipped_byte_is_noticed(path: Path) -> None:
    whole = path.read_bytes()
    original = read_table(path)[0]
    for position in range(0, len(whole), 7):
        path.write_bytes(whole[:position] + bytes([whole[position] ^ 0x10]) + whole[position + 1 :])
        try:
            found = read_table(path)[0]
        except UserError:
            continue
        assert found.equals(original), position  # a byte of the footer that no reader looks at


@pytest.mark.parametrize("keep", [0, 3, 4, 100, -1, -8])
def test_a_file_cut_short_is_refused(path: Path, keep: int) -> None:
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(UserError, match="cut short, damaged or no Parquet file"):
        read_knowledge(path)


def written_with(path: Path, table: pa.Table, version: str = str(SCHEMA_VERSION)) -> Path:
    metadata = {"sspa.schema_version": version, "sspa.content_hash": "0" * 64}
    pq.write_table(table.replace_schema_metadata(metadata), path, write_page_checksum=True)
    return path


def test_another_schema_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "k.parquet"
    table = knowledge_table(ROWS)
    with pytest.raises(UserError, match="schema version 99 is newer than"):
        read_knowledge(written_with(path, table, "99"))
    with pytest.raises(UserError, match="'banana' is not known"):
        read_knowledge(written_with(path, table, "banana"))
    with pytest.raises(UserError, match="lacks the column 'verdict'"):
        read_knowledge(written_with(path, table.drop_columns("verdict")))
    with pytest.raises(UserError, match="unknown column 'mood'"):
        read_knowledge(written_with(path, table.append_column("mood", pa.array(["x"] * 4))))
    position = table.schema.get_field_index("sample")
    with pytest.raises(UserError, match="column 'sample' is string, not int32"):
        read_knowledge(written_with(path, table.set_column(position, "sample", table["sample"].cast("string"))))
    with pytest.raises(UserError, match="does not match its recorded hash"):
        read_knowledge(written_with(path, table))
    pq.write_table(pa.table({"a": [1]}), path)
    with pytest.raises(UserError, match="no knowledge file"):
        read_knowledge(path)


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([], "has no rows"),
        ([ROWS[2], ROWS[3], ROWS[2]], "row 2: label 'cat' began on row 0"),
        ([ROWS[1]], "has sample 1 where 0 is due"),
        ([ROWS[0], ROWS[0]], "has sample 0 where 1 is due"),
        ([ROWS[0], {**ROWS[1], "text": "telly"}], "second text, 'telly'"),
        ([ROWS[2], {**ROWS[3], "domain": "pedestrian"}], "domain 'pedestrian' in a natural file"),
        ([{**ROWS[2], "verdict": "fine"}], "verdict 'fine'"),
        ([{**ROWS[2], "label": ""}], "row 0: the label is empty"),
        ([{"label": "cat"}], "column 'description' has no value"),
        ([{**ROWS[2], "mood": "x"}], "unknown column 'mood'"),
    ],
)
def test_rows_that_break_the_contract_are_not_written(path: Path, rows: list[dict], words: str) -> None:
    before = path.read_bytes()
    with pytest.raises(UserError, match=words):
        write_knowledge(path, rows)
    assert path.read_bytes() == before


def test_a_footer_that_claims_a_billion_rows_is_refused_unread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "huge.parquet"
    rows = 6_000_000  # dictionary and run lengths make this a file of some kilobytes
    columns = {}
    for field in arrow_schema():
        value = pa.scalar("x" if pa.types.is_string(field.type) else 0, field.type)
        columns[field.name] = pa.DictionaryArray.from_arrays(
            pa.array([0] * 1000, pa.int32()), pa.array([value.as_py()], field.type)
        )
    block = pa.table(columns)
    metadata = {"sspa.schema_version": str(SCHEMA_VERSION), "sspa.content_hash": "0"}
    with pq.ParquetWriter(path, block.schema.with_metadata(metadata)) as writer:
        writer.write_table(pa.concat_tables([block] * (rows // 1000)), row_group_size=rows)
    assert path.stat().st_size < 1_000_000
    monkeypatch.setattr(pq.ParquetFile, "read", lambda *_, **__: pytest.fail("the pages were read"))
    with pytest.raises(UserError, match="claims 6,000,000 rows"):
        read_knowledge(path)
    monkeypatch.setattr(parquet_files, "MAX_ROWS", 1 << 40)
    monkeypatch.setattr(parquet_files, "MAX_BYTES", 10)
    with pytest.raises(UserError, match="bytes of rows"):
        read_knowledge(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"none.parquet: no such knowledge file; make one with"):
        read_knowledge(tmp_path / "none.parquet")


def test_a_column_name_that_is_no_text_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "k.parquet"
    write_knowledge(path, [{"label": "cat", "description": "A small animal."}])
    whole = path.read_bytes()
    start = len(whole) - 8 - int.from_bytes(whole[-8:-4], "little")
    assert b"prompt_hash" in whole[start:]
    path.write_bytes(whole[:start] + whole[start:].replace(b"prompt_hash", b"prompt\x8bhash"))
    with pytest.raises(UserError, match="damaged or no Parquet file"):
        read_knowledge(path)
