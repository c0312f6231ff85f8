import json
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

from sspa.shared.errors import UserError
from sspa.shared.knowledge_format import write_knowledge
from sspa.shared.label_sets import read_label_set
from sspa.stage2_training.cli.data_files import data_app
from sspa.stage2_training.data.manifest import read_manifest


def run(*arguments: object) -> str:
    """The output of the command; a UserError is passed through."""
    result = CliRunner().invoke(data_app, [str(argument) for argument in arguments], catch_exceptions=True)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.output


@pytest.fixture
def own_data(tmp_path: Path) -> Path:
    """Eighty images in two folders, one per label, as a user might have them."""
    for label in ("cat", "dog"):
        for k in range(40):
            path = tmp_path / "own" / label / f"{k}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (8, 6), (k, len(label), label == "cat")).save(path)
    return tmp_path / "own"


def test_list_names_every_data_set_with_its_source() -> None:
    text = run("list")
    for name in (
        "coco2014",
        "voc2007",
        "nuswide",
        "pa100k",
        "peta",
        "rapv1",
        "multiscene-clean",
        "mlrsnet",
        "aid",
        "ucm",
    ):
        assert f"{name}:" in text
    assert "cocodataset.org" in text


def test_own_data_from_a_folder_to_a_query(own_data: Path, tmp_path: Path) -> None:
    manifest = tmp_path / "own.parquet"
    run("prepare", "custom", "--root", own_data, "--output", manifest)
    assert len(read_manifest(manifest).ids) == 80
    run("check", manifest, "--root", own_data)
    table = run("stats", manifest, "--picture", tmp_path / "own.svg")
    assert "labels per image" in table
    assert (tmp_path / "own.svg").read_text().lstrip().startswith("<?xml")
    assert "40" in run("query", manifest, "SELECT count(*) FROM marks WHERE key = 'dog' AND mark = 1")
    run("shard", manifest, tmp_path / "shards", "--root", own_data, "--per-shard", 30)
    run("check", tmp_path / "shards" / "manifest.parquet", "--root", tmp_path / "shards")
    (own_data / "cat" / "3.png").unlink()
    with pytest.raises(UserError, match=r"1 of 80 images are missing, the first is .*cat/3\.png"):
        run("check", manifest, "--root", own_data)


def test_prepare_says_what_it_understood(own_data: Path, tmp_path: Path) -> None:
    table = tmp_path / "own.csv"
    rows = [f"{label}/{k}.png,{label},{'train' if k < 20 else 'val'}" for label in ("cat", "dog") for k in range(40)]
    table.write_text("\n".join(["path,labels,split", *rows, "dog/99.png,dog;Fox,train"]))
    asked = ("prepare", "custom", "--root", own_data, "--source", table, "--output", tmp_path / "own.parquet")
    with pytest.raises(UserError, match=r"1 of 81 images are missing, .*dog/99\.png; .*--missing leave-out"):
        run(*asked)
    shown = run(*asked, "--missing", "leave-out")
    assert "left out, since missing: 1 of 81 images: " in shown
    assert "cat/0.png (train): cat" in shown
    assert "look at this: there is no test split" in shown
    assert "look at this: label 'Fox' is on no image of train and val" in shown
    shown = run(*asked, "--missing", "leave-out", "--json")
    found = json.loads(shown[shown.index("{") : shown.rindex("}") + 1])
    assert (found["images"], found["splits"]) == (80, {"train": 40, "val": 40})
    assert found["labels"]["dog"]["positives"] == {"train": 20, "val": 20}


def test_labels_as_a_label_file(own_data: Path, tmp_path: Path) -> None:
    manifest, out = tmp_path / "own.parquet", tmp_path / "own.txt"
    run("prepare", "custom", "--root", own_data, "--output", manifest)
    assert "2 labels; next: sspa-knowledge generate --labels" in run("labels", manifest, "--output", out)
    assert read_label_set(out).keys == ("cat", "dog")
    with pytest.raises(UserError, match="exists already; nothing was changed"):
        run("labels", manifest, "--output", out)


def test_a_label_that_the_knowledge_lacks_stops_preparation(own_data: Path, tmp_path: Path) -> None:
    knowledge = tmp_path / "k.parquet"
    write_knowledge(knowledge, [{"label": "cat", "description": "A small animal with pointed ears."}])
    with pytest.raises(UserError, match="dog"):
        run("prepare", "custom", "--root", own_data, "--output", tmp_path / "m.parquet", "--knowledge", knowledge)
    assert not (tmp_path / "m.parquet").exists()


def test_check_of_a_broken_data_set_lists_everything_and_fails(tmp_path: Path) -> None:
    (tmp_path / "annotations").mkdir()
    (tmp_path / "train2014").mkdir()
    (tmp_path / "annotations" / "instances_train2014.json").write_text(json.dumps({"images": []}))
    with pytest.raises(UserError, match=r"problems with MS-COCO 2014; it is offered as train2014\.zip"):
        run("check", "coco2014", "--root", tmp_path)
    with pytest.raises(UserError, match="holds no MS-COCO 2014"):
        run("check", "coco2014", "--root", tmp_path / "train2014")


