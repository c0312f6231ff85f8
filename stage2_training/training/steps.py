"""The steps of an epoch: forward, loss, backward, update, over all processes and parts of a batch.

Legend: B images of a batch, C labels.
"""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor

from sspa.shared.errors import UserError
from sspa.stage2_training.backbones.contract import ImageFeatures
from sspa.stage2_training.compute.device import attention_kernels, computes_bf16
from sspa.stage2_training.compute.gradient_sum import GradientSum, summed_gradients
from sspa.stage2_training.compute.precision import Precision, autocast_dtype, check_precision
from sspa.stage2_training.compute.processes import Processes
from sspa.stage2_training.config.run_config import RunConfig
from sspa.stage2_training.features.batches import Batches
from sspa.stage2_training.model.losses import total_loss
from sspa.stage2_training.model.recognizer import Recognizer
from sspa.stage2_training.training.divergence import diverged, what_is_wrong
from sspa.stage2_training.training.optimization import Optimization
from sspa.stage2_training.training.train_state import TrainState


@dataclass(frozen=True)
class Step:
    """One finished step: the loss of its whole batch, and the number of images."""

    loss: float
    images: int


def check_steps(config: RunConfig, device: torch.device) -> None:
    """Reject configurations that cannot be trained, before anything is read.

    Raises:
        UserError: a precision that the device does not support, or a loss whose batch cannot be split.
    """
    options = config.training
    if options.precision == "bf16" and device.type == "cuda" and not computes_bf16(device):
        raise UserError("training.precision=bf16: this GPU would only emulate bf16; take fp16 or float32")
    check_precision(options.precision, device, "training.precision")
    if options.accumulate > 1 and config.loss.couples_images:
        raise UserError(
            f"loss.kind={config.loss.kind} couples all images of a batch, so a batch cannot be split; "
            "take training.accumulate=1, or another loss"
        )


@contextmanager
def forward_context(device: torch.device, precision: Precision, tower: str) -> Iterator[None]:
    """For the forward pass of a training step: autocast, and suitable attention kernels.

    Args:
        tower: `backbone.tower`, which part of the image tower is trained.
    """
    dtype = autocast_dtype(precision)
    with torch.autocast(device.type, dtype, enabled=dtype is not None), attention_kernels(device, dtype, tower):
        yield


def train_steps(
    recognizer: Recognizer,
    optimization: Optimization,
    batches: Batches,
    config: RunConfig,
    state: TrainState,
    processes: Processes,
    shares: Tensor,
) -> Iterator[Step]:
    """Make the remaining steps of an epoch, from `state.step` on; updates `state`.

    Args:
        shares: each label's share of positives in train, (C,).

    Raises:
        UserError: the loss is not finite, or diverges; that step is not made.
    """
    recognizer.train()
    sent_in = autocast_dtype(config.training.gradients_sent_in)
    with summed_gradients(optimization.trained.values(), processes, sent_in=sent_in) as gradients:
        for inputs, targets, indices in batches.epoch(state.epoch, state.step):
            parts = _backward(recognizer, optimization, inputs, targets, config, processes, gradients, shares)
            with processes.waiting():
                gradients.wait()
                # The one time in a step that the CPU waits for the GPU.
                *losses, norm = torch.stack([*parts, optimization.clip()]).tolist()
            loss = float(sum(losses))
            if (reason := what_is_wrong(loss, state, config.training)) is not None:
                raise diverged(reason, state)
            if not optimization.update(norm):
                raise diverged(f"the gradient is {norm}", state)
            state.step += 1
            state.losses += loss
            yield Step(loss, len(indices) * processes.world)


def _backward(
    recognizer: Recognizer,
    optimization: Optimization,
    inputs: Tensor | ImageFeatures,
    targets: Tensor,
    config: RunConfig,
    processes: Processes,
    gradients: GradientSum,
    shares: Tensor,
) -> list[Tensor]:
    """The loss of the whole batch, as the losses () of its parts; accumulates the gradient of this process's share in
    the parameters, and starts to sum it over the processes."""
    losses, left = [], len(targets)
    for part, part_targets in _parts(inputs, targets, config.training.accumulate):
        left -= len(part_targets)
        with forward_context(targets.device, config.training.precision, config.backbone.tower):
            prediction = recognizer(part)
        logits = {branch: processes.batch(own) for branch, own in prediction.logits.items()}
        part_loss = total_loss(logits, processes.batch(part_targets), config.loss, shares)
        if len(part_targets) < len(targets):
            part_loss = part_loss * (len(part_targets) / len(targets))
        with nullcontext() if left else gradients.follow():
            optimization.backward(part_loss)
        losses.append(part_loss.detach())
    return losses


def _parts(
    inputs: Tensor | ImageFeatures, targets: Tensor, count: int
) -> Iterator[tuple[Tensor | ImageFeatures, Tensor]]:
    """A batch in at most `count` parts."""
    if isinstance(inputs, Tensor):
        yield from zip(inputs.chunk(count), targets.chunk(count), strict=True)
        return
    chunks = zip(inputs.pooled.chunk(count), inputs.regions.chunk(count), targets.chunk(count), strict=True)
    for pooled, regions, part_targets in chunks:
        yield ImageFeatures(pooled, regions), part_targets
