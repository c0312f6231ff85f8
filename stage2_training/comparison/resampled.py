"""A run's mAP on resampled test images: drawn once for a table, computed once for a run, then read from the cache."""

import hashlib
import json
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray

from sspa.shared.cache import cache_folder
from sspa.stage2_training.compute.cached_tensor import cached_tensor
from sspa.stage2_training.evaluation.bootstrap import resampled_map, resampling_weights
from sspa.stage2_training.runs.run_folder import RunFolder
from sspa.stage2_training.runs.stored_tensors import read_predictions

# Of what is computed from the same predictions; to be raised when that changes.
_VERSION = 2


def resampled_test_map(
    folder: RunFolder, keys: Sequence[str], wanted: Sequence[str], resamples: int
) -> NDArray[np.float64]:
    """(R,) mAP in percent of a run's test predictions over some labels; resample r has the same images in every run.

    The cache's entry is named by a hash over all that it is computed from: the run may move or train again.

    Args:
        keys: the labels of the predictions' columns.
        wanted: the labels that count.

    Raises:
        UserError: the run's predictions cannot be read.
    """
    predicted, targets = read_predictions(folder)
    columns = [place for place, key in enumerate(keys) if key in wanted]
    probabilities, targets = predicted["both"][:, columns], targets[:, columns]
    protocol = folder.record().protocol.rules()
    digest = hashlib.sha256(json.dumps([_VERSION, protocol.hash, resamples, probabilities.shape]).encode())
    digest.update(probabilities.tobytes())
    digest.update(targets.tobytes())
    path = cache_folder("resampled") / f"{digest.hexdigest()}.safetensors"

    def drawn() -> torch.Tensor:
        weights = _weights(len(targets), resamples)
        return torch.from_numpy(100 * resampled_map(probabilities, targets, protocol, weights))

    found: NDArray[np.float64] = cached_tensor(path, drawn, lambda kept: kept.shape == (resamples,)).numpy()
    return found


@lru_cache(maxsize=1)
def _weights(images: int, resamples: int) -> NDArray[np.int32]:
    weights = resampling_weights(images, resamples)
    weights.flags.writeable = False
    return weights
