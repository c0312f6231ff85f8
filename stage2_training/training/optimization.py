"""Parameter groups, learning rates and the averaged weights."""

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

    def one(group: dict[str, Any]) -> str:
        # Once there is a schedule, `lr` is what its warm-up begins with.
        count = sum(parameter.numel() for parameter in group["params"])
        return f"{group['name']} {count:,} at {group.get('initial_lr', group['lr']):g}"

    return ", ".join(map(one, groups))


@dataclass
class Optimization:
    """Optimizer, schedule and averaged weights of one run, advanced together, once a step.

    `modules` are what the run keeps, `trained` the parameters of them that it changes; `ema` averages those alone.
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
        """Add the gradients of one part of a batch."""
        self.scaler.scale(loss).backward()

    def update(self) -> float:
        """One update from the gradients so far; returns their norm before clipping.

        Where it is not finite nothing changes: with fp16 the loss is scaled down and the step counts, else it does not.
        """
        self.scaler.unscale_(self.optimizer)
        parameters = [parameter for group in self.optimizer.param_groups for parameter in group["params"]]
        norm = nn.utils.clip_grad_norm_(parameters, self.clip_norm)
        if torch.isfinite(norm) or self.scaler.is_enabled():
            self.scaler.step(self.optimizer)
            self.scaler.update()
            self.step_count += 1
            self.schedule.step_update(self.step_count)
            self.ema.update(self.trained, step=self.step_count)
        self.optimizer.zero_grad(set_to_none=True)
        return float(norm)

    def step(self, loss: torch.Tensor) -> float:
        """One update from the loss of a whole batch."""
        self.backward(loss)
        return self.update()

    @property
    def learning_rate(self) -> float:
        """Of the new modules (or of the first group there is)."""
        rates = {group["name"]: group["lr"] for group in self.optimizer.param_groups}
        return float(rates.get("weights", next(iter(rates.values()))))


def make_optimization(recognizer: Recognizer, options: TrainingOptions, steps_per_epoch: int) -> Optimization:
    """AdamW, cosine with warm-up by steps, timm's EMA over what is trained with its own warm-up."""
    optimizer = torch.optim.AdamW(parameter_groups(recognizer, options))
    schedule = CosineLRScheduler(
        optimizer,
        t_initial=max(1, options.epochs * steps_per_epoch),
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
    """The trained parameters themselves, by name; a dot may not stand in the name of a module's parameter."""
    named = modules.named_parameters()
    return nn.ParameterDict({name.replace(".", "/"): value for name, value in named if value.requires_grad})
