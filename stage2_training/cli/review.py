"""`sspa-train review`: a page for labelling photos with a model that learns meanwhile. Heavy imports happen inside."""

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from sspa.shared.errors import UserError
from sspa.stage2_training.cli.options import (
    FAST_MODEL,
    ConfigFiles,
    Device,
    Settings,
    check_prediction_file,
    command_device,
)
from sspa.stage2_training.cli.tag import own_labels
from sspa.stage2_training.cli.use import label_set_of

review_app = typer.Typer()


@review_app.command()
def review(
    root: Annotated[Path, typer.Option(help="The folder of your photos; all images below it.")],
    out: Annotated[Path, typer.Option(help="The file of answers, as in mine.review.jsonl; goes on with it.")],
    start: Annotated[
        str | None,
        typer.Argument(metavar="[RUN|LABELS]", help="A trained run, a label file, a built-in set, or names: cat,dog."),
    ] = None,
    knowledge: Annotated[
        Path | None, typer.Option(help="Instead of LABELS: the knowledge file that sspa-knowledge wrote.")
    ] = None,
    describe: Annotated[
        bool, typer.Option("--describe", help="With LABELS: first have sspa-knowledge describe each.")
    ] = False,
    check: Annotated[
        Path | None, typer.Option(metavar="MANIFEST", help="Check the labels of a manifest, the doubtful ones first.")
    ] = None,
    suspects: Annotated[
        Path | None, typer.Option(help="With --check: suspects.parquet of `data audit`, which says what is doubtful.")
    ] = None,
    tags: Annotated[
        Path | None, typer.Option(metavar="FILE", help="At the end, tag all photos with the model, as `predict --out`.")
    ] = None,
    every: Annotated[int, typer.Option(min=1, help="The model learns after so many more answers.")] = 10,
    at_random: Annotated[bool, typer.Option("--random", help="Ask in random order, as a control.")] = False,
    by: Annotated[str | None, typer.Option(help="Who answers; your user name by default.")] = None,
    port: Annotated[int, typer.Option(min=0, max=65535, help="The port to listen on; 0 takes any free one.")] = 7861,
    seed: Annotated[int, typer.Option(help="Of what is drawn.")] = 0,
    config: ConfigFiles = None,
    set_: Settings = None,
    device: Device = "auto",
) -> None:
    """Label photos in a page of this machine: the most useful first, by keyboard, with suggestions that improve.

    Every answer is on the disk before it counts. `data prepare custom --review FILE` makes a manifest of it.
    """
    if start is None and knowledge is None:
        raise UserError("give your labels: a label file, names (cat,dog), a run, or --knowledge")
    if suspects is not None and check is None:
        raise UserError("--suspects is for --check, which is missing")
    if tags is not None:
        check_prediction_file(tags, "--tags")
    from sspa.stage2_training.review.command import Options, going_on_from, review_config, serve_review
    from sspa.stage2_training.runs.run_folder import open_run_folder

    run = open_run_folder(Path(start)) if start is not None and Path(start).is_dir() else None
    if run is not None:
        run.check_loadable()
        if knowledge is not None or describe or config or set_:
            raise UserError("a run has its own labels, knowledge and settings; leave the other options out")
        known, settings = run.knowledge(), going_on_from(run)
    else:
        given = None if start is None else label_set_of(start)
        known = own_labels(given, knowledge, describe)
        settings = review_config(knowledge or Path("labels"), known.domain, config or [], set_ or [], FAST_MODEL)
    options = Options(every, at_random, by if by is not None else _user(), port=port, seed=seed)
    serve_review(known, settings, run, root, out, check, suspects, tags, partial(command_device, device), options)


def _user() -> str:
    import getpass

    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's number without a name
        return ""
