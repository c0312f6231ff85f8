"""The typed records of a run: run.json, result.json, thresholds.json and the lines of metrics.jsonl.

Every reader uses these types. Unknown fields of later versions are kept; a missing or invalid field is named.
Imports nothing heavy, so that listing runs is instant.
"""

from pathlib import Path
from typing import Annotated, Any, Self, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from sspa.shared.errors import UserError
from sspa.shared.json_files import check_shape, parse_json, read_json
from sspa.stage2_training.evaluation.metrics import Metrics
from sspa.stage2_training.evaluation.protocol import Protocol
from sspa.stage2_training.evaluation.protocols import get_protocol

FORMAT_VERSION = 1
# Val images below which val chooses neither the epoch nor the branches' shares: six gave all to one branch, which cost
# five points (docs/results.md); how many do better was not measured.
FEWEST_TO_CHOOSE = 20


def _with_nan(value: Any) -> Any:
    """JSON has no NaN: an undefined metric is written as null."""
    if isinstance(value, dict):
        return {key: float("nan") if item is None else _with_nan(item) for key, item in value.items()}
    return value


StoredMetrics = Annotated[Metrics, BeforeValidator(_with_nan)]
ByBranch = dict[str, StoredMetrics]


class Record(BaseModel):
    """Frozen; fields added by later versions are kept."""

    model_config = ConfigDict(frozen=True, extra="allow")


class FormatRecord(Record):
    """The format of a run.json of any version."""

    format: int = 0


class DataRecord(Record):
    """The data of a run. `hash` is its manifest's; `unseen` are the labels unknown in training.

    `images`: how many each split has; empty in runs from before it was recorded.
    """

    name: str
    hash: str
    note: str = ""
    unseen: tuple[str, ...] = ()
    images: dict[str, int] = {}

    @property
    def val_chooses(self) -> bool:
        """Whether val has enough images to choose by."""
        return self.images.get("val", FEWEST_TO_CHOOSE) >= FEWEST_TO_CHOOSE


class ProtocolRecord(Record):
    """A protocol's name, the hash over its rules, and the rules if they are one's own."""

    name: str
    hash: str
    own: Protocol | None = None

    @classmethod
    def of(cls, protocol: Protocol) -> Self:
        """The record of a protocol."""
        return cls(name=protocol.name, hash=protocol.hash, own=protocol if protocol.based_on else None)

    def rules(self) -> Protocol:
        """The protocol.

        Raises:
            UserError: it is none of this version's.
        """
        return self.own or get_protocol(self.name)


class KnowledgeRecord(Record):
    """The knowledge file, and the hash of its content."""

    file: str
    hash: str


class EnvironmentRecord(Record):
    """Where a run was trained; see `compute/environment.py`. Earlier versions wrote only the first four."""

    python: str
    libraries: dict[str, str]
    gpu: str | None = None
    git: str | None = None
    images: dict[str, str] = {}
    system: str | None = None
    cpu: str | None = None
    instruction_sets: dict[str, str] = {}
    threads: dict[str, str] = {}
    cuda: dict[str, str] = {}


