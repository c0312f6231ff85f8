"""The manifest: the common form that every data set is converted to before training.

A Parquet table with one row per image: `id` (the data set's own), `path` (relative to a root, with slashes),
`split` (train, val, test) and `labels` (a list of small integers, one per label: 1 present, 0 absent, -1
unknown); `group`, if images are grouped, names what stays in one split. The order of the labels and the protocol
are in the table's metadata.
"""

import hashlib
import json
from collections.abc import Collection
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, RootModel

from sspa.shared.errors import UserError
from sspa.shared.files import replacing
from sspa.shared.json_files import check_shape, parse_json
from sspa.shared.label_sets import Label, LabelSet
from sspa.shared.parquet_files import read_parquet
from sspa.stage2_training.data.columns import Texts, as_numpy
from sspa.stage2_training.evaluation.protocol import Protocol
from sspa.stage2_training.evaluation.protocols import get_protocol

if TYPE_CHECKING:
    import pyarrow as pa

SPLITS = ("train", "val", "test")
FORMAT_VERSION = 1
_TEXTS = ("id", "path", "split")
# Found in all paths for which `leaves_root` is true, and in few others.
_MAY_LEAVE_ROOT = r"^$|^/|\.\.|[:\\\x00]"


@dataclass(frozen=True)
class Manifest:
    """A whole data set, without its images.

    Attributes:
        dataset: the adapter's name, or the name given to custom data.
        labels: the C labels, in the order of `targets`.
        protocol: the protocol that defines `targets`.
        note: what a result must state about the data.
        ids, paths, splits: one entry per image, N each.
        targets: (N, C) int8; 1 present, 0 absent, -1 unknown.
        groups: N names; images of one group stay in one split wherever a split is drawn. Empty if there are none.
    """

    dataset: str
    labels: LabelSet
    protocol: Protocol
    note: str
    ids: Texts
    paths: Texts
    splits: Texts
    targets: NDArray[np.int8]
    groups: Texts = field(default_factory=lambda: Texts(()))

    def __post_init__(self) -> None:
        sizes = {len(self.ids), len(self.paths), len(self.splits), len(self.targets), len(self.groups or self.ids)}
        if len(sizes) != 1 or self.targets.shape != (len(self.ids), len(self.labels.keys)):
            raise ValueError(f"manifest columns of different length: {sizes}, targets {self.targets.shape}")

    @property
    def content_hash(self) -> str:
        """Hex digest over what training and scoring use: name, protocol, label keys, and all columns.

        Label texts and domain are excluded: a run takes them from its knowledge, whose own hash covers the texts.
        """
        digest = hashlib.sha256()
        # The bytes of one JSON list of it all, without ever holding that.
        digest.update(json.dumps([self.dataset, self.protocol.name, self.labels.keys])[:-1].encode())
        for column in (self.ids, self.paths, self.splits):
            for part in (b", ", *column.json_list()):
                digest.update(part)
        digest.update(b"]")
        digest.update(np.ascontiguousarray(self.targets).data)
        for part in self.groups.json_list() if self.groups else ():
            digest.update(part)
        return digest.hexdigest()[:32]

    def rows_of(self, split: str) -> NDArray[np.int64]:
        """The row numbers of one split, in order."""
        return np.flatnonzero(self.splits.equal_to(split))

    def only(self, rows: NDArray[np.int64]) -> "Manifest":
        """A manifest of only these rows, in this order."""
        return replace(
            self,
            ids=self.ids.take(rows),
            paths=self.paths.take(rows),
            splits=self.splits.take(rows),
            targets=self.targets[rows],
            groups=self.groups.take(rows) if self.groups else self.groups,
        )


def check_manifest(manifest: Manifest, where: str) -> None:
    """Reject a manifest that would train or measure the wrong thing; `where` names it in the message.

    Raises:
        UserError: a duplicate id, an unknown split or label value, a path that leaves the root, or a split in which
            no image has a label.
    """
    if repeated := manifest.ids.first_repeated():
        raise UserError(f"{where}: {repeated[0]} ids have two rows, the first is {repeated[1]!r}; keep one of each")
    for split in sorted(manifest.splits.distinct()):
        if split not in SPLITS:
            raise UserError(f"{where}: unknown split {split!r}; use {', '.join(SPLITS)}")
        if not (manifest.targets[manifest.rows_of(split)] == 1).any():
            raise UserError(f"{where}: no image of split {split!r} has a positive label; check its labels")
    if not _are_marks(manifest.targets):
        row, label = np.argwhere(~np.isin(manifest.targets, (-1, 0, 1)))[0]
        raise UserError(
            f"{where}: label {manifest.labels.keys[label]!r} of {manifest.ids[row]!r} is"
            f" {manifest.targets[row, label]}; allowed are 1, 0 and -1"
        )
    for row in manifest.paths.rows_matching(_MAY_LEAVE_ROOT):
        path = manifest.paths[int(row)]
        if leaves_root(path):
            raise UserError(f"{where}: the path {path!r} leaves the data root; write it relative, without '..'")


