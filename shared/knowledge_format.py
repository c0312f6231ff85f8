"""The knowledge file: the Parquet contract in which stage one and stage two meet.

One row per label and sample, in the order of the label file, samples counted from 0. All columns are
plain strings and integers, which any Parquet reader can show. The file's metadata carries the schema
version and the content hash; pages carry checksums, because without them neither pyarrow nor DuckDB
notices a flipped byte.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sspa.shared.errors import UserError
from sspa.shared.files import replacing
from sspa.shared.parquet_files import read_parquet
from sspa.shared.terminal import printable

if TYPE_CHECKING:
    import pyarrow as pa

SCHEMA_VERSION = 2
VERDICTS = ("good", "doubtful")
# Who wrote a description: a language model, a person, or `sspa-knowledge control`.
ORIGINS = ("model", "human", "control")

# Name, type and default. `label` and `description` have no default.
COLUMNS: tuple[tuple[str, str, str | int | None], ...] = (
    ("label", "string", None),  # the data set's own name
    ("text", "string", ""),  # shown to models; the label itself where a row leaves it out
    ("hint", "string", ""),  # what is meant, where the bare name misleads
    ("domain", "string", "natural"),  # the kind of image the prompt was about
    ("sample", "int32", 0),
    ("description", "string", None),
    ("verdict", "string", "good"),
    ("reason", "string", ""),  # why a row is doubtful, with the figure behind it
    ("origin", "string", "model"),
    ("clip_tokens", "int32", 0),  # tokens of "A photo of a {text}. {description}", of CLIP's 77; 0: not counted
    ("clip_cut", "string", ""),  # the truncated end of the description, which CLIP does not read
    ("attempts", "int32", 1),  # how often the model was asked
    ("answers", "string", "[]"),  # all its answers in order, as JSON: text, finish, tokens
    ("model", "string", ""),
    ("revision", "string", ""),  # pins the model's weights
    ("quantisation", "string", ""),
    ("engine", "string", ""),  # name and version
    ("prompt", "string", ""),  # the prompt file's name
    ("prompt_hash", "string", ""),  # SHA-256 of the prompt file
    ("answer_form", "string", ""),  # sentence or fields
    ("sampling", "string", "{}"),  # sampling parameters as JSON
    ("seed", "int64", 0),  # the seed of the answer that was kept
    ("key", "string", ""),  # content-addressed key of the first attempt; "" where no model was asked
)

# The columns added since each version; `sspa-knowledge migrate` fills them with their defaults.
ADDED_SINCE: dict[int, tuple[str, ...]] = {
    1: ("origin", "clip_tokens", "clip_cut", "answers", "revision", "quantisation", "answer_form"),
}

_CHECKED = ("label", "text", "hint", "domain", "sample", "verdict", "origin", "description", "reason")
_SHOWN = ("label", "text", "hint", "description", "reason")
_VERSION_KEY = b"sspa.schema_version"
_HASH_KEY = b"sspa.content_hash"


def content_hash(
    labels: Sequence[str], texts: Sequence[str], samples: Sequence[int], descriptions: Sequence[str]
) -> str:
    """SHA-256 (hex) over labels, texts and descriptions, independent of the order of rows.

    Two files with the same hash give stage two the same knowledge, whatever the provenance of the descriptions.
    """
    digest = hashlib.sha256()
    encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode
    for row in sorted(zip(labels, samples, texts, descriptions, strict=True)):
        digest.update(encode(row).encode())
        digest.update(b"\n")
    return digest.hexdigest()


def arrow_schema() -> "pa.Schema":
    """The schema of the current version; no column is nullable."""
    import pyarrow as pa

    return pa.schema([pa.field(name, pa.type_for_alias(kind), nullable=False) for name, kind, _ in COLUMNS])


def knowledge_table(rows: Iterable[Mapping[str, Any]]) -> "pa.Table":
    """A table from rows with at least `label` and `description`; the other columns have defaults.

    Raises:
        UserError: a row has an unknown column, or lacks a required one.

    Example:
        >>> knowledge_table([{"label": "cat", "description": "A small animal with pointed ears."}]).num_rows
        1
    """
    import pyarrow as pa

    columns: dict[str, list[Any]] = {name: [] for name, _, _ in COLUMNS}
    for number, row in enumerate(rows):
        if unknown := set(row) - set(columns):
            raise UserError(
                f"row {number}: unknown column {sorted(unknown)[0]!r}; the columns are {', '.join(columns)}"
            )
        for name, _, default in COLUMNS:
            value = row.get(name, default)
            if value is None:
                raise UserError(f"row {number}: column {name!r} has no value")
            columns[name].append(value)
        columns["text"][-1] = columns["text"][-1] or row["label"]
    return pa.table(columns, schema=arrow_schema())


def write_knowledge(path: Path, rows: "Iterable[Mapping[str, Any]] | pa.Table") -> str:
    """Check and write a knowledge file atomically; the same rows give the same bytes.

    Returns:
        The content hash.

    Raises:
        UserError: the rows break the contract (see `check_table`), or the file cannot be written.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = rows if isinstance(rows, pa.Table) else knowledge_table(rows)
    check_table(table, str(path))
    digest = _hash_of(table)
    # No time stamps, latencies or host names: equal content must give equal bytes.
    table = table.replace_schema_metadata({_VERSION_KEY: str(SCHEMA_VERSION).encode(), _HASH_KEY: digest.encode()})
    with replacing(path) as beside:
        pq.write_table(table, beside, compression="zstd", write_page_checksum=True)
    return digest


