import hashlib
import json
import os
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from sspa.shared.errors import UserError
from sspa.shared.label_sets import Label, LabelSet
from sspa.stage2_training.data import columns as columns_module
from sspa.stage2_training.data.columns import Texts
from sspa.stage2_training.data.dataset import dataset_from_manifest, load_dataset
from sspa.stage2_training.data.images_on_disk import missing_images
from sspa.stage2_training.data.manifest import (
    Manifest,
    read_manifest,
    without_images,
    write_manifest,
)
from sspa.stage2_training.data.querying import query_manifest
from sspa.stage2_training.data.splitting import Fold, hold_out_fold, hold_out_val, stratified_folds, stratified_mask
from sspa.stage2_training.data.statistics import co_occurrence, draw_figures, frequent_pairs, split_figures
from sspa.stage2_training.evaluation.protocols import get_protocol

LABELS = LabelSet("pets", (Label("cat", "cat"), Label("dog", "big dog", "barks")), "natural")


def manifest(**changes: object) -> Manifest:
    whole = Manifest(
        dataset="custom",
        labels=LABELS,
        protocol=get_protocol("custom"),
        note="a note",
        ids=Texts(("a", "b", "c", "d")),
        paths=Texts(("x/a.jpg", "x/b.jpg", "c.jpg", "d.jpg")),
        splits=Texts(("train", "train", "val", "test")),
        targets=np.array([[1, 0], [1, 1], [0, 1], [1, -1]], np.int8),
    )
    return replace(whole, **{name: Texts(new) if isinstance(new, tuple) else new for name, new in changes.items()})


def write_images(root: Path, paths: tuple[str, ...]) -> None:
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(b"")


def test_write_and_read_keep_everything(tmp_path: Path) -> None:
    path = tmp_path / "m.parquet"
    write_manifest(manifest(), path)
    again = read_manifest(path)
    assert again.labels == LABELS
    assert (again.ids, again.paths, again.splits, again.note) == (
        manifest().ids,
        manifest().paths,
        manifest().splits,
        "a note",
    )
    assert (again.targets == manifest().targets).all()
    assert again.content_hash == manifest().content_hash
    first = path.read_bytes()
    write_manifest(again, path)
    assert path.read_bytes() == first


@pytest.mark.parametrize(
    "changes",
    [
        {"ids": ("a", "b", "c", "e")},
        {"paths": ("x/a.jpg", "x/b.jpg", "c.jpg", "e.jpg")},
        {"splits": ("train", "val", "val", "test")},
        {"targets": np.array([[1, 0], [1, 1], [0, 1], [1, 0]], np.int8)},
        {"protocol": get_protocol("voc2007-dualcoop")},
    ],
)
def test_the_hash_changes_with_the_data(changes: dict) -> None:
    assert manifest(**changes).content_hash != manifest().content_hash


def test_the_hash_is_that_of_one_list_however_many_images_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(columns_module, "_CHUNK", 3)
    whole = manifest(groups=("one", "one", "two", "three"))
    columns = [list(column) for column in (whole.ids, whole.paths, whole.splits)]
    digest = hashlib.sha256(
        json.dumps([whole.dataset, whole.protocol.name, list(whole.labels.keys), *columns]).encode()
    )
    digest.update(whole.targets.tobytes())
    digest.update(json.dumps(list(whole.groups)).encode())
    assert whole.content_hash == digest.hexdigest()[:32]


