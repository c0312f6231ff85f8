"""Excludes parameters from training that the loss does not depend on.

Their gradient is zero up to rounding, and Adam turns rounding noise into full steps: they would drift, differently on
every processor.
"""

from collections.abc import Iterator
from functools import partial

from torch import Tensor, nn

from sspa.stage2_training.model.contract import Head
from sspa.stage2_training.model.loss_options import Loss


def leave_out_without_gradient(head: Head, image_tower: nn.Module, loss: Loss) -> None:
    """Freeze the biases of attention keys, and the logit biases that `loss` is invariant to.

    A key bias adds the same to all scores of a query, which softmax cancels. A logit bias shared by all labels has
    no effect on a loss that ignores shifts; `logit_bias` fits it to val instead.
    """
    for module in (*head.modules(), *image_tower.modules()):
        for bias, keys in _key_biases(module):
            if keys == slice(0, len(bias)):
                bias.requires_grad_(False)
            elif bias.requires_grad:
                bias.register_hook(partial(_cleared, keys))
    if loss.ignores_shift:
        for bias in head.logit_biases().values():
            if bias.ndim == 0:
                bias.requires_grad_(False)


def _key_biases(module: nn.Module) -> Iterator[tuple[nn.Parameter, slice]]:
    """The parameters of an attention layer that contain the key bias, and its position in them."""
    if isinstance(module, nn.MultiheadAttention) and module.in_proj_bias is not None:
        yield module.in_proj_bias, _part(1, 3, module.in_proj_bias)
    # timm's attention layers and latent pool, and the attention pool of CLIP's ResNets.
    for name, place, parts in (("qkv", 1, 3), ("kv", 0, 2), ("k_proj", 0, 1)):
        projection = getattr(module, name, None)
        if isinstance(projection, nn.Linear) and projection.bias is not None:
            yield projection.bias, _part(place, parts, projection.bias)


def _part(place: int, parts: int, bias: Tensor) -> slice:
    width = len(bias) // parts
    return slice(place * width, (place + 1) * width)


def _cleared(part: slice, gradient: Tensor) -> Tensor:
    gradient = gradient.clone()
    gradient[part] = 0.0
    return gradient
