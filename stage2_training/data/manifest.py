"""The manifest: the common form that every data set is converted to before training.

A Parquet table with one row per image: `id` (the data set's own), `path` (relative to a root, with slashes),
`split` (train, val, test) and `labels` (a list of small integers, one per label: 1 present, 0 absent, -1
unknown); `group`, if images are grouped, names what stays in one split. The order of the labels and the protocol
are in the table's metadata.
"""

import hashlib
import json
import os
import stat
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from sspa.shared.errors import UserError
from sspa.shared.files import replacing
from sspa.shared.json_files import check_shape, parse_json
from sspa.shared.label_sets import Label, LabelSet
from sspa.shared.parquet_files import read_parquet
from sspa.stage2_training.data.shards import SHARD_ENDING, file_of, missing_in_shards

if TYPE_CHECKING:
    import pyarrow as pa

SPLITS = ("train", "val", "test")
FORMAT_VERSION = 1
_TEXTS = ("id", "path", "split")


@dataclass(frozen=True)
class Manifest:
    """A whole data set, without its images.

    Attributes:
        dataset: the adapter's name, or the name given to custom data.
        labels: the C labels, in the order of `targets`.
        protocol: name of the protocol that defines `targets`.
        note: what a result must state about the data.
        ids, paths, splits: one entry per image, N each.
        targets: (N, C) int8; 1 present, 0 absent, -1 unknown.
        groups: N names; images of one group stay in one split wherever a split is drawn. () if there are none.
    """

    dataset: str
    labels: LabelSet
    protocol: str
    note: str
    ids: tuple[str, ...]
    paths: tuple[str, ...]
    splits: tuple[str, ...]
    targets: NDArray[np.int8]
    groups: tuple[str, ...] = ()

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
        head = [self.dataset, self.protocol, self.labels.keys, self.ids, self.paths, self.splits]
        digest.update(json.dumps(head).encode())
        digest.update(np.ascontiguousarray(self.targets).tobytes())
        if self.groups:
            digest.update(json.dumps(self.groups).encode())
        return digest.hexdigest()[:32]

    def rows_of(self, split: str) -> NDArray[np.int64]:
        """The row numbers of one split, in order."""
        return np.flatnonzero(np.array(self.splits) == split)

    def only(self, rows: NDArray[np.int64]) -> "Manifest":
        """A manifest of only these rows, in this order."""
        return replace(
            self,
            ids=tuple(self.ids[row] for row in rows),
            paths=tuple(self.paths[row] for row in rows),
            splits=tuple(self.splits[row] for row in rows),
            targets=self.targets[rows],
            groups=tuple(self.groups[row] for row in rows) if self.groups else (),
        )


def check_manifest(manifest: Manifest, where: str) -> None:
    """Reject a manifest that would train or measure the wrong thing; `where` names it in the message.

    Raises:
        UserError: a duplicate id, an unknown split or label value, a path that leaves the root, or a split in which
            no image has a label.
    """
    doubled = [key for key, count in Counter(manifest.ids).items() if count > 1]
    if doubled:
        raise UserError(f"{where}: {len(doubled)} ids have two rows, the first is {doubled[0]!r}; keep one of each")
    for split in sorted(set(manifest.splits)):
        if split not in SPLITS:
            raise UserError(f"{where}: unknown split {split!r}; use {', '.join(SPLITS)}")
        if not (manifest.targets[manifest.rows_of(split)] == 1).any():
            raise UserError(f"{where}: no image of split {split!r} has a positive label; check its labels")
    if not np.isin(manifest.targets, (-1, 0, 1)).all():
        row, label = np.argwhere(~np.isin(manifest.targets, (-1, 0, 1)))[0]
        raise UserError(
            f"{where}: label {manifest.labels.keys[label]!r} of {manifest.ids[row]!r} is"
            f" {manifest.targets[row, label]}; allowed are 1, 0 and -1"
        )
    for path in manifest.paths:
        if leaves_root(path):
            raise UserError(f"{where}: the path {path!r} leaves the data root; write it relative, without '..'")


def leaves_root(path: str) -> bool:
    """Whether the text of a manifest path is absolute, goes upwards, or is empty."""
    # Of the text, since a hundred thousand Paths cost seconds; a colon comes second in a Windows drive.
    return (
        not path or path.startswith("/") or path[1:2] == ":" or "\\" in path or "\0" in path or ".." in path.split("/")
    )


def in_root(root: Path, relative: str) -> bool:
    """Whether an image, or the shard it is in, lies below `root`."""
    return file_of(root / relative).is_file()


def resolve_paths(manifest: Manifest, root: Path) -> tuple[Path, ...]:
    """The paths of the images under `root`, all of which exist.

    Raises:
        UserError: `root` is not a folder, a link below it leads out of it, or images are missing.
    """
    check_images(manifest, root)
    return tuple(root / relative for relative in manifest.paths)


def check_images(manifest: Manifest, root: Path) -> None:
    """Check that all images exist under `root`.

    Raises:
        UserError: see `resolve_paths`.
    """
    if missing := missing_images(manifest, root):
        raise UserError(
            f"{len(missing)} of {len(manifest.paths)} images are missing, the first is {missing[0]};"
            " is the archive unpacked completely? (data prepare --missing leave-out does without them)"
        )


