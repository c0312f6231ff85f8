"""The steps of an epoch: split batches, activation checkpointing, and what stops them."""

import copy
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from sspa.shared.errors import UserError
from sspa.stage2_training.backbones.factory import create_backbone
from sspa.stage2_training.backbones.trainable import set_trainable
from sspa.stage2_training.compute.memory import recompute_activations
from sspa.stage2_training.compute.processes import ALONE, Processes
from sspa.stage2_training.config.resolving import validated
from sspa.stage2_training.config.run_config import RunConfig, TrainingOptions
from sspa.stage2_training.features.batches import FeatureBatches
from sspa.stage2_training.features.kept_features import KeptFeatures
from sspa.stage2_training.model.recognizer import Recognizer
from sspa.stage2_training.training.divergence import what_is_wrong
from sspa.stage2_training.training.optimization import make_optimization
from sspa.stage2_training.training.steps import check_steps, train_steps
from sspa.stage2_training.training.train_state import TrainState

from ..backbones.architectures import write_model
from ..model.small_models import LABELS, some_features

CPU = torch.device("cpu")
SHARES = torch.full((len(LABELS),), 0.5)


def _config(**training: object) -> RunConfig:
    return validated({"knowledge": "k.parquet", "training": {"batch_size": 8, "lr": 0.01, **training}})


def _batches() -> FeatureBatches:
    features = some_features(32)
    kept = KeptFeatures((features.pooled.numpy(),), (features.regions.numpy(),))
    targets = np.random.default_rng(0).integers(0, 2, (32, len(LABELS))).astype(np.int8)
    return FeatureBatches([kept], targets, 8, CPU, shuffle=True)


def _losses(recognizer: Recognizer, config: RunConfig, state: TrainState) -> list[float]:
    optimization = make_optimization(recognizer, config.training, steps_per_epoch=4)
    return [step.loss for step in train_steps(recognizer, optimization, _batches(), config, state, ALONE, SHARES)]


@pytest.mark.parametrize("parts", [2, 3, 20])
def test_a_batch_in_parts_is_the_same_step(recognizer: Recognizer, parts: int) -> None:
    other = copy.deepcopy(recognizer)
    whole = _losses(recognizer, _config(), TrainState())
    assert _losses(other, _config(accumulate=parts), TrainState()) == pytest.approx(whole, rel=1e-5)
    assert len(set(whole)) == 4


def test_lower_precision_stays_near(recognizer: Recognizer) -> None:
    other = copy.deepcopy(recognizer)
    whole = _losses(recognizer, _config(), TrainState())
    lower = _losses(other, _config(precision="bf16"), TrainState())
    assert lower == pytest.approx(whole, rel=0.05)
    assert lower != whole


@pytest.mark.parametrize(
    ("family", "images"),
    [("vit", 64), ("resnet", 64), ("timm-convnext", 64), ("timm-vit-registers", 64)],
)
def test_activations_computed_again_give_the_same_gradients(family: str, images: int, tmp_path: Path) -> None:
    write_model(family, tmp_path)
    pictures = torch.randn(2, 3, images, images, generator=torch.Generator().manual_seed(0))
    gradients, kept = [], []
    for again in (False, True):
        backbone = create_backbone(f"local-dir:{tmp_path}")
        set_trainable(backbone, "last:2")
        if again:
            recompute_activations(backbone.image_tower.blocks())
        backbone.train()
        loss, saved = _saved(lambda backbone=backbone: backbone.encode_image(pictures).regions.square().mean())
        kept.append(saved)
        loss.backward()
        named = backbone.image_tower.named_parameters()
        gradients.append({name: value.grad for name, value in named if value.grad is not None})
    assert gradients[0].keys() == gradients[1].keys()
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, msg=name)
    assert kept[1] < 0.8 * kept[0]


def _saved(forward: Callable[[], torch.Tensor]) -> tuple[torch.Tensor, int]:
    """The loss, and the number of values stored for its backward pass."""
    held = []

    def hold(value: torch.Tensor) -> torch.Tensor:
        held.append(value.numel())
        return value

    with torch.autograd.graph.saved_tensors_hooks(hold, lambda value: value):
        loss = forward()
    return loss, sum(held)


