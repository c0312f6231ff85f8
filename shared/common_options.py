"""The options before the command's name, the same for sspa-knowledge and sspa-train."""

import os
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import typer

from sspa.shared.cache import PLACE
from sspa.shared.terminal import output

DISTRIBUTION = "sspa-multilabel"


def _show(wanted: bool) -> None:
    if wanted:
        output.print(f"sspa {version(DISTRIBUTION)}", highlight=False)
        raise typer.Exit


Version = Annotated[
    bool, typer.Option("--version", callback=_show, is_eager=True, help="Show the version of sspa, and end.")
]
Cache = Annotated[
    Path | None, typer.Option(envvar=PLACE, help="Where models, answers and features are kept between commands.")
]


def with_common_options(app: typer.Typer) -> None:
    """Give an app these options."""

    @app.callback()
    def _(version: Version = False, cache: Cache = None) -> None:
        if cache is not None:
            # Processes that a command starts keep theirs there too.
            os.environ[PLACE] = str(cache.absolute())
