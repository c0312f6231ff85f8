"""Features computed by two processes against those of one: the same bytes, each image by one of them."""

import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from PIL import Image

from sspa.shared.errors import UserError
from sspa.stage2_training.compute.processes import ALONE, Processes
from sspa.stage2_training.data.dataset import Split
from sspa.stage2_training.data.loading import ImageLoader
from sspa.stage2_training.features import computing
from sspa.stage2_training.features.kept_features import FeatureCache

from ..model.small_models import small_backbone

WORLD, COUNT, BROKEN = 2, 11, 6
VIEWS = ("plain", "mirrored")


@pytest.fixture
def split(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Split:
    """Eleven images, one of which cannot be read, in batches of two."""
    monkeypatch.setattr(computing, "_BATCH", 2)
    generator = np.random.default_rng(0)
    paths = [tmp_path / f"{number}.png" for number in range(COUNT)]
    for path in paths:
        Image.fromarray(generator.integers(0, 256, (40, 50, 3), dtype=np.uint8)).save(path)
    paths[BROKEN].write_bytes(b"no image")
    return Split("test", tuple(map(str, range(COUNT))), tuple(paths), np.zeros((COUNT, 2), np.int8))


def _keep(split: Split, folder: Path, cache: Path, processes: Processes) -> list[int]:
    """Keep the split's features in `cache`; returns the images that this process put through the tower."""
    os.environ["SSPA_CACHE"] = str(cache)
    backbone = small_backbone(folder / "backbone")
    sizes: list[int] = []
    encode_image = backbone.encode_image
    backbone.encode_image = lambda images: sizes.append(len(images)) or encode_image(images)  # type: ignore[method-assign,func-returns-value]
    FeatureCache(backbone, torch.device("cpu"), 0, processes=processes).keep(([split], VIEWS))
    return sizes


def _work(rank: int, folder: str, caches: list[str], split: Split) -> None:
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=WORLD)
    try:
        sizes = _keep(split, Path(folder), Path(caches[rank]), Processes(rank, WORLD))
        (Path(folder) / f"sizes-{rank}").write_text(repr(sizes))
    except UserError as error:
        (Path(folder) / f"error-{rank}").write_text(str(error))
    dist.destroy_process_group()


def _in_two(folder: Path, caches: list[Path], split: Split) -> list[list[int]]:
    mp.start_processes(_work, (str(folder), [str(cache) for cache in caches], split), nprocs=WORLD, start_method="fork")
    files = [folder / f"sizes-{rank}" for rank in range(WORLD)]
    return [eval(file.read_text()) for file in files if file.is_file()]


def _content(cache: Path) -> dict[str, bytes]:
    files = [file for file in (cache / "features").rglob("*") if file.is_file()]
    assert not [file for file in files if file.name.startswith(".process")]
    # What computed it is said in about.json, the same in both.
    return {str(file.relative_to(cache)): file.read_bytes() for file in files}


def test_two_processes_share_the_work_and_write_what_one_writes(
    tmp_path: Path, split: Split, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSPA_CACHE", "")
    torch.set_num_threads(1)
    both, one = tmp_path / "both", tmp_path / "one"
    sizes = _in_two(tmp_path, [both, both], split)
    assert sizes == [[2, 2, 2, 2, 2, 2], [2, 2, 2, 2, 1, 1]]  # by batch and view
    assert sum(_keep(split, tmp_path, one, ALONE)) == COUNT * len(VIEWS)
    assert _content(both) == _content(one)
    assert len(_content(one)) == 4 * len(VIEWS)  # pooled, regions, about, and the image that cannot be read


def test_processes_with_caches_of_their_own_each_fill_theirs(tmp_path: Path, split: Split) -> None:
    caches = [tmp_path / "first", tmp_path / "second"]
    for sizes in _in_two(tmp_path, caches, split):
        assert sum(sizes) == COUNT * len(VIEWS)
    assert _content(caches[0]) == _content(caches[1])


def test_what_stops_one_process_is_said_by_both_and_leaves_no_entry(
    tmp_path: Path, split: Split, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Full(ImageLoader):
        def epoch(self, epoch: int, start: int = 0) -> Iterator[Any]:
            if dist.get_rank() == 1:
                raise OSError(errno.ENOSPC, "No space left on device")
            return super().epoch(epoch, start)

    monkeypatch.setattr(computing, "ImageLoader", Full)
    cache = tmp_path / "cache"
    assert _in_two(tmp_path, [cache, cache], split) == []
    for rank in range(WORLD):
        assert (
            "process 1: the cache of features cannot be written (No space left"
            in (tmp_path / f"error-{rank}").read_text()
        )
    assert not list((cache / "features").iterdir())