def test_the_hash_does_not_change_with_the_note() -> None:
    assert manifest(note="other").content_hash == manifest().content_hash


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"ids": ("a", "b", "a", "d")}, r"1 ids have two rows, the first is 'a'"),
        ({"splits": ("train", "train", "dev", "test")}, "unknown split 'dev'"),
        ({"targets": np.array([[1, 0], [1, 1], [0, -1], [1, 0]], np.int8)}, "no image of split 'val' has a positive"),
        ({"targets": np.array([[1, 0], [1, 2], [0, 1], [1, 0]], np.int8)}, "label 'dog' of 'b' is 2"),
        ({"paths": ("x/a.jpg", "../b.jpg", "c.jpg", "d.jpg")}, r"the path '\.\./b\.jpg' leaves the data root"),
        ({"paths": ("x/a.jpg", "x/../../b.jpg", "c.jpg", "d.jpg")}, "leaves the data root"),
        ({"paths": ("x/a.jpg", "/etc/b.jpg", "c.jpg", "d.jpg")}, "leaves the data root"),
        ({"paths": ("x/a.jpg", "C:/b.jpg", "c.jpg", "d.jpg")}, "leaves the data root"),
    ],
)
def test_wrong_manifests_are_refused(tmp_path: Path, changes: dict, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        write_manifest(manifest(**changes), tmp_path / "m.parquet")
    assert str(caught.value).startswith(str(tmp_path / "m.parquet"))
    assert list(tmp_path.iterdir()) == []


def test_links_out_of_the_root_and_missing_images(tmp_path: Path) -> None:
    root, outside = tmp_path / "root", tmp_path / "outside"
    write_images(root, manifest().paths)
    write_images(outside, ("b.jpg", "d.jpg"))
    assert len(dataset_from_manifest(manifest(), root).splits["train"]) == 2
    (root / "d.jpg").unlink()
    with pytest.raises(UserError, match=r"1 of 4 images are missing, the first is .*d\.jpg"):
        dataset_from_manifest(manifest(), root)
    (root / "d.jpg").symlink_to(root / "c.jpg")  # a link that stays inside is fine
    dataset_from_manifest(manifest(), root)
    (root / "d.jpg").unlink()
    (root / "d.jpg").symlink_to(outside / "d.jpg")
    with pytest.raises(UserError, match=r"d\.jpg: a link leads out of the data root"):
        dataset_from_manifest(manifest(), root)
    (root / "y").symlink_to(outside)
    with pytest.raises(UserError, match=r"y/b\.jpg: a link leads out of the data root"):
        dataset_from_manifest(manifest(paths=("x/a.jpg", "y/b.jpg", "c.jpg", "c.jpg")), root)


def test_damaged_and_foreign_files_are_refused(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = tmp_path / "m.parquet"
    with pytest.raises(UserError, match="there is no such manifest"):
        read_manifest(path)
    write_manifest(manifest(), path)
    whole = path.read_bytes()
    path.write_bytes(whole[:-20])
    with pytest.raises(UserError, match="not a readable manifest"):
        read_manifest(path)
    place = whole.index(b"x/a.jpg") if b"x/a.jpg" in whole else 60
    path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
    with pytest.raises(UserError, match="not a readable manifest"):
        read_manifest(path)
    pq.write_table(pa.table({"id": ["a"]}), path)
    with pytest.raises(UserError, match="no manifest"):
        read_manifest(path)


def test_a_manifest_is_loaded_with_its_root_only(tmp_path: Path) -> None:
    path = tmp_path / "m.parquet"
    write_manifest(manifest(), path)
    write_images(tmp_path, manifest().paths)
    dataset = load_dataset(str(path), tmp_path)
    assert dataset.splits["test"].targets.tolist() == [[1, -1]]
    assert dataset.note == "a note"
    with pytest.raises(UserError, match="say where the images are with --root"):
        load_dataset(str(path))
    with pytest.raises(UserError, match="are those of custom, not of scenes; prepare it again"):
        load_dataset(str(path), tmp_path, "scenes")


def with_targets(targets: np.ndarray, groups: tuple[str, ...] = ()) -> Manifest:
    """A manifest of training images with these targets."""
    names = tuple(f"{row}.jpg" for row in range(len(targets)))
    keys = [Label(f"l{column}", f"l{column}") for column in range(targets.shape[1])]
    splits = Texts(("train",) * len(targets))
    return Manifest(
        "mine",
        LabelSet("mine", tuple(keys)),
        get_protocol("custom"),
        "",
        Texts(names),
        Texts(names),
        Texts(splits),
        targets,
        Texts(groups),
    )


def test_images_of_a_group_stay_together_in_every_draw_and_on_disk(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    targets = (rng.random((600, 3)) < np.array([0.1, 0.3, 0.6])).astype(np.int8)
    groups = tuple(f"patient {number}" for number in rng.integers(0, 120, size=600))
    grouped = with_targets(targets, groups)
    mask = stratified_mask(grouped, 0.25, seed=0)
    assert 0.2 < mask.mean() < 0.3
    folds = stratified_folds(grouped, 3)
    for drawn in (mask, folds):
        assert len({(group, value) for group, value in zip(groups, drawn.tolist(), strict=True)}) == len(set(groups))
    again = hold_out_val(grouped, 0.2, seed=1)
    held_out = {group for group, split in zip(groups, again.splits, strict=True) if split == "val"}
    kept = {group for group, split in zip(groups, again.splits, strict=True) if split == "train"}
    assert held_out
    assert not held_out & kept
    write_manifest(grouped, tmp_path / "m.parquet")
    assert read_manifest(tmp_path / "m.parquet").groups == groups
    assert grouped.content_hash != with_targets(targets).content_hash


def test_images_of_which_nothing_is_known_are_never_drawn() -> None:
    targets = np.tile(np.array([[1, 0], [0, 1], [-1, -1], [-1, 0]], dtype=np.int8), (40, 1))
    blank = (targets == -1).all(axis=1)
    mask = stratified_mask(with_targets(targets), 0.25, seed=0)
    assert not mask[blank].any()
    assert abs(mask[~blank].mean() - 0.25) < 0.03
    folds = stratified_folds(with_targets(targets), 4)
    assert (folds[blank] == 0).all()
    assert sorted(set(folds[~blank].tolist())) == [1, 2, 3, 4]


def test_held_out_val_keeps_the_shares_of_every_label() -> None:
    rng = np.random.default_rng(0)
    targets = (rng.random((2000, 6)) < np.array([0.02, 0.05, 0.1, 0.2, 0.4, 0.6])).astype(np.int8)
    mask = stratified_mask(with_targets(targets), 0.2, seed=1)
    assert abs(mask.mean() - 0.2) < 0.01
    share = targets[mask].sum(axis=0) / targets.sum(axis=0)
    assert np.abs(share - 0.2).max() < 0.02
    assert (stratified_mask(with_targets(targets), 0.2, seed=1) == mask).all()
    assert (stratified_mask(with_targets(targets), 0.2, seed=2) != mask).any()


def test_hold_out_leaves_test_alone_and_refuses_nonsense() -> None:
    again = hold_out_val(manifest(ids=tuple("abcd")), 0.4, seed=0)
    assert again.splits[3] == "test"
    assert sorted(again.splits[:3]) != ["train"] * 3
    assert hold_out_val(manifest(), None, seed=0).splits == manifest().splits
    for fraction in (0.0, 1.0, -1.0):
        with pytest.raises(UserError, match="between 0 and 1"):
            hold_out_val(manifest(), fraction, seed=0)
    with pytest.raises(UserError, match="too few to hold out"):
        hold_out_val(manifest(), 0.01, seed=0)


def test_folds_part_the_rows_and_keep_the_shares_of_every_label() -> None:
    rng = np.random.default_rng(0)
    targets = (rng.random((1500, 4)) < np.array([0.03, 0.1, 0.3, 0.6])).astype(np.int8)
    folds = stratified_folds(with_targets(targets), 3)
    assert np.abs(np.bincount(folds)[1:] - 500).max() <= 5
    for number in (1, 2, 3):
        share = targets[folds == number].sum(axis=0) / targets.sum(axis=0)
        assert np.abs(share - 1 / 3).max() < 0.02
    assert (stratified_folds(with_targets(targets), 3) == folds).all()


def test_a_fold_takes_the_place_of_test_and_the_folds_are_all_of_train_and_val() -> None:
    rng = np.random.default_rng(0)
    count = 120
    targets = (rng.random((count, 2)) < 0.5).astype(np.int8)
    splits = ("train",) * 60 + ("val",) * 20 + ("test",) * 40
    ids = tuple(f"p{row:03}" for row in range(count))
    whole = manifest(ids=ids, paths=tuple(f"{key}.jpg" for key in ids), splits=splits, targets=targets)
    scored: list[str] = []
    for number in (1, 2):
        fold = hold_out_fold(whole, Fold(number, 2))
        assert set(fold.ids) == set(ids[:80])  # no test image is left
        test = [fold.ids[row] for row in fold.rows_of("test")]
        assert abs(len(fold.rows_of("val")) - 10) <= 1  # a quarter of the rest, as in the data set
        assert f"fold {number} of 2" in fold.note
        assert fold.content_hash != whole.content_hash
        row = fold.ids.index(test[0])
        assert (fold.targets[row] == targets[ids.index(test[0])]).all()
        scored += test
    assert sorted(scored) == list(ids[:80])
    without_val = hold_out_fold(replace(whole, splits=Texts(("train",) * 80 + ("test",) * 40)), Fold(1, 2))
    assert set(without_val.splits) == {"train", "test"}
    with pytest.raises(UserError, match="3 images with labels do not make 4 folds; ask for fewer"):
        hold_out_fold(manifest(ids=tuple("abcd")), Fold(1, 4))


@pytest.mark.parametrize("text", ["1", "0/3", "4/3", "1/1", "a/b", "1/", "-1/3"])
def test_a_fold_is_written_as_one_of_some(text: str) -> None:
    assert Fold.parse("2/3") == Fold(2, 3)
    with pytest.raises(ValueError, match="write 1/3, 2/3 or 3/3"):
        Fold.parse(text)


def test_statistics_by_hand(tmp_path: Path) -> None:
    figures = split_figures(manifest())
    assert figures["train"].positives.tolist() == [2, 1]
    assert figures["train"].cardinality == 1.5
    assert (figures["test"].unknown.tolist(), figures["test"].unlabelled) == ([0, 1], 0)
    assert co_occurrence(manifest()).tolist() == [[3, 1], [1, 2]]
    assert frequent_pairs(manifest(), 5) == [("cat", "dog", 1)]
    draw_figures(manifest(), tmp_path / "figures.png")
    assert (tmp_path / "figures.png").read_bytes().startswith(b"\x89PNG")


def test_query_reads_the_manifest_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "m.parquet"
    write_manifest(manifest(), path)
    columns, rows = query_manifest(
        path, "SELECT key, count(*) AS n FROM marks WHERE mark = 1 GROUP BY key ORDER BY key"
    )
    assert columns == ["key", "n"]
    assert rows == [("cat", 3), ("dog", 2)]
    (tmp_path / "secret.csv").write_text("a,b\n1,2\n")
    for sql in (
        f"SELECT * FROM read_csv('{tmp_path}/secret.csv')",
        f"COPY manifest TO '{tmp_path}/out.csv'",
        "SET enable_external_access = true",
        "SELECT nothing FROM manifest",
    ):
        with pytest.raises(UserError, match="query refused") as caught:
            query_manifest(path, sql)
        assert "\n" not in str(caught.value)
    assert not (tmp_path / "out.csv").exists()


def test_images_that_are_gone_can_be_left_out(tmp_path: Path) -> None:
    listed = manifest()
    for path in ("x/a.jpg", "c.jpg", "d.jpg"):
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).touch()
    assert missing_images(listed, tmp_path) == [tmp_path / "x" / "b.jpg"]
    left = without_images(listed, {"x/b.jpg"})
    assert (left.ids, left.splits) == (("a", "c", "d"), ("train", "val", "test"))
    assert left.targets.tolist() == listed.targets[[0, 2, 3]].tolist()
    assert missing_images(left, tmp_path) == []
    with pytest.raises(UserError, match="all 4 images are missing; check --root"):
        without_images(listed, set(listed.paths))


def test_a_missing_image_is_found_whatever_the_folders_are_like(tmp_path: Path) -> None:
    """Against a question per image: nested and flat folders, names that are no text, a folder that is a link."""
    paths = (
        "b.jpg",
        "deep/x/1.jpg",
        "deep/x/2.jpg",
        "deep/1.jpg",
        "1.jpg",
        "Ünï/ä b.jpg",
        "linked/3.jpg",
        "x.tar.gz/1.jpg",
    )
    count = len(paths)
    whole = manifest(
        ids=paths,
        paths=paths,
        splits=("train",) * count,
        targets=np.ones((count, len(manifest().labels.keys)), np.int8),
    )
    write_images(tmp_path, ("b.jpg", "deep/x/2.jpg", "deep/1.jpg", "Ünï/ä b.jpg", "real/3.jpg"))
    (tmp_path / "linked").symlink_to(tmp_path / "real")
    with suppress(OSError):  # some file systems allow text alone
        (tmp_path / "deep" / os.fsdecode(b"\xff.jpg")).write_bytes(b"")
    expected = [tmp_path / path for path in paths if not (tmp_path / path).is_file()]
    assert missing_images(whole, tmp_path) == expected == [tmp_path / paths[row] for row in (1, 4, 7)]
