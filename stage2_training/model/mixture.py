"""The mixture of a head's branches: the prediction.

Legend: B images, C labels, K branches.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sspa.stage2_training.model.options import Averaged

# No finite logit gives a probability of 0 or 1, but float32 rounds to them.
_CLOSEST = 1e-7


@dataclass(frozen=True)
class Mixture:
    """Averages the branches (reconstruction).

    Attributes:
        averaged: "probabilities", or "logits": then one branch that is sure outvotes others that are not (our
            extension).
        shares: (K,), adding up to 1, in the order of the branches; None: equal ones.
    """

    averaged: Averaged = "logits"
    shares: Tensor | None = None

    def __call__(self, branches: Mapping[str, Tensor]) -> Tensor:
        """Probabilities (B, C) by branch -> (B, C); a single branch is left as it is."""
        if len(branches) == 1:
            return next(iter(branches.values()))
        terms = torch.stack(list(branches.values()))
        terms = terms.logit(_CLOSEST) if self.averaged == "logits" else terms
        mean = terms.mean(dim=0) if self.shares is None else torch.tensordot(self.shares.to(terms), terms, dims=1)
        return mean.sigmoid() if self.averaged == "logits" else mean

    def added_to(self, branches: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The branches, and under "both" the prediction."""
        return {**branches, "both": self(branches)}

    def added_to_arrays(self, branches: Mapping[str, NDArray[np.float32]]) -> dict[str, NDArray[np.float32]]:
        """`added_to` for arrays; what is already under "both" is replaced."""
        tensors = {branch: torch.from_numpy(values) for branch, values in branches.items() if branch != "both"}
        return {branch: values.cpu().numpy() for branch, values in self.added_to(tensors).items()}
