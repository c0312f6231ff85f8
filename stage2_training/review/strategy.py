"""What to ask next: photos that teach the model most, and a share drawn at random by which it is judged.

Ours (docs/results.md). Asking what the model is least sure of was tried on VOC, and is worse than asking at random:
those photos are like no others. What pays is to see every label early, each by photos that many others are like.

Legend: N photos of the pool, C labels, d width of the features, R photos that stand for the pool.
"""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from sspa.stage2_training.data.reviewed.entries import Chosen

# From here on a label is probably there.
_LIKELY, _UNLIKELY_WEIGHT = 0.3, 0.1
# Similarities that are kept, N times R.
_SIMILARITIES = 20_000_000


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


class RareLabelsFirst:
    """Asks for the label with the fewest photos so far, by the photo that stands for most others that probably show it.

    What a photo stands for is measured as by facility location: how much more similar than any photo asked about before
    it is to the others, each weighed by how probably it shows the label.

    Args:
        pooled: (N, d), the photos' features.
        seed: of the draws. The same answers and probabilities always give the same photos.
        random_every: each so-and-so-manieth photo is drawn from all that are left, for judging; 0: none.
    """

    def __init__(self, pooled: NDArray[np.float32], seed: int = 0, random_every: int = 10) -> None:
        self._seed, self._random_every = seed, random_every
        centred = pooled - pooled.mean(axis=0)
        centred /= np.maximum(np.linalg.norm(centred, axis=1, keepdims=True), 1e-12)
        count = max(1, min(len(pooled), _SIMILARITIES // max(len(pooled), 1)))
        self._standing_for = np.sort(np.random.default_rng(seed).permutation(len(pooled))[:count])
        self._similar = np.maximum(centred @ centred[self._standing_for].T, 0.0)  # (N, R)

    def choose(
        self, probabilities: NDArray[np.float32], targets: NDArray[np.int8], answered: NDArray[np.bool_], count: int
    ) -> list[tuple[int, Chosen]]:
        """See `Strategy`."""
        done = int(answered.sum())
        draw = np.random.default_rng([self._seed, done])
        left = ~answered
        # Those that are chosen here count as what they probably show.
        have = (targets == 1).sum(axis=0).astype(np.float64)
        asked = (targets != -1).any(axis=1)
        covered = self._similar[asked].max(axis=0) if asked.any() else np.zeros(self._similar.shape[1], np.float32)
        chosen: list[tuple[int, Chosen]] = []
        while left.any() and len(chosen) < count:
            at_random = self._random_every > 0 and (done + len(chosen)) % self._random_every == self._random_every - 1
            if at_random:
                row = int(draw.choice(np.flatnonzero(left)))
            else:
                # Among labels with as few photos, any.
                rarest = int((have + draw.uniform(0, 1e-3, len(have))).argmin())
                row = self._standing_for_most(probabilities[:, rarest], covered, left)
            chosen.append((row, "random" if at_random else "useful"))
            left[row] = False
            have += probabilities[row]
            covered = np.maximum(covered, self._similar[row])
        return chosen

    def _standing_for_most(
        self, probabilities: NDArray[np.float32], covered: NDArray[np.float32], left: NDArray[np.bool_]
    ) -> int:
        weights = np.where(probabilities > _LIKELY, 1.0, _UNLIKELY_WEIGHT * probabilities).astype(np.float32)
        rows = np.flatnonzero(left)
        if len(likely := rows[weights[rows] == 1.0]):
            rows = likely  # any other weighs next to nothing
        gains = np.maximum(self._similar[rows] - covered, 0.0) @ weights[self._standing_for]
        return int(rows[(gains * weights[rows]).argmax()])


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