def read_table(path: Path) -> tuple["pa.Table", str]:
    """Read and verify a knowledge file: footer limits, version, checksums, schema, contract, content hash.

    Returns:
        The table and its content hash.

    Raises:
        UserError: the file fails one of these checks; the message says which.
    """
    table, stored, _ = _read(path, older=False)
    check_table(table, str(path))
    return table, stored


def migrate(path: Path) -> int:
    """Upgrade a file to the current schema version; missing columns get their defaults.

    Returns:
        The version the file had.

    Raises:
        UserError: the file is damaged, newer, or already of the current version.
    """
    import pyarrow as pa

    table, stored, version = _read(path, older=True)
    if version == SCHEMA_VERSION:
        raise UserError(f"{path}: has schema version {SCHEMA_VERSION} already; nothing to do")
    defaults = {name: default for name, _, default in COLUMNS}
    for field in arrow_schema():
        if field.name not in table.column_names:
            values = pa.array([defaults[field.name]] * table.num_rows, field.type)
            table = table.append_column(field, values)
    if write_knowledge(path, table.select(arrow_schema().names).cast(arrow_schema())) != stored:
        raise RuntimeError(f"{path}: migrating changed the content")
    return version


def check_table(table: "pa.Table", where: str) -> None:
    """Check what stage two relies on.

    At least one row; the current schema without nulls; one domain; known verdicts and origins; no control characters in
    what is shown; per label one text, one hint and samples 0, 1, 2, ... in consecutive rows.

    Raises:
        UserError: names the row and the value.
    """
    if table.schema.remove_metadata() != arrow_schema():
        raise UserError(f"{where}: not the columns of schema version {SCHEMA_VERSION}; generate it again")
    if table.num_rows == 0:
        raise UserError(f"{where}: has no rows")
    columns = {name: table[name].to_pylist() for name in _CHECKED}
    first_row: dict[str, int] = {}
    previous, expected = None, 0
    for row, (label, sample) in enumerate(zip(columns["label"], columns["sample"], strict=True)):
        if label != previous:
            if label in first_row:
                raise UserError(f"{where}, row {row}: label {label!r} began on row {first_row[label]} and comes again")
            first_row[label], previous, expected = row, label, 0
        if not label:
            raise UserError(f"{where}, row {row}: the label is empty")
        if sample != expected:
            raise UserError(f"{where}, row {row}: label {label!r} has sample {sample} where {expected} is due")
        expected += 1
        start = first_row[label]
        for name in ("text", "hint"):
            if columns[name][row] != columns[name][start]:
                raise UserError(f"{where}, row {row}: label {label!r} has a second {name}, {columns[name][row]!r}")
        if columns["domain"][row] != columns["domain"][0]:
            raise UserError(f"{where}, row {row}: domain {columns['domain'][row]!r} in a {columns['domain'][0]} file")
        for name in _SHOWN:
            if printable(columns[name][row]) != columns[name][row]:
                raise UserError(f"{where}, row {row}: {name} has control characters: {columns[name][row][:60]!r}")
        for name, allowed in (("verdict", VERDICTS), ("origin", ORIGINS)):
            if columns[name][row] not in allowed:
                raise UserError(f"{where}, row {row}: {name} {columns[name][row]!r}; only {', '.join(allowed)}")


