"""The model behind a review's suggestions: trained again on what has been answered, on features computed once.

Legend: N photos of the pool, C labels.
"""

import copy
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from sspa.shared.knowledge import Knowledge
from sspa.shared.terminal import say
from sspa.stage2_training.backbones.contract import ImageFeatures
from sspa.stage2_training.config.run_config import RunConfig
from sspa.stage2_training.data.columns import Paths, Texts
from sspa.stage2_training.data.dataset import Split
from sspa.stage2_training.features.batches import FeatureBatches
from sspa.stage2_training.features.kept_features import FeatureCache, KeptFeatures
from sspa.stage2_training.inference.loading import make_recognizer
from sspa.stage2_training.inference.scoring import score
from sspa.stage2_training.inference.untrained import untrained_head
from sspa.stage2_training.model.contract import Head
from sspa.stage2_training.model.options import View
from sspa.stage2_training.model.recognizer import Recognizer
from sspa.stage2_training.training.fit import fit
from sspa.stage2_training.training.teaching import sure_marks

# Of self-training: how sure is sure, how many photos without answers, and how often each answered one counts (on VOC's
# val; docs/results.md).
_SURELY, _OTHERS, _ANSWERS_COUNT = 0.8, 1500, 4
_TOGETHER = {"epochs": 3, "batch_size": 16}


