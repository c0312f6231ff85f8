"""Parameter groups, learning rates and the averaged weights."""

import math
from dataclasses import dataclass
from typing import Any

import torch
from timm.scheduler import CosineLRScheduler
from timm.utils import ModelEmaV3
from torch import nn

from sspa.stage2_training.config.run_config import TrainingOptions
from sspa.stage2_training.model.recognizer import Recognizer


def parameter_groups(recognizer: Recognizer, options: TrainingOptions) -> list[dict[str, Any]]:
    """The trained parameters in groups: image tower, prompts, scalars, gains and biases, weights.

    Scalars (temperatures, scales, residual weights) have their own learning rate, since in a short run they would
    hardly move at that of the matrices (measured; reconstruction). Only matrices decay.
    """
    prompts = {id(parameter) for parameter in recognizer.head.prompt_parameters()}
    named = {"tower": options.tower_lr, "tower gains": options.tower_lr, "weights": options.lr}
    rates = {**named, "gains": options.lr, "prompts": options.prompt_lr, "scalars": options.scalar_lr}
    groups: dict[str, list[nn.Parameter]] = {name: [] for name in rates}
    for parameter in recognizer.backbone.image_tower.parameters():
        if parameter.requires_grad:
            groups["tower" if parameter.ndim > 1 else "tower gains"].append(parameter)
    for parameter in recognizer.head.parameters():
        if not parameter.requires_grad:
            continue
        if id(parameter) in prompts:
            groups["prompts"].append(parameter)
        else:
            groups[{0: "scalars", 1: "gains"}.get(parameter.ndim, "weights")].append(parameter)
    decayed = ("tower", "weights")
    return [
        {
            "name": name,
            "params": parameters,
            "lr": rates[name],
            "weight_decay": options.weight_decay if name in decayed else 0.0,
        }
        for name, parameters in groups.items()
        if parameters
    ]


def describe_groups(groups: list[dict[str, Any]]) -> str:
    """ "weights 5,300,000 at 0.0005, ...", for the start of a run."""

    def one(group: dict[str, Any]) -> str:
        # Once there is a schedule, `lr` is the first value of its warm-up.
        count = sum(parameter.numel() for parameter in group["params"])
        return f"{group['name']} {count:,} at {group.get('initial_lr', group['lr']):g}"

    return ", ".join(map(one, groups))


@dataclass
class Optimization:
    """Optimizer, schedule and averaged weights of one run, advanced together, once per step.

    `modules` are the modules that the run saves, `trained` their trained parameters; `ema` averages only those.
    """

    modules: nn.ModuleDict
    trained: nn.ParameterDict
    optimizer: torch.optim.AdamW
    schedule: CosineLRScheduler
    ema: ModelEmaV3
    scaler: torch.amp.GradScaler
    clip_norm: float
    step_count: int = 0

    def backward(self, loss: torch.Tensor) -> None:
        """Accumulate the gradients of one part of a batch."""
        self.scaler.scale(loss).backward()

    def clip(self) -> torch.Tensor:
        """Clip the accumulated gradients; their norm before that, (), on the device."""
        self.scaler.unscale_(self.optimizer)
        parameters = [parameter for group in self.optimizer.param_groups for parameter in group["params"]]
        return nn.utils.clip_grad_norm_(parameters, self.clip_norm)

    def update(self, norm: float) -> bool:
        """Update from the clipped gradients; whether it did.

        If their norm is not finite, no parameter changes: with fp16 the loss scale is reduced and the step counts,
        otherwise it does not.
        """
        updates = math.isfinite(norm) or self.scaler.is_enabled()
        if updates:
            self.scaler.step(self.optimizer)
            self.scaler.update()
            self.step_count += 1
            self.schedule.step_update(self.step_count)
            self.ema.update(self.trained, step=self.step_count)
        self.optimizer.zero_grad(set_to_none=True)
        return updates

    def step(self, loss: torch.Tensor) -> float:
        """Update from the loss of a whole batch; the norm of its gradient."""
        self.backward(loss)
        norm = float(self.clip())
        self.update(norm)
        return norm

    @property
    def learning_rate(self) -> float:
        """The learning rate of the new modules (or of the first group)."""
        rates = {group["name"]: group["lr"] for group in self.optimizer.param_groups}
        return float(rates.get("weights", next(iter(rates.values()))))


def make_optimization(recognizer: Recognizer, options: TrainingOptions, steps_per_epoch: int) -> Optimization:
    """AdamW, cosine schedule with warm-up per step, and timm's EMA, with its own warm-up, of the trained parameters."""
    optimizer = torch.optim.AdamW(parameter_groups(recognizer, options))
    schedule = CosineLRScheduler(
        optimizer,
        # Of one step timm warns, and a run of no epochs has none.
        t_initial=max(2, options.epochs * steps_per_epoch),
        warmup_t=round(options.warmup_epochs * steps_per_epoch),
        warmup_lr_init=0.0,
        warmup_prefix=False,
        t_in_epochs=False,
    )
    schedule.step_update(0)
    modules = recognizer.trained_modules()
    trained = _trained(modules)
    ema = ModelEmaV3(trained, decay=options.ema_decay, use_warmup=True, foreach=True)
    device = next(iter(trained.values())).device
    scaler = torch.amp.GradScaler(device.type, enabled=options.precision == "fp16")
    return Optimization(modules, trained, optimizer, schedule, ema, scaler, options.clip_norm)


def _trained(modules: nn.Module) -> nn.ParameterDict:
    """The trained parameters by name; torch does not allow dots in the names, so they are replaced."""
    named = modules.named_parameters()
    return nn.ParameterDict({name.replace(".", "/"): value for name, value in named if value.requires_grad})
