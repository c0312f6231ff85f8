"""Lists the runs below a folder with their main results, whatever their state."""

import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args, get_type_hints

from sspa.shared.errors import UserError
from sspa.shared.json_files import read_json
from sspa.shared.locked_sql import SECONDS, Rows, run_locked
from sspa.stage2_training.runs.records import ResultRecord, RunRecord, read_epochs, read_record

if TYPE_CHECKING:
    import pyarrow as pa

FINISHED, UNFINISHED, DAMAGED = "finished", "unfinished", "damaged"


@dataclass(frozen=True)
class ListedRun:
    """One run folder; mAP in percent, None if the run has not got that far or its head has no such branch.

    Attributes:
        run: the folder, relative to the listed one.
        state: finished, unfinished or damaged; `problem` says what is wrong with a damaged one.
        refit_of: the run that was measured, if this is a refit of one: the figures are that one's.
        epochs: as configured; `epochs_done` is the number in metrics.jsonl.
        measured: the split of `test_map` and the others after it: val where the data has no test.
        folds_map: of a refit, by models that had not seen the images; see `sspa-train refit --folds`.
        config: the resolved configuration as JSON.
    """

    run: str
    state: str
    problem: str = ""
    data: str | None = None
    protocol: str | None = None
    protocol_hash: str | None = None
    head: str | None = None
    backbone: str | None = None
    tower: str | None = None
    seed: int | None = None
    refit_of: str | None = None
    epochs: int | None = None
    epochs_done: int | None = None
    best_epoch: int | None = None
    val_map: float | None = None
    measured: str | None = None
    test_map: float | None = None
    region_map: float | None = None
    global_map: float | None = None
    untrained_map: float | None = None
    folds_map: float | None = None
    trained_parameters: int | None = None
    seconds: float | None = None
    peak_memory_bytes: int | None = None
    knowledge_hash: str | None = None
    data_hash: str | None = None
    git: str | None = None
    config: str | None = None


def find_run_folders(root: Path) -> list[Path]:
    """Every run folder below `root` (or `root` itself), by name; folders within a run are not searched.

    Raises:
        UserError: there is no such folder.
    """
    if not root.is_dir():
        raise UserError(f"{root}: there is no such folder; runs are made by `sspa-train run`, under runs/ by default")
    found = []
    for folder, below, files in os.walk(root):
        if "run.json" in files or ("config.json" in files and _is_a_runs(Path(folder) / "config.json")):
            found.append(Path(folder))
            below.clear()
        else:
            below[:] = [name for name in below if not name.startswith(".")]
    return sorted(found)


def list_runs(root: Path) -> list[ListedRun]:
    """The runs below `root`, including damaged ones, with the reason.

    Raises:
        UserError: there is no such folder.
    """
    return [_listed(path, root) for path in find_run_folders(root)]


def query_runs(root: Path, sql: str, seconds: float = SECONDS) -> Rows:
    """Column names and rows of one SQL statement over the runs below `root`.

    Tables: `runs` (see `ListedRun`), `per_class` (run, split, branch, label, ap in percent) of the finished ones, and
    `epochs` (run, epoch, loss, learning_rate, branch, val_map) with one row per epoch and branch.

    Raises:
        UserError: there is no such folder, or see `run_locked`.
    """
    runs = [(path, _listed(path, root)) for path in find_run_folders(root)]
    finished = [(path, run.run) for path, run in runs if run.state == FINISHED]
    per_class = [
        row for path, name in finished for row in _per_class(name, read_record(path / "result.json", ResultRecord))
    ]
    epochs = [row for path, run in runs if run.state != DAMAGED for row in _epochs(run.run, path)]
    tables = {
        "runs": _table([asdict(run) for _, run in runs], _schema_of_runs()),
        "per_class": _table(per_class, {"run": str, "split": str, "branch": str, "label": str, "ap": float}),
        "epochs": _table(
            epochs,
            {
                "run": str,
                "epoch": int,
                "loss": float,
                "learning_rate": float,
                "branch": str,
                "val_map": float,
            },
        ),
    }
    return run_locked(sql, tables, seconds=seconds)


