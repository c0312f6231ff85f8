"""Finds the run folder for `--resume`, and checks that the run in it is the requested one."""

import shutil
from pathlib import Path

from sspa.shared.errors import UserError
from sspa.shared.knowledge import Knowledge
from sspa.shared.terminal import say
from sspa.stage2_training.compute.environment import library_version
from sspa.stage2_training.config.resolving import differing_keys
from sspa.stage2_training.config.run_config import RunConfig
from sspa.stage2_training.data.dataset import Dataset
from sspa.stage2_training.runs.run_folder import RunFolder, open_run_folder

RUNS = Path("runs")


def folder_to_resume(out: Path | None, config: RunConfig) -> RunFolder | None:
    """The run folder to resume in; None if `out` is still empty, so that a run can start there.

    Args:
        out: the folder; the newest under runs/ with this configuration if None.

    Raises:
        UserError: the run in it has another configuration or a newer version, or there is none.
    """
    if out is not None:
        if not out.exists() or (out.is_dir() and not any(out.iterdir())):
            return None
        folder = open_run_folder(out)
        if refit := folder.record().refit:
            raise UserError(f"{out}: is a refit of {refit.of}; it is resumed by sspa-train refit, with --resume")
        if differing := _differing(folder.config(), config):
            raise UserError(
                f"{out}: was started with another configuration ({_differences(folder.config(), config, differing)}); "
                "give the same one, or train into another folder"
            )
        return folder
    folders = sorted(RUNS.glob("*/run.json"), key=lambda file: file.stat().st_mtime_ns, reverse=True)
    nearest: tuple[int, str] | None = None
    for file in folders:
        try:
            folder = open_run_folder(file.parent)
            if folder.record().refit:
                continue
            differing = _differing(folder.config(), config)
        except UserError:
            continue  # written by another version of the program: not this run
        if not differing:
            return folder
        if nearest is None or len(differing) < nearest[0]:
            nearest = len(differing), f"{folder.path} differs in {_differences(folder.config(), config, differing)}"
    hint = f"; the nearest, {nearest[1]}" if nearest else ""
    raise UserError(f"--resume: no run under {RUNS}/ has this configuration{hint}. Name one with --out")


def finished_run(out: Path | None, config: RunConfig) -> RunFolder | None:
    """The folder that `folder_to_resume` finds, if the run in it is finished.

    Removes checkpoints that are left over if the run was killed at its very end.

    Raises:
        UserError: see `folder_to_resume`.
    """
    folder = folder_to_resume(out, config)
    if folder is None or not folder.finished:
        return None
    shutil.rmtree(folder.file("checkpoints"), ignore_errors=True)
    return folder


def check_same_inputs(folder: RunFolder, dataset: Dataset, knowledge: Knowledge, processes: int) -> None:
    """Compare what the run was started with to the present; other libraries or processes only cause a warning.

    Raises:
        UserError: images, labels, protocol or knowledge have changed.
    """
    started = folder.record()
    if (before := started.processes) != processes:
        say(
            f"{folder.path}: was started with {before} processes and resumes with {processes}: the batches stay the "
            "same, dropout does not, so the result is another than that of an uninterrupted run"
        )
    if started.data.hash != dataset.content_hash:
        raise UserError(
            f"{folder.path}: the data {dataset.name} has changed since the run was started; train from the start"
        )
    if started.protocol.hash != dataset.protocol.hash:
        raise UserError(
            f"{folder.path}: the protocol {dataset.protocol.name} has changed since the run was started (its rules' "
            f"hash was {started.protocol.hash}, is {dataset.protocol.hash}); train from the start"
        )
    if started.knowledge.hash != knowledge.content_hash:
        raise UserError(f"{folder.path}: {knowledge.path} has changed since the run was started; train from the start")
    for name, version in started.environment.libraries.items():
        if (now := library_version(name)) != version:
            say(f"{folder.path}: was started with {name} {version}, resumes with {now}: last digits may differ")


def _differing(one: RunConfig, other: RunConfig) -> list[str]:
    """The keys that stand in the way of resuming. The data may have moved: its content is compared by its hash."""
    return [key for key in differing_keys(one, other) if key != "data.root"]


def _differences(one: RunConfig, other: RunConfig, keys: list[str]) -> str:
    """ "training.lr: 0.1, now 0.2; ..." of the first few keys."""

    def value(config: RunConfig, key: str) -> object:
        found: object = config.model_dump(mode="json")
        for part in key.split("."):
            found = found.get(part) if isinstance(found, dict) else None
        return found

    told = [f"{key}: {value(one, key)}, now {value(other, key)}" for key in keys[:5]]
    return "; ".join(told) + (f"; and {len(keys) - 5} more" if len(keys) > 5 else "")
