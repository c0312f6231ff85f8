"""What a run has found, and what it writes about that."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from sspa.stage2_training.config.run_config import RunConfig
from sspa.stage2_training.evaluation.metrics import Metrics
from sspa.stage2_training.model.contract import Head, trainable_count
from sspa.stage2_training.model.recognizer import Recognizer
from sspa.stage2_training.runs.records import BackboneRecord, PrecisionRecord, ResultRecord, TaughtRecord
from sspa.stage2_training.runs.run_folder import RunFolder


@dataclass(frozen=True)
class RunResult:
    """Test metrics by branch ("region", "global", "both"), of the best epoch and of the untrained model.

    `measured` is the split they are of: val where the data has no test.
    """

    folder: RunFolder
    best_epoch: int
    measured: str
    val: dict[str, Metrics]
    test: dict[str, Metrics]
    untrained: dict[str, Metrics]


def result_record(
    result: RunResult,
    recognizer: Recognizer,
    config: RunConfig,
    costs: Mapping[str, Any],
    taught: TaughtRecord | None = None,
) -> ResultRecord:
    """result.json, finished now; `costs` are its times and peak memory, `taught` is what a teacher has said."""
    backbone = recognizer.backbone
    return ResultRecord(
        best_epoch=result.best_epoch,
        branch_shares=_branch_shares(result, recognizer.head),
        measured=result.measured,
        test=result.test,
        val=result.val,
        untrained_test=result.untrained,
        backbone=BackboneRecord(name=backbone.name, description=backbone.description),
        trained_parameters=trainable_count(recognizer),
        precision=PrecisionRecord(training=config.training.precision, scoring=backbone.precision),
        taught=taught,
        finished=time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        **costs,
    )


def write_descriptions(folder: RunFolder, head: Head, keys: Sequence[str]) -> None:
    """descriptions.json: which descriptions of each label the head reads; nothing if it reads none."""
    if head.descriptions is None:
        return
    record = {
        key: [asdict(description) for description in of_label]
        for key, of_label in zip(keys, head.descriptions, strict=True)
    }
    folder.write_json("descriptions.json", {"labels": record})


def _branch_shares(result: RunResult, head: Head) -> dict[str, float] | None:
    if head.branch_shares is None or len(head.branch_shares) == 1:
        return None
    branches = [branch for branch in result.test if branch != "both"]
    return dict(zip(branches, (round(share, 6) for share in head.branch_shares.tolist()), strict=True))
