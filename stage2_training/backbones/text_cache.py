"""Features of texts: computed once, then read from the cache."""

import hashlib
import json
from collections.abc import Sequence

from torch import Tensor

from sspa.shared.cache import cache_folder
from sspa.stage2_training.backbones.contract import Backbone
from sspa.stage2_training.compute.cached_tensor import cached_tensor

# To be raised when what is computed from the same texts changes.
_VERSION = 2


def cached_text_features(backbone: Backbone, texts: Sequence[str], knowledge_hash: str) -> Tensor:
    """`backbone.encode_text(texts)`, (C, d), from the cache if these texts were encoded before.

    The entry's name is a hash over the backbone's fingerprint, the knowledge's content hash and the texts
    in their order, so that another description, template, label order or tower is a cache miss.
    """
    parts = json.dumps([_VERSION, backbone.fingerprint, knowledge_hash, list(texts)])
    path = cache_folder("texts") / f"{hashlib.sha256(parts.encode()).hexdigest()}.safetensors"
    shape = (len(texts), backbone.width)
    features = cached_tensor(
        path,
        lambda: backbone.encode_text(texts),
        lambda kept: kept.shape == shape and kept.is_floating_point(),
    )
    return features.to(next(backbone.text_tower.parameters()).device)
