"""Creates backbones: a specification string in, a `Backbone` out."""

import hashlib
import json
from typing import Any, Literal

import torch
from open_clip.hf_model import HFTextEncoder
from open_clip.modified_resnet import ModifiedResNet
from open_clip.timm_model import TimmModel
from open_clip.transformer import VisionTransformer
from torch import nn

from sspa.shared.errors import UserError
from sspa.stage2_training.backbones import embedded
from sspa.stage2_training.backbones.backbone_names import EMBEDDED, check_name
from sspa.stage2_training.backbones.coarser_regions import CoarserRegions
from sspa.stage2_training.backbones.contract import Backbone, ImageTower, TextTower
from sspa.stage2_training.backbones.open_clip_models import LoadedModel, load_open_clip
from sspa.stage2_training.backbones.resnet_tower import ResNetTower
from sspa.stage2_training.backbones.text_towers import ClipTextTower, HuggingFaceTextTower
from sspa.stage2_training.backbones.timm_tower import TimmTower
from sspa.stage2_training.backbones.vit_tower import VitTower
from sspa.stage2_training.compute.precision import Precision

Regions = Literal["default", "projected", "value"]


def create_backbone(
    spec: str = "embedded",
    *,
    weights: str | None = None,
    image_size: int | tuple[int, int] | None = None,
    regions: Regions = "default",
    region_grid: tuple[int, int] | None = None,
    precision: Precision = "float32",
    allow_download: bool = True,
) -> Backbone:
    """Create a backbone, in evaluation mode, on the CPU, with everything but its text tower trainable.

    Args:
        spec: "embedded"; "open_clip:ViT-B-16" and every other open_clip architecture; "hf-hub:owner/name@commit";
            "local-dir:folder".
        weights: an open_clip pretrained tag, a local weights file, or "random" (for tests); an open_clip
            architecture needs one of them, the other two bring their own.
        image_size: pixels, one number or (height, width); if None, the architecture's own.
        regions: how regions are taken from the tower, see each tower; "default" is the value path for CLIP
            ResNets (whose attention pool is meaningless for a single position) and "projected" for the others.
        region_grid: (rows, columns) of coarser regions; None: the tower's own. See `CoarserRegions`.
        precision: of the image tower; see `Backbone`.
        allow_download: False where the name comes from a file: a model from the hub must then be there already.

    Raises:
        UserError: an unknown specification, weights that do not fit, a size that the patches do not divide.
    """
    size = (image_size, image_size) if isinstance(image_size, int) else image_size
    if size is not None and min(size) < 1:
        raise UserError(f"image size {size[0]}x{size[1]}: both sides must be positive")
    if regions not in ("default", "projected", "value"):
        raise UserError(f"regions={regions}: unknown; one of default, projected, value")
    loaded = _loaded(spec, weights, allow_download)
    model = loaded.model
    image_tower = _image_tower(model.visual, size, regions)
    if region_grid is not None:
        image_tower = CoarserRegions(image_tower, region_grid)
    text_tower = _text_tower(model, loaded.context_length)
    rows, columns = _pair(model.visual.image_size)
    options = {
        "spec": spec,
        "weights": loaded.weights,
        "size": [rows, columns],
        "regions": regions,
        "bf16": precision == "bf16",
    }
    # Only where they are not as they always were, so that features that are kept from before are found.
    options |= {"fp16": True} if precision == "fp16" else {}
    options |= {"region_grid": region_grid} if region_grid is not None else {}
    return Backbone(
        name=spec,
        description=loaded.description,
        image_tower=image_tower,
        text_tower=text_tower,
        tokenizer=loaded.tokenizer,
        image_size=(rows, columns),
        mean=tuple(model.visual.image_mean),
        std=tuple(model.visual.image_std),
        width=loaded.width,
        initial_temperature=model.logit_scale.detach().exp().item(),
        fingerprint=_fingerprint(options, image_tower, text_tower),
        precision=precision,
    )


def _loaded(spec: str, weights: str | None, allow_download: bool) -> LoadedModel:
    check_name(spec, weights)
    return embedded.load_embedded() if spec == EMBEDDED else load_open_clip(spec, weights, allow_download)


def _image_tower(visual: nn.Module, size: tuple[int, int] | None, regions: Regions) -> ImageTower:
    if isinstance(visual, ModifiedResNet):
        return ResNetTower(visual, size, value_path=regions != "projected")
    if isinstance(visual, VisionTransformer):
        return VitTower(visual, size, value_path=regions == "value")
    if isinstance(visual, TimmModel):
        return TimmTower(visual, size, value_path=regions == "value")
    raise UserError(
        f"image towers of type {type(visual).__name__} are not supported; name a ViT, a ResNet or a timm tower"
    )


def _text_tower(model: Any, context_length: int | None) -> TextTower:
    text = getattr(model, "text", None)
    return HuggingFaceTextTower(text, context_length) if isinstance(text, HFTextEncoder) else ClipTextTower(model)


def _pair(size: int | tuple[int, int]) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else (size[0], size[1])


def _fingerprint(options: dict[str, Any], *towers: nn.Module) -> str:
    """Hex digest over the options and every weight."""
    digest = hashlib.blake2b(json.dumps(options, sort_keys=True).encode(), digest_size=16)
    for tower in towers:
        for name, value in tower.state_dict().items():
            digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
            digest.update(value.detach().contiguous().view(-1).view(torch.uint8).numpy())
    return digest.hexdigest()
