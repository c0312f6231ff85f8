"""Expands command line arguments to images: files, folders, patterns, or a list on standard input."""

import glob
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TextIO

from sspa.shared.errors import UserError
from sspa.shared.terminal import say
from sspa.stage2_training.data.columns import Paths, Texts
from sspa.stage2_training.data.image_files import files_below, is_utf8, say_left_out


def find_images(arguments: Sequence[str], standard_input: TextIO | None = None) -> Paths:
    """The images that the arguments name, each once, in that order.

    Args:
        arguments: a file; a folder (every image below it, by name); a pattern as in `photos/**/*.jpg`; or
            `-`: one path per line from standard input.
        standard_input: sys.stdin by default.

    Raises:
        UserError: an argument matches nothing.
    """
    found: dict[str, None] = {}
    for argument in arguments:
        if argument == "-":
            lines = (line.rstrip("\r\n") for line in standard_input or sys.stdin)
            matches = [str(Path(line)) for line in lines if line]
        else:
            matches = [str(path) for path in _matches(argument)]
        if unnamed := [path for path in matches if not is_utf8(path)]:
            shown = ", ".join(os.fsencode(path).decode(errors="backslashreplace") for path in unnamed[:5])
            say(f"left out, since their names are not UTF-8: {shown}{' ...' if len(unnamed) > 5 else ''}")
            matches = [path for path in matches if is_utf8(path)]
        if not matches:
            where = "standard input" if argument == "-" else argument
            raise UserError(f"{where}: no images there; give image files, folders, a pattern, or - for a list")
        found.update(dict.fromkeys(matches))
    return Paths(Path(), Texts(found))


def _matches(argument: str) -> list[Path]:
    path = Path(argument)
    if path.is_dir():
        return _below(path)
    if path.exists() or not glob.has_magic(argument):
        # A file is accepted whatever its name; a missing one has its own error.
        if not path.exists():
            raise UserError(f"{path}: there is no such image or folder")
        return [path]
    matches = map(Path, glob.glob(argument, recursive=True))  # noqa: PTH207 - Path.glob takes no absolute pattern
    return sorted(match for match in matches if match.is_file())


def _below(folder: Path) -> list[Path]:
    """Every image below the folder, by its extension; what is left out is said."""
    images, left_out = files_below(folder)
    say_left_out(folder, left_out)
    return images
