"""Towers that open_clip takes from timm (SigLIP, ConvNeXt, EfficientNet, ...) as image towers."""

import torch
from open_clip.timm_model import TimmModel
from torch import Tensor, nn

from sspa.shared.errors import UserError
from sspa.stage2_training.backbones.contract import ImageFeatures, ImageTower
from sspa.stage2_training.backbones.resolution import grid_of

# Where timm's families keep their blocks; a tower has one of the first three, or a ResNet's four stages.
_BLOCK_HOLDERS = ("blocks", "stages", "layers", "layer1", "layer2", "layer3", "layer4")


class TimmTower(ImageTower):
    """A `TimmModel`: each region passes through the tower's own pooling head as if it were the whole image.

    For average pooling that means the head's norm and projection at every position; for attention pooling
    (SigLIP), the pooler's value path. With `value_path`, the attention of the last transformer block is
    also the identity for regions (MaskCLIP); convolutional towers have no such path.
    """

    def __init__(self, visual: TimmModel, image_size: tuple[int, int] | None, value_path: bool) -> None:
        super().__init__()
        trunk = visual.trunk
        if value_path and not (hasattr(trunk, "blocks") and hasattr(trunk, "patch_embed")):
            raise UserError("regions=value needs a timm vision transformer; take regions=projected for this one")
        if image_size is not None and tuple(image_size) != tuple(visual.image_size):
            _resize(visual, image_size)
        self.visual, self.value_path = visual, value_path
        # Memory format matters only for maps, which are convolved much faster with channels last.
        self._convolutional = not hasattr(trunk, "patch_embed")
        if self._convolutional:
            visual.to(memory_format=torch.channels_last)
        self._channels_last_map = getattr(trunk, "output_fmt", "NCHW") == "NHWC"
        self._prefix = getattr(trunk, "num_prefix_tokens", 0)
        self.grid = self._find_grid()

    def forward(self, images: Tensor) -> ImageFeatures:
        if self._convolutional:
            images = images.contiguous(memory_format=torch.channels_last)
        trunk = self.visual.trunk
        if self.value_path:
            features, tokens = self._with_value_path(images)
        else:
            features = tokens = trunk.forward_features(images)
        pooled = self.visual.head(trunk.forward_head(features))  # (B, d)
        return ImageFeatures(pooled, self._regions(tokens))

    def _regions(self, features: Tensor) -> Tensor:
        """Tower features, a map or a sequence -> (B, M, d), each position pooled alone."""
        trunk = self.visual.trunk
        if features.ndim == 3:
            tokens = features[:, self._prefix :]  # (B, M, width)
            batch, count = tokens.shape[:2]
            # A sequence of copies of one token: any token that the head selects, and their mean, is that token.
            alone = tokens.flatten(0, 1)[:, None].expand(-1, 1 + self._prefix, -1)
        else:
            rows = features if self._channels_last_map else features.permute(0, 2, 3, 1)  # (B, h, w, width)
            batch, count = rows.shape[0], rows.shape[1] * rows.shape[2]
            alone = rows.reshape(batch * count, 1, 1, -1)
            alone = alone if self._channels_last_map else alone.permute(0, 3, 1, 2)
        return self.visual.head(trunk.forward_head(alone)).unflatten(0, (batch, count))

    def _with_value_path(self, images: Tensor) -> tuple[Tensor, Tensor]:
        trunk = self.visual.trunk
        depth = len(trunk.blocks)
        features, intermediates = trunk.forward_intermediates(
            images, indices=[depth - 2], output_fmt="NLC", return_prefix_tokens=True
        )
        spatial, prefix = intermediates[0] if isinstance(intermediates[0], tuple) else (intermediates[0], None)
        before = spatial if prefix is None else torch.cat([prefix, spatial], dim=1)
        length = before.shape[1]
        alone = torch.full((length, length), float("-inf"), device=before.device, dtype=before.dtype)
        alone.fill_diagonal_(0.0)
        return features, trunk.norm(trunk.blocks[-1](before, attn_mask=alone))

    @torch.no_grad()
    def _find_grid(self) -> tuple[int, int]:
        was_training = self.training
        self.eval()
        probe = torch.zeros(1, 3, *self.visual.image_size)
        features = self.visual.trunk.forward_features(probe)
        self.train(was_training)
        if features.ndim == 3:
            rows, columns = self.visual.trunk.patch_embed.grid_size
            return int(rows), int(columns)
        rows, columns = features.shape[1:3] if self._channels_last_map else features.shape[2:]
        return int(rows), int(columns)

    def blocks(self) -> list[nn.Module]:
        trunk = self.visual.trunk
        held = [name for name in _BLOCK_HOLDERS if hasattr(trunk, name)]
        if not held:
            raise UserError(f"{type(trunk).__name__}: its blocks are not known; train the whole tower or none of it")
        return [block for name in held for block in getattr(trunk, name).children()]

    def head(self) -> list[nn.Parameter]:
        children = list(self.visual.trunk.named_children())
        last = max(i for i, (name, _) in enumerate(children) if name in _BLOCK_HOLDERS)
        after = [parameter for _, module in children[last + 1 :] for parameter in module.parameters()]
        return [*after, *self.visual.head.parameters()]


def _resize(visual: TimmModel, image_size: tuple[int, int]) -> None:
    """Change the input size of a loaded tower; a convolutional one accepts any size."""
    patch_embed = getattr(visual.trunk, "patch_embed", None)
    if patch_embed is not None:
        grid_of(image_size, patch_embed.patch_size)
    visual.set_input_size(image_size)
