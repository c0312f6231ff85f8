"""A finished run trained again on val and test too: by the same steps as a run on all of it, however often killed."""

import json
import shutil
import signal
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from sklearn.metrics import average_precision_score, f1_score

from sspa.stage2_training.data.columns import Texts
from sspa.stage2_training.data.manifest import read_manifest, write_manifest
from sspa.stage2_training.runs.run_folder import RunFolder
from sspa.stage2_training.runs.stored_tensors import read_predictions

from .driver import kill
from .killed_runs import EPOCHS, STEP, STEPS, Runs, left, said

pytestmark = pytest.mark.slow

IMAGES = 96 + 24 + 24
# A loss that does not determine the biases, so that val does.
TWO_WAY = ("loss.kind=two-way",)


@pytest.fixture(scope="module")
def measured(driver: Runs, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run."""
    out = tmp_path_factory.mktemp("measured") / "run"
    assert driver.run(out) == [0], said(out)
    return out


@pytest.fixture(scope="module")
def whole(driver: Runs, measured: Path) -> Path:
    """Its refit, not interrupted."""
    return refitted(driver, measured, measured.with_name("whole"))


def refitted(driver: Runs, measured: Path, out: Path, *options: str, code: int = 0, **asked: Any) -> Path:
    """`out`, in which the command has ended with that code."""
    ended = driver.ask(
        arguments=["refit", str(measured), "--out", str(out), *options], out=str(out), log=f"{out}.log", **asked
    )
    assert set(ended) == {code}, said(out)
    return out


def chosen_as_last(run: Path, out: Path, epoch: int = EPOCHS) -> Path:
    """A copy of the run, as if that epoch, by default its last, had been the best."""
    shutil.copytree(run, out)
    result = json.loads((out / "result.json").read_text())
    (out / "result.json").write_text(json.dumps({**result, "best_epoch": epoch}))
    return out


@pytest.mark.parametrize("settings", [(), TWO_WAY], ids=["asl", "two-way"])
def test_it_takes_the_steps_of_a_run_on_all_images(
    driver: Runs, squares: Path, tmp_path: Path, settings: tuple[str, ...]
) -> None:
    first = tmp_path / "first"
    assert driver.run(first, *settings) == [0], said(first)
    last = chosen_as_last(first, tmp_path / "measured")
    out = refitted(driver, last, tmp_path / "refit")
    reference = run_on_the_others(driver, squares, [], tmp_path, *settings)

    ours, expected, before = (load_file(run / "weights.safetensors") for run in (out, reference, first))
    by_val = {name for name in ours if name.endswith("branch_shares")}
    if settings:
        by_val |= {name for name in ours if name.endswith("to_logit.bias")}
        assert len(by_val) == 4
    for name, tensor in ours.items():
        assert torch.equal(tensor, before[name] if name in by_val else expected[name]), name


def run_on_the_others(driver: Runs, squares: Path, tested: list[str], tmp_path: Path, *settings: str) -> Path:
    """A run with all images but the tested ones in train; copies of four are a val that is too small to choose."""
    manifest = read_manifest(squares / "squares.parquet")
    pictures = tmp_path / "pictures"
    shutil.copytree(squares / "pictures", pictures)
    for number in range(4):
        shutil.copyfile(pictures / f"train{number}.png", pictures / f"copy{number}.png")
    copies = [f"copy{number}" for number in range(4)]
    write_manifest(
        type(manifest)(
            **{
                **vars(manifest),
                "ids": Texts([*manifest.ids, *copies]),
                "paths": Texts([*manifest.paths, *(f"{copy}.png" for copy in copies)]),
                "splits": Texts([*("test" if id_ in tested else "train" for id_ in manifest.ids), *["val"] * 4]),
                "targets": np.concatenate([manifest.targets, manifest.targets[:4]]),
            }
        ),
        tmp_path / "all.parquet",
    )
    reference = tmp_path / "reference"
    data = (f"data.name={tmp_path / 'all.parquet'}", f"data.root={pictures}")
    assert driver.run(reference, *settings, *data) == [0], said(reference)
    return reference


@pytest.fixture(scope="module")
def folded(driver: Runs, measured: Path) -> Path:
    """Its refit, measured by three folds, and killed in the second."""
    last = chosen_as_last(measured, measured.with_name("last"))
    kill_in_second = [kill(STEP, EPOCHS * STEPS + 5)]
    out = refitted(
        driver, last, measured.with_name("folded"), "--folds", "3", code=-signal.SIGKILL, faults=kill_in_second
    )
    assert RunFolder(out / "folds" / "1").finished
    assert not RunFolder(out / "folds" / "2").finished
    refitted(driver, last, out, "--resume", code=2)
    assert f"{out}: was started with --folds 3; resume it likewise" in said(out)
    return refitted(driver, last, out, "--folds", "3", "--resume")


def test_folds_measure_every_image_by_a_model_that_has_not_seen_it(
    driver: Runs, squares: Path, folded: Path, tmp_path: Path
) -> None:
    manifest = read_manifest(squares / "squares.parquet")
    folds = [RunFolder(folded / "folds" / str(number)) for number in (1, 2, 3)]
    ids = [fold.test_ids() for fold in folds]
    assert sorted(chain.from_iterable(ids)) == sorted(manifest.ids)
    for fold, tested in zip(folds, ids, strict=True):
        about = fold.record().refit
        assert about is not None
        assert about.images == IMAGES - len(tested)
        assert len(tested) == pytest.approx(IMAGES / 3, abs=6)
    # Like a run that never had the fold's images, but for the branches' shares, which val chose before.
    reference = run_on_the_others(driver, squares, list(ids[1]), tmp_path)
    ours, expected = (load_file(run / "weights.safetensors") for run in (folds[1].path, reference))
    for name, tensor in ours.items():
        assert torch.equal(tensor, expected[name]) or name.endswith("branch_shares"), name
    (ours_said, targets), (theirs, _) = (read_predictions(RunFolder(run)) for run in (folds[1].path, reference))
    order = [RunFolder(reference).test_ids().index(id_) for id_ in ids[1]]
    for branch in ("region", "global"):
        np.testing.assert_allclose(ours_said[branch], theirs[branch][order], atol=1e-6)
    rows = [list(manifest.ids).index(id_) for id_ in ids[1]]
    np.testing.assert_array_equal(targets, manifest.targets[rows])


def test_folds_give_figures_and_thresholds_and_change_nothing_else(
    driver: Runs, measured: Path, folded: Path, tmp_path: Path
) -> None:
    plain = refitted(driver, measured.with_name("last"), measured.with_name("plain"))
    assert left(plain)["tensors"] == left(folded)["tensors"]
    for name in ("weights.safetensors", "predictions.safetensors", "metrics.jsonl"):
        assert (plain / name).read_bytes() == (folded / name).read_bytes()
    one, other = RunFolder(plain).result(), RunFolder(folded).result()
    assert (one.test, one.val, one.folds) == (other.test, other.val, None)
    found = other.folds
    assert found is not None
    parts = [read_predictions(RunFolder(folded / "folds" / str(number))) for number in (1, 2, 3)]
    said_by, targets = (np.concatenate(values) for values in zip(*((p["both"], t) for p, t in parts), strict=True))
    precisions = [average_precision_score(targets[:, label], said_by[:, label]) for label in range(targets.shape[1])]
    assert found.metrics["both"].mAP == pytest.approx(np.mean(precisions), abs=1e-6)
    assert found.interval[0] <= found.metrics["both"].mAP <= found.interval[1]
    assert (found.count, found.images) == (3, IMAGES)
    tuned = RunFolder(folded).thresholds()
    assert "tuned on 144 images by 3 folds" in tuned.description
    for label, threshold in enumerate(tuned.values.values()):
        best = max(f1_score(targets[:, label], said_by[:, label] >= value) for value in said_by[:, label])
        # 72 positives to 4 of the threshold common to all labels, to which it is drawn.
        assert f1_score(targets[:, label], said_by[:, label] >= threshold) > best - 0.02
    log, package = tmp_path / "log", tmp_path / "package"
    assert driver.ask(arguments=["package", str(folded), "--out", str(package)], log=str(log)) == [0], log.read_text()
    assert "How good that is was measured by 3 further models" in (package / "README.md").read_text()
    assert not (package / "folds").exists()
    assert driver.ask(arguments=["runs", str(folded)], log=str(log)) == [0], log.read_text()
    assert f"{100 * found.metrics['both'].mAP:.2f} by folds" in " ".join(log.read_text().split())
    assert f"3 folds: {IMAGES} images" in said(folded)
    assert f"on {IMAGES} images by 3 models that had not seen them" in said(folded)


def test_killed_it_ends_as_if_it_had_not_been(driver: Runs, measured: Path, tmp_path: Path) -> None:
    last = chosen_as_last(measured, tmp_path / "measured")
    uninterrupted = refitted(driver, last, tmp_path / "whole")
    out = refitted(driver, last, tmp_path / "killed", code=-signal.SIGKILL, faults=[kill(STEP, 20)])
    refitted(driver, last, out, "--resume", "--keep-test", code=2)
    assert f"{out}: was started without --keep-test; resume it likewise" in said(out)
    refitted(driver, last, out, "--resume")
    assert left(out) == left(uninterrupted)
    assert f"resuming in {out}" in said(out)
    # Stopped runs are resumed by the command that started them.
    assert driver.run(out, resume=True) == [2]
    assert f"is a refit of {last}; it is resumed by sspa-train refit, with --resume" in said(out)
    refitted(driver, measured, out, "--resume", code=2)
    assert "this refit is finished; there is nothing to resume" in said(out)


def test_figures_are_those_of_the_measured_run(driver: Runs, measured: Path, whole: Path) -> None:
    before, after = RunFolder(measured), RunFolder(whole)
    about = after.record().refit
    assert about is not None
    assert (about.of, about.splits, about.images) == (str(measured), ("train", "val", "test"), IMAGES)
    assert before.record().refit is None
    for name in ("metrics.jsonl", "thresholds.json", "predictions.safetensors", "test_ids.json", "config.json"):
        assert (measured / name).read_bytes() == (whole / name).read_bytes()
    one, other = before.result(), after.result()
    assert (one.test, one.val, one.best_epoch) == (other.test, other.val, other.best_epoch)
    scales = [load_file(run / "weights.safetensors")["head.to_logit.log_scale"] for run in (measured, whole)]
    assert not torch.equal(*scales)
    assert f"data: squares, {IMAGES} train\n" in said(whole)
    assert f"trained again on train + val + test ({IMAGES} images); the figures are those of run" in said(whole)


def test_what_it_was_trained_on_cannot_measure_it(
    driver: Runs, squares: Path, measured: Path, whole: Path, tmp_path: Path
) -> None:
    kept = refitted(driver, measured, tmp_path / "kept", "--keep-test")
    assert f"data: squares, {IMAGES - 24} train, 24 test\n" in said(kept)
    page, other, packaged = str(tmp_path / "page.html"), tmp_path / "other", tmp_path / "packaged"
    shutil.copytree(measured, packaged)
    (packaged / "predictions.safetensors").unlink()
    pupil = shutil.copytree(measured, tmp_path / "pupil")
    config = json.loads((pupil / "config.json").read_text())
    config["teacher"]["run"] = str(measured)
    (pupil / "config.json").write_text(json.dumps(config))
    refused = {
        (
            "evaluate",
            str(whole),
        ): f"was trained on test too, so that figures of it would say nothing; evaluate {measured}",
        ("evaluate", str(whole), "--split", "train"): "was trained on train too",
        ("evaluate", str(kept), "--split", "val"): "was trained on val too",
        ("evaluate", str(kept), "--thresholds", "each"): "was trained on val too",
        ("report", str(whole)): f"is a refit, whose figures are those of {measured}; that one has the report",
        ("report", str(measured), str(whole), "--out", page): f"is a refit, whose figures are those of {measured}",
        ("refit", str(whole), "--out", str(other)): "is a refit already, of",
        ("refit", str(pupil), "--folds", "3", "--out", str(other)): f"learned from {measured}, which may have seen",
        (
            "refit",
            str(packaged),
            "--out",
            str(other),
        ): "has no predictions.safetensors; a refit is made of a finished run",
        ("refit", str(measured), "--out", str(whole)): "exists already; nothing in it was changed",
        ("refit", str(measured), "--out", str(measured), "--resume"): f"is not a refit of {measured}",
    }
    log = tmp_path / "log"
    for arguments, message in refused.items():
        log.unlink(missing_ok=True)
        assert driver.ask(arguments=list(arguments), log=str(log)) == [2], log.read_text()
        assert message in log.read_text()
    for more in ([], ["--thresholds", "own"]):
        assert driver.ask(arguments=["evaluate", str(kept), *more], log=str(log)) == [0], log.read_text()
    assert "tuned on val for its F1" in log.read_text()
    # A pupil would be measured by what its teacher was trained on.
    assert driver.run(other, "data.known_fraction=0.5", f"teacher.run={whole}") == [2]
    assert "was trained on images that the new run is measured on" in said(other)
    assert not other.exists()


def test_its_data_must_be_that_of_the_run(driver: Runs, squares: Path, measured: Path, tmp_path: Path) -> None:
    manifest = read_manifest(squares / "squares.parquet")
    changed = tmp_path / "changed.parquet"
    write_manifest(manifest, changed)
    run = tmp_path / "run"
    assert driver.run(run, "training.epochs=1", f"data.name={changed}") == [0], said(run)
    write_manifest(manifest.only(np.arange(len(manifest.ids) - 1)), changed)
    out = refitted(driver, run, tmp_path / "refit", code=2)
    assert f"{run}: the data squares has changed since this run; make the run anew first" in said(out)
    unseen = tmp_path / "unseen"
    assert driver.run(unseen, "training.epochs=1", "data.unseen=1") == [0], said(unseen)
    out = refitted(driver, unseen, tmp_path / "refit", code=2)
    assert "measures labels that training does not see (data.unseen)" in said(out)
    assert not out.exists()


def test_its_own_teacher_is_made_again(driver: Runs, squares: Path, tmp_path: Path) -> None:
    manifest = read_manifest(squares / "squares.parquet")
    targets = manifest.targets.copy()
    targets[manifest.rows_of("train")[40:]] = -1
    partly = tmp_path / "partly.parquet"
    write_manifest(type(manifest)(**{**vars(manifest), "targets": targets}), partly)
    run = tmp_path / "run"
    taught = (f"data.name={partly}", "training.epochs=2", "teacher.run=self", "teacher.sure=0.6")
    assert driver.run(run, *taught) == [0], said(run)
    teacher = chosen_as_last(run, tmp_path / "measured") / "teacher"
    result = json.loads((teacher / "result.json").read_text())
    (teacher / "result.json").write_text(json.dumps({**result, "best_epoch": 2}))
    out = refitted(driver, teacher.parent, tmp_path / "refit", code=-signal.SIGKILL, faults=[kill(STEP, 5)])
    refitted(driver, teacher.parent, out, "--resume")
    own = RunFolder(out / "teacher").record().refit
    assert own is not None
    # The teacher sees what is known of all splits, the run what it is taught as well.
    assert own.images == 40 + 24 + 24
    assert RunFolder(out).result().taught is not None
    assert (out / "taught.parquet").read_bytes() != (run / "taught.parquet").read_bytes()


def test_where_training_gained_nothing_it_is_the_untrained_model(driver: Runs, measured: Path, tmp_path: Path) -> None:
    untrained = chosen_as_last(measured, tmp_path / "measured", epoch=0)
    out = refitted(driver, untrained, tmp_path / "refit", keep_checkpoints=False)
    assert RunFolder(out).finished
    assert not (out / "checkpoints").exists()


def test_two_processes(driver: Runs, measured: Path, tmp_path: Path) -> None:
    last = chosen_as_last(measured, tmp_path / "measured")
    out = refitted(driver, last, tmp_path / "refit", "--folds", "2", world=2)
    result = RunFolder(out).result()
    assert (result.best_epoch, result.folds and result.folds.images) == (EPOCHS, IMAGES)


def test_it_is_listed_compared_and_packaged_as_what_it_is(
    driver: Runs, measured: Path, whole: Path, tmp_path: Path
) -> None:
    log, package = tmp_path / "log", tmp_path / "package"
    assert driver.ask(arguments=["runs", str(whole.parent)], log=str(log)) == [0]
    assert "whole (refit)" in log.read_text()
    assert driver.ask(arguments=["package", str(whole), "--out", str(package)], log=str(log)) == [0], log.read_text()
    assert driver.ask(arguments=["runs", "diff", str(measured), str(whole)], log=str(log)) == [0], log.read_text()
    assert "trained on" in log.read_text()
    assert "probabilities: not compared, since a refit scores nothing" in log.read_text()
    card = (package / "README.md").read_text()
    assert "These are the figures of the model as it was trained on train alone." in card
    assert f"on train + val + test ({IMAGES} images)" in card
    about = RunFolder(package).record().refit
    assert about is not None
    assert about.of == "run"