def _hash_of(table: "pa.Table") -> str:
    return content_hash(*(table[name].to_pylist() for name in ("label", "text", "sample", "description")))


def _read(path: Path, older: bool) -> tuple["pa.Table", str, int]:
    """Table, content hash and version of a file whose bytes and columns are intact."""
    import pyarrow as pa

    def check(file: Any) -> tuple[str, int]:
        stored, version = _check_version(file.metadata.metadata or {}, path, older)
        _check_columns(file.schema_arrow, path, version)
        return stored, version

    if path.is_dir():
        raise UserError(f"{path}: is a folder, not a knowledge file; name the Parquet file in it")
    if not path.is_file():
        raise UserError(f"{path}: no such knowledge file; make one with `sspa-knowledge generate`")
    try:
        table, (stored, version) = read_parquet(path, check)
        table.validate(full=True)
    except (pa.ArrowException, OSError) as error:
        line = str(error).strip().splitlines()[0][:160]
        raise UserError(
            f"{path}: cut short, damaged or no Parquet file ({line}); restore it or generate it again"
        ) from error
    if _hash_of(table) != stored:
        raise UserError(f"{path}: the content does not match its recorded hash {stored[:12]}; generate it again")
    return table, stored, version


def _check_version(metadata: Mapping[bytes, bytes], path: Path, older: bool) -> tuple[str, int]:
    """Reject versions that cannot be read; return the recorded content hash and the version."""
    if _VERSION_KEY not in metadata or _HASH_KEY not in metadata:
        raise UserError(f"{path}: a Parquet file, but no knowledge file; make one with `sspa-knowledge generate`")
    written = metadata[_VERSION_KEY].decode(errors="replace")
    version = int(written) if written.isdecimal() and len(written) < 6 else 0
    if version > SCHEMA_VERSION:
        raise UserError(
            f"{path}: schema version {version} is newer than {SCHEMA_VERSION}, the newest that is read here; "
            "upgrade sspa"
        )
    if version != SCHEMA_VERSION and version not in ADDED_SINCE:
        raise UserError(f"{path}: schema version {written!r} is not known; generate it again")
    if version != SCHEMA_VERSION and not older:
        raise UserError(
            f"{path}: schema version {version} is older than {SCHEMA_VERSION}; run `sspa-knowledge migrate {path}`"
        )
    return metadata[_HASH_KEY].decode(errors="replace"), version


def _check_columns(schema: "pa.Schema", path: Path, version: int) -> None:
    later = {name for since, names in ADDED_SINCE.items() if since >= version for name in names}
    expected = {field.name: field.type for field in arrow_schema() if field.name not in later}
    for name, kind in expected.items():
        if name not in schema.names:
            raise UserError(f"{path}: lacks the column {name!r}; generate it again")
        if schema.field(name).type != kind:
            raise UserError(f"{path}: column {name!r} is {schema.field(name).type}, not {kind}; generate it again")
    if extra := [name for name in schema.names if name not in expected]:
        raise UserError(f"{path}: has the unknown column {extra[0]!r}; generate it again")