def test_throughput_measures_both_ways(own_data: Path, tmp_path: Path) -> None:
    run("prepare", "custom", "--root", own_data, "--output", tmp_path / "m.parquet", "--val", "0.45", "--test", "0.45")
    text = run("throughput", tmp_path / "m.parquet", "--root", own_data, "--workers", "0", "--rounds", 1, "--size", 8)
    assert "0 workers" in text
    with pytest.raises(UserError, match="8 images are too few to time"):
        run("throughput", tmp_path / "m.parquet", "--root", own_data, "--split", "train")
    with pytest.raises(UserError, match="has no split 'dev'"):
        run("throughput", tmp_path / "m.parquet", "--root", own_data, "--split", "dev")


def test_download_is_for_voc_only(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--download serves voc2007 and voc2012 only"):
        run("prepare", "coco2014", "--download", "--root", tmp_path)


def test_prepare_with_groups_blanks_and_some_labels(own_data: Path, tmp_path: Path) -> None:
    rows = [f"{label}/{k}.png,{label},{label}{k // 4},{k}" for label in ("cat", "dog") for k in range(40)]
    blank = [row.replace(",cat,", ",,") if k < 8 else row for k, row in enumerate(rows)]
    table = tmp_path / "own.csv"
    table.write_text("\n".join(["path,labels,patient,age", *blank]))
    asked = ("prepare", "custom", "--root", own_data, "--source", table, "--group", "Patient")
    shown = run(*asked, "--output", tmp_path / "own.parquet")
    assert "8 of 80 images are without any label (if their labels are not known: --blank unknown)" in shown
    assert "columns that are not used: age" in shown
    found = read_manifest(tmp_path / "own.parquet")
    split_of = dict(zip(found.groups, found.splits, strict=True))
    assert [split_of[group] for group in found.groups] == list(found.splits)
    assert set(found.splits) == {"train", "val", "test"}
    shown = run(*asked, "--blank", "unknown", "--output", tmp_path / "blank.parquet")
    assert "of 8 of 80 images nothing is known; they are never drawn into a split" in shown
    assert "without any label (" not in shown
    found = read_manifest(tmp_path / "blank.parquet")
    unknown = (found.targets == -1).all(axis=1)
    assert unknown.sum() == 8
    assert {split for split, nothing in zip(found.splits, unknown, strict=True) if nothing} == {"train"}
    (tmp_path / "some.txt").write_text("cat\n")
    shown = run(*asked, "--labels", tmp_path / "some.txt", "--output", tmp_path / "some.parquet")
    assert "labels that are not in the label set are left out, with how many images have them: dog (40)" in shown
    assert read_manifest(tmp_path / "some.parquet").labels.keys == ("cat",)


def test_prepare_from_a_list_for_each_split(own_data: Path, tmp_path: Path) -> None:
    for name, places in (("train", range(30)), ("valid", range(30, 35)), ("rest", range(35, 40))):
        rows = [f"{label}/{k}.png,{label}" for label in ("cat", "dog") for k in places]
        (tmp_path / f"{name}.csv").write_text("\n".join(["path,labels", *rows]))
    lists = ("--source", tmp_path / "train.csv", "--source", tmp_path / "valid.csv")
    out = ("--output", tmp_path / "own.parquet")
    with pytest.raises(UserError, match=r"--source .*rest\.csv: of which split\?"):
        run("prepare", "custom", "--root", own_data, *lists, "--source", tmp_path / "rest.csv", *out)
    run("prepare", "custom", "--root", own_data, *lists, "--source", f"test={tmp_path / 'rest.csv'}", *out)
    found = read_manifest(tmp_path / "own.parquet")
    assert [found.splits.count(split) for split in ("train", "val", "test")] == [60, 10, 10]


def test_a_manifest_of_other_data_is_not_overwritten(
    own_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    made = Path("artifacts/pets.manifest.parquet")
    run("prepare", "custom", "--root", own_data, "--name", "pets")
    assert read_manifest(made).dataset == "pets"
    before = made.read_bytes()
    run("prepare", "custom", "--root", own_data, "--name", "pets")  # the same again
    with pytest.raises(UserError, match=r"holds other data \(pets, 80 images\).*--overwrite"):
        run("prepare", "custom", "--root", own_data, "--name", "pets", "--seed", 1)
    assert made.read_bytes() == before
    run("prepare", "custom", "--root", own_data, "--name", "pets", "--seed", 1, "--overwrite")
    assert made.read_bytes() != before


@pytest.mark.parametrize(
    ("name", "message"),
    [("voc2007", "is the name of a public data set"), ("a/b", "take letters"), ("-", "take letters")],
)
def test_other_names_of_own_data_are_refused(own_data: Path, name: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        run("prepare", "custom", "--root", own_data, f"--name={name}")


def test_public_data_has_its_name(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="ucm has its name"):
        run("prepare", "ucm", "--root", tmp_path, "--name", "mine")
