"""Parameter groups, the schedule and the averaged weights."""

import pytest
import torch

from sspa.stage2_training.backbones.trainable import set_trainable
from sspa.stage2_training.config.run_config import TrainingOptions
from sspa.stage2_training.model.recognizer import Recognizer, weights_of
from sspa.stage2_training.training.optimization import make_optimization, parameter_groups

from ..model.small_models import some_features, some_knowledge


def test_every_trained_parameter_is_in_one_group_with_its_own_rate_and_decay(recognizer: Recognizer) -> None:
    set_trainable(recognizer.backbone, "last:1")
    groups = {group["name"]: group for group in parameter_groups(recognizer, TrainingOptions())}
    grouped = [id(parameter) for group in groups.values() for parameter in group["params"]]
    trained = {id(parameter) for parameter in recognizer.parameters() if parameter.requires_grad}
    assert len(grouped) == len(set(grouped))
    assert set(grouped) == trained
    assert {name for name, group in groups.items() if group["weight_decay"]} == {"weights", "tower"}
    assert {parameter.ndim for parameter in groups["scalars"]["params"]} == {0}
    assert [id(parameter) for parameter in groups["prompts"]["params"]] == [
        id(parameter) for parameter in recognizer.head.prompt_parameters()
    ]


def test_warm_up_rises_and_the_cosine_falls_to_zero(recognizer: Recognizer) -> None:
    options = TrainingOptions(epochs=2, warmup_epochs=0.5, lr=1.0, clip_norm=1e9)
    optimization = make_optimization(recognizer, options, steps_per_epoch=10)
    rates = [optimization.learning_rate]
    for step in range(1, 21):
        optimization.schedule.step_update(step)
        rates.append(optimization.learning_rate)
    assert rates[0] == 0
    assert rates[:6] == sorted(rates[:6])
    assert max(rates) == pytest.approx(1.0, abs=0.2)
    assert rates[6:] == sorted(rates[6:], reverse=True)
    assert rates[-1] == pytest.approx(0, abs=1e-6)


def test_averaged_weights_stand_in_only_within_the_block(recognizer: Recognizer) -> None:
    optimization = make_optimization(recognizer, TrainingOptions(lr=0.1), steps_per_epoch=4)
    for _ in range(3):
        optimization.step(recognizer(some_features(4)).logits["region"].square().sum())
    own = {name: value.clone() for name, value in optimization.modules.state_dict().items()}
    averaged = optimization.ema.module.state_dict()
    with weights_of(optimization.ema.module, optimization.trained):
        inside = {name: value.clone() for name, value in optimization.modules.state_dict().items()}
    assert any(not torch.equal(inside[name], own[name]) for name in own)
    assert all(torch.equal(inside[name.replace("/", ".")], value) for name, value in averaged.items())
    after = optimization.modules.state_dict()
    assert all(torch.equal(after[name], own[name]) for name in own)


def test_the_average_holds_what_is_trained_and_no_more(recognizer: Recognizer) -> None:
    set_trainable(recognizer.backbone, "last:1")
    optimization = make_optimization(recognizer, TrainingOptions(), steps_per_epoch=4)
    trained = {name for name, value in optimization.modules.named_parameters() if value.requires_grad}
    assert {name.replace("/", ".") for name in optimization.ema.module.state_dict()} == trained
    assert len(trained) < len(optimization.modules.state_dict())
    assert not list(optimization.ema.module.buffers())


def test_half_precision_scales_the_loss_and_lets_a_bad_step_pass(recognizer: Recognizer) -> None:
    optimization = make_optimization(recognizer, TrainingOptions(lr=0.1, precision="fp16"), steps_per_epoch=4)
    before = optimization.scaler.get_scale()
    own = {name: value.clone() for name, value in optimization.modules.state_dict().items()}
    optimization.step(recognizer(some_features(4)).logits["region"].sum() * float("inf"))
    assert optimization.scaler.get_scale() == before / 2
    assert all(torch.equal(value, own[name]) for name, value in optimization.modules.state_dict().items())
    optimization.schedule.step_update(4)
    norm = optimization.step(recognizer(some_features(4)).logits["region"].square().sum())
    assert any(not torch.equal(value, own[name]) for name, value in optimization.modules.state_dict().items())
    assert norm == pytest.approx(_plain_norm(recognizer, own), rel=1e-4)


def _plain_norm(recognizer: Recognizer, own: dict[str, torch.Tensor]) -> float:
    recognizer.trained_modules().load_state_dict(own)
    recognizer.zero_grad()
    recognizer(some_features(4)).logits["region"].square().sum().backward()
    gradients = [parameter.grad for parameter in recognizer.parameters() if parameter.grad is not None]
    return float(torch.cat([gradient.flatten() for gradient in gradients]).norm())


def test_untrained_sspa_equals_zero_shot(recognizer: Recognizer) -> None:
    """Both branches: the global one is the cosine with the prompts' text, the region one that of the knowledge."""
    features, backbone = some_features(6), recognizer.backbone
    recognizer.eval()
    with torch.no_grad():
        labels = recognizer.encode_labels()
        logits = recognizer(features, labels).logits
    cosine = torch.nn.functional.cosine_similarity
    names = [label.text for label in some_knowledge().labels]
    t_g = backbone.encode_text([f"a photo of a {name}" for name in names])
    wanted = 20 * cosine(features.pooled[:, None], t_g[None], dim=-1) - 2
    torch.testing.assert_close(logits["global"], wanted, atol=1e-4, rtol=1e-4)

    prompts = [f"A photo of a {name}. {name} has 0 parts." for name in names]
    similarities = cosine(features.regions[:, :, None], backbone.encode_text(prompts)[None, None], dim=-1)
    weights = (similarities / 0.05).softmax(dim=1)
    wanted = 20 * (weights * similarities).sum(dim=1) - 2
    torch.testing.assert_close(logits["region"], wanted, atol=1e-4, rtol=1e-4)
