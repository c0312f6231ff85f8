"""The command line must only change on purpose: every command, argument, option and default is in a committed file."""

import importlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

_FROZEN = Path(__file__).with_name("command_line.txt")
PROGRAMS = {"sspa-knowledge": "sspa.stage1_knowledge.commands", "sspa-train": "sspa.stage2_training.cli.main"}


def _lines(command: Any, path: str) -> Iterator[str]:
    for name, below in sorted(getattr(command, "commands", {}).items()):
        yield from _lines(below, f"{path} {name}")
    if hasattr(command, "commands"):
        return
    for parameter in command.params:
        names = "/".join((*parameter.opts, *parameter.secondary_opts))
        kind = parameter.param_type_name
        words = [kind, names if kind == "option" else str(parameter.name)]
        default = parameter.default
        words.append("required" if parameter.required else f"default {getattr(default, 'value', default)!r}")
        words += ["repeatable"] if parameter.multiple else []
        hidden = " hidden" if getattr(parameter, "hidden", False) else ""
        yield f"{path}: {', '.join(words)}{hidden}"


def root_of(program: str) -> Any:
    return typer.main.get_command(importlib.import_module(PROGRAMS[program]).app)


def test_commands_and_options_are_what_they_were() -> None:
    """SSPA_WRITE_COMMAND_LINE=1 rewrites the file; a removed option must be answered with its new name."""
    found = "\n".join(line for program in PROGRAMS for line in _lines(root_of(program), program)) + "\n"
    if os.environ.get("SSPA_WRITE_COMMAND_LINE"):
        _FROZEN.write_text(found)
    assert found == _FROZEN.read_text()


def _commands(command: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    yield path, command
    for name, below in getattr(command, "commands", {}).items():
        yield from _commands(below, (*path, name))


@pytest.mark.parametrize("program", PROGRAMS)
def test_every_command_and_option_is_explained(program: str) -> None:
    for path, command in _commands(root_of(program), (program,)):
        assert command.help, path
        unexplained = [
            parameter.name
            for parameter in command.params
            if not getattr(parameter, "help", None) and not getattr(parameter, "hidden", False)
        ]
        assert not unexplained, path


def test_both_programs_write_help_alike() -> None:
    apps = [importlib.import_module(module).app for module in PROGRAMS.values()]
    looks = {(app.rich_markup_mode, app.pretty_exceptions_enable, app.info.no_args_is_help) for app in apps}
    assert len(looks) == 1
