"""Every adapter on a miniature of its official layout, written here with the official file formats."""

import csv
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from sspa.shared.errors import UserError
from sspa.shared.label_sets import Label, read_label_set
from sspa.stage2_training.data.adapters import adapter_names, get_adapter
from sspa.stage2_training.data.checking import check_data
from sspa.stage2_training.data.dataset import Dataset, load_dataset
from sspa.stage2_training.evaluation.protocols import get_protocol, protocol_names


def picture(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (4, 4)).save(path)


def cells(values: list) -> np.ndarray:
    """A MATLAB cell array, one column."""
    array = np.empty((len(values), 1), dtype=object)
    for row, value in enumerate(values):
        array[row, 0] = value
    return array


def write_coco(root: Path) -> None:
    categories = [{"id": 1, "name": "person"}, {"id": 90, "name": "toothbrush"}, {"id": 3, "name": "car"}]
    (root / "annotations").mkdir()
    for folder, first in {"train2014": 1, "val2014": 101}.items():
        images = [{"id": first + k, "file_name": f"COCO_{folder}_{first + k:012}.jpg"} for k in range(4)]
        pairs = [(0, 1), (0, 1), (0, 90), (1, 3), (2, 90)]  # the last image has no annotation
        annotations = [{"image_id": first + k, "category_id": c, "iscrowd": c == 3} for k, c in pairs]
        content = {"images": images, "annotations": annotations, "categories": categories}
        (root / "annotations" / f"instances_{folder}.json").write_text(json.dumps(content))
        for image in images:
            picture(root / folder / image["file_name"])


def write_nuswide(root: Path) -> None:
    for folder in ("ImageList", "ConceptsList", "Groundtruth/TrainTestLabels"):
        (root / folder).mkdir(parents=True)
    (root / "ConceptsList/Concepts81.txt").write_text("airport\nanimal\n")
    for word, first in {"Train": 1, "Test": 11}.items():
        files = [f"actor\\{first + k:04}_{first + k}.jpg" for k in range(4)]
        (root / f"ImageList/{word}Imagelist.txt").write_text("\r\n".join(files) + "\r\n")
        for concept, marks in {"airport": "1000", "animal": "1010"}.items():
            (root / f"Groundtruth/TrainTestLabels/Labels_{concept}_{word}.txt").write_text("\n".join(marks) + "\n")
        for file in files:
            picture(root / "Flickr" / file.replace("\\", "/"))


def write_pa100k(root: Path) -> None:
    content: dict = {"attributes": cells(["Female", "Skirt&Dress"])}
    for number, split in enumerate(("train", "val", "test")):
        files = [f"{number * 10 + k:06}.jpg" for k in range(2)]
        content[f"{split}_images_name"] = cells(files)
        content[f"{split}_label"] = np.array([[1, 0], [1, 1]], dtype=np.uint8)
        for file in files:
            picture(root / "data" / file)
    savemat(root / "annotation.mat", content)


def write_peta(root: Path) -> None:
    names = [f"attribute{k}" for k in range(105)]
    names[0] = "personalLess30"
    data = np.zeros((6, 109))
    data[:, 0] = np.arange(1, 7)  # image numbers come first
    data[:, 4] = [1, 0, 1, 0, 1, 0]
    data[:, 4 + 34] = [0, 0, 0, 1, 0, 1]
    parts = [np.array(rows).reshape(-1, 1) for rows in ([6, 1], [2, 3], [4, 5])]
    partition = cells([{"train": parts[0], "val": parts[1], "test": parts[2]} for _ in range(5)])
    fields = {"data": data, "attribute": cells(names), "selected": np.arange(1, 36), "partition": partition}
    savemat(root / "PETA.mat", {"peta": fields})
    for k in range(1, 7):
        picture(root / "images" / f"{k:05}.png")


def write_rapv1(root: Path) -> None:
    files = [f"CAM01_frame{k}.png" for k in range(4)]
    names = cells(["Female", *(f"attribute{k}" for k in range(91))])
    label = np.zeros((4, 92))
    label[:, 0] = [1, 0, 2, 1]  # 2 stands for "cannot be said"
    label[:, 50] = [0, 1, 1, 0]
    partition = cells([{"train_index": np.array([[1, 3]]), "test_index": np.array([[2, 4]])} for _ in range(5)])
    fields = {
        "partition": partition,
        "label": label,
        "attribute_chinese": names,
        "attribute_eng": names,
        "position": np.zeros((4, 16)),
        "imagesname": cells(files),
        "attribute_exp": names,
    }
    (root / "RAP_annotation").mkdir()
    savemat(root / "RAP_annotation/RAP_annotation.mat", {"RAP_annotation": fields})
    for file in files:
        picture(root / "RAP_dataset" / file)