def missing_images(manifest: Manifest, root: Path) -> list[Path]:
    """The paths under `root` that the manifest names and that do not exist.

    Raises:
        UserError: `root` is not a folder, or a link below it leads out of it.
    """
    if not root.is_dir():
        raise UserError(f"{root}: there is no such folder; give the data root with --root")
    real_root = Path(os.path.realpath(root))
    inside: dict[str, bool] = {}
    missing = []
    for relative in manifest.paths:
        parent, _, _ = relative.rpartition("/")
        # For an image in a shard, look up the shard.
        path = f"{root}/{parent if parent.endswith(SHARD_ENDING) else relative}"
        folder = os.path.dirname(path)  # noqa: PTH120 - a hundred thousand Paths cost seconds
        if folder not in inside:
            inside[folder] = Path(os.path.realpath(folder)).is_relative_to(real_root)
        try:
            linked = stat.S_ISLNK(os.lstat(path).st_mode)
        except (FileNotFoundError, NotADirectoryError):
            missing.append(root / relative)
            continue
        if not inside[folder] or (linked and not Path(os.path.realpath(path)).is_relative_to(real_root)):
            raise UserError(f"{path}: a link leads out of the data root {root}; copy the images or move the root")
    return missing or missing_in_shards([root / relative for relative in manifest.paths if SHARD_ENDING in relative])


def without_images(manifest: Manifest, paths: Collection[str]) -> Manifest:
    """The manifest without the images at these of its paths.

    Raises:
        UserError: no image is left.
    """
    rows = np.array([row for row, path in enumerate(manifest.paths) if path not in paths], dtype=np.int64)
    if not rows.size:
        raise UserError(f"{manifest.dataset}: all {len(manifest.paths):,} images are missing; check --root")
    return manifest.only(rows)


def manifest_table(manifest: Manifest) -> "pa.Table":
    """The manifest as it is stored."""
    import pyarrow as pa

    flat = pa.array(np.ascontiguousarray(manifest.targets).reshape(-1), pa.int8())
    offsets = pa.array(np.arange(len(manifest.ids) + 1, dtype=np.int32) * len(manifest.labels.keys))
    columns = {
        "id": pa.array(manifest.ids, pa.string()),
        "path": pa.array(manifest.paths, pa.string()),
        "split": pa.array(manifest.splits, pa.string()),
        "labels": pa.ListArray.from_arrays(offsets, flat),
    }
    if manifest.groups:
        columns["group"] = pa.array(manifest.groups, pa.string())
    return pa.table(columns).replace_schema_metadata({"sspa_manifest": json.dumps(_head(manifest).model_dump())})


def write_manifest(manifest: Manifest, path: Path) -> None:
    """Check the manifest and write it atomically, with page checksums."""
    import pyarrow.parquet as pq

    check_manifest(manifest, str(path))
    with replacing(path) as beside:
        pq.write_table(manifest_table(manifest), beside, compression="zstd", write_page_checksum=True)


def read_manifest(path: Path) -> Manifest:
    """Read and check a manifest.

    Raises:
        UserError: missing, not a manifest, damaged, of a newer version, or rejected by `check_manifest`.
    """
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
    manifest = Manifest(
        dataset=head.dataset,
        labels=LabelSet(
            head.label_set, tuple(Label(one.key, one.text, one.hint) for one in head.labels), domain=head.domain
        ),
        protocol=head.protocol,
        note=head.note,
        ids=tuple(table["id"].to_pylist()),
        paths=tuple(table["path"].to_pylist()),
        splits=tuple(table["split"].to_pylist()),
        targets=_targets(table["labels"].combine_chunks(), len(head.labels), path),
        groups=tuple(table["group"].to_pylist()) if grouped else (),
    )
    check_manifest(manifest, str(path))
    return manifest


class _HeadLabel(BaseModel):
    """A label in the table's metadata."""

    model_config = ConfigDict(strict=True, extra="forbid")

    key: str
    text: str
    hint: str = ""


class _Head(BaseModel):
    """What is the same for all rows, in the table's metadata."""

    model_config = ConfigDict(strict=True)

    version: int
    dataset: str
    label_set: str
    domain: str
    labels: list[_HeadLabel]
    protocol: str
    note: str


def _head(manifest: Manifest) -> _Head:
    return _Head(
        version=FORMAT_VERSION,
        dataset=manifest.dataset,
        label_set=manifest.labels.name,
        domain=manifest.labels.domain,
        labels=[_HeadLabel(key=one.key, text=one.text, hint=one.hint) for one in manifest.labels.labels],
        protocol=manifest.protocol,
        note=manifest.note,
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
    lengths = np.diff(column.offsets.to_numpy())
    if (lengths != label_count).any():
        row = int(np.argmax(lengths != label_count))
        raise UserError(f"{path}: row {row} has {lengths[row]} labels, the manifest names {label_count}")
    flat = column.flatten()
    marks = flat.to_numpy(zero_copy_only=False)
    if flat.null_count or not np.isin(marks, (-1, 0, 1)).all():
        raise UserError(f"{path}: the labels hold something else than 1, 0 and -1; make the manifest again")
    targets: NDArray[np.int8] = marks.astype(np.int8)
    return targets.reshape(-1, label_count)
