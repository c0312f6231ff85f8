"""The exported model as one module: images in, probabilities out, with the labels' texts folded in.

Legend: B images, C labels.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from sspa.stage2_training.backbones.contract import ImageFeatures
from sspa.stage2_training.inference.tagger import Tagger
from sspa.stage2_training.model.mixture import Mixture
from sspa.stage2_training.model.options import View
from sspa.stage2_training.model.views import mean_over_views, under_view

INPUT, OUTPUT = "images", "probabilities"


class ImageProgram(nn.Module):
    """Prepared images (B, 3, H, W) -> probabilities (B, C): the mean over the run's views and the model's branches.

    The head's label features become constants; the text tower is left out.
    """

    def __init__(self, tagger: Tagger) -> None:
        super().__init__()
        self.image_tower, self.head = tagger.recognizer.backbone.image_tower, tagger.recognizer.head
        self.views: Sequence[View] = tagger.views
        self.label_names = tuple(tagger.label_features)
        for name, values in tagger.label_features.items():
            self.register_buffer(f"label_{name}", values.detach().clone())

    def forward(self, images: Tensor) -> Tensor:
        labels = {name: self.get_buffer(f"label_{name}") for name in self.label_names}
        by_view = []
        for view in self.views:
            features: ImageFeatures = self.image_tower(under_view(images, view))
            by_view.append(self.head(features, labels).branches())
        mixture: Mixture = self.head.mixture
        return mixture(mean_over_views(by_view))


def capture(tagger: Tagger) -> torch.export.ExportedProgram:
    """The tagger's model on the CPU in float32, as a program for any number of images of its one size."""
    module = ImageProgram(tagger).eval()
    # Two images: with one, torch would treat the batch size as a constant.
    images = torch.zeros(2, 3, *tagger.recognizer.backbone.image_size)
    with torch.no_grad(), _plain_attention():
        return torch.export.export(module, (images,), dynamic_shapes=({0: torch.export.Dim("batch", min=1)},))


@contextmanager
def _plain_attention() -> Iterator[None]:
    """Disable torch's fused transformer layer, which no other runtime supports."""
    fused = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fused)
