"""The contract of every backbone: images and prompts into one joint space.

Legend: B images, M regions, C labels, L text tokens, w token width, d joint width.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from sspa.stage2_training.backbones.lean_open_clip import HFTokenizer, SimpleTokenizer
from sspa.stage2_training.compute.precision import Precision, autocast_dtype

_TEXTS_AT_ONCE = 256


@dataclass(frozen=True)
class ImageFeatures:
    """The output of an image tower, in the joint space and not normalised: pooled (B, d), regions (B, M, d)."""

    pooled: Tensor
    regions: Tensor


class ImageTower(nn.Module, ABC):
    """Images (B, 3, H, W) -> `ImageFeatures`, regions in rows from the top left; `grid` is (rows, columns)."""

    grid: tuple[int, int]

    @abstractmethod
    def forward(self, images: Tensor) -> ImageFeatures:
        """images (B, 3, H, W), already normalised with the backbone's mean and std."""

    @abstractmethod
    def blocks(self) -> list[nn.Module]:
        """The tower's blocks from first to last, so that only the last ones can be trained."""

    @abstractmethod
    def head(self) -> list[nn.Parameter]:
        """What follows the last block (final norm, pooling, projection); it is trained with the last block."""


class TextTower(nn.Module, ABC):
    """Token ids or prompt vectors -> text features in the joint space."""

    width: int
    context_length: int

    @abstractmethod
    def embed_tokens(self, ids: Tensor) -> Tensor:
        """ids (C, L) -> word vectors (C, L, w), without positions."""

    @abstractmethod
    def forward(self, embeddings: Tensor, ids: Tensor) -> Tensor:
        """embeddings (C, L, w), ids (C, L) -> (C, d); the ids show where each text ends."""

    @abstractmethod
    def used_length(self, ids: Tensor) -> int:
        """How many leading positions of ids (C, L) can affect the features; the rest can be cut off."""


