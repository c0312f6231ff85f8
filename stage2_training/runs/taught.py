"""taught.parquet: the marks that a teacher has put in place of unknown ones of train.

One row per image: its id, and a struct with a field per label, which is null where nothing was taught. In DuckDB:
`SELECT image FROM 'runs/mine/taught.parquet' WHERE marks.dog = 1`.

Legend: N training images, C labels.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from sspa.shared.errors import UserError
from sspa.shared.files import replacing
from sspa.shared.json_files import check_shape, parse_json
from sspa.shared.parquet_files import read_parquet
from sspa.stage2_training.runs.records import TaughtRecord

_ABOUT = b"sspa_taught"


@dataclass(frozen=True, eq=False)
class TaughtMarks:
    """(N, C) int8: 1 and 0 where the teacher is sure of an unknown mark, -1 elsewhere; `about`: of the run's result."""

    marks: NDArray[np.int8]
    about: TaughtRecord


def write_taught(taught: TaughtMarks, ids: Sequence[str], keys: Sequence[str], path: Path) -> None:
    """Write the marks of the images `ids` and the labels `keys`, atomically.

    Raises:
        UserError: the file cannot be written.
    """
    columns = [pa.array(column, pa.int8(), mask=column < 0) for column in taught.marks.T]
    table = pa.table([pa.array(ids, pa.string()), pa.StructArray.from_arrays(columns, list(keys))], _schema(keys))
    about = {_ABOUT: taught.about.model_dump_json().encode()}
    with replacing(path) as beside:
        pq.write_table(table.replace_schema_metadata(about), beside, compression="zstd", write_page_checksum=True)


def read_taught(path: Path, ids: Sequence[str], keys: Sequence[str]) -> TaughtMarks:
    """What `write_taught` wrote of these images and labels.

    Raises:
        UserError: the file is missing or damaged, or is of other images or labels.
    """

    def check(file: Any) -> TaughtRecord:
        if not file.schema_arrow.equals(_schema(keys)) or file.metadata.num_rows != len(ids):
            raise UserError(f"{path}: is of other images or labels than this run's; remove it")
        about = parse_json((file.metadata.metadata or {}).get(_ABOUT, b"{}"), str(path))
        return check_shape(TaughtRecord, about, f"{path}: does not hold what a run writes")

    try:
        table, about = read_parquet(path, check)
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"{path}: cannot be read ({str(error).splitlines()[0]}); remove it") from error
    if table["image"].to_pylist() != list(ids):
        raise UserError(f"{path}: is of other images than this run's; remove it")
    fields = table["marks"].combine_chunks().flatten()
    return TaughtMarks(np.column_stack([field.fill_null(-1).to_numpy() for field in fields]), about)


def _schema(keys: Sequence[str]) -> pa.Schema:
    return pa.schema({"image": pa.string(), "marks": pa.struct([(key, pa.int8()) for key in keys])})
