import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from sspa.shared.errors import UserError
from sspa.stage2_training.compute.cores import share_cores
from sspa.stage2_training.data import loading
from sspa.stage2_training.data.dataset import Split
from sspa.stage2_training.data.loading import ImageDataset, ImageLoader, epoch_order
from sspa.stage2_training.data.transforms import TransformOptions, make_transform

TRAIN = make_transform((16, 16), True, TransformOptions(randaugment=2, cutout=0.5))
TEST = make_transform((16, 16), False)


def make_split(folder: Path, count: int = 11) -> Split:
    rng = np.random.default_rng(0)
    paths = [folder / f"{i}.png" for i in range(count)]
    for path in paths:
        Image.fromarray(rng.integers(0, 256, (20, 24, 3), dtype=np.uint8)).save(path)
    targets = np.arange(count * 2).reshape(count, 2).astype(np.int8)
    return Split("train", tuple(f"id{i}" for i in range(count)), tuple(paths), targets)


def read(loader: ImageLoader, epoch: int) -> list[torch.Tensor]:
    return [torch.cat(parts) for parts in zip(*loader.epoch(epoch), strict=True)]


def test_epochs_repeat_exactly_whatever_workers_and_batches(tmp_path: Path) -> None:
    split = make_split(tmp_path)
    here = ImageLoader(ImageDataset(split, TRAIN, seed=5), 4, shuffle=True)
    workers = ImageLoader(ImageDataset(split, TRAIN, seed=5), 3, shuffle=True, workers=2)
    epochs = {}
    for epoch in (2, 0, 1):  # what was read before does not matter either
        torch.manual_seed(epoch)
        images, targets, indices = epochs[epoch] = read(here, epoch)
        again = read(workers, epoch)
        assert torch.equal(images, again[0])
        assert torch.equal(indices, again[2])
        assert torch.equal(targets, torch.from_numpy(split.targets)[indices])
        assert sorted(indices.tolist()) == list(range(11))
    assert not torch.equal(epochs[0][2], epochs[1][2])
    # The same image looks different in another epoch and under another seed.
    position = {e: epochs[e][2].tolist().index(3) for e in (0, 1)}
    assert not torch.equal(epochs[0][0][position[0]], epochs[1][0][position[1]])
    other = ImageDataset(split, TRAIN, seed=6)[(0, 3)][0]
    assert not torch.equal(epochs[0][0][position[0]], other)


def test_reading_leaves_the_global_generator_alone(tmp_path: Path) -> None:
    dataset = ImageDataset(make_split(tmp_path, 2), TRAIN)
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    dataset[0]
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize("shuffle", [True, False])
def test_processes_share_an_epoch_without_padding(tmp_path: Path, shuffle: bool) -> None:
    dataset = ImageDataset(make_split(tmp_path, 11), TEST)
    shares = [read(ImageLoader(dataset, 2, shuffle=shuffle, rank=rank, world=3), 0)[2].tolist() for rank in range(3)]
    together = [index for share in shares for index in share]
    assert len(set(together)) == len(together)
    if shuffle:
        assert [len(share) for share in shares] == [3, 3, 3]
    else:
        assert sorted(together) == list(range(11))


@pytest.mark.parametrize(
    ("wanted", "cores", "processes", "free_mb", "expected"),
    [
        ("auto", 8, 1, 1000, 8),
        ("auto", 64, 1, 1000, 16),
        ("auto", 8, 4, 1000, 2),
        ("auto", 2, 4, 1000, 1),
        (0, 8, 1, 0, 0),
        (3, 8, 1, 1000, 3),
        (3, 2, 1, 1000, 2),
        (8, 8, 1, 64, 3),
        ("auto", 8, 1, 1, 0),
    ],
)
def test_as_many_workers_as_there_are_cores_and_shared_memory_for(
    wanted: Any,
    cores: int,
    processes: int,
    free_mb: int,
    expected: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(cores))
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "1")
    monkeypatch.setattr("sspa.stage2_training.compute.cores._QUOTA", tmp_path / "none")
    share_cores(processes)
    monkeypatch.setattr(loading, "_SHARED_MEMORY", tmp_path)
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=free_mb * 1_000_000))
    assert loading._workers(wanted, 10_000_000) == expected
    told = capsys.readouterr().err
    assert ("--shm-size" in told) is (free_mb < 1000 and wanted != 0)


def test_drop_last(tmp_path: Path) -> None:
    loader = ImageLoader(ImageDataset(make_split(tmp_path, 5), TEST), 2, drop_last=True)
    assert len(loader) == 2
    assert [len(indices) for _, _, indices in loader] == [2, 2]


@pytest.mark.parametrize("workers", [0, 1])
def test_evaluation_stops_at_an_unreadable_image_and_names_it(tmp_path: Path, workers: int) -> None:
    split = make_split(tmp_path)
    split.paths[7].write_bytes(b"broken")
    loader = ImageLoader(ImageDataset(split, TEST), 4, workers=workers)
    with pytest.raises(UserError, match=r"7\.png: not an image") as caught:
        read(loader, 0)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("workers", [0, 2])
def test_training_substitutes_the_same_image_each_time_and_lists_it(tmp_path: Path, workers: int) -> None:
    split = make_split(tmp_path)
    split.paths[7].write_bytes(b"broken")
    dataset = ImageDataset(split, TEST, unreadable="substitute")
    loader = ImageLoader(dataset, 4, shuffle=True, workers=workers)
    images, targets, indices = read(loader, 0)
    read(loader, 1)
    assert 7 not in indices.tolist()
    assert len(indices) == 11
    assert torch.equal(targets, torch.from_numpy(split.targets)[indices])
    assert torch.equal(images, read(ImageLoader(dataset, 5, shuffle=True), 0)[0])
    (line,) = loader.report_substituted()
    assert "7.png" in line
    assert line.endswith("was substituted 2 times)")


def test_training_stops_when_too_many_images_are_unreadable(tmp_path: Path) -> None:
    split = make_split(tmp_path)
    for path in split.paths[3:6]:
        path.unlink()
    loader = ImageLoader(ImageDataset(split, TEST, unreadable="substitute"), 4)
    with pytest.raises(UserError, match="2 of 11 training images cannot be read, more than 1%"):
        read(loader, 0)


def test_order_is_a_permutation_of_seed_and_epoch() -> None:
    assert epoch_order(50, 1, 2).tolist() == epoch_order(50, 1, 2).tolist()
    assert sorted(epoch_order(50, 1, 2)) == list(range(50))
    orders = {tuple(epoch_order(50, seed, epoch)) for seed in range(3) for epoch in range(3)}
    assert len(orders) == 9


def test_the_rest_of_an_epoch_reads_no_image_of_what_was_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    split = make_split(tmp_path)
    loader = ImageLoader(ImageDataset(split, TRAIN, seed=5), 4, shuffle=True)
    whole = list(loader.epoch(3))
    opened: list[Path] = []
    real = ImageDataset._image

    def noting(dataset: ImageDataset, index: int, seed: int) -> torch.Tensor:
        opened.append(dataset.split.paths[index])
        return real(dataset, index, seed)

    monkeypatch.setattr(ImageDataset, "_image", noting)
    rest = list(loader.epoch(3, start=2))
    assert len(rest) == len(whole) - 2 == 1
    assert all(torch.equal(one, other) for one, other in zip(rest[0], whole[2], strict=True))
    assert opened == [split.paths[index] for index in whole[2][2].tolist()]
    before = torch.get_rng_state()
    list(loader.epoch(4))
    assert torch.equal(torch.get_rng_state(), before)  # dropout draws from it