def write_table(path: Path, head: str, rows: dict[str, tuple[int, ...]], delimiter: str = ",") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    labels = [f"label{k}" for k in range(len(next(iter(rows.values()))))]
    with path.open("w", newline="") as file:
        writer = csv.writer(file, delimiter=delimiter)
        writer.writerow([head, *labels])
        writer.writerows([name, *marks] for name, marks in rows.items())


def write_multiscene(root: Path) -> None:
    for name, first in {"Tra": 0, "Test": 10}.items():
        rows = {f"img{first + k}": (1, k % 2) for k in range(4)}
        write_table(root / f"{name}.csv", "image", rows)
        for key in rows:
            picture(root / "images" / f"{key}.jpg")


def write_mlrsnet(root: Path) -> None:
    for category in ("airplane", "harbor&port"):
        rows = {f"{category}_{k:05}.jpg": (1, k % 2) for k in range(10)}
        write_table(root / "Labels" / f"{category}.csv", "image", rows)
        for file in rows:
            picture(root / "Images" / category / file)


def write_aid(root: Path) -> None:
    rows = {f"airport_{k}": (k % 2, 1) for k in range(6)}
    write_table(root / "multilabel.csv", "IMAGE\\LABEL", rows)
    for number, key in enumerate(rows):
        picture(root / ("images_test" if number < 2 else "images_tr") / "Airport" / f"{key}.jpg")


def write_ucm(root: Path) -> None:
    rows = {f"{category}{k:02}": (1, k % 2) for category in ("airplane", "beach") for k in range(10)}
    write_table(root / "LandUse_Multilabeled.txt", "IMAGE\\LABEL", rows, delimiter="\t")
    for key in rows:
        picture(root / "Images" / key.rstrip("0123456789") / f"{key}.tif")


WRITERS: dict[str, Callable[[Path], None]] = {
    "coco2014": write_coco,
    "nuswide": write_nuswide,
    "pa100k": write_pa100k,
    "peta": write_peta,
    "rapv1": write_rapv1,
    "multiscene-clean": write_multiscene,
    "mlrsnet": write_mlrsnet,
    "aid": write_aid,
    "ucm": write_ucm,
}


def load(name: str, root: Path, protocol: str | None = None) -> Dataset:
    WRITERS[name](root)
    return load_dataset(name, root, protocol, val_fraction=None if name in ("pa100k", "peta") else 0.5)


def rows_of(dataset: Dataset, split: str) -> dict[str, list[int]]:
    part = dataset.splits[split]
    return {key: target.tolist() for key, target in zip(part.ids, part.targets, strict=True)}


def trained_on(dataset: Dataset) -> dict[str, list[int]]:
    return rows_of(dataset, "train") | rows_of(dataset, "val")


@pytest.mark.parametrize("name", WRITERS)
def test_a_protocol_of_ones_own_is_what_the_data_are_measured_by(name: str, tmp_path: Path) -> None:
    base = get_adapter(name).protocols[0]
    (tmp_path / "own.yaml").write_text(f"name: ours\nbased_on: {base}\nthreshold: 0.25\n")
    (tmp_path / "data").mkdir()
    dataset = load(name, tmp_path / "data", str(tmp_path / "own.yaml"))
    assert (dataset.protocol.name, dataset.protocol.threshold, dataset.protocol.based_on) == ("ours", 0.25, base)


def test_coco_keeps_unlabelled_images_or_drops_them(tmp_path: Path) -> None:
    dataset = load("coco2014", tmp_path)
    assert dataset.labels.keys == ("person", "car", "toothbrush")  # by category number, not by place in the file
    expected = [[1, 0, 1], [0, 1, 0], [0, 0, 1], [0, 0, 0]]
    assert rows_of(dataset, "test") == {str(101 + k): row for k, row in enumerate(expected)}
    assert trained_on(dataset) == {str(1 + k): row for k, row in enumerate(expected)}
    assert dataset.splits["test"].paths[0] == tmp_path / "val2014" / "COCO_val2014_000000000101.jpg"
    annotated = load_dataset("coco2014", tmp_path, "coco2014-annotated", val_fraction=0.5)
    assert list(rows_of(annotated, "test")) == ["101", "102", "103"]
    assert annotated.protocol.hash != dataset.protocol.hash