class Backbone(nn.Module):
    """An image tower and a frozen text tower with one joint space.

    `fingerprint` identifies architecture, options and weights at the time the backbone was created, and is part of
    cache keys. `initial_temperature` multiplies a cosine to give a sensible initial logit. `precision` is that of the
    image tower, part of the fingerprint and fixed: that of autocast. `encode_image` returns float32 in
    either case.
    """

    def __init__(
        self,
        *,
        name: str,
        description: str,
        image_tower: ImageTower,
        text_tower: TextTower,
        tokenizer: SimpleTokenizer | HFTokenizer,
        image_size: tuple[int, int],
        mean: tuple[float, ...],
        std: tuple[float, ...],
        width: int,
        initial_temperature: float,
        fingerprint: str,
        precision: Precision = "float32",
    ) -> None:
        super().__init__()
        self.name, self.description, self.fingerprint = name, description, fingerprint
        self.image_tower, self.text_tower = image_tower, text_tower
        self.image_size, self.mean, self.std = image_size, mean, std
        self.width, self.initial_temperature, self._precision = width, initial_temperature, precision
        self._tokenizer = tokenizer
        self.text_tower.requires_grad_(False)
        self.train(False)

    @property
    def precision(self) -> Precision:
        """What the image tower computes in."""
        return self._precision

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of the region grid; their product is M."""
        return self.image_tower.grid

    @property
    def text_width(self) -> int:
        """The width w of a word vector."""
        return self.text_tower.width

    @property
    def context_length(self) -> int:
        """The maximum number of tokens in a prompt, start and end included."""
        return self.text_tower.context_length

    def normalised(self, pixels: Tensor) -> Tensor:
        """Pixels (..., 3, H, W) in uint8 -> float32 of the mean and variance that the image tower expects."""
        from torchvision.transforms.v2 import functional

        return functional.normalize(functional.to_dtype(pixels, scale=True), list(self.mean), list(self.std))

    def encode_image(self, images: Tensor) -> ImageFeatures:
        """Pixels (uint8) or `normalised` images (B, 3, H, W) -> pooled (B, d) and regions (B, M, d).

        The features are float32 and not of unit length.
        """
        images = images if images.is_floating_point() else self.normalised(images)
        # With float32, the caller's own autocast remains in effect.
        dtype = autocast_dtype(self.precision)
        with nullcontext() if dtype is None else torch.autocast(images.device.type, dtype):
            features = self.image_tower(images)
        return ImageFeatures(features.pooled.float(), features.regions.float())

    def tokenize(self, texts: Sequence[str]) -> Tensor:
        """Texts -> ids (C, context_length), on the backbone's device; longer ones are cut (see `token_counts`)."""
        ids = self._tokenizer(list(texts), context_length=self.context_length)
        return ids.to(next(self.text_tower.parameters()).device)

    def token_counts(self, texts: Sequence[str]) -> list[int]:
        """Number of tokens of each text, start and end included; above `context_length` it is truncated."""
        if isinstance(self._tokenizer, HFTokenizer):
            return [len(self._tokenizer.tokenizer(self._tokenizer.clean_fn(text)).input_ids) for text in texts]
        return [2 + len(self._tokenizer.encode(text)) for text in texts]

    def has_unknown_token(self, text: str) -> bool:
        """Whether the tokenizer replaces part of the text by its token for the unknown; some have none."""
        if not isinstance(self._tokenizer, HFTokenizer):
            return False
        tokenizer = self._tokenizer.tokenizer
        return tokenizer.unk_token_id in tokenizer(self._tokenizer.clean_fn(text)).input_ids

    def embed_tokens(self, ids: Tensor) -> Tensor:
        """ids (C, L) -> word vectors (C, L, w)."""
        return self.text_tower.embed_tokens(ids)

    def used_length(self, ids: Tensor) -> int:
        """The length of the prompts up to the last end token; L if the tower attends to padding."""
        return self.text_tower.used_length(ids)

    def encode_prompts(self, embeddings: Tensor, ids: Tensor) -> Tensor:
        """Word or prompt vectors (C, L, w) with their ids (C, L) -> (C, d), not normalised.

        Gradients flow to `embeddings`. A learnable context position has any ordinary id (the id of
        padding, start or end would move the end of the text). Prompts cost less when cut to their
        `used_length`; that is the caller's to do, once, since asking for it waits for the device. More than
        `_TEXTS_AT_ONCE` are processed in chunks whose activations the backward pass recomputes.
        """
        if len(ids) <= _TEXTS_AT_ONCE:
            return self.text_tower(embeddings, ids)
        chunks = zip(embeddings.split(_TEXTS_AT_ONCE), ids.split(_TEXTS_AT_ONCE), strict=True)
        # The activations of a thousand labels would fill the memory; each chunk's are recomputed instead.
        return torch.cat([checkpoint(self.text_tower, *chunk, use_reentrant=False) for chunk in chunks])

    @torch.no_grad()
    def encode_text(self, texts: Sequence[str]) -> Tensor:
        """Texts -> (C, d), not normalised, without gradients, in chunks."""
        chunks = []
        for start in range(0, len(texts), _TEXTS_AT_ONCE):
            ids = self.tokenize(texts[start : start + _TEXTS_AT_ONCE])
            ids = ids[:, : self.used_length(ids)]
            chunks.append(self.encode_prompts(self.embed_tokens(ids), ids))
        return torch.cat(chunks) if chunks else torch.empty(0, self.width)

    def train(self, mode: bool = True) -> "Backbone":
        """Training mode for the trained parts only.

        The text tower, frozen blocks and every batch norm stay in evaluation mode: batch statistics of small
        fine-tuning batches would make an image's features depend on the rest of its batch.
        """
        super().train(mode)
        if mode:
            for module in self.modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm) or not any(
                    parameter.requires_grad for parameter in module.parameters()
                ):
                    module.training = False
        return self