def test_a_frozen_tower_has_no_activations_to_save(recognizer: Recognizer) -> None:
    with pytest.raises(UserError, match="this one is frozen"):
        recompute_activations(recognizer.backbone.image_tower.blocks())


def test_a_loss_that_is_no_number_stops_and_names_the_step(recognizer: Recognizer) -> None:
    batches, state = _batches(), TrainState(epoch=2, best_epoch=1)
    batches.views[0].pooled[0][batches._order(2)[8:16]] = math.nan
    optimization = make_optimization(recognizer, TrainingOptions(), steps_per_epoch=4)
    steps = train_steps(recognizer, optimization, batches, _config(), state, ALONE, SHARES)
    next(steps)
    own = {name: value.clone() for name, value in optimization.modules.state_dict().items()}
    with pytest.raises(UserError, match=r"epoch 2, step 2: the loss is nan.*the best epoch so far, 1"):
        next(steps)
    assert state.step == 1
    assert all(torch.equal(value, own[name]) for name, value in optimization.modules.state_dict().items())


def test_a_loss_far_above_its_median_for_long_is_divergence() -> None:
    options, state = TrainingOptions(divergence_factor=5, divergence_steps=3), TrainState()
    assert all(what_is_wrong(1e6, state, options) is None for _ in range(19))  # too few to judge by
    state = TrainState(recent=[1.0, 2.0, 3.0] * 10)
    assert what_is_wrong(11, state, options) is None
    assert what_is_wrong(11, state, options) is None
    assert what_is_wrong(9, state, options) is None  # below: the count begins anew
    assert state.above == 0
    found = [what_is_wrong(11, state, options) for _ in range(3)]
    assert found[:2] == [None, None]
    assert "is above 5 times its running median 2 for 3 steps" in str(found[2])
    assert what_is_wrong(math.inf, TrainState(), options) == "the loss is inf"


def test_a_part_of_an_epoch_is_its_end_and_processes_share_every_batch() -> None:
    batches = _batches()
    whole = [indices.tolist() for _, _, indices in batches.epoch(3)]
    assert [indices.tolist() for _, _, indices in batches.epoch(3, start=1)] == whole[1:]
    shared = []
    for rank in range(2):
        share = FeatureBatches(batches.views, batches.targets, 8, CPU, shuffle=True, rank=rank, world=2)
        shared.append([indices.tolist() for _, _, indices in share.epoch(3)])
    assert [one + two for one, two in zip(*shared, strict=True)] == whole
    order = []
    for rank in range(3):
        share = FeatureBatches(batches.views, batches.targets, 8, CPU, rank=rank, world=3)
        order += [index for _, _, indices in share.epoch(0) for index in indices.tolist()]
    assert order == list(range(32))


def test_what_cannot_be_trained_is_one_line() -> None:
    with pytest.raises(UserError, match="fp16 needs a GPU"):
        check_steps(_config(precision="fp16"), CPU)
    coupled = validated({"knowledge": "k", "loss": {"kind": "two-way"}, "training": {"accumulate": 2}})
    with pytest.raises(UserError, match="couples all images of a batch"):
        check_steps(coupled, CPU)
    with pytest.raises(UserError, match="batch_size 32 is not divisible by 3 processes; take 30 or 33"):
        Processes(rank=0, world=3).share_of(32)


@pytest.mark.slow
@pytest.mark.skipif(
    torch.backends.cpu.get_cpu_capability() == "DEFAULT",
    reason="torch's compiler fails where ATEN_CPU_CAPABILITY=default",
)
def test_compiled_code_computes_the_same(recognizer: Recognizer) -> None:
    from sspa.stage2_training.compute.algorithms import compile_model

    other = copy.deepcopy(recognizer)
    whole = _losses(recognizer, _config(), TrainState())
    compile_model(other.head, other.backbone.image_tower, other.backbone.text_tower, CPU)
    assert _losses(other, _config(), TrainState()) == pytest.approx(whole, rel=1e-4)
    assert other.trained_modules().state_dict().keys() == recognizer.trained_modules().state_dict().keys()
