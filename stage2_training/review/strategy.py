"""What to ask next: photos that teach the model most, and a share drawn at random by which it is judged.

Ours. Asking what the model is least sure of was tried, on VOC, and is worse than asking at random: those photos are
like no others. What pays is to have every label early, by photos that probably show it, but not those that show it best
(docs/results.md).

Legend: N photos of the pool, C labels.
"""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from sspa.stage2_training.data.reviewed.entries import Chosen

# From here on, a label is probably there; below, a photo is drawn in proportion to its probability times the other.
_LIKELY, _UNLIKELY_WEIGHT = 0.3, 0.1


class Strategy(Protocol):
    """Chooses photos that have not been answered."""

    def choose(
        self, probabilities: NDArray[np.float32], targets: NDArray[np.int8], answered: NDArray[np.bool_], count: int
    ) -> list[tuple[int, Chosen]]:
        """At most `count` rows, each with why it was chosen, in the order in which to ask.

        Args:
            probabilities: (N, C), the model's.
            targets: (N, C); 1 present, 0 absent, -1 unknown, as answered so far.
            answered: (N,), photos not to be asked about again.
            count: how many.
        """


@dataclass(frozen=True)
class RareLabelsFirst:
    """Each photo is drawn among those that probably show the label with the fewest photos so far.

    Attributes:
        seed: of the draws. The same answers and probabilities always give the same photos.
        random_every: each so-and-so-manieth photo is drawn from all that are left, for judging; 0: none.
    """

    seed: int = 0
    random_every: int = 5

    def choose(
        self, probabilities: NDArray[np.float32], targets: NDArray[np.int8], answered: NDArray[np.bool_], count: int
    ) -> list[tuple[int, Chosen]]:
        """See `Strategy`."""
        done = int(answered.sum())
        draw = np.random.default_rng([self.seed, done])
        left = ~answered
        # Those that are chosen here count as what they probably show.
        have = (targets == 1).sum(axis=0).astype(np.float64)
        chosen: list[tuple[int, Chosen]] = []
        while left.any() and len(chosen) < count:
            at_random = self.random_every > 0 and (done + len(chosen)) % self.random_every == self.random_every - 1
            if at_random:
                weights = left.astype(np.float64)
            else:
                # Among labels with as few photos, any.
                rarest = int((have + draw.uniform(0, 1e-3, len(have))).argmin())
                weights = self._weights(probabilities[:, rarest], left)
            row = int(draw.choice(len(left), p=weights / weights.sum()))
            chosen.append((row, "random" if at_random else "useful"))
            left[row] = False
            have += probabilities[row]
        return chosen

    @staticmethod
    def _weights(probabilities: NDArray[np.float32], left: NDArray[np.bool_]) -> NDArray[np.float64]:
        weights = np.where(probabilities > _LIKELY, 1.0, _UNLIKELY_WEIGHT * probabilities + 1e-9)
        return np.where(left, weights, 0.0).astype(np.float64)


@dataclass(frozen=True)
class AtRandom:
    """The control: any photo that is left."""

    seed: int = 0

    def choose(
        self, probabilities: NDArray[np.float32], targets: NDArray[np.int8], answered: NDArray[np.bool_], count: int
    ) -> list[tuple[int, Chosen]]:
        """See `Strategy`."""
        draw = np.random.default_rng([self.seed, int(answered.sum())])
        rows = draw.permutation(np.flatnonzero(~answered))
        return [(int(row), "random") for row in rows[:count]]


@dataclass(frozen=True)
class MostDoubtfulFirst:
    """For given marks that are checked: the photos whose marks the model, or an audit, contradicts most.

    Attributes:
        given: (N, C); 1 present, 0 absent, -1 unknown.
        qualities: (N,), how much an audit trusts each photo's worst mark, lower is worse; None: by the model.
    """

    given: NDArray[np.int8]
    qualities: NDArray[np.float64] | None = None

    def choose(
        self, probabilities: NDArray[np.float32], targets: NDArray[np.int8], answered: NDArray[np.bool_], count: int
    ) -> list[tuple[int, Chosen]]:
        """See `Strategy`."""
        trusted = self.qualities
        if trusted is None:
            of_marks = np.where(self.given == 1, probabilities, np.where(self.given == 0, 1 - probabilities, 1.0))
            trusted = of_marks.min(axis=1)
        order = np.argsort(trusted, kind="stable")
        return [(int(row), "check") for row in order[~answered[order]][:count]]
