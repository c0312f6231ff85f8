"""Parquet files from anyone: bounded by what they decode to, and never without checksums."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sspa.shared import parquet_files
from sspa.shared.errors import UserError
from sspa.shared.parquet_files import read_parquet


def _read(path: Path) -> pa.Table:
    return read_parquet(path, lambda file: None)[0]


def _write(path: Path, texts: list[str], **options: Any) -> pa.Table:
    table = pa.table({"text": pa.array(texts), "number": pa.array(np.arange(len(texts)))})
    pq.write_table(table, path, **{"write_page_checksum": True, "compression": "zstd", **options})
    return table


@pytest.mark.parametrize("options", [{}, {"use_dictionary": False}, {"row_group_size": 7}, {"compression": "none"}])
def test_it_reads_what_was_written(tmp_path: Path, options: dict[str, Any]) -> None:
    texts = [f"text {number % 11} ü" * (number % 3) for number in range(10_000 if not options else 100)]
    table = _write(tmp_path / "t.parquet", texts, **options)
    assert _read(tmp_path / "t.parquet").equals(table)


def test_a_dictionary_bomb_is_refused_before_it_is_decoded(tmp_path: Path) -> None:
    """A hundred kilobytes that would become eight gigabytes."""
    path = tmp_path / "bomb.parquet"
    texts = pa.DictionaryArray.from_arrays(pa.array(np.zeros(16_000, np.int32)), pa.array(["x" * 500_000]))
    pq.write_table(pa.table({"text": texts}), path, write_page_checksum=True, compression="zstd", store_schema=False)
    assert path.stat().st_size < 200_000
    before = _peak_bytes()
    with pytest.raises(UserError, match=r"decode to more than 1,073,741,824 bytes"):
        _read(path)
    assert _peak_bytes() - before < 1 << 29


def _peak_bytes() -> int:
    return int(next(line.split()[1] for line in Path("/proc/self/status").open() if line.startswith("VmHWM"))) << 10


def test_many_rows_are_bounded_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "t.parquet"
    _write(path, ["a text"] * 1000)
    monkeypatch.setattr(parquet_files, "MAX_ROWS", 999)
    with pytest.raises(UserError, match="claims 1,000 rows; 999 is the limit"):
        _read(path)
    monkeypatch.undo()
    monkeypatch.setattr(parquet_files, "MAX_BYTES", 10)
    with pytest.raises(UserError, match="bytes of rows; 10 is the limit"):
        _read(path)


@pytest.mark.parametrize("version", ["1.0", "2.0"])
@pytest.mark.parametrize("dictionary", [True, False])
def test_pages_need_checksums(tmp_path: Path, version: str, dictionary: bool) -> None:
    path = tmp_path / "t.parquet"
    options = {"data_page_version": version, "use_dictionary": dictionary}
    _write(path, ["a", "b"] * 1000, **options)
    assert _read(path).num_rows == 2000
    _write(path, ["a", "b"] * 1000, write_page_checksum=False, **options)
    with pytest.raises(UserError, match="column 'text' has no page checksums"):
        _read(path)


def test_a_flipped_byte_in_a_page_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    table = _write(path, [f"text {number}" for number in range(300)], compression="none")
    whole = path.read_bytes()
    draw = np.random.default_rng(0)
    pages = len(whole) - 8 - int.from_bytes(whole[-8:-4], "little")
    for place in draw.integers(4, pages, 200):
        changed = bytearray(whole)
        changed[place] ^= 1 << int(draw.integers(8))
        path.write_bytes(changed)
        try:
            found = _read(path)
        except (UserError, pa.ArrowException, OSError):
            continue
        # In what no checksum covers: the pages' headers, with their statistics.
        assert found.equals(table), place


_EVERY_BYTE = """
import sys
from pathlib import Path
import pyarrow as pa
from sspa.shared.errors import UserError
from sspa.shared.parquet_files import read_parquet
good, other = Path(sys.argv[1]).read_bytes(), Path(sys.argv[1] + ".damaged")
length = int.from_bytes(good[-8:-4], "little")
for place in range(len(good) - 8 - length, len(good)):
    for change in (1, 16, 255):
        other.write_bytes(good[:place] + bytes([good[place] ^ change]) + good[place + 1 :])
        try:
            read_parquet(other, lambda file: None)
        except (UserError, pa.ArrowException, OSError):
            pass
"""


def test_no_byte_of_a_footer_ends_the_process(tmp_path: Path) -> None:
    """pyarrow aborts on some damaged columns if they are looked at before they are read."""
    _write(tmp_path / "t.parquet", ["a", "b", "c"])
    command = [sys.executable, "-c", _EVERY_BYTE, str(tmp_path / "t.parquet")]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr[-2000:]
