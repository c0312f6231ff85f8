"""The option --version, the same for both commands."""

from importlib.metadata import version
from typing import Annotated

import typer

from sspa.shared.terminal import output

DISTRIBUTION = "sspa-multilabel"


def _show(wanted: bool) -> None:
    if wanted:
        output.print(f"sspa {version(DISTRIBUTION)}", highlight=False)
        raise typer.Exit


Version = Annotated[
    bool, typer.Option("--version", callback=_show, is_eager=True, help="Show the version of sspa, and end.")
]


def with_version(app: typer.Typer) -> None:
    """Give an app the option."""

    @app.callback()
    def _(version: Version = False) -> None: ...
