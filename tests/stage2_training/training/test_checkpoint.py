"""Checkpoints: they restore everything, two are kept, and damaged ones are not used."""

import json
import threading
from pathlib import Path

import pytest
import torch

from sspa.shared.errors import UserError
from sspa.stage2_training.compute.processes import ALONE
from sspa.stage2_training.config.run_config import TrainingOptions
from sspa.stage2_training.model.recognizer import Recognizer
from sspa.stage2_training.training import checkpoint
from sspa.stage2_training.training.checkpoint import CheckpointWriter, has_checkpoint, load_checkpoint
from sspa.stage2_training.training.optimization import Optimization, make_optimization
from sspa.stage2_training.training.train_state import TrainState

from ..model.small_models import some_features


def _step(recognizer: Recognizer, optimization: Optimization) -> None:
    recognizer.train()
    optimization.step(recognizer(some_features(4)).logits["region"].square().sum())


def _save(folder: Path, optimization: Optimization, *states: TrainState) -> None:
    with CheckpointWriter(folder, ALONE) as checkpoints:
        for state in states:
            checkpoints.save(optimization, state)


def _state(optimization: Optimization) -> dict[str, torch.Tensor]:
    moments = optimization.optimizer.state_dict()["state"]
    return {
        **optimization.modules.state_dict(),
        **{f"average.{name}": value for name, value in optimization.ema.module.state_dict().items()},
        **{f"{index}.{name}": value for index, of_one in moments.items() for name, value in of_one.items()},
        "random": torch.get_rng_state(),
    }


def test_training_goes_on_in_the_same_bits(recognizer: Recognizer, tmp_path: Path) -> None:
    options = TrainingOptions(lr=0.1)
    optimization = make_optimization(recognizer, options, steps_per_epoch=4)
    _step(recognizer, optimization)
    state = TrainState(epoch=3, step=1, losses=0.1 + 0.2, recent=[1 / 3], best_map=2 / 3)
    with CheckpointWriter(tmp_path, ALONE) as checkpoints:
        checkpoints.save(optimization, state)
        # While that is being written.
        _step(recognizer, optimization)
        state.recent.append(0)
    state.recent.pop()
    wanted = {name: value.clone() for name, value in _state(optimization).items()}

    torch.manual_seed(5)
    with torch.no_grad():
        for parameter in recognizer.head.parameters():
            parameter.fill_(0.5)
    again = make_optimization(recognizer, options, steps_per_epoch=4)
    assert load_checkpoint(tmp_path, again, ALONE) == state
    assert again.learning_rate > 0
    _step(recognizer, again)
    found = _state(again)
    assert found.keys() == wanted.keys()
    assert all(torch.equal(found[name], value) for name, value in wanted.items())
    assert again.learning_rate == optimization.learning_rate


