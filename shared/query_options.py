"""The option that every command with SQL has."""

from typing import Annotated

import typer

QuerySeconds = Annotated[float, typer.Option("--seconds", min=0.1, help="Stop a query that takes longer.")]
