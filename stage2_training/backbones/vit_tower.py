"""open_clip's own vision transformers as image towers."""

import torch
from open_clip.transformer import Transformer, VisionTransformer
from torch import Tensor, nn

from sspa.shared.errors import UserError
from sspa.stage2_training.backbones.contract import ImageFeatures, ImageTower
from sspa.stage2_training.backbones.resolution import grid_of, interpolate_positions


class VitTower(ImageTower):
    """A `VisionTransformer`: regions are the patch tokens after the final norm and projection.

    With `value_path` the last block's attention is the identity for the regions (each token attends only to
    itself: the value path of MaskCLIP, Zhou et al., ECCV 2022); the pooled feature is unaffected.
    """

    def __init__(self, visual: VisionTransformer, image_size: tuple[int, int] | None, value_path: bool) -> None:
        super().__init__()
        if visual.attn_pool is not None:
            raise UserError("image towers with an attentional pooler (CoCa) are not supported; name a CLIP ViT")
        if image_size is not None and tuple(image_size) != tuple(visual.image_size):
            _resize(visual, image_size)
        self.visual, self.value_path = visual, value_path
        self.grid = tuple(visual.grid_size)

    def forward(self, images: Tensor) -> ImageFeatures:
        visual = self.visual
        x = visual._embeds(images)  # (B, 1 + M, width)
        if self.value_path:
            before_last = len(visual.transformer.resblocks) - 2
            if before_last < 0:
                before, x = x, visual.transformer(x)
            else:
                x, (before,) = visual.transformer.forward_intermediates(x, indices=[before_last])
            tokens = identity_attention_block(visual.transformer, before)
        else:
            x = tokens = visual.transformer(x)
        pooled, _ = visual._pool(x)  # (B, width)
        regions = visual.ln_post(tokens[:, 1:])
        if visual.proj is not None:
            pooled, regions = pooled @ visual.proj, regions @ visual.proj  # (B, d), (B, M, d)
        return ImageFeatures(pooled, regions)

    def blocks(self) -> list[nn.Module]:
        return list(self.visual.transformer.resblocks)

    def head(self) -> list[nn.Parameter]:
        projection = [] if self.visual.proj is None else [self.visual.proj]
        return [*self.visual.ln_post.parameters(), *projection]


def identity_attention_block(transformer: Transformer, x: Tensor) -> Tensor:
    """The transformer's last block on x (B, L, width) with every token attending to itself alone."""
    alone = torch.full((x.shape[1], x.shape[1]), float("-inf"), device=x.device, dtype=x.dtype)
    alone.fill_diagonal_(0.0)
    if transformer.batch_first:
        return transformer.resblocks[-1](x, attn_mask=alone)
    return transformer.resblocks[-1](x.transpose(0, 1), attn_mask=alone).transpose(0, 1)


def _resize(visual: VisionTransformer, image_size: tuple[int, int]) -> None:
    """Change the input size of a loaded ViT to (H, W)."""
    grid = grid_of(image_size, visual.patch_size)
    positions = visual.positional_embedding
    visual.positional_embedding = nn.Parameter(
        interpolate_positions(positions.data, visual.grid_size, grid), requires_grad=positions.requires_grad
    )
    visual.grid_size, visual.image_size = grid, image_size
