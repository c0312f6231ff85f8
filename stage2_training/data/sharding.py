"""Writes a data set as WebDataset shards; `shards.py` reads them."""

from dataclasses import replace
from pathlib import Path

from sspa.shared.errors import UserError
from sspa.shared.files import replacing_folder
from sspa.shared.terminal import progress
from sspa.stage2_training.data.columns import Texts
from sspa.stage2_training.data.images_on_disk import resolve_paths
from sspa.stage2_training.data.manifest import Manifest, write_manifest
from sspa.stage2_training.data.shards import SHARD_ENDING

MANIFEST = "manifest.parquet"


def write_shards(manifest: Manifest, root: Path, folder: Path, per_shard: int) -> int:
    """Copy every image into shards of `per_shard` images, split by split, with a manifest beside them.

    Returns:
        The number of shards written.

    Raises:
        UserError: webdataset is not installed, `folder` exists, or images are missing.
    """
    try:
        import webdataset
    except ModuleNotFoundError:
        raise UserError("writing shards needs webdataset: install sspa with the extra 'data'") from None
    if folder.exists():
        raise UserError(f"{folder}: exists already; name a new folder for the shards")
    if per_shard < 1:
        raise UserError(f"a shard holds at least one image, not {per_shard}")
    images = resolve_paths(manifest, root)
    paths = list(manifest.paths)
    shards = 0
    with replacing_folder(folder) as beside, progress("writing shards", len(paths), "images") as bar:
        for split in manifest.splits.distinct():
            rows = manifest.rows_of(split)
            for number, start in enumerate(range(0, len(rows), per_shard)):
                name = f"{split}-{number:06}{SHARD_ENDING}"
                # Fixed owner, mode and time, so that the same images give the same bytes.
                with webdataset.TarWriter(str(beside / name), mtime=0, user="sspa", group="sspa") as tar:
                    for row in rows[start : start + per_shard]:
                        key, ending = f"{row:08}", images[row].suffix.lower().lstrip(".")
                        labels = {
                            label: int(mark)
                            for label, mark in zip(manifest.labels.keys, manifest.targets[row], strict=True)
                            if mark
                        }
                        about = {"id": manifest.ids[row], "labels": labels}
                        tar.write({"__key__": key, ending: images[row].read_bytes(), "json": about})
                        paths[row] = f"{name}/{key}.{ending}"
                        bar.advance()
                shards += 1
        write_manifest(replace(manifest, paths=Texts(paths)), beside / MANIFEST)
    return shards
