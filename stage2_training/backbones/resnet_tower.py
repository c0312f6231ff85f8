"""CLIP's modified ResNets (RN50, RN101, ...) as image towers."""

import torch.nn.functional as F
from open_clip.modified_resnet import AttentionPool2d, ModifiedResNet
from torch import Tensor, cat, nn

from sspa.stage2_training.backbones.contract import ImageFeatures, ImageTower
from sspa.stage2_training.backbones.resolution import grid_of, interpolate_positions

# A CLIP ResNet downsamples its input by a factor of two, five times.
_STRIDE = 32


class ResNetTower(ImageTower):
    """A `ModifiedResNet`: pooled by its attention pool; regions are the positions of the last stage.

    With `value_path` (the usual form: DenseCLIP, DualCoOp, MaskCLIP) a region passes through the value and output
    projections, `c_proj(v_proj(x))`. Without it, each position queries the attention pool as the mean does.
    """

    def __init__(self, visual: ModifiedResNet, image_size: tuple[int, int] | None, value_path: bool) -> None:
        super().__init__()
        side = visual.image_size
        native = (side, side) if isinstance(side, int) else side
        size = image_size or native
        self.grid = grid_of(size, (_STRIDE, _STRIDE))
        if size != native:
            positions = visual.attnpool.positional_embedding
            resized = interpolate_positions(positions.data, grid_of(native, (_STRIDE, _STRIDE)), self.grid)
            visual.attnpool.positional_embedding = nn.Parameter(resized, requires_grad=positions.requires_grad)
            visual.image_size = size
        self.visual, self.value_path = visual, value_path

    def forward(self, images: Tensor) -> ImageFeatures:
        visual = self.visual
        x = visual.layer4(visual.layer3(visual.layer2(visual.layer1(visual.stem(images)))))  # (B, width, h, w)
        if self.value_path:
            pool = visual.attnpool
            regions = pool.c_proj(pool.v_proj(x.flatten(2).transpose(1, 2)))  # (B, M, d)
            return ImageFeatures(visual.attnpool(x), regions)
        everything = _attend_from_everywhere(visual.attnpool, x)
        return ImageFeatures(everything[:, 0], everything[:, 1:])

    def blocks(self) -> list[nn.Module]:
        visual = self.visual
        return [block for stage in (visual.layer1, visual.layer2, visual.layer3, visual.layer4) for block in stage]

    def head(self) -> list[nn.Parameter]:
        return list(self.visual.attnpool.parameters())


def _attend_from_everywhere(pool: AttentionPool2d, x: Tensor) -> Tensor:
    """The attention pool with the mean and every position as queries: (B, width, h, w) -> (B, 1 + M, d)."""
    x = x.flatten(2).permute(2, 0, 1)  # (M, B, width)
    x = cat([x.mean(dim=0, keepdim=True), x]) + pool.positional_embedding[:, None].to(x.dtype)
    attended, _ = F.multi_head_attention_forward(
        query=x,
        key=x,
        value=x,
        embed_dim_to_check=x.shape[-1],
        num_heads=pool.num_heads,
        in_proj_weight=None,
        in_proj_bias=cat([pool.q_proj.bias, pool.k_proj.bias, pool.v_proj.bias]),
        bias_k=None,
        bias_v=None,
        add_zero_attn=False,
        dropout_p=0.0,
        out_proj_weight=pool.c_proj.weight,
        out_proj_bias=pool.c_proj.bias,
        use_separate_proj_weight=True,
        q_proj_weight=pool.q_proj.weight,
        k_proj_weight=pool.k_proj.weight,
        v_proj_weight=pool.v_proj.weight,
        training=False,
        need_weights=False,
    )
    return attended.transpose(0, 1)
