"""`sspa-train run`. Heavy imports happen inside the command."""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sspa.shared.terminal import loading, say
from sspa.stage2_training.cli.options import (
    ConfigFiles,
    Data,
    Device,
    Knowledge,
    Protocol,
    Root,
    Settings,
    command_device,
    given_settings,
)

if TYPE_CHECKING:
    from sspa.stage2_training.runs.run_folder import RunFolder
    from sspa.stage2_training.training.result import RunResult

run_app = typer.Typer()


@run_app.command()
def run(
    knowledge: Knowledge = None,
    data: Data = None,
    root: Root = None,
    protocol: Protocol = None,
    out: Annotated[Path | None, typer.Option(help="The run's folder; a new one under runs/ by default.")] = None,
    config: ConfigFiles = None,
    set_: Settings = None,
    epochs: Annotated[int | None, typer.Option(help="Passes over the training images.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of everything random.")] = None,
    preset: Annotated[
        str | None,
        typer.Option(
            help="A recipe, which --config and --set override; `none`: the built-in defaults. By default the "
            "recipe of --data, or on the embedded backbone that of its domain, e.g. `embedded-photos`."
        ),
    ] = None,
    teacher: Annotated[
        str | None,
        typer.Option(
            help="A finished run, whose sure predictions stand for unknown labels of training images; `self`: one "
            "that is made first, from what is known."
        ),
    ] = None,
    resume: Annotated[
        bool,
        typer.Option("--resume", help="Resume a stopped run: that in --out, or the newest with these settings."),
    ] = False,
    device: Device = "auto",
) -> None:
    """Train, choose the best epoch on val, evaluate on test once, and write a run folder.

    Under `torchrun --nproc-per-node=N` the batches are split over N processes.
    """
    from sspa.stage2_training.compute.processes import processes_of_environment
    from sspa.stage2_training.config.resolving import resolve_config
    from sspa.stage2_training.runs.inputs import open_inputs
    from sspa.stage2_training.runs.resuming import finished_run
    from sspa.stage2_training.runs.run_folder import check_free

    given = given_settings(
        knowledge, data, root, protocol, training__epochs=epochs, training__seed=seed, teacher__run=teacher
    )
    with processes_of_environment(partial(command_device, device)) as processes:
        resolved = processes.everywhere(lambda: resolve_config(config or [], set_ or [], given, preset=preset))
        if resolved.preset is not None:
            say(f"recipe: preset {resolved.preset} (--preset none for the defaults)")
        if resume and (finished := processes.first(lambda: finished_run(out, resolved))) is not None:
            say(f"{finished.path}: this run is finished; there is nothing to train")
            if not processes.rank and not finished.file("report.html").exists():
                _report(finished, device)
            return
        if not resume:
            processes.first(lambda: check_free(out))
        inputs = processes.everywhere(lambda: open_inputs(resolved))
        with loading():
            from sspa.stage2_training.training.run import run as train

        result = train(resolved, out, command_device(device), resume, processes, inputs)
    if not processes.rank:
        _show_result(result, device)


def _show_result(result: "RunResult", device: str) -> None:
    from sspa.stage2_training.cli.metrics_table import show_metrics
    from sspa.stage2_training.training.noteworthy import ROUGH, noteworthy

    about = result.folder.record()
    headline = about.protocol.rules().headline
    show_metrics(result.measured, {"untrained": result.untrained["both"], **result.test}, headline, about.data.unseen)
    mixture = result.folder.result().mixture
    said = f"; prediction: {mixture}" if mixture else ""
    kept = "best epoch on val" if about.data.val_chooses else "last epoch, val being too small to choose one"
    say(f"{kept}: {result.best_epoch}{said}; run folder: {result.folder.path}")
    measured = result.measured
    of_measured = about.data.images[measured]
    for line in noteworthy(result.untrained["both"], result.test["both"], result.val["both"], measured, of_measured):
        say(f"note: {line}")
    _report(result.folder, device)
    path = result.folder.path
    hints = [f"predict {path} PHOTOS", f"demo {path}", f"explain {path} PHOTO --out why"]
    if result.folder.config().data.name.endswith(".parquet"):  # of one's own, where labels are few
        hints[0] += " --threshold tuned"
        hints.append(f"refit {path}" + (" --folds 5" if of_measured < ROUGH else ""))
    say("next: " + "; ".join(f"sspa-train {hint}" for hint in hints))


def _report(folder: "RunFolder", device: str) -> None:
    from sspa.stage2_training.report.page import write_report

    say(f"report: {write_report(folder, command_device(device))}")