def test_the_newest_two_are_kept_and_a_damaged_one_is_named(
    recognizer: Recognizer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    optimization = make_optimization(recognizer, TrainingOptions(), steps_per_epoch=4)
    assert not has_checkpoint(tmp_path)
    _save(tmp_path, optimization, *(TrainState(epoch=epoch) for epoch in (1, 2, 10)))
    older, newer = sorted(tmp_path.iterdir())
    assert (older.name, newer.name) == ("epoch-00002-step-00000000", "epoch-00010-step-00000000")

    text = (newer / "state.json").read_text()
    (newer / "state.json").write_text(text.replace('"best_epoch": 0', '"best_epoch": 1'))
    assert load_checkpoint(tmp_path, optimization, ALONE).epoch == 2
    assert f"{newer}: is damaged (state.json is not what was written)" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == [older]

    (older / "tensors.safetensors").unlink()
    with pytest.raises(UserError, match="has no readable checkpoint"):
        load_checkpoint(tmp_path, optimization, ALONE)


def test_a_newer_version_is_refused(recognizer: Recognizer, tmp_path: Path) -> None:
    optimization = make_optimization(recognizer, TrainingOptions(), steps_per_epoch=4)
    _save(tmp_path, optimization, TrainState())
    (file,) = tmp_path.glob("*/state.json")
    file.write_text(json.dumps({**json.loads(file.read_text()), "format": 99}))
    with pytest.raises(UserError, match="newer sspa"):
        load_checkpoint(tmp_path, optimization, ALONE)


def test_an_earlier_version_is_refused(recognizer: Recognizer, tmp_path: Path) -> None:
    optimization = make_optimization(recognizer, TrainingOptions(), steps_per_epoch=4)
    _save(tmp_path, optimization, TrainState())
    (file,) = tmp_path.glob("*/state.json")
    file.write_text(json.dumps({**json.loads(file.read_text()), "format": 1}))
    with pytest.raises(UserError, match=r"earlier sspa.*train from the start"):
        load_checkpoint(tmp_path, optimization, ALONE)


def test_moments_are_kept_by_name_whatever_the_order(recognizer: Recognizer, tmp_path: Path) -> None:
    optimization = make_optimization(recognizer, TrainingOptions(lr=0.1), steps_per_epoch=4)
    _step(recognizer, optimization)
    _save(tmp_path, optimization, TrainState())
    moments = optimization.optimizer.state
    wanted = {name: moments[value]["exp_avg"] for name, value in optimization.trained.items() if value in moments}
    assert len(wanted) > 10

    other = make_optimization(recognizer, TrainingOptions(lr=0.1), steps_per_epoch=4)
    other.optimizer.param_groups.reverse()
    for group in other.optimizer.param_groups:
        group["params"].reverse()
    load_checkpoint(tmp_path, other, ALONE)

    for name, moment in wanted.items():
        assert torch.equal(other.optimizer.state[other.trained[name]]["exp_avg"], moment)
    assert {group["name"]: group["lr"] for group in other.optimizer.param_groups} == {
        group["name"]: group["lr"] for group in optimization.optimizer.param_groups
    }


def test_training_goes_on_while_a_checkpoint_is_written(
    recognizer: Recognizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    optimization = make_optimization(recognizer, TrainingOptions(), steps_per_epoch=4)
    goes_on, write = threading.Event(), checkpoint.write_tensors

    def waits(tensors: dict[str, torch.Tensor], path: Path) -> None:
        assert goes_on.wait(30)
        write(tensors, path)

    monkeypatch.setattr(checkpoint, "write_tensors", waits)
    with CheckpointWriter(tmp_path, ALONE) as checkpoints:
        checkpoints.save(optimization, TrainState(epoch=1))
        assert not has_checkpoint(tmp_path)
        goes_on.set()
        checkpoints.save(optimization, TrainState(epoch=2))
        assert (tmp_path / "epoch-00001-step-00000000").is_dir()
    assert len(list(tmp_path.iterdir())) == 2


def test_an_error_of_training_is_not_hidden_by_one_of_writing(
    recognizer: Recognizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    optimization = make_optimization(recognizer, TrainingOptions(), steps_per_epoch=4)
    monkeypatch.setattr("os.fsync", _full)

    def train() -> None:
        with CheckpointWriter(tmp_path, ALONE) as checkpoints:
            checkpoints.save(optimization, TrainState(epoch=1))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        train()
    assert not has_checkpoint(tmp_path)


def _full(handle: int) -> None:
    raise OSError(28, "No space left on device")


def test_a_full_disk_is_one_line_and_keeps_the_one_before(
    recognizer: Recognizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    optimization = make_optimization(recognizer, TrainingOptions(), steps_per_epoch=4)
    _save(tmp_path, optimization, TrainState(epoch=1))
    before = list(tmp_path.iterdir())
    monkeypatch.setattr("os.fsync", _full)
    with pytest.raises(UserError, match=r"epoch-00002.*cannot be written .*No space left on device"):
        _save(tmp_path, optimization, TrainState(epoch=2))
    assert list(tmp_path.iterdir()) == before
