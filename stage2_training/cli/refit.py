"""`sspa-train refit`. Heavy imports happen inside the command."""

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from sspa.shared.terminal import loading, say
from sspa.stage2_training.cli.options import Device, Root, RunArgument, command_device

refit_app = typer.Typer()


@refit_app.command()
def refit(
    run_path: RunArgument,
    out: Annotated[Path | None, typer.Option(help="The new folder. [default: RUN-refit]")] = None,
    root: Root = None,
    keep_test: Annotated[
        bool, typer.Option("--keep-test", help="Train on val as well, but not on test, so that test can measure it.")
    ] = False,
    folds: Annotated[
        int | None,
        typer.Option(min=2, max=20, help="Measure it by this number of models, each of which misses a part."),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Resume a refit that was stopped.")] = False,
    device: Device = "auto",
) -> None:
    """Train a finished run's model again, on val and test too: the model for use, where labels are few.

    What val chose is repeated (epochs, branch shares, thresholds). The figures stay those of RUN, and `evaluate`
    refuses the images that they came from. With --folds, as many models measure the same training on every image, each
    on those that it was not trained on; their predictions also tune the thresholds.
    """
    from sspa.stage2_training.compute.processes import processes_of_environment
    from sspa.stage2_training.runs.run_folder import check_free, open_run_folder

    measured = open_run_folder(run_path)
    measured.check_loadable()
    beside = run_path.parent if run_path.name else run_path.resolve().parent
    folder = out or beside / f"{run_path.resolve().name}-refit"
    if not resume:
        check_free(folder)
    with processes_of_environment(partial(command_device, device)) as processes:
        with loading():
            from sspa.stage2_training.training.refit import refit as train

        result = train(measured, folder, command_device(device), root, keep_test, folds, resume, processes)
    if processes.rank:
        return
    about, found = result.folder.record(), result.folder.result().folds
    made = about.refit
    if found is not None:
        from sspa.stage2_training.cli.metrics_table import show_metrics

        show_metrics(f"{found.count} folds", found.metrics, about.protocol.rules().headline)
        say(f"{found.words} (95% of the images' chance)")
    say(f"{folder}: {made.words if made else ''}")
    say(f"next: sspa-train predict {folder} PHOTOS --threshold tuned; sspa-train package {folder} --out FOLDER")
