"""The runs of a comparison: which configuration belongs in which folder, and which runs already exist."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from sspa.shared.errors import UserError
from sspa.shared.knowledge import read_knowledge
from sspa.shared.knowledge_control import control_rows
from sspa.shared.knowledge_format import write_knowledge
from sspa.shared.terminal import say
from sspa.stage2_training.comparison.definition import Comparison, Group, short_name
from sspa.stage2_training.config.resolving import differing_keys, resolve_config
from sspa.stage2_training.config.run_config import RunConfig
from sspa.stage2_training.runs.run_folder import RunFolder, open_run_folder

_CONTROL = "control:"
State = Literal["missing", "unfinished", "finished"]


@dataclass(frozen=True)
class PlannedRun:
    """One run of a comparison, and its folder."""

    group: Group
    variant: str
    seed: int
    config: RunConfig
    path: Path

    @property
    def title(self) -> str:
        """Its name in messages."""
        return ", ".join(part for part in (self.group.title, self.variant, f"seed {self.seed}") if part)


@dataclass(frozen=True)
class Work:
    """All runs of a comparison, and those that are not finished."""

    planned: Sequence[PlannedRun]
    left: Sequence[tuple[PlannedRun, State]]


def planned_work(
    comparison: Comparison,
    out: Path,
    config_files: Sequence[Path],
    settings: Sequence[str],
    given: Mapping[str, Any],
) -> Work:
    """What there is to do.

    Raises:
        UserError: see `plan_runs` and `state_of`.
    """
    planned = plan_runs(comparison, out, config_files, settings, given)
    states = [state_of(wanted) for wanted in planned]
    if kept := states.count("finished"):
        say(f"{kept} of {len(planned)} runs exist already")
    left = [(wanted, state) for wanted, state in zip(planned, states, strict=True) if state != "finished"]
    return Work(planned, left)


def plan_runs(
    comparison: Comparison,
    out: Path,
    config_files: Sequence[Path],
    settings: Sequence[str],
    given: Mapping[str, Any],
) -> list[PlannedRun]:
    """Every run, in order; the seeds of a variant are adjacent. Controls of knowledge are written to `out`.

    Args:
        out: the comparison's folder.
        config_files, settings, given: as for a single run, applied to all.

    Raises:
        UserError: an invalid setting of any run, or knowledge that cannot be read.
    """
    if comparison.data and "data.name" in given:
        raise UserError(f"the comparison names its own data ({', '.join(comparison.data)}); leave out --data")
    _say_what_is_not_set(comparison, settings)
    planned = []
    for group in comparison.groups():
        for variant, own in comparison.variants.items():
            for seed in comparison.seeds:
                kind = _control_of(own)
                # Without the control, this resolves to the knowledge that the control is made from.
                real = {key: value for key, value in own.items() if key != "knowledge" or not kind}
                wanted = {**given, **group.settings, **real, "training.seed": seed}
                config = resolve_config(config_files, settings, wanted, comparison.settings)
                if kind:
                    control = _write_control(config.knowledge, kind, group, seed, out)
                    config = config.model_copy(update={"knowledge": control})
                path = _place(out, group, f"{variant}-seed{seed}")
                planned.append(PlannedRun(group, variant, seed, config, path))
    paths = [run.path for run in planned]
    if len(set(paths)) < len(paths):
        raise UserError(
            f"{out}: two runs of the comparison would share a folder; give its manifests, conditions and variants "
            "names that differ in more than spaces"
        )
    return planned


def state_of(run: PlannedRun) -> State:
    """Whether the run already exists.

    Raises:
        UserError: it exists with other settings or other knowledge, or the folder is not a run folder.
    """
    if not run.path.exists():
        return "missing"
    if not (run.path / "run.json").is_file():
        raise UserError(f"{run.path}: exists and is not a run folder; move it, or compare into another --out")
    folder = open_run_folder(run.path)
    if differing := differing_keys(folder.config(), run.config):
        raise UserError(
            f"{run.path}: was made with other settings ({', '.join(differing)}); compare into another folder with --out"
        )
    about = folder.record()
    if read_knowledge(run.config.knowledge).for_labels(about.labels).content_hash != about.knowledge.hash:
        raise UserError(
            f"{run.path}: was made with other knowledge than {run.config.knowledge} holds now; compare into another "
            "folder with --out"
        )
    return "finished" if folder.finished else "unfinished"


def finished_runs(planned: Sequence[PlannedRun]) -> list[PlannedRun]:
    """The finished ones among the planned runs."""
    return [run for run in planned if RunFolder(run.path).finished]


def folders_of(finished: Sequence[PlannedRun]) -> dict[Group, dict[str, dict[int, RunFolder]]]:
    """The folders of finished runs by group, variant and seed, in the order of the plan."""
    found: dict[Group, dict[str, dict[int, RunFolder]]] = {}
    for run in finished:
        found.setdefault(run.group, {}).setdefault(run.variant, {})[run.seed] = open_run_folder(run.path)
    return found


def _say_what_is_not_set(comparison: Comparison, settings: Sequence[str]) -> None:
    """Conditions and variants differ in what they set themselves; what the user sets applies to the others."""
    for key in (setting.partition("=")[0] for setting in settings):
        conditions = {group.condition: group.settings for group in comparison.groups()}
        own = [name for name, given in (conditions | comparison.variants).items() if name and key in given]
        if own:
            say(f"--set {key} does not apply to those that set their own: {', '.join(own)}")


def _control_of(own: Mapping[str, Any]) -> str:
    """The kind of control that a variant is trained on; "" for real knowledge."""
    knowledge = str(own.get("knowledge", ""))
    return knowledge.removeprefix(_CONTROL) if knowledge.startswith(_CONTROL) else ""


def _write_control(source: Path, kind: str, group: Group, seed: int, out: Path) -> Path:
    """Each seed has its own control, so that one unlucky shuffle cannot decide a comparison."""
    target = _place(out / "knowledge", group, f"{kind}-seed{seed}.parquet")
    write_knowledge(target, control_rows(source, kind, seed))
    return target


def _place(folder: Path, group: Group, rest: str) -> Path:
    """A path in `folder` by the names of data set and condition: without spaces, unless an earlier version made it."""
    former, now = (
        "-".join(part for part in (data, group.condition, rest) if part)
        for data in (Path(group.data).name.removesuffix(".parquet"), short_name(group.data))
    )
    return folder / former if (folder / former).exists() else folder / re.sub(r"\s+", "-", now)
