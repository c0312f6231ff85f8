"""Columns of a manifest as Arrow arrays: millions of strings for their bytes, without one Python object each.

Processes forked from one that holds them share their memory, which Python objects would copy by counting references.
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, overload

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

# Strings that are Python objects at a time, while a column is iterated over.
_CHUNK = 8192
# By byte: whether JSON writes it as it is.
_PLAIN_IN_JSON = np.array([0x20 <= byte < 0x7F and byte not in b'"\\' for byte in range(256)])


class Texts(Sequence[str]):
    """An immutable column of strings; a slice of it is a column that shares its memory."""

    __hash__ = None  # type: ignore[assignment] # it would have to be that of an equal tuple

    def __init__(self, values: "Iterable[str] | pa.Array | pa.ChunkedArray") -> None:
        # Of 64-bit offsets, since the strings of one column may be more than 2 GB.
        if isinstance(values, pa.ChunkedArray):
            values = values.cast(pa.large_string()).combine_chunks()
        elif not isinstance(values, pa.Array):
            listed = values if isinstance(values, Sequence) else list(values)
            values = pa.array(listed, pa.large_string()) if listed else pa.nulls(0, pa.large_string())
        self.array: pa.LargeStringArray = values

    def __len__(self) -> int:
        return len(self.array)

    @overload
    def __getitem__(self, place: int) -> str: ...
    @overload
    def __getitem__(self, place: slice) -> "Texts": ...
    def __getitem__(self, place: int | slice) -> "str | Texts":
        if isinstance(place, slice):
            return Texts(self.array[place])
        text: str = self.array[int(place)].as_py()
        return text

    def __iter__(self) -> Iterator[str]:
        for start in range(0, len(self), _CHUNK):
            yield from self.array.slice(start, _CHUNK).to_pylist()

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Texts):
            return bool(self.array.equals(other.array))
        return isinstance(other, tuple) and len(self) == len(other) and all(map(str.__eq__, self, other))

    def __reduce__(self) -> tuple[type["Texts"], tuple[pa.Array]]:
        # Joined to nothing, since a slice would be sent with all that it was cut from.
        return Texts, (pa.concat_arrays([self.array, pa.nulls(0, self.array.type)]),)

    def __repr__(self) -> str:
        shown = ", ".join(map(repr, self[:3]))
        return f"Texts({shown}{', ...' if len(self) > 3 else ''}; {len(self):,})"

    def take(self, rows: NDArray[np.int64]) -> "Texts":
        """The strings of these rows, in this order."""
        # Not by `pa.array`; see `as_numpy`.
        indices = pa.Array.from_buffers(pa.int64(), len(rows), [None, pa.py_buffer(rows.astype(np.int64, copy=False))])
        return Texts(self.array.take(indices))

    def equal_to(self, text: str) -> NDArray[np.bool_]:
        """(N,): which of them are `text`."""
        return as_numpy(pc.equal(self.array, _scalar(text))).astype(bool)

    def distinct(self) -> list[str]:
        """Each different string once, in the order of its first appearance."""
        values: list[str] = pc.unique(self.array).to_pylist()
        return values

    def first_repeated(self) -> tuple[int, str] | None:
        """How many strings appear more than once, and the first of these; None if there are none."""
        if pc.count_distinct(self.array).as_py() == len(self):
            return None
        counts = pc.value_counts(self.array)
        repeated = counts.filter(pc.greater(counts.field("counts"), 1))
        return len(repeated), repeated[0]["values"].as_py()

    def is_in(self, others: "Texts") -> NDArray[np.bool_]:
        """(N,): which of them are among `others`."""
        return as_numpy(pc.is_in(self.array, value_set=others.array)).astype(bool)

    def replaced(self, pattern: str, text: str) -> "Texts":
        """The column with `text` in place of what a regular expression (of RE2) finds."""
        return Texts(pc.replace_substring_regex(self.array, pattern, text))

    def json_list(self) -> Iterator[bytes]:
        """The JSON list of them, as `json.dumps` writes it, in parts."""
        yield b"["
        for start in range(0, len(self), _CHUNK):
            yield (b", " if start else b"") + self[start : start + _CHUNK]._json()
        yield b"]"

    def _json(self) -> bytes:
        """The JSON list of at least one, without its brackets."""
        _, offsets, text = self.array.buffers()
        first, last = np.frombuffer(offsets, np.int64)[[self.array.offset, self.array.offset + len(self)]]
        if not _PLAIN_IN_JSON[np.frombuffer(text, np.uint8)[first:last]].all():
            return json.dumps(list(self))[1:-1].encode()
        ends = pa.Array.from_buffers(pa.int32(), 2, [None, pa.py_buffer(np.array([0, len(self)], np.int32))])
        joined = pc.binary_join(pa.ListArray.from_arrays(ends, self.array), _scalar('", "'))
        return b'"%b"' % joined[0].as_buffer()

    def rows_matching(self, pattern: str) -> NDArray[np.int64]:
        """The rows of the strings in which a regular expression (of RE2) is found."""
        return np.flatnonzero(as_numpy(pc.match_substring_regex(self.array, pattern)))


class Paths(Sequence[Path]):
    """Paths below one folder, each created when it is asked for."""

    __hash__ = None  # type: ignore[assignment]

    def __init__(self, root: Path, below: Texts) -> None:
        self.root, self.below = root, below

    def __len__(self) -> int:
        return len(self.below)

    @overload
    def __getitem__(self, place: int) -> Path: ...
    @overload
    def __getitem__(self, place: slice) -> "Paths": ...
    def __getitem__(self, place: int | slice) -> "Path | Paths":
        if isinstance(place, slice):
            return Paths(self.root, self.below[place])
        return self.root / self.below[place]

    def __iter__(self) -> Iterator[Path]:
        return (self.root / text for text in self.below)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Paths):
            return (self.root, self.below) == (other.root, other.below)
        return isinstance(other, tuple) and tuple(self) == other

    def __repr__(self) -> str:
        return f"Paths({str(self.root)!r}, {self.below!r})"


def as_numpy(array: pa.Array) -> NDArray[Any]:
    """Numbers without nulls, not copied; of truth values, 0 and 1."""
    # Array.to_numpy and pa.array import pandas where that is installed: half a second and 80 MB.
    found: NDArray[Any] = np.from_dlpack(array.cast(pa.uint8()) if pa.types.is_boolean(array.type) else array)
    return found


def _scalar(text: str) -> pa.LargeStringScalar:
    encoded = text.encode()
    # Not by `pa.scalar`; see `as_numpy`.
    offsets = pa.py_buffer(np.array([0, len(encoded)]))
    return pa.Array.from_buffers(pa.large_string(), 1, [None, offsets, pa.py_buffer(encoded)])[0]
