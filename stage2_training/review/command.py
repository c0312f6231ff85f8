"""Puts a review together: the photos, the file, the model, and the page in front of them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sspa.shared.errors import UserError
from sspa.shared.knowledge import Knowledge
from sspa.shared.label_sets import LabelSet
from sspa.shared.terminal import loading, say
from sspa.stage2_training.config.presets import preset_settings
from sspa.stage2_training.config.resolving import resolve_config
from sspa.stage2_training.config.run_config import RunConfig, TrainingOptions
from sspa.stage2_training.data.columns import Paths, Texts
from sspa.stage2_training.data.image_files import find_photos
from sspa.stage2_training.data.images_on_disk import check_images
from sspa.stage2_training.data.manifest import Manifest, read_manifest
from sspa.stage2_training.data.reviewed.review_file import open_review
from sspa.stage2_training.review.strategy import AtRandom, MostDoubtfulFirst, RareLabelsFirst, Strategy
from sspa.stage2_training.runs.run_folder import RunFolder
from sspa.stage2_training.serving.address import listen, serve_until_interrupted

if TYPE_CHECKING:
    import torch

    from sspa.stage2_training.review.learning import Learner

# The recipe for a few photos, in every domain. There is no val to choose an epoch, so that all of them are used.
_FEW_PHOTOS = "embedded-photos-few"
# Of training on from a run's weights.
_GOING_ON_LR = 1e-4
_HOST = "127.0.0.1"
_PRESETS = {"pedestrian": "embedded-pedestrian", "remote_sensing": "embedded-aerial"}


@dataclass(frozen=True)
class Options:
    """How to review.

    Attributes:
        every: the model learns after so many more answers.
        at_random: the control strategy.
        by: who answers.
        port: where the page is served, on this machine alone.
        seed: of what is drawn.
    """

    every: int = 10
    at_random: bool = False
    by: str = ""
    port: int = 7861
    seed: int = 0


def review_config(
    knowledge: Path, domain: str, files: Sequence[Path], settings: Sequence[str], fast: Sequence[str]
) -> RunConfig:
    """The configuration of the model that learns from the answers.

    Args:
        knowledge: named in the configuration, not read.
        domain: of the labels, which says the embedded backbone's preset.
        files, settings: of the user; see `resolve_config`.
        fast: settings of the model, unless the user names any.

    Raises:
        UserError: see `resolve_config`.
    """
    own_model = files or any(setting.startswith("model.") for setting in settings)
    embedded = not files and not any(setting.startswith("backbone.name=") for setting in settings)
    preset = _PRESETS.get(domain, "embedded-photos") if embedded else "none"
    base = {f"training.{key}": value for key, value in _few_photos().items()} | {"knowledge": str(knowledge)}
    return resolve_config(files, [*(() if own_model else fast), *settings], base=base, preset=preset)


def going_on_from(folder: RunFolder) -> RunConfig:
    """The configuration with which a run's model goes on to learn.

    Raises:
        UserError: the run has trained the image tower, whose features cannot be kept.
    """
    config = folder.config()
    if config.backbone.tower != "frozen":
        raise UserError(
            f"{folder.path}: has trained its image tower ({config.backbone.tower}); review with a run whose tower is "
            "frozen, or with labels"
        )
    few = TrainingOptions.model_validate(config.training.model_dump() | _few_photos() | {"lr": _GOING_ON_LR})
    return config.model_copy(update={"training": few})


def _few_photos() -> dict[str, Any]:
    return dict(preset_settings(_FEW_PHOTOS)["training"])


def serve_review(
    knowledge: Knowledge,
    config: RunConfig,
    run: RunFolder | None,
    root: Path,
    out: Path,
    checked: Path | None,
    suspects: Path | None,
    tags: Path | None,
    device: "Callable[[], torch.device]",
    options: Options,
) -> None:
    """Serve the review's page until interrupted.

    Args:
        knowledge: about the labels that are asked about.
        config: see `review_config` and `going_on_from`.
        run: whose trained model suggests; None: an untrained one.
        root: the folder of the photos.
        out: the review file, made or gone on with.
        checked: a manifest whose marks are checked, of its images; None: all photos below `root`, without any.
        suspects: with it, the table of an audit that says which marks are doubtful.
        tags: where the labels of all photos are written at the end, by the model as it has learned; None: nowhere.
        device: to compute on.
        options: see there.

    Raises:
        UserError: no photos, a review file of other labels or photos, or a port that is taken.
    """
    try:
        import starlette as _  # noqa: F401 - the extra's packages
        import uvicorn as __  # noqa: F401
    except ImportError as error:
        raise UserError(f"review needs {error.name}: install sspa with the extra `review`") from error
    labels = LabelSet("review", knowledge.labels, domain=knowledge.domain)
    if checked is None:
        paths, given = find_photos(root), None
    else:
        manifest = read_manifest(checked)
        check_images(manifest, root)
        paths, given = list(manifest.paths), given_marks(manifest, labels)
    qualities = None if suspects is None else photo_qualities(suspects, root, paths)
    with listen(_HOST, options.port) as listening, open_review(out, labels) as file:
        _check_photos(file.answers.marks(), paths, out, root)
        with loading():
            from sspa.stage2_training.inference.loading import load_recognizer
            from sspa.stage2_training.inference.tagger import Tagger
            from sspa.stage2_training.prediction.job import write_predictions
            from sspa.stage2_training.review.learning import Learner
            from sspa.stage2_training.review.maps import MapDrawer
            from sspa.stage2_training.review.server import make_app
            from sspa.stage2_training.review.session import Session

            where = device()
        trained = None if run is None else load_recognizer(run, where)[0]
        learner = Learner(config, knowledge, root, paths, where, trained)
        meanwhile, strategy = _strategies(learner, given, qualities, options)
        session = Session(learner, file, labels.labels, paths, meanwhile, strategy, options.every, given)
        if learner.knows_photos():
            session.read_photos()
        else:
            say("while the model reads the photos, the page asks in random order, without suggestions")
        port = listening.getsockname()[1]
        app = make_app(session, root, MapDrawer(learner, root, paths), options.by, _HOST, port)
        with session.learning():
            serve_until_interrupted(app, listening, _HOST)
        progress = session.progress()
        say(f"{out}: {progress['answered']:,} of {len(paths):,} photos are answered")
        if tags is not None:
            tagger = Tagger(learner.recognizer(), knowledge, config.evaluation.views, None, threshold=0.5)
            write_predictions(tagger, Paths(root, Texts(paths)), tags, config.evaluation.batch_size)
    if checked is not None:
        say(f"correct them: sspa-train data prepare {checked} --review {out} --root {root} --output corrected.parquet")
        return
    others = " --unanswered" if progress["answered"] < len(paths) else ""
    say(f"train on them: sspa-train data prepare custom --review {out} --root {root}{others}")


def _strategies(
    learner: "Learner", given: NDArray[np.int8] | None, qualities: NDArray[np.float64] | None, options: Options
) -> tuple[Strategy, Callable[[], Strategy]]:
    """What asks while the model reads the photos, and what makes the strategy that asks from then on."""
    at_random = AtRandom(options.seed)
    if given is not None:
        doubtful = MostDoubtfulFirst(given, qualities)
        # What an audit doubts is known before the model has seen anything.
        return at_random if qualities is None else doubtful, lambda: doubtful
    if options.at_random:
        return at_random, lambda: at_random
    return at_random, lambda: RareLabelsFirst(learner.pooled, options.seed)


def given_marks(manifest: Manifest, labels: LabelSet) -> NDArray[np.int8]:
    """(N, C): what a manifest says about its images; -1 for labels that it does not have.

    Raises:
        UserError: it has none of the labels.
    """
    column_of = {key: column for column, key in enumerate(manifest.labels.keys)}
    if not any(key in column_of for key in labels.keys):
        raise UserError(f"--check: the manifest has other labels ({', '.join(manifest.labels.keys[:5])})")
    given = np.full((len(manifest.ids), len(labels.keys)), -1, dtype=np.int8)
    for column, key in enumerate(labels.keys):
        if key in column_of:
            given[:, column] = manifest.targets[:, column_of[key]]
    return given


def photo_qualities(suspects: Path, root: Path, paths: Sequence[str]) -> NDArray[np.float64]:
    """(N,): how much an audit trusts the worst mark of each photo; 1 where it doubts none.

    Raises:
        UserError: it is no table of suspects, or of other photos.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(suspects, columns=["path", "quality"])
    except (pa.ArrowException, OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0][:160]
        raise UserError(f"--suspects {suspects}: not a table of `data audit` ({reason})") from error
    row_of = {str((root / path).absolute()): row for row, path in enumerate(paths)}
    qualities, found = np.ones(len(paths)), False
    for path, quality in zip(table["path"].to_pylist(), table["quality"].to_pylist(), strict=True):
        row = row_of.get(str(Path(path).absolute()))
        if row is not None:
            qualities[row], found = min(qualities[row], quality), True
    if not found:
        raise UserError(f"--suspects {suspects}: doubts none of the photos below {root}; is it of other ones?")
    return qualities


def _check_photos(answered: dict[str, dict[str, int]], paths: Sequence[str], out: Path, root: Path) -> None:
    here = set(paths)
    gone = [path for path in answered if path not in here]
    if answered and len(gone) == len(answered):
        raise UserError(f"{out}: is a review of other photos (such as {gone[0]}); give their folder, or another --out")
    if gone:
        say(f"{out}: {len(gone):,} answered photos are no longer in {root}, the answers are kept; one is {gone[0]}")
