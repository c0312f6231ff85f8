"""Parameter groups, learning rates and the averaged weights."""

from dataclasses import dataclass
from typing import Any

import torch
from timm.scheduler import CosineLRScheduler
from timm.utils import ModelEmaV3
from torch import nn

from sspa.stage2_training.configuration import TrainingOptions
from sspa.stage2_training.model.recognizer import Recognizer


def parameter_groups(recognizer: Recognizer, options: TrainingOptions) -> list[dict[str, Any]]:
    """The trained parameters in groups: image tower, prompts, scalars, gains and biases, weights.

    Scalars (temperatures, scales, residual weights) get a learning rate of their own, since in a short
    run they would hardly move at that of the matrices (measured; reconstruction). Only matrices decay.
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
    """ "weights 5,300,000 at 0.0005, ...": what a run says before it starts."""
    return ", ".join(
        f"{group['name']} {sum(parameter.numel() for parameter in group['params']):,} at {group['lr']:g}"
        for group in groups
    )


@dataclass
class Optimization:
    """Optimizer, schedule and averaged weights of one run, advanced together, once a step."""

    modules: nn.ModuleDict
    optimizer: torch.optim.AdamW
    schedule: CosineLRScheduler
    ema: ModelEmaV3
    clip_norm: float
    step_count: int = 0

    def step(self, loss: torch.Tensor) -> float:
        """One update from `loss`; returns the gradient's norm before clipping."""
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        parameters = [parameter for group in self.optimizer.param_groups for parameter in group["params"]]
        norm = nn.utils.clip_grad_norm_(parameters, self.clip_norm)
        self.optimizer.step()
        self.step_count += 1
        self.schedule.step_update(self.step_count)
        self.ema.update(self.modules, step=self.step_count)
        return float(norm)

    @property
    def learning_rate(self) -> float:
        """Of the new modules (or of the first group there is)."""
        rates = {group["name"]: group["lr"] for group in self.optimizer.param_groups}
        return float(rates.get("weights", next(iter(rates.values()))))


def make_optimization(recognizer: Recognizer, options: TrainingOptions, steps_an_epoch: int) -> Optimization:
    """AdamW, cosine with warm-up by steps, timm's EMA over the trained modules with its own warm-up."""
    optimizer = torch.optim.AdamW(parameter_groups(recognizer, options))
    schedule = CosineLRScheduler(
        optimizer,
        t_initial=max(1, options.epochs * steps_an_epoch),
        warmup_t=round(options.warmup_epochs * steps_an_epoch),
        warmup_lr_init=0.0,
        warmup_prefix=False,
        t_in_epochs=False,
    )
    schedule.step_update(0)
    modules = recognizer.trained_modules()
    ema = ModelEmaV3(modules, decay=options.ema_decay, use_warmup=True, foreach=True)
    return Optimization(modules, optimizer, schedule, ema, options.clip_norm)