class Learner:
    """Predicts the labels of every photo of a pool, before any answer and after each training.

    It has to read the photos first, which takes a while; see `read_photos`.

    Args:
        config: backbone, model, loss and schedule; of its data nothing is used.
        knowledge: about the C labels.
        root: the folder of the photos.
        paths: N photos below it.
        device: to compute on.
        trained: instead of the untrained model, one that a run has trained for these labels: training goes on from it.

    Attributes:
        unreadable: what is wrong with each photo that cannot be decoded, by its row.
        pooled: (N, d) the photos' features, by which the strategy tells them apart.

    Raises:
        UserError: the model cannot be loaded, or a label is too long for its text tower.
    """

    pooled: NDArray[np.float32]

    def __init__(
        self,
        config: RunConfig,
        knowledge: Knowledge,
        root: Path,
        paths: Sequence[str],
        device: torch.device,
        trained: Recognizer | None = None,
    ) -> None:
        self.config, self.device = config, device
        recognizer = trained or make_recognizer(config, knowledge, device)
        self._backbone, self._new, self._trained = recognizer.backbone, recognizer.head, trained is not None
        self._labels = len(knowledge.labels)
        self._head: Head = recognizer.head if trained else untrained_head(recognizer.backbone, knowledge, device)
        texts = Texts(paths)
        unknown = np.full((len(texts), self._labels), -1, dtype=np.int8)
        self._pool = Split("photos", texts, Paths(root, texts), unknown)
        # With regions whatever is trained: the untrained model, which suggests at first, reads them.
        self._cache = FeatureCache(self._backbone, device, config.data.workers)
        self._wanted: tuple[View, ...] = tuple(dict.fromkeys(("plain", *config.training.views)))
        self._views: dict[View, KeptFeatures] = {}
        self.unreadable: dict[int, str] = {}

    @property
    def has_read(self) -> bool:
        """Whether the photos have been read."""
        return bool(self._views)

    def knows_photos(self) -> bool:
        """Whether the features of all photos are kept from before, so that `read_photos` takes no time."""
        return self._cache.has(([self._pool], self._wanted))

    def read_photos(self, told: Callable[[int, int], None] = lambda *_: None) -> None:
        """Compute every photo's features, once; what is below needs them.

        Args:
            told: see `FeatureCache.keep`.

        Raises:
            UserError: they do not fit on the disk.
        """
        self._cache.keep(([self._pool], self._wanted), told=told)
        views = {view: self._cache.kept([self._pool], view)[0] for view in self._wanted}
        self.unreadable = dict(views["plain"].unreadable)
        if self.unreadable:
            say(f"left out, since they cannot be decoded: {'; '.join(sorted(self.unreadable.values())[:5])}")
        self.pooled = views["plain"].all_pooled().astype(np.float32)
        self._views = views

    def learn(self, rows: NDArray[np.int64], targets: NDArray[np.int8], go_on: Callable[[], bool]) -> bool:
        """Train from the start on these photos; whether it was finished. If not, the model is as it was.

        Torch's random state is preserved.

        Args:
            rows: of the photos in the pool.
            targets: (len(rows), C); 1 present, 0 absent, -1 unknown.
            go_on: asked before each step.
        """
        return self._fitted(rows, targets, self.config, rows, go_on)

    def teach_itself(
        self,
        rows: NDArray[np.int64],
        targets: NDArray[np.int8],
        others: NDArray[np.int64],
        go_on: Callable[[], bool],
    ) -> bool:
        """After `learn`, train from the start once more, also on what the model is sure of in photos without answers.

        Self-training (ours): at most `_OTHERS` of the others, with marks where the probability is near 0 or 1 and
        unknown elsewhere. Nothing of that is kept but the weights.

        Args:
            rows, targets, go_on: as for `learn`.
            others: rows of photos of which nothing is known.
        """
        if not len(others):
            return False
        draw = np.random.default_rng(self.config.training.seed)
        others = np.sort(draw.permutation(others)[:_OTHERS])
        guesses = sure_marks(self.probabilities()[others], _SURELY)
        training = self.config.training.model_copy(update=_TOGETHER)
        return self._fitted(
            np.concatenate([*[rows] * _ANSWERS_COUNT, others]),
            np.concatenate([*[targets] * _ANSWERS_COUNT, guesses]),
            self.config.model_copy(update={"training": training}),
            rows,
            go_on,
        )

    def _fitted(
        self,
        rows: NDArray[np.int64],
        targets: NDArray[np.int8],
        config: RunConfig,
        basis: NDArray[np.int64],
        go_on: Callable[[], bool],
    ) -> bool:
        """Train a new head on photos, and take it if it is finished; the joint space starts from those of `basis`."""
        options = config.training
        with torch.random.fork_rng(devices=[self.device] if self.device.type == "cuda" else []):
            torch.manual_seed(options.seed)
            recognizer = Recognizer(self._backbone, copy.deepcopy(self._new))
            size = min(options.batch_size, len(rows))
            views = [self._of(view, rows) for view in options.views]
            batches = FeatureBatches(views, targets, size, self.device, shuffle=True, seed=options.seed)
            if not self._trained:
                self._initialise(recognizer, basis, targets[: len(basis)])
            if not fit(recognizer, batches, config, go_on):
                return False
        self._head = recognizer.head
        return True

    def probabilities(self) -> NDArray[np.float32]:
        """(N, C): of every label in every photo, by the model as it is now."""
        everything = np.zeros((len(self.pooled), self._labels), dtype=np.int8)
        batches = FeatureBatches(
            [self._views["plain"]], everything, self.config.evaluation.batch_size, self.device, seed=0
        )
        return score(Recognizer(self._backbone, self._head), [batches])["both"]

    def features(self, row: int) -> ImageFeatures:
        """A photo's features, on the device, as of one image."""
        return self._widened(np.array([row]))

    def recognizer(self) -> Recognizer:
        """The model as it is now, in evaluation mode."""
        return Recognizer(self._backbone, self._head).eval()

    def _of(self, view: View, rows: NDArray[np.int64]) -> KeptFeatures:
        kept = self._views[view]
        return replace(kept, rows=rows if kept.rows is None else kept.rows[rows], unreadable={})

    def _widened(self, rows: NDArray[np.int64]) -> ImageFeatures:
        features = self._views["plain"].take(rows)
        return ImageFeatures(features.pooled.float().to(self.device), features.regions.float().to(self.device))

    def _initialise(self, recognizer: Recognizer, rows: NDArray[np.int64], targets: NDArray[np.int8]) -> None:
        # Neighbours in a folder are alike, so not its first ones.
        sampled = np.random.default_rng(self.config.training.seed).permutation(len(rows))[
            : recognizer.head.sample_images
        ]
        with torch.no_grad():
            labels = recognizer.encode_labels()
        recognizer.head.initialise(
            self._widened(rows[sampled]), torch.from_numpy(targets[sampled]).to(self.device), labels
        )