def under_protocol(manifest: Manifest, protocol: Protocol, where: str) -> Manifest:
    """The manifest with another protocol; `where` names it in the message.

    Raises:
        UserError: that protocol keeps other images, or gives them other labels.
    """
    if protocol != manifest.protocol and not protocol.marks_like(manifest.protocol):
        raise UserError(
            f"{where}: its images and labels are those of {manifest.protocol.name}, not of {protocol.name}; prepare it "
            "again with --protocol, or take a protocol that is based on its own"
        )
    return replace(manifest, protocol=protocol)


def leaves_root(path: str) -> bool:
    """Whether the text of a manifest path is absolute, goes upwards, or is empty."""
    # A colon comes second in a Windows drive.
    return (
        not path or path.startswith("/") or path[1:2] == ":" or "\\" in path or "\0" in path or ".." in path.split("/")
    )


def without_images(manifest: Manifest, paths: Collection[str]) -> Manifest:
    """The manifest without the images at these of its paths.

    Raises:
        UserError: no image is left.
    """
    rows = np.flatnonzero([path not in paths for path in manifest.paths])
    if not rows.size:
        raise UserError(f"{manifest.dataset}: all {len(manifest.paths):,} images are missing; check --root")
    return manifest.only(rows)


def manifest_table(manifest: Manifest) -> "pa.Table":
    """The manifest as it is stored."""
    import pyarrow as pa

    flat = pa.array(np.ascontiguousarray(manifest.targets).reshape(-1), pa.int8())
    offsets = pa.array(np.arange(len(manifest.ids) + 1, dtype=np.int32) * len(manifest.labels.keys))
    columns = {
        "id": manifest.ids.array.cast(pa.string()),
        "path": manifest.paths.array.cast(pa.string()),
        "split": manifest.splits.array.cast(pa.string()),
        "labels": pa.ListArray.from_arrays(offsets, flat),
    }
    if manifest.groups:
        columns["group"] = manifest.groups.array.cast(pa.string())
    return pa.table(columns).replace_schema_metadata({"sspa_manifest": json.dumps(_head(manifest).model_dump())})


def write_manifest(manifest: Manifest, path: Path) -> None:
    """Check the manifest and write it atomically, with page checksums."""
    import pyarrow.parquet as pq

    check_manifest(manifest, str(path))
    table = manifest_table(manifest)
    # A dictionary of strings that are all different only makes them slower to read.
    repeated = [name for name in ("split", "group", "labels") if name in table.column_names]
    with replacing(path) as beside:
        pq.write_table(table, beside, compression="zstd", write_page_checksum=True, use_dictionary=repeated)


def check_replaceable(path: Path, manifest: Manifest) -> None:
    """Reject a path that holds something else than this manifest.

    Raises:
        UserError: a manifest of other content, or another file.
    """
    if not path.exists():
        return
    try:
        there = read_manifest(path)
    except UserError as error:
        raise UserError(
            f"{path}: exists already and is no manifest that can be read; choose another --output"
        ) from error
    if (there.content_hash, there.note) != (manifest.content_hash, manifest.note):
        raise UserError(
            f"{path}: exists already and holds other data ({there.dataset}, {len(there.ids):,} images); nothing was "
            "changed. Give another --name or --output, or replace it with --overwrite"
        )


def read_manifest(path: Path) -> Manifest:
    """Read and check a manifest.

    Raises:
        UserError: missing, not a manifest, damaged, of a newer version, or rejected by `check_manifest`.
    """
    import pyarrow as pa

    manifest = _read(path)
    check_manifest(manifest, str(path))
    # What reading and checking needed, which Arrow would keep.
    pa.default_memory_pool().release_unused()
    return manifest


