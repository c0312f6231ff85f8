"""Features of texts: computed once, then read from the cache."""

import hashlib
import json
from collections.abc import Sequence

from torch import Tensor

from sspa.shared.cache import cache_folder
from sspa.shared.errors import UserError
from sspa.shared.terminal import say
from sspa.stage2_training.backbones.contract import Backbone
from sspa.stage2_training.compute.tensor_files import UNREADABLE, read_tensors, write_tensors


def cached_text_features(backbone: Backbone, texts: Sequence[str], knowledge_hash: str) -> Tensor:
    """`backbone.encode_text(texts)`, (C, d), from the cache if these texts were encoded before.

    The entry's name is a hash over the backbone's fingerprint, the knowledge's content hash and the texts
    in their order, so that another description, template, label order or tower is a cache miss.
    """
    parts = json.dumps([backbone.fingerprint, knowledge_hash, list(texts)])
    path = cache_folder("texts") / f"{hashlib.sha256(parts.encode()).hexdigest()}.safetensors"
    device = next(backbone.text_tower.parameters()).device
    if path.is_file():
        try:
            features = read_tensors(path)["features"]
            if features.shape == (len(texts), backbone.width) and features.is_floating_point():
                return features.to(device)
        except (*UNREADABLE, KeyError, UserError):
            pass
        say(f"{path}: damaged text features in the cache; computing them again")
    features = backbone.encode_text(texts)
    try:
        write_tensors({"features": features}, path)
    except UserError as error:
        say(f"{error}; going on without keeping these text features")
    return features
