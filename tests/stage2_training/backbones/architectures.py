"""Small models of every architecture family, written as open_clip's local folders with random weights."""

import json
from pathlib import Path
from typing import Any

import open_clip
import torch
from safetensors.torch import save_file
from timm.models import register_model
from timm.models.efficientnet import EfficientNet, _gen_efficientnet_lite
from timm.models.vision_transformer import VisionTransformer, _create_vision_transformer
from torch import nn

VIT = {"image_size": 64, "layers": 3, "width": 32, "head_width": 16, "patch_size": 16}
TEXT = {"context_length": 24, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2}
# SigLIP's text side: every token sees every other, the last position is the text, biased projection.
SIGLIP_TEXT = {**TEXT, "no_causal_mask": True, "pool_type": "last", "proj_bias": True}


def _small_vit(**options: Any) -> VisionTransformer:
    shape = {"img_size": 64, "patch_size": 16, "embed_dim": 32, "depth": 3, "num_heads": 2}
    return _create_vision_transformer("vit_tiny_patch16_224", pretrained=False, **{**shape, **options})


@register_model
def small_register_vit(pretrained: bool = False, **options: Any) -> VisionTransformer:
    """Registers, no class token, average pooling."""
    return _small_vit(**{"class_token": False, "reg_tokens": 2, "global_pool": "avg", **options})


@register_model
def small_class_token_vit(pretrained: bool = False, **options: Any) -> VisionTransformer:
    """Timm's plain form."""
    return _small_vit(**options)


@register_model
def small_map_vit(pretrained: bool = False, **options: Any) -> VisionTransformer:
    """SigLIP's image side: no class token, attention pooling."""
    return _small_vit(**{"class_token": False, "global_pool": "map", **options})


@register_model
def small_efficientnet_lite(pretrained: bool = False, **options: Any) -> EfficientNet:
    """The embedded backbone's image side with one block per stage, and narrow."""
    shape = {"channel_multiplier": 0.25, "depth_multiplier": 0.25, "pad_type": "same"}
    return _gen_efficientnet_lite("tf_efficientnet_lite0", pretrained=False, **shape, **options)


def _timm(name: str, size: int, pool: str = "avg", projection: str = "linear") -> dict[str, Any]:
    return {"timm_model_name": name, "timm_pool": pool, "timm_proj": projection, "image_size": size}


FAMILIES: dict[str, dict[str, Any]] = {
    "vit": {"vision_cfg": VIT, "text_cfg": TEXT},
    "vit-quickgelu": {"vision_cfg": VIT, "text_cfg": TEXT, "quick_gelu": True},
    "vit-average-pooled": {
        "vision_cfg": {**VIT, "pool_type": "avg", "final_ln_after_pool": True, "no_ln_pre": True},
        "text_cfg": SIGLIP_TEXT,
        "custom_text": True,
    },
    "resnet": {"vision_cfg": {"image_size": 64, "layers": [1, 1, 2, 1], "width": 16}, "text_cfg": TEXT},
    "resnet-quickgelu": {
        "vision_cfg": {"image_size": 64, "layers": [1, 1, 1, 1], "width": 16},
        "text_cfg": TEXT,
        "quick_gelu": True,
    },
    "timm-convnext": {"vision_cfg": _timm("convnext_atto", 64), "text_cfg": TEXT},
    "timm-efficientnet": {"vision_cfg": _timm("small_efficientnet_lite", 64, projection="none"), "text_cfg": TEXT},
    "timm-resnet": {"vision_cfg": _timm("resnet10t", 64, pool="rot_attn", projection=""), "text_cfg": TEXT},
    "timm-vit-registers": {"vision_cfg": _timm("small_register_vit", 64), "text_cfg": TEXT, "custom_text": True},
    "timm-vit-class-token": {"vision_cfg": _timm("small_class_token_vit", 64, pool="token"), "text_cfg": TEXT},
    "timm-siglip": {
        "vision_cfg": _timm("small_map_vit", 64, pool="map", projection="none"),
        "text_cfg": SIGLIP_TEXT,
        "custom_text": True,
        "init_logit_bias": -10,
    },
}
_WIDTHS = {"timm-efficientnet": 1280, "timm-siglip": 32}


def write_model(family: str, folder: Path) -> nn.Module:
    """Write the family's small model into `folder` and return open_clip's own instance of it."""
    config = {"embed_dim": _WIDTHS.get(family, 40), **FAMILIES[family]}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": config, "preprocess_cfg": {}}))
    torch.manual_seed(0)
    model = open_clip.create_model(f"local-dir:{folder}", load_weights=False).eval()
    _stir(model)
    save_file({name: value.contiguous() for name, value in model.state_dict().items()}, folder / "model.safetensors")
    return model


def _stir(model: nn.Module) -> None:
    """Randomise scales, offsets and statistics, so that a missing part would be noticed."""
    for name, value in model.state_dict().items():
        if not value.is_floating_point() or name in ("logit_scale", "logit_bias"):
            continue
        if name.endswith("running_var") or (value.ndim == 1 and name.endswith("weight")):
            value.uniform_(0.7, 1.3)
        elif value.ndim == 1:
            value.uniform_(-0.1, 0.1)
