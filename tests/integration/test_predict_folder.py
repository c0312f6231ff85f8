"""`predict --out FOLDER/`: every image once, however many processes, restarts and machines write the folder."""

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from urllib.request import Request, urlopen

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from moto.server import ThreadedMotoServer
from pyarrow import fs

from sspa.stage2_training.data.manifest import read_manifest
from sspa.stage2_training.data.sharding import write_shards
from sspa.stage2_training.inference.tagger import Tagger
from sspa.stage2_training.prediction.folder_job.job import begin, left_of
from sspa.stage2_training.prediction.folder_job.units import ListedImages, find_units

from .conftest import Ended
from .tiny_run import LABELS

Command = Callable[..., Ended]
IMAGES = 144


def rows_of(out: Path) -> dict[str, tuple[object, ...]]:
    """Each row by its path; fails if a path has two."""
    found = duckdb.sql(f"SELECT path, error, probabilities, predicted, boxes FROM '{out}/*.parquet'").fetchall()
    rows = {row[0]: row[1:] for row in found}
    assert len(rows) == len(found)
    return rows


@pytest.fixture
def pictures(squares: Path) -> Path:
    return squares / "pictures"


@pytest.fixture
def whole(trained_run: Path, pictures: Path, tmp_path: Path, sspa_train: Command) -> dict[str, tuple[object, ...]]:
    """What one process writes of all pictures."""
    ended = sspa_train("predict", trained_run, pictures, "--out", f"{tmp_path}/whole/", "--per-file", 20)
    assert ended.code == 0, ended.messages
    return rows_of(tmp_path / "whole")


def test_a_row_per_image_says_what_the_tagger_says(
    trained_run: Path, pictures: Path, whole: dict[str, tuple[object, ...]], tmp_path: Path
) -> None:
    assert len(whole) == IMAGES
    assert len(list((tmp_path / "whole").glob("images-*.parquet"))) == 8
    tagger = Tagger.load(trained_run, device="cpu")
    paths = sorted(pictures.iterdir())[:30]
    for path, tags in zip(paths, tagger(paths), strict=True):
        error, probabilities, predicted, boxes = whole[str(path)]
        assert error is None
        assert probabilities == pytest.approx([tags.probabilities[key.key] for key in LABELS.labels], abs=1e-3)
        assert {LABELS.labels[position - 1].key for position in predicted} == set(tags.predicted)  # type: ignore[attr-defined]
        assert len(boxes) == len(predicted)  # type: ignore[arg-type]
    labels = duckdb.sql(f"SELECT position, label, text, threshold FROM '{tmp_path}/whole/labels.csv'").fetchall()
    assert labels == [(number, label.key, label.text, 0.5) for number, label in enumerate(LABELS.labels, start=1)]


def test_array_jobs_that_overlap_and_one_that_was_stopped_give_the_same_rows(
    trained_run: Path, pictures: Path, whole: dict[str, tuple[object, ...]], tmp_path: Path, sspa_train: Command
) -> None:
    out = tmp_path / "parts"
    command = ("predict", trained_run, pictures, "--out", f"{out}/", "--per-file", 20)
    assert sspa_train(*command, "--shard", "2/3").code == 0
    assert len(list(out.glob("*.parquet"))) == 3
    assert sspa_train(*command, "--shard", "1/2").code == 0  # has some of the same
    (out / "images-000004.parquet").unlink()  # as if its process had been killed
    ended = sspa_train(*command)
    assert "5 of 8 parts are there already" in ended.messages
    assert rows_of(out) == whole
    ended = sspa_train(*command)
    assert (ended.code, "8 of 8 parts are there already" in ended.messages) == (0, True)


