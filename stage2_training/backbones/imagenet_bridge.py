"""The bridge that gives a sentence encoder and an ImageNet classifier one joint space, without training.

A text is compared with descriptions of the 1,000 ImageNet classes; a softmax over the similarities mixes the
classifier's rows into one vector, which scores an image as the classifier would score a class of that meaning.
CLIP-shaped, not CLIP: all it knows is ImageNet-1k and the sentence encoder.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def mix_classifier_rows(texts: Tensor, keys: Tensor, centre: Tensor, rows: Tensor, temperature: float) -> Tensor:
    """Sentence embeddings (C, w) -> vectors (C, d) in the classifier's space (reconstruction).

    Args:
        texts: embeddings of any length (C, w).
        keys: unit embeddings of the classes' descriptions minus `centre` (K, w).
        centre: the mean embedding of the descriptions (w,); sentence embeddings have a large common component,
            without which similarities discriminate between classes.
        rows: the classifier's weights (K, d).
        temperature: of the softmax over the K classes.
    """
    centred = F.normalize(F.normalize(texts, dim=-1) - centre, dim=-1)  # (C, w)
    return (centred @ keys.T / temperature).softmax(dim=-1) @ rows


class ImageNetBridge(nn.Module):
    """`mix_classifier_rows` with its tables as buffers; replaces a text tower's projection."""

    keys: Tensor
    centre: Tensor
    rows: Tensor

    def __init__(self, classes: int, text_width: int, width: int, temperature: float) -> None:
        super().__init__()
        self.register_buffer("keys", torch.zeros(classes, text_width))
        self.register_buffer("centre", torch.zeros(text_width))
        self.register_buffer("rows", torch.zeros(classes, width))
        self.temperature = temperature

    def fill(self, descriptions: Tensor, classifier: Tensor) -> None:
        """descriptions (K, w) and the classifier's weights (K, d) become the tables.

        The classifier's mean row is subtracted: a softmax over classes is invariant to it, a cosine is not.
        """
        descriptions = F.normalize(descriptions, dim=-1)
        self.centre.copy_(descriptions.mean(dim=0))
        self.keys.copy_(F.normalize(descriptions - self.centre, dim=-1))
        self.rows.copy_(classifier - classifier.mean(dim=0))

    def forward(self, texts: Tensor) -> Tensor:
        """Pooled sentence states (C, w) -> text features (C, d)."""
        return mix_classifier_rows(texts, self.keys, self.centre, self.rows, self.temperature)