def _read(path: Path) -> Manifest:
    import pyarrow as pa

    def check(file: Any) -> _Head:
        head = _read_head(file.metadata.metadata, path)
        _check_columns(file.schema_arrow, path)
        return head

    if not path.is_file():
        raise UserError(f"{path}: there is no such manifest; make one with: sspa-train data prepare")
    try:
        table, head = read_parquet(path, check)
    except (pa.ArrowException, OSError) as error:
        reason = str(error).strip().splitlines()[0][:160]
        raise UserError(f"{path}: not a readable manifest ({reason}); make it again") from None
    if table.num_rows == 0:
        raise UserError(f"{path}: the manifest has no rows")
    grouped = "group" in table.column_names
    for name in (*_TEXTS, "labels", *(["group"] if grouped else [])):
        if table[name].null_count:
            raise UserError(f"{path}: a row of the manifest has no {name}; make it again")
    return Manifest(
        dataset=head.dataset,
        labels=LabelSet(
            head.label_set, tuple(Label(one.key, one.text, one.hint) for one in head.labels), domain=head.domain
        ),
        protocol=head.rules.root if head.rules else get_protocol(head.protocol),
        note=head.note,
        ids=Texts(table["id"]),
        paths=Texts(table["path"]),
        splits=Texts(table["split"]),
        targets=_targets(table["labels"].combine_chunks(), len(head.labels), path),
        groups=Texts(table["group"] if grouped else ()),
    )


class _HeadLabel(BaseModel):
    """A label in the table's metadata."""

    model_config = ConfigDict(strict=True, extra="forbid")

    key: str
    text: str
    hint: str = ""


class _Head(BaseModel):
    """What is the same for all rows, in the table's metadata; `rules` are those of a protocol of one's own."""

    model_config = ConfigDict(strict=True)

    version: int
    dataset: str
    label_set: str
    domain: str
    labels: list[_HeadLabel]
    protocol: str
    note: str
    rules: RootModel[Protocol] | None = None


def _head(manifest: Manifest) -> _Head:
    return _Head(
        version=FORMAT_VERSION,
        dataset=manifest.dataset,
        label_set=manifest.labels.name,
        domain=manifest.labels.domain,
        labels=[_HeadLabel(key=one.key, text=one.text, hint=one.hint) for one in manifest.labels.labels],
        protocol=manifest.protocol.name,
        note=manifest.note,
        rules=RootModel(manifest.protocol) if manifest.protocol.based_on else None,
    )


def _read_head(metadata: dict[bytes, bytes] | None, path: Path) -> _Head:
    text = (metadata or {}).get(b"sspa_manifest")
    if text is None:
        raise UserError(f"{path}: a Parquet file, but no manifest; make one with: sspa-train data prepare")
    content = parse_json(text, f"{path}, its head")
    version = content.get("version") if isinstance(content, dict) else None
    if isinstance(version, int) and version > FORMAT_VERSION:
        raise UserError(f"{path}: manifest version {version} is newer than this sspa reads ({FORMAT_VERSION})")
    return check_shape(_Head, content, f"{path}: not the head of a manifest; make it again")


def _check_columns(schema: "pa.Schema", path: Path) -> None:
    import pyarrow as pa

    for name in (*_TEXTS, "labels", *(["group"] if "group" in schema.names else [])):
        if name not in schema.names:
            raise UserError(f"{path}: the manifest lacks the column {name!r}; it has {', '.join(schema.names)}")
        kind = schema.field(name).type
        marks = pa.types.is_list(kind) and pa.types.is_integer(kind.value_type)
        if not (marks if name == "labels" else pa.types.is_string(kind)):
            raise UserError(f"{path}: the column {name!r} is {kind}; make the manifest again")


def _targets(column: Any, label_count: int, path: Path) -> NDArray[np.int8]:
    lengths = np.diff(as_numpy(column.offsets))
    if (lengths != label_count).any():
        row = int(np.argmax(lengths != label_count))
        raise UserError(f"{path}: row {row} has {lengths[row]} labels, the manifest names {label_count}")
    flat = column.flatten()
    if flat.null_count or not _are_marks(marks := as_numpy(flat)):
        raise UserError(f"{path}: the labels hold something else than 1, 0 and -1; make the manifest again")
    # Without a copy where they are int8 already, as in each manifest of ours.
    targets: NDArray[np.int8] = marks.astype(np.int8, copy=False)
    return targets.reshape(-1, label_count)


def _are_marks(values: NDArray[Any]) -> bool:
    """Whether all integers are -1, 0 or 1."""
    return bool(not values.size or (values.min() >= -1 and values.max() <= 1))