def test_a_killed_job_resumes(
    trained_run: Path, pictures: Path, whole: dict[str, tuple[object, ...]], tmp_path: Path, sspa_train: Command
) -> None:
    out = tmp_path / "killed"
    arguments = ["predict", str(trained_run), str(pictures), "--out", f"{out}/", "--per-file", "4", "--batch-size", "1"]
    with subprocess.Popen(
        [Path(sys.executable).with_name("sspa-train"), *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        while not list(out.glob("images-*.parquet")):
            assert process.poll() is None
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
    # What a kill right after the first file appeared leaves.
    (out / ".images-000000.parquet.abcd1234.tmp").mkdir()
    assert sspa_train(*arguments).code == 0
    assert rows_of(out).keys() == whole.keys()
    assert not list(out.glob(".*"))  # nothing half-written is left


@pytest.fixture
def storage(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], str]]:
    """A server of object storage with the buckets `photos` and `tags`; gives the address of a path in it."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        for bucket in ("photos", "tags"):
            urlopen(Request(f"http://{host}:{port}/{bucket}", method="PUT"))
        yield lambda path: f"s3://{path}?endpoint_override={host}:{port}&scheme=http"
    finally:
        server.stop()


def test_object_storage_is_read_and_written(
    trained_run: Path,
    pictures: Path,
    whole: dict[str, tuple[object, ...]],
    storage: Callable[[str], str],
    tmp_path: Path,
    sspa_train: Command,
) -> None:
    names = sorted(path.name for path in pictures.iterdir())[:12]
    files, _ = fs.FileSystem.from_uri(storage("photos/"))
    shard = io.BytesIO()
    with tarfile.open(fileobj=shard, mode="w") as tar:
        for name in names[6:]:
            tar.add(pictures / name, name)
    for path, content in (
        *((f"photos/loose/{name}", (pictures / name).read_bytes()) for name in names[:6]),
        ("photos/shards/0.tar", shard.getvalue()),
    ):
        with files.open_output_stream(path) as file:
            file.write(content)

    command = ("predict", trained_run, storage("photos/"), "--out", storage("tags/out/"), "--per-file", 4)
    ended = sspa_train(*command)
    assert ended.code == 0, ended.messages
    written = files.get_file_info(fs.FileSelector("tags/out"))
    parts = [info.path for info in written if info.path.endswith(".parquet")]
    rows = [row for path in parts for row in pq.read_table(files.open_input_file(path)).to_pylist()]
    found = {row["path"].partition("?")[0]: row for row in rows}
    assert sorted(found) == sorted(
        [
            *(f"s3://photos/loose/{name}" for name in names[:6]),
            *(f"s3://photos/shards/0.tar/{name}" for name in names[6:]),
        ]
    )
    for path, row in found.items():
        own = whole[str(pictures / Path(path).name)]
        assert (row["error"], row["probabilities"], row["predicted"]) == (None, *own[1:3])

    files.delete_file(parts[0])  # as if its process had been killed
    ended = sspa_train(*command)
    assert (ended.code, f"{len(parts) - 1} of {len(parts)} parts are there already" in ended.messages) == (0, True)
    assert files.get_file_info(parts[0]).is_file
    for source, out in ((storage("nowhere/"), storage("tags/x/")), (storage("photos/none/"), storage("tags/x/"))):
        ended = sspa_train("predict", trained_run, source, "--out", out)
        assert (ended.code, ended.messages.count("\n")) == (2, 1), ended.messages


def test_two_processes_of_torchrun_share_the_work(
    trained_run: Path, pictures: Path, whole: dict[str, tuple[object, ...]], tmp_path: Path
) -> None:
    out = tmp_path / "torchrun"
    command = [Path(sys.executable).with_name("sspa-train"), "predict", trained_run, pictures]
    command += ["--out", f"{out}/", "--per-file", "20"]
    place = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "OMP_NUM_THREADS": "1"}
    started = [
        subprocess.Popen(
            [str(word) for word in command],
            env={**os.environ, **place, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    messages = [process.communicate()[1] for process in started]
    assert [process.returncode for process in started] == [0, 0], messages
    assert "4/4 parts" in messages[0]
    assert "parts" not in messages[1]  # only the first speaks
    assert rows_of(out) == whole


def test_shards_are_read_as_streams_and_a_damaged_one_is_a_row(
    trained_run: Path,
    squares: Path,
    pictures: Path,
    whole: dict[str, tuple[object, ...]],
    tmp_path: Path,
    sspa_train: Command,
) -> None:
    manifest = read_manifest(squares / "squares.parquet")
    shards, out = tmp_path / "shards", tmp_path / "out"
    write_shards(manifest, pictures, shards, per_shard=50)
    assert sspa_train("predict", trained_run, shards, "--out", f"{out}/").code == 0
    assert {file.stem for file in out.glob("*.parquet")} == {
        "train-000000",
        "train-000001",
        "val-000000",
        "test-000000",
    }
    found = rows_of(out)
    assert len(found) == IMAGES
    with tarfile.open(shards / "val-000000.tar") as tar:
        members = [tar.extractfile(name) for name in tar.getnames() if name.endswith(".json")]
        images = [json.loads(member.read())["id"] for member in members if member is not None]
        keys = [Path(name).stem for name in tar.getnames() if name.endswith(".png")]
    for key, image in zip(keys, images, strict=True):
        assert found[f"{shards}/val-000000.tar/{key}.png"] == whole[f"{pictures}/{image}.png"]
    # Other shards may be added later; one that ends too early keeps what it has, and is a row with an error.
    content = (shards / "val-000000.tar").read_bytes()
    (shards / "added.tar").write_bytes(content[: len(content) // 2])
    ended = sspa_train("predict", trained_run, shards, "--out", f"{out}/")
    assert "4 of 5 parts are there already" in ended.messages
    assert "1 of them could not be read" in ended.messages
    added = {path: row for path, row in rows_of(out).items() if "added.tar" in path}
    assert "the shard ends here" in str(added.pop(f"{shards}/added.tar")[0])
    assert 5 < len(added) < 24


def test_loose_images_beside_shards_are_not_left_out(pictures: Path, tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    for path in ("one.tar", "labels.json"):
        (tmp_path / path).write_bytes(b"")
    for path in ("loose.png", "deep/loose.png"):
        shutil.copy(pictures / "test0.png", tmp_path / path)
    shard, listed = find_units([str(tmp_path)], 10)
    assert shard.name == "one"
    assert isinstance(listed, ListedImages)
    assert sorted(listed.listed) == [f"{tmp_path}/deep/loose.png", f"{tmp_path}/loose.png"]


def test_a_member_of_any_name_or_claimed_size_is_a_row(
    trained_run: Path, pictures: Path, tmp_path: Path, sspa_train: Command
) -> None:
    picture = (pictures / "test0.png").read_bytes()
    with tarfile.open(tmp_path / "x.tar", "w") as tar:
        for name in ("odd-\udcff.png", "fine.png"):
            about = tarfile.TarInfo(name)
            about.size = len(picture)
            tar.addfile(about, io.BytesIO(picture))
        about = tarfile.TarInfo("huge.png")
        about.size = 1 << 40
        assert tar.fileobj is not None
        tar.fileobj.write(about.tobuf())  # the header alone
    ended = sspa_train("predict", trained_run, tmp_path / "x.tar", "--out", f"{tmp_path}/out/")
    assert ended.code == 0, ended.messages
    found = rows_of(tmp_path / "out")
    assert found[f"{tmp_path}/x.tar/odd-\\udcff.png"] == found[f"{tmp_path}/x.tar/fine.png"]
    assert "1,099,511,627,776 bytes; 268,435,456 is the limit" in str(found[f"{tmp_path}/x.tar/huge.png"][0])


def test_a_table_of_paths_and_images_that_cannot_be_read(
    trained_run: Path, pictures: Path, whole: dict[str, tuple[object, ...]], tmp_path: Path, sspa_train: Command
) -> None:
    (tmp_path / "broken.jpg").write_bytes(b"no image")
    paths = [*sorted(whole), str(tmp_path / "broken.jpg"), str(tmp_path / "gone.jpg")]
    pq.write_table(pa.table({"path": paths, "other": range(len(paths))}), tmp_path / "list.parquet", row_group_size=37)
    ended = sspa_train("predict", trained_run, tmp_path / "list.parquet", "--out", f"{tmp_path}/out/", "--per-file", 50)
    assert (ended.code, "2 of them could not be read" in ended.messages) == (0, True)
    assert {file.stem for file in (tmp_path / "out").glob("*.parquet")} == {"list-000000", "list-000001", "list-000002"}
    found = rows_of(tmp_path / "out")
    assert "not an image" in str(found.pop(paths[-2])[0])
    assert "there is no such image" in str(found.pop(paths[-1])[0])
    assert found == whole
    pq.write_table(pa.table({"file": paths}), tmp_path / "other.parquet")
    ended = sspa_train("predict", trained_run, tmp_path / "other.parquet", "--out", f"{tmp_path}/other/")
    assert (ended.code, "has no column `path` of text; it has file" in ended.messages) == (2, True)


def test_addresses_are_read_and_written_through_a_file_system(
    trained_run: Path, pictures: Path, whole: dict[str, tuple[object, ...]], tmp_path: Path, sspa_train: Command
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    command = ("predict", trained_run, f"file://{pictures}", "--out", f"file://{out}", "--per-file", 100)
    assert sspa_train(*command).code == 0
    assert rows_of(out) == {f"file://{path}": row for path, row in whole.items()}
    assert "2 of 2 parts are there already" in sspa_train(*command).messages
    ended = sspa_train("predict", trained_run, f"file://{tmp_path}/nowhere/", "--out", f"file://{out}")
    assert (ended.code, "nowhere/: cannot be listed" in ended.messages) == (2, True)


def test_another_job_is_refused(trained_run: Path, pictures: Path, tmp_path: Path, sspa_train: Command) -> None:
    command = ("predict", trained_run, pictures, "--out", f"{tmp_path}/out/", "--per-file", 100)
    assert sspa_train(*command).code == 0
    for change, message in {
        ("--threshold", "tuned"): "holds the predictions of another run, other labels or thresholds",
        ("--labels", "cat,dog"): "holds the predictions of another run, other labels or thresholds",
        ("--per-file", "99"): "was begun with another list of images, or cut by another --per-file",
    }.items():
        ended = sspa_train(*command, *change)
        assert (ended.code, message in ended.messages) == (2, True), ended.messages
    assert sspa_train(*command, "--shard", "0/2").code == 2
    ended = sspa_train("predict", trained_run, pictures, "--out", tmp_path / "x.parquet", "--shard", "1/2")
    assert (ended.code, "give --out FOLDER/, with the slash" in ended.messages) == (2, True)


def mortal(run: Path, died: Path) -> Tagger:
    """A tagger whose process is killed, once, after some images."""
    tagger = Tagger.load(run, device="cpu")
    explained, calls = tagger.explained, []

    def fatal(*arguments: object) -> object:
        calls.append(1)
        if len(calls) == 9 and not died.exists():
            died.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return explained(*arguments)  # type: ignore[arg-type]

    tagger.explained = fatal  # type: ignore[method-assign, assignment]
    return tagger


@pytest.mark.slow
def test_an_actor_that_is_killed_costs_no_row(
    trained_run: Path,
    pictures: Path,
    whole: dict[str, tuple[object, ...]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ray = pytest.importorskip("ray", reason="the extra `ray` is not installed")
    from ray import cloudpickle

    from sspa.stage2_training.prediction.folder_job.ray_actors import tag_in_actors

    # Ray nices its workers to 15: beside other work on a busy machine they would wait for minutes.
    monkeypatch.setenv("RAY_worker_niceness", "0")
    cloudpickle.register_pickle_by_value(sys.modules[mortal.__module__])
    units = find_units([str(pictures)], per_unit=20)
    folder = begin(Tagger.load(trained_run, device="cpu"), units, f"{tmp_path}/ray/")
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, configure_logging=False)
    try:
        load = partial(mortal, trained_run, tmp_path / "died")
        counted = list(tag_in_actors(load, 2, left_of(units, folder, 0, 1), folder, batch_size=4))
    finally:
        ray.shutdown()
    assert (tmp_path / "died").exists()
    assert {one.unit for one in counted} == {unit.name for unit in units}
    assert rows_of(tmp_path / "ray") == whole
    shutil.rmtree(tmp_path / "ray")