class PreprocessingRecord(Record):
    """How scoring prepares an image: resized to `size` (height, width) in one step, then normalised per channel."""

    size: tuple[int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    resize: str = "squash"
    interpolation: str = "bicubic"


class RefitRecord(Record):
    """That a model was trained on the splits that chose and measured it, too: on `splits`, `images` of them.

    `of` is the folder of the run that was measured, `weights` the SHA-256 of that one's weights. `folds`: by how many
    folds of these images the refit was measured; `fold`: 1/5 if it is one of those itself, trained without that part.
    """

    of: str
    weights: str
    splits: tuple[str, ...]
    images: int
    folds: int | None = None
    fold: str | None = None

    @property
    def words(self) -> str:
        """For people: whose figures there are, and why."""
        return (
            f"trained again on {' + '.join(self.splits)} ({self.images:,} images); the figures are those of "
            f"{Path(self.of).name}, trained on train alone"
        )


class RunRecord(FormatRecord):
    """run.json, written before training. `labels` are keys, in the order of every array of the run.

    `refit`: set where the figures are those of another run, whose choices this one repeats.
    """

    labels: Annotated[tuple[str, ...], Field(min_length=1)]
    data: DataRecord
    protocol: ProtocolRecord
    knowledge: KnowledgeRecord
    seed: int
    device: str
    processes: int = 1
    refit: RefitRecord | None = None
    environment: EnvironmentRecord
    preprocessing: PreprocessingRecord | None = None


class BackboneRecord(Record):
    """The backbone's name in the configuration, and its description."""

    name: str
    description: str


class PrecisionRecord(Record):
    """The precision of training, and of the image tower for cached features and scoring."""

    training: str
    scoring: str


class TaughtRecord(Record):
    """What a teacher has put in place of unknown marks of train: how many labels `present` and `absent`, in how many
    `images`; the teacher's folder and the SHA-256 of its weights."""

    teacher: str
    weights: str
    images: int
    present: int
    absent: int

    @property
    def words(self) -> str:
        """For people: what was taught, by whom."""
        said = f"{self.present:,} labels present and {self.absent:,} absent in {self.images:,} images"
        return f"{said}; teacher: {Path(self.teacher).name}"


class FoldsRecord(Record):
    """The figures of a refit's folds: `count` models, each measured on the part of the images that it was not trained
    on, their predictions put together. `interval`: 95% of mAP, by the images' chance alone."""

    count: int
    images: int
    metrics: ByBranch
    interval: tuple[float, float]

    @property
    def words(self) -> str:
        """For people: mAP and what it is of."""
        low, high = (f"{100 * bound:.1f}" for bound in self.interval)
        mean = f"{100 * self.metrics['both'].mAP:.1f}"
        return f"mAP {mean} [{low}, {high}] on {self.images:,} images by {self.count} models that had not seen them"


class ResultRecord(Record):
    """result.json, written last. Metrics by branch: "region", "global", and "both", the prediction.

    `finished` is the time of day in UTC, None in runs from before it was recorded.
    `measured` is the split that the figures of `test` are of: val where the data has no test. `branch_shares`: each
    branch's share in the prediction; None where there is one branch, and in runs from before there were shares.
    `folds`: further figures of a refit.
    """

    best_epoch: int
    branch_shares: dict[str, float] | None = None
    measured: str = "test"
    test: ByBranch
    val: ByBranch
    untrained_test: ByBranch
    backbone: BackboneRecord
    trained_parameters: int
    precision: PrecisionRecord | None = None
    taught: TaughtRecord | None = None
    folds: FoldsRecord | None = None
    finished: str | None = None
    seconds: float
    train_seconds: float | None = None
    peak_memory_bytes: int | None = None
    peak_gpu_memory_bytes: int | None = None

    @property
    def mixture(self) -> str | None:
        """The prediction as a sum of branches, such as "0.6 region + 0.4 global"; None where there is only one."""
        if self.branch_shares is None:
            return None
        return " + ".join(f"{share:.2g} {branch}" for branch, share in self.branch_shares.items() if share)


class ThresholdsRecord(Record):
    """thresholds.json: the tuned threshold of each label key, and what it was tuned on."""

    description: str
    values: dict[str, float]


class DescriptionRecord(Record):
    """A description, its weight in its label's knowledge (0: not used), and the score it was selected by, if any."""

    text: str
    weight: float
    score: float | None = None


class DescriptionsRecord(Record):
    """descriptions.json: which descriptions the run's head reads, per label key."""

    labels: dict[str, tuple[DescriptionRecord, ...]]


class EpochRecord(Record):
    """One line of metrics.jsonl; epoch 0 is the untrained model, without a loss."""

    epoch: int
    val: ByBranch = {}
    loss: float | None = None
    learning_rate: float | None = None


AnyRecord = TypeVar("AnyRecord", bound=Record)


def read_record(path: Path, kind: type[AnyRecord]) -> AnyRecord:
    """One of the run's JSON files.

    Raises:
        UserError: it is missing, damaged, or lacks a field.
    """
    try:
        return _checked(kind, read_json(path), path)
    except FileNotFoundError as error:
        raise UserError(f"{path.parent}: is not a finished run ({path.name} is missing)") from error


def read_epochs(path: Path) -> list[EpochRecord]:
    """The complete lines of metrics.jsonl, which need not exist yet.

    Raises:
        UserError: a line is damaged.
    """
    if not path.is_file():
        return []
    lines = path.read_bytes().split(b"\n")[:-1]
    return [_checked(EpochRecord, parse_json(line, str(path)), path) for line in lines]


def _checked(kind: type[AnyRecord], content: Any, path: Path) -> AnyRecord:
    return check_shape(kind, content, f"{path}: does not hold what a run writes")


def written(record: Record) -> dict[str, Any]:
    """A record as plain values for JSON; undefined metrics are None, and unset fields are left out."""
    tree: dict[str, Any] = record.model_dump(mode="json", exclude_none=True)
    for name in ("test", "val", "untrained_test"):
        if name in tree:
            tree[name] = {branch: metrics.to_dict() for branch, metrics in getattr(record, name).items()}
    return tree
