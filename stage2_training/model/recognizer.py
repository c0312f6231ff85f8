"""A backbone with a head: images in, logits out."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from sspa.stage2_training.backbones.contract import Backbone, ImageFeatures
from sspa.stage2_training.model.contract import Head, LabelFeatures, Prediction

# Image-label pairs scored together when no gradient is needed: a few hundred MB at width 512.
_PAIRS_AT_ONCE = 20_000


class Recognizer(nn.Module):
    """The whole model. Its input is images (B, 3, H, W), or their cached features."""

    def __init__(self, backbone: Backbone, head: Head) -> None:
        super().__init__()
        self.backbone, self.head = backbone, head

    def encode_labels(self) -> LabelFeatures:
        """The label features, to pass to `forward` as long as labels and parameters stay the same."""
        return self.head.encode_labels(self.backbone)

    def forward(
        self, inputs: Tensor | ImageFeatures, labels: LabelFeatures | None = None, explain: bool = False
    ) -> Prediction:
        features = self.backbone.encode_image(inputs) if isinstance(inputs, Tensor) else inputs
        labels = self.encode_labels() if labels is None else labels
        images = max(1, _PAIRS_AT_ONCE // max((len(rows) for rows in labels.values()), default=1))
        if torch.is_grad_enabled() or explain or len(features.pooled) <= images:
            return self.head(features, labels, explain)
        # Heads allocate several numbers per image, label and channel: with thousands of labels, few images at a time.
        chunks = zip(features.pooled.split(images), features.regions.split(images), strict=True)
        parts = [self.head(ImageFeatures(*chunk), labels) for chunk in chunks]
        logits = {branch: torch.cat([part.logits[branch] for part in parts]) for branch in parts[0].logits}
        return Prediction(logits, mixture=self.head.mixture)

    def trained_modules(self) -> nn.ModuleDict:
        """The parts that a run trains and therefore saves: the head, and the image tower unless frozen."""
        modules: dict[str, nn.Module] = {"head": self.head}
        if any(parameter.requires_grad for parameter in self.backbone.image_tower.parameters()):
            modules["image_tower"] = self.backbone.image_tower
        return nn.ModuleDict(modules)


@contextmanager
def weights_of(source: nn.Module, target: nn.Module) -> Iterator[None]:
    """Within the block, `target` has the parameters and buffers of `source`; afterwards its own, bit for bit."""
    own = {name: value.detach().clone() for name, value in target.state_dict().items()}
    target.load_state_dict(source.state_dict())
    try:
        yield
    finally:
        with torch.no_grad():
            target.load_state_dict(own)