def test_nuswide_follows_its_lists(tmp_path: Path) -> None:
    dataset = load("nuswide", tmp_path)
    assert dataset.labels.keys == ("airport", "animal")
    assert rows_of(dataset, "test") == {
        "0011_11": [1, 1],
        "0012_12": [0, 0],
        "0013_13": [0, 1],
        "0014_14": [0, 0],
    }
    assert dataset.splits["test"].paths[0] == tmp_path / "Flickr" / "actor" / "0011_11.jpg"
    assert len(load_dataset("nuswide", tmp_path, "nuswide-annotated", val_fraction=0.5).splits["test"]) == 2


def test_pa100k_has_its_own_val(tmp_path: Path) -> None:
    dataset = load("pa100k", tmp_path)
    assert dataset.labels.keys == ("Female", "Skirt&Dress")
    assert dataset.labels.domain == "pedestrian"
    assert rows_of(dataset, "val") == {"000010": [1, 0], "000011": [1, 1]}


def test_peta_takes_the_first_partition_and_35_attributes(tmp_path: Path) -> None:
    dataset = load("peta", tmp_path)
    assert len(dataset.labels.keys) == 35
    assert dataset.labels.keys[0] == "personalLess30"
    first_and_last = {
        split: {key: (row[0], row[34]) for key, row in rows_of(dataset, split).items()} for split in dataset.splits
    }
    assert first_and_last == {
        "train": {"00006": (0, 1), "00001": (1, 0)},
        "val": {"00002": (0, 0), "00003": (1, 0)},
        "test": {"00004": (0, 1), "00005": (1, 0)},
    }


def test_rapv1_takes_the_first_partition_and_51_attributes(tmp_path: Path) -> None:
    dataset = load("rapv1", tmp_path)
    assert len(dataset.labels.keys) == 51
    assert {key: (row[0], row[50]) for key, row in rows_of(dataset, "test").items()} == {
        "CAM01_frame1": (0, 1),
        "CAM01_frame3": (1, 0),
    }
    assert {key: (row[0], row[50]) for key, row in trained_on(dataset).items()} == {
        "CAM01_frame0": (1, 0),
        "CAM01_frame2": (-1, 1),
    }


def test_multiscene_reads_both_tables(tmp_path: Path) -> None:
    dataset = load("multiscene-clean", tmp_path)
    assert rows_of(dataset, "test") == {f"img{10 + k}": [1, k % 2] for k in range(4)}
    assert trained_on(dataset) == {f"img{k}": [1, k % 2] for k in range(4)}


@pytest.mark.parametrize("name", ["mlrsnet", "ucm"])
def test_a_fifth_of_each_category_is_test_where_nothing_is_official(tmp_path: Path, name: str) -> None:
    dataset = load(name, tmp_path)
    test = sorted(rows_of(dataset, "test"))
    assert len(trained_on(dataset)) == 16
    first, second = {"mlrsnet": ("airplane", "harbor&port"), "ucm": ("airplane", "beach")}[name]
    assert [key.startswith(first) for key in test] == [True, True, False, False]
    assert all(key.startswith((first, second)) for key in test)
    assert sorted(rows_of(load_dataset(name, tmp_path, val_fraction=0.3, seed=9), "test")) == test
    for key, row in trained_on(dataset).items():
        assert row == [1, int(key[-1]) % 2]


def test_aid_splits_by_folder(tmp_path: Path) -> None:
    dataset = load("aid", tmp_path)
    assert rows_of(dataset, "test") == {"airport_0": [0, 1], "airport_1": [1, 1]}
    assert trained_on(dataset) == {f"airport_{k}": [k % 2, 1] for k in range(2, 6)}


def test_ucm_reads_the_excel_table_too(tmp_path: Path) -> None:
    import openpyxl

    (tmp_path / "text").mkdir()
    (tmp_path / "excel").mkdir()
    write_ucm(tmp_path / "text")
    write_ucm(tmp_path / "excel")
    table = tmp_path / "excel" / "LandUse_Multilabeled.txt"
    book = openpyxl.Workbook()
    for line in table.read_text().splitlines():
        book.active.append([int(cell) if cell in ("0", "1") else cell for cell in line.split("\t")])
    book.save(table.with_suffix(".xlsx"))
    table.unlink()
    one, other = (load_dataset("ucm", tmp_path / kind, val_fraction=0.5) for kind in ("text", "excel"))
    assert one.content_hash == other.content_hash


