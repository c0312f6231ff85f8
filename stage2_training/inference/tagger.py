"""A trained run, or the untrained model, as a function: images in, labels with probabilities out.

Legend: B images, M regions, C labels.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from sspa.shared.errors import UserError
from sspa.shared.knowledge import Knowledge, names_only
from sspa.shared.label_sets import Label, LabelSet, parse_label_set
from sspa.stage2_training.compute.device import choose_device, computes_bf16
from sspa.stage2_training.compute.precision import Precision
from sspa.stage2_training.config.run_config import BackboneOptions
from sspa.stage2_training.data.image_files import load_image, upright_rgb
from sspa.stage2_training.data.transforms import make_transform
from sspa.stage2_training.inference.loading import load_recognizer, rebind
from sspa.stage2_training.inference.region_maps import region_maps
from sspa.stage2_training.inference.untrained import shift_to_expect, untrained_recognizer
from sspa.stage2_training.model.contract import Prediction, UsedDescription, all_used, most_used_first
from sspa.stage2_training.model.options import View
from sspa.stage2_training.model.recognizer import Recognizer
from sspa.stage2_training.model.views import mean_over_views, under_view
from sspa.stage2_training.runs.run_folder import RunFolder, open_run_folder

AnyImage = str | Path | Image.Image | NDArray[Any]

_AT_ONCE = 32
# The size at which the embedded backbone is best on photos (docs/results.md).
_EMBEDDED_PIXELS = (384, 384)
_CLOSEST = 1e-7


@dataclass(frozen=True)
class Tags:
    """The model's predictions for one image.

    Attributes:
        probabilities: of every label, by key, the most probable first.
        predicted: the keys of the labels at or above their threshold, the most probable first.
    """

    probabilities: dict[str, float]
    predicted: tuple[str, ...]


class Tagger:
    """Tags images with a trained run, or without one: the one class that most users need. See docs/using.md.

    Example:
        tagger = Tagger.load("runs/voc2007-sspa-seed0")
        for tags in tagger(["a.jpg", Image.open("b.png")]):
            print(tags.predicted, tags.probabilities)

    It is not thread-safe while one thread binds other labels.

    Attributes:
        labels: the C labels, in the order of every array this class returns.
        thresholds: (C,) the probability from which each label counts as predicted.
        grid: rows and columns of the regions; their product is M.
        precision: of the image tower, "float32", "bf16" or "fp16".
    """

    def __init__(
        self,
        recognizer: Recognizer,
        knowledge: Knowledge,
        views: Sequence[View],
        folder: RunFolder | None,
        threshold: float | None,
    ) -> None:
        self.recognizer, self.knowledge, self.views, self._folder = recognizer, knowledge, tuple(views), folder
        self.threshold = threshold
        self.thresholds = self._thresholds_for(knowledge)
        backbone = recognizer.backbone
        self.grid = backbone.grid
        self.precision = backbone.precision
        self.transform = make_transform(backbone.image_size, train=False)
        self.device = next(recognizer.parameters()).device
        with torch.inference_mode():
            self.label_features = recognizer.encode_labels()

    @classmethod
    def load(
        cls,
        run: str | Path,
        *,
        device: str = "auto",
        precision: Precision | Literal["auto"] = "auto",
        knowledge: Knowledge | None = None,
        threshold: float | None = 0.5,
        allow_download: bool = False,
    ) -> "Tagger":
        """The model of a run folder, ready to use. Does not change random state or settings of the calling process.

        Args:
            run: a folder that `sspa-train run` wrote.
            device: auto takes a GPU if there is one.
            precision: of the image tower, however the run was trained; auto takes bf16 on a GPU that computes
                in it, else float32. bf16 changes probabilities by a few thousandths.
            knowledge: about labels other than those the run was trained on.
            threshold: the probability from which a label counts as predicted; None uses the thresholds that the run
                tuned on val, one per label (those of a refit may be tuned by folds).
            allow_download: get the model from the hub that the run names, if it is not there yet.

        Raises:
            UserError: not a run folder, a damaged or a newer one, a head that knows only its own labels, or
                labels without tuned thresholds.
        """
        folder = open_run_folder(Path(run))
        where = choose_device(device)
        recognizer, config, own = load_recognizer(folder, where, _suited(precision, where), allow_download)
        if knowledge is not None:
            rebind(recognizer, knowledge)
        return cls(recognizer, knowledge or own, config.evaluation.views, folder, threshold)

    @classmethod
    def zero_shot(
        cls,
        labels: Knowledge | Sequence[str],
        *,
        backbone: str = "embedded",
        weights: str | None = None,
        image_size: tuple[int, int] | None = None,
        device: str = "auto",
        precision: Precision | Literal["auto"] = "auto",
        threshold: float = 0.5,
        allow_download: bool = True,
    ) -> "Tagger":
        """SSPA before training: tags with any labels, without a data set. Its probabilities are rough; see `expect`.

        Example:
            tagger = Tagger.zero_shot(["dog", "bicycle", "red umbrella"])

        Args:
            labels: what `sspa-knowledge` wrote about them (`read_knowledge`), or their names.
            backbone: "embedded", or a model as for `backbone.name`.
            weights: as `backbone.weights`.
            image_size: (height, width) in pixels; None: 384 for "embedded", else the model's own.
            device: auto takes a GPU if there is one.
            precision: see `load`.
            threshold: the probability from which a label counts as predicted.
            allow_download: get a model from the hub that is not there yet.

        Raises:
            UserError: there is no such backbone, or a label is too long for its text tower.
        """
        where = choose_device(device)
        if not isinstance(labels, Knowledge):
            named = "\n".join(labels).encode()
            labels = names_only(parse_label_set(named, "labels", "labels"))
        if image_size is None and backbone == "embedded":
            image_size = _EMBEDDED_PIXELS
        options = BackboneOptions(name=backbone, weights=weights, image_size=image_size)
        recognizer = untrained_recognizer(labels, options, where, _suited(precision, where), allow_download)
        return cls(recognizer, labels, ("plain",), None, threshold)

    @property
    def folder(self) -> RunFolder:
        """The run's folder.

        Raises:
            UserError: this is no run's tagger.
        """
        if self._folder is None:
            raise UserError("this needs a trained run; without one there are only tags (sspa-train tag)")
        return self._folder

    @property
    def identity(self) -> str:
        """A hash of the model's weights: of the run's file, or of the towers and the head in memory."""
        if self._folder is not None:
            with self._folder.file("weights.safetensors").open("rb") as weights:
                return hashlib.file_digest(weights, "sha256").hexdigest()
        digest = hashlib.sha256(self.recognizer.backbone.fingerprint.encode())
        for name, value in sorted(self.recognizer.head.state_dict().items()):
            digest.update(name.encode() + value.detach().cpu().numpy().tobytes())
        return digest.hexdigest()

    def expect(self, labels_per_image: float, probabilities: NDArray[np.float32]) -> None:
        """From now on, predict so many labels per image, on average over some typical images.

        One number is added to every logit, so the ranking of labels and images stays as it was. It is rough: a single
        label's frequency may be anything.

        Args:
            labels_per_image: how many labels you expect, above 0 and below C.
            probabilities: of the typical images, a few hundred, until now (N, C).

        Raises:
            UserError: the number is out of range.
        """
        if not 0 < labels_per_image < len(self.labels):
            raise UserError(
                f"{labels_per_image:g} expected labels per image: give a number above 0 and below {len(self.labels)}, "
                "the number of labels"
            )
        logits = torch.from_numpy(probabilities).double().logit(_CLOSEST)
        shift = shift_to_expect(logits - torch.from_numpy(self.thresholds).logit(_CLOSEST), labels_per_image)
        with torch.no_grad():
            for bias in self.recognizer.head.logit_biases().values():
                bias.add_(shift)

    @property
    def labels(self) -> tuple[Label, ...]:
        return self.knowledge.labels

    def __call__(self, images: AnyImage | Sequence[AnyImage], batch_size: int = _AT_ONCE) -> list[Tags]:
        """The tags of each image, in the given order.

        Args:
            images: files, Pillow images, or uint8 arrays (H, W, 3) or (H, W); one, or a sequence.
            batch_size: the number of images per forward pass.

        Raises:
            UserError: an image cannot be read, or an array is not an image.
        """
        listed = [images] if isinstance(images, str | Path | Image.Image | np.ndarray) else list(images)
        tags: list[Tags] = []
        for start in range(0, len(listed), batch_size):
            batch = torch.stack([self._pixels(image) for image in listed[start : start + batch_size]])
            tags += [self.tags_of(row) for row in self.probabilities(batch)]
        return tags

    def prepare(self, image: AnyImage) -> Tensor:
        """One image as the model's input, (3, H, W), normalised.

        Raises:
            UserError: the image cannot be read, or the array is not an image.
        """
        return self.recognizer.backbone.normalised(self._pixels(image))

    def _pixels(self, image: AnyImage) -> Tensor:
        return self.transform(open_image(image, self.transform.decode_at_least))

    @torch.inference_mode()
    def probabilities(self, images: Tensor) -> NDArray[np.float32]:
        """Pixels (uint8) or prepared images (B, 3, H, W) -> (B, C): the mean over views and branches."""
        return self.explained(images, explain=False)[0]

    @torch.inference_mode()
    def explained(self, images: Tensor, explain: bool = True) -> tuple[NDArray[np.float32], Prediction]:
        """`probabilities`, and the model's prediction for the plain view, with evidence if `explain`."""
        images = images.to(self.device)
        plain = self.recognizer(images, self.label_features, explain)
        by_view = [
            plain if view == "plain" else self.recognizer(under_view(images, view), self.label_features)
            for view in self.views
        ]
        branches = mean_over_views([prediction.branches() for prediction in by_view])
        return plain.mixture(branches).cpu().numpy(), plain

    @torch.inference_mode()
    def maps(self, images: Tensor) -> tuple[NDArray[np.float32], NDArray[np.float32] | None]:
        """`probabilities`, and the region maps (B, C, rows, columns), or None if the head has no regions."""
        probabilities, prediction = self.explained(images)
        if prediction.evidence is None:
            return probabilities, None
        maps = region_maps(prediction.evidence).mT.unflatten(-1, self.grid)
        return probabilities, maps.float().cpu().numpy()

    def bind(self, knowledge: Knowledge) -> None:
        """From now on, tag with other labels, or with other descriptions of the same ones.

        Raises:
            UserError: the run's head knows only the labels it was trained on, a label is too long for its text tower,
                or tuned thresholds are requested and a label has none. The labels are then unchanged.
        """
        thresholds = self._thresholds_for(knowledge)
        try:
            rebind(self.recognizer, knowledge)
        except UserError:
            if self.recognizer.head.open_vocabulary:
                rebind(self.recognizer, self.knowledge)
            raise
        with torch.inference_mode():
            self.label_features = self.recognizer.encode_labels()
        self.knowledge, self.thresholds = knowledge, thresholds

    def by_name_only(self, images: Tensor) -> NDArray[np.float32] | None:
        """`probabilities` without the descriptions, (B, C); None if the head uses no label texts.

        The difference between the two is the contribution of the descriptions.
        """
        if not self.recognizer.head.open_vocabulary:
            return None
        own = self.knowledge
        self.bind(names_only(LabelSet("names", own.labels, domain=own.domain)))
        try:
            return self.probabilities(images)
        finally:
            self.bind(own)

    def descriptions(self, label: int) -> list[UsedDescription]:
        """The descriptions of the label at this position, those that the head uses first."""
        of_labels = self.recognizer.head.descriptions
        if of_labels is None:
            return all_used(self.knowledge.descriptions[self.labels[label].key])
        return most_used_first(of_labels[label])

    def tuned_thresholds(self) -> dict[str, float]:
        """The thresholds that the run tuned, by label key; labels other than its own have none."""
        return self.folder.thresholds().values

    def tags_of(self, row: NDArray[np.float32]) -> Tags:
        """One row of `probabilities` as Tags."""
        order = np.argsort(-row, kind="stable")
        keys = [self.labels[index].key for index in order]
        return Tags(
            {key: float(row[index]) for key, index in zip(keys, order, strict=True)},
            tuple(key for key, index in zip(keys, order, strict=True) if row[index] >= self.thresholds[index]),
        )

    def _thresholds_for(self, knowledge: Knowledge) -> NDArray[np.float64]:
        if self.threshold is not None:
            return np.full(len(knowledge.labels), self.threshold)
        return self.folder.tuned_for([label.key for label in knowledge.labels]).values


def _suited(precision: Precision | Literal["auto"], device: torch.device) -> Precision:
    """The precision of the image tower; auto: bf16 if the device computes it."""
    if precision == "auto":
        return "bf16" if computes_bf16(device) else "float32"
    return precision


def open_image(image: AnyImage, at_least: int | None = None) -> Image.Image:
    """An image in any of these forms as an upright RGB image; see `load_image`.

    Raises:
        UserError: it cannot be read, or the array is not uint8 of shape (H, W, 3) or (H, W).
    """
    if isinstance(image, str | Path):
        return load_image(Path(image), at_least)
    if isinstance(image, np.ndarray):
        if image.dtype != np.uint8 or not (image.ndim == 2 or (image.ndim == 3 and image.shape[2] == 3)):
            raise UserError(
                f"an array of type {image.dtype} and shape {image.shape} is not an image; "
                "give uint8 of shape (H, W, 3) or (H, W)"
            )
        image = Image.fromarray(image)
    return upright_rgb(image)
