"""Parquet files that anyone may have written: read with a bound on what they decode to, and with page checksums.

A dictionary of a few long values, repeated by rows, makes gigabytes of a hundred kilobytes. Text is therefore decoded
from its dictionaries batch by batch, and each batch is measured before it is.
"""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from sspa.shared.errors import UserError

if TYPE_CHECKING:
    import pyarrow as pa

Found = TypeVar("Found")

MAX_ROWS = 5_000_000
MAX_BYTES = 1 << 30
_BATCH = 16384
# Of a page header in Thrift's compact protocol: the types i32 and stop, and the number of the field `crc`.
_I32, _STOP, _CRC = 5, 0, 4


def _check_footer(metadata: Any, path: Path) -> None:
    """Check what the footer claims, before any page is read."""
    groups = [metadata.row_group(index) for index in range(metadata.num_row_groups)]
    size = sum(group.total_byte_size for group in groups)
    if not 0 <= metadata.num_rows <= MAX_ROWS:
        raise UserError(f"{path}: claims {metadata.num_rows:,} rows; {MAX_ROWS:,} is the limit")
    if metadata.num_rows != sum(group.num_rows for group in groups):
        raise UserError(f"{path}: claims {metadata.num_rows:,} rows but its row groups hold another number; damaged")
    if not 0 <= size <= MAX_BYTES:
        raise UserError(f"{path}: claims {size:,} bytes of rows; {MAX_BYTES:,} is the limit")


def _check_checksums(metadata: Any, path: Path) -> None:
    """Check that the first page of every column has a checksum; without them nobody notices a flipped byte."""
    with path.open("rb") as file:
        for group in range(metadata.num_row_groups):
            if not metadata.row_group(group).num_rows:
                continue  # not read either
            for index in range(metadata.num_columns):
                column = metadata.row_group(group).column(index)
                starts = [column.data_page_offset]
                if column.has_dictionary_page and column.dictionary_page_offset:
                    starts.append(column.dictionary_page_offset)
                file.seek(min(starts))
                if not _has_checksum(file.read(64)):
                    raise UserError(
                        f"{path}: column {column.path_in_schema!r} has no page checksums, so that damage would go "
                        "unnoticed; write the file with this program"
                    )


def metadata_of(path: Path) -> dict[bytes, bytes]:
    """The file's own metadata, which says what wrote it.

    Raises:
        UserError: it is no Parquet file.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            return dict(file.metadata.metadata or {})
    except FileNotFoundError as error:
        raise UserError(f"{path}: there is no such file") from error
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        reason = str(error).strip().splitlines()[0][:160]
        raise UserError(f"{path}: cannot be read as Parquet ({reason})") from error


def read_parquet(path: Path, check: Callable[[Any], Found]) -> tuple["pa.Table", Found]:
    """The table of a Parquet file whose footer `check` accepts.

    Args:
        path: the file.
        check: called with the open ParquetFile before any page is read; what it returns is returned.

    Raises:
        UserError: the footer claims too much, pages have no checksums, or the rows decode to more than `MAX_BYTES`.
        ArrowException, OSError: it is no Parquet file, or damaged.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            _check_footer(file.metadata, path)
            found = check(file)
            schema = file.schema_arrow
    except UnicodeDecodeError as error:
        # pyarrow decodes the columns' names before it checks anything.
        raise pa.ArrowInvalid(str(error)) from error
    strings = [field.name for field in schema if pa.types.is_string(field.type)]
    with pq.ParquetFile(path, page_checksum_verification=True, read_dictionary=strings) as file:
        table = _read_bounded(file, strings, path).cast(schema)
        # Not before: on a damaged column, reading raises an error, but pyarrow's `column` aborts the process.
        _check_checksums(file.metadata, path)
    # What the batches needed, which is more than the table.
    pa.default_memory_pool().release_unused()
    return table, found


def _read_bounded(file: Any, strings: list[str], path: Path) -> "pa.Table":
    import pyarrow as pa

    batches, decoded = [], 0
    for batch in file.iter_batches(batch_size=_BATCH, use_threads=False):
        decoded += sum(_decoded_size(column) for column in batch.columns)
        if decoded > MAX_BYTES:
            raise UserError(f"{path}: its rows decode to more than {MAX_BYTES:,} bytes, which is the limit")
        columns = [
            column.dictionary_decode() if pa.types.is_dictionary(column.type) and name in strings else column
            for name, column in zip(batch.schema.names, batch.columns, strict=True)
        ]
        batches.append(pa.record_batch(columns, batch.schema.names))
    if not batches:
        return pa.table({name: pa.array([], pa.string()) for name in file.schema_arrow.names})
    return pa.Table.from_batches(batches).combine_chunks()


def _decoded_size(column: Any) -> int:
    """Bytes of a column once it is plain."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if not pa.types.is_dictionary(column.type):
        return int(column.nbytes)
    lengths = pc.binary_length(column.dictionary)
    return int(pc.sum(pc.take(lengths, column.indices)).as_py() or 0) + 4 * len(column)


def _has_checksum(header: bytes) -> bool:
    """Whether a page header has the field `crc`; the fields before it are integers."""
    position = field = 0
    while position < len(header):
        kind, delta = header[position] & 0x0F, header[position] >> 4
        position += 1
        if kind == _STOP or not delta:
            return False
        field += delta
        if field == _CRC:
            return kind == _I32
        if field > _CRC or kind != _I32:
            return False
        while position < len(header) and header[position] & 0x80:
            position += 1
        position += 1
    return False