@pytest.mark.parametrize("name", WRITERS)
def test_check_says_what_is_missing_and_compares_counts(tmp_path: Path, name: str) -> None:
    WRITERS[name](tmp_path)
    adapter = get_adapter(name)
    findings = check_data(adapter, adapter.find_root(tmp_path), None)
    # A miniature lacks labels and images of the published figures, but no file.
    assert not any("missing" in problem for problem in findings.problems)
    assert [row.differs for row in findings.counts if row.what.endswith("images")] == [True] * len(adapter.published)
    removed = sorted(path for path in tmp_path.rglob("*") if path.suffix in (".jpg", ".png", ".tif"))[0]
    removed.unlink()
    again = check_data(adapter, adapter.find_root(tmp_path), None)
    assert any("missing" in problem or "holds no images" in problem for problem in again.problems)


@pytest.mark.parametrize("name", WRITERS)
def test_a_half_unpacked_archive_is_one_clear_line(tmp_path: Path, name: str) -> None:
    WRITERS[name](tmp_path)
    table = max(
        (path for path in tmp_path.rglob("*") if path.suffix in (".json", ".mat", ".csv", ".txt")),
        key=lambda path: (path.stat().st_size, str(path)),
    )
    whole = table.read_bytes()
    middle = whole.find(b"\t" if b"\t" in whole else b",", len(whole) // 2)
    table.write_bytes(whole[: max(middle + 1, len(whole) // 2)])  # within a row, not between two
    with pytest.raises(UserError) as caught:
        load_dataset(name, tmp_path, val_fraction=0.5)
    assert "\n" not in str(caught.value)
    table.unlink()
    with pytest.raises(UserError):
        load_dataset(name, tmp_path, val_fraction=0.5)


def test_counts_are_compared_with_what_the_protocol_keeps(tmp_path: Path) -> None:
    write_coco(tmp_path)
    adapter = get_adapter("coco2014")
    for protocol, train, published in (("coco2014-all", 4, 82_783), ("coco2014-annotated", 3, 82_081)):
        row = check_data(adapter, tmp_path, protocol).counts[0]
        assert (row.found, row.published) == (train, published)
        assert f"{train} of {published:,} trainval" in load_dataset("coco2014", tmp_path, protocol, 0.5).note


def test_every_adapter_names_protocols_that_are_its_own() -> None:
    for name in adapter_names():
        adapter = get_adapter(name)
        assert adapter.name == name
        assert len(read_label_set(adapter.label_set).labels) == adapter.label_count
        for protocol in adapter.protocols:
            assert get_protocol(protocol).dataset == name
    named = {protocol for name in adapter_names() for protocol in get_adapter(name).protocols}
    assert set(protocol_names()) - named == {"custom"}
    with pytest.raises(UserError, match="did you mean coco2014"):
        get_adapter("coco")


def test_labels_are_the_built_in_ones_however_the_data_spells_them() -> None:
    built_in = read_label_set("multiscene")
    adapter = get_adapter("multiscene-clean")
    published = ["".join(word.title() for word in label.key.replace("/", " ").split()) for label in built_in.labels]
    published[published.index("WindTurbine")] = "WindTrubine"
    assert adapter.labels(published) == built_in
    assert adapter.labels([f"label{k}" for k in range(36)]).keys == tuple(f"label{k}" for k in range(36))
    # In another order only the names count, and a misspelt one stays unknown.
    assert adapter.labels(["Sea", "WindTrubine", "Apron"]).labels == (
        built_in.labels[-1],
        Label("WindTrubine", "WindTrubine"),
        built_in.labels[0],
    )


def test_a_protocol_of_another_data_set_is_refused(tmp_path: Path) -> None:
    write_coco(tmp_path)
    with pytest.raises(UserError, match="voc2007-dualcoop is no protocol of coco2014"):
        load_dataset("coco2014", tmp_path, "voc2007-dualcoop")


def test_a_file_on_which_scipy_crashes_is_one_clear_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a stand-in for the crash: which files crash it depends on scipy's version."""
    write_pa100k(tmp_path)
    crash = [sys.executable, "-c", "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)"]
    run = subprocess.run
    monkeypatch.setattr(subprocess, "run", lambda _, **options: run(crash, **options))
    with pytest.raises(UserError, match=r"annotation\.mat: not a readable MATLAB file \(it ends the program"):
        load_dataset("pa100k", tmp_path)