def _listed(path: Path, root: Path) -> ListedRun:
    name = path.resolve().name if path == root else str(path.relative_to(root))
    if not (path / "run.json").is_file():
        return ListedRun(name, UNFINISHED)
    try:
        known = _known(path)
    except UserError as error:
        return ListedRun(name, DAMAGED, str(error))
    except (KeyError, TypeError, AttributeError) as error:
        # A readable config.json without the contents of a run's: edited by hand, or of a future version.
        return ListedRun(name, DAMAGED, f"{path}: does not hold what a run writes ({type(error).__name__}: {error})")
    return ListedRun(name, FINISHED if "best_epoch" in known else UNFINISHED, **known)


def _known(path: Path) -> dict[str, Any]:
    about, config = read_record(path / "run.json", RunRecord), _read(path / "config.json")
    known: dict[str, Any] = {
        "data": about.data.name,
        "data_hash": about.data.hash,
        "protocol": about.protocol.name,
        "protocol_hash": about.protocol.hash,
        "knowledge_hash": about.knowledge.hash,
        "git": about.environment.git,
        "head": config["model"]["head"],
        "backbone": config["backbone"]["name"],
        "tower": config["backbone"]["tower"],
        "seed": config["training"]["seed"],
        "refit_of": about.refit and about.refit.of,
        "epochs": config["training"]["epochs"],
        "epochs_done": max((line.epoch for line in read_epochs(path / "metrics.jsonl")), default=0),
        "config": json.dumps(config),
    }
    if not (path / "result.json").is_file():
        return known
    result = read_record(path / "result.json", ResultRecord)
    test = result.test
    return known | {
        "best_epoch": result.best_epoch,
        "val_map": 100 * result.val["both"].mAP,
        "measured": result.measured,
        "test_map": 100 * test["both"].mAP,
        "region_map": 100 * test["region"].mAP if "region" in test else None,
        "global_map": 100 * test["global"].mAP if "global" in test else None,
        "untrained_map": 100 * result.untrained_test["both"].mAP,
        "folds_map": 100 * result.folds.metrics["both"].mAP if result.folds else None,
        "trained_parameters": result.trained_parameters,
        "seconds": result.seconds,
        "peak_memory_bytes": result.peak_memory_bytes,
    }


def _is_a_runs(config: Path) -> bool:
    """Whether a config.json belongs to a run that was stopped before it wrote run.json, and not to a model."""
    try:
        tree = _read(config)
    except UserError:
        return False
    return isinstance(tree, dict) and {"knowledge", "training", "evaluation"} <= set(tree)


def _read(path: Path) -> Any:
    # Not by RunFolder: it imports torch, and listing runs should be instant.
    try:
        return read_json(path)
    except FileNotFoundError as error:
        raise UserError(f"{path}: cannot be read (it is missing)") from error


def _per_class(name: str, result: ResultRecord) -> Iterator[dict[str, Any]]:
    for split, by_branch in (("val", result.val), ("test", result.test)):
        for branch, metrics in by_branch.items():
            for label, value in metrics.per_class.items():
                yield {"run": name, "split": split, "branch": branch, "label": label, "ap": 100 * value}


def _epochs(name: str, folder: Path) -> Iterator[dict[str, Any]]:
    for line in read_epochs(folder / "metrics.jsonl"):
        known = {"epoch": line.epoch, "loss": line.loss, "learning_rate": line.learning_rate}
        for branch, metrics in line.val.items():
            yield {"run": name, **known, "branch": branch, "val_map": 100 * metrics.mAP}


def _schema_of_runs() -> dict[str, type]:
    """Column -> type; `int | None` is int."""
    return {name: (get_args(hint) or (hint,))[0] for name, hint in get_type_hints(ListedRun).items()}


def _table(rows: list[dict[str, Any]], schema: dict[str, type]) -> "pa.Table":
    import pyarrow as pa

    kinds = {str: pa.string(), int: pa.int64(), float: pa.float64()}
    return pa.Table.from_pylist(rows, schema=pa.schema([(name, kinds[kind]) for name, kind in schema.items()]))
