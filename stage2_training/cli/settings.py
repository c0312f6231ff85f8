"""`sspa-train settings`: everything that `--set` and `--config` can say."""

import json
from dataclasses import asdict
from typing import Annotated

import typer

from sspa.shared.errors import UserError
from sspa.shared.terminal import output
from sspa.stage2_training.cli.options import AsJson

settings_app = typer.Typer()


@settings_app.command()
def settings(
    text: Annotated[str, typer.Argument(help="Only settings with this in their key or meaning, as in `lr`.")] = "",
    as_json: AsJson = False,
) -> None:
    """List what --set and --config can change: keys, defaults, values and meanings."""
    from sspa.stage2_training.config.settings_list import list_settings

    found = list_settings(text)
    if not found:
        raise UserError(f"no setting has {text!r} in its key or meaning; `sspa-train settings` lists all")
    if as_json:
        output.print_json(json.dumps([asdict(setting) for setting in found]))
        return
    for setting in found:
        only = f"; with {setting.only_with}" if setting.only_with else ""
        output.print(f"[bold]{setting.key}[/] = ", end="")
        output.print(f"{setting.default}  ({setting.takes}{only})", markup=False)
        if setting.meaning:
            output.print(f"    {setting.meaning}", markup=False)
