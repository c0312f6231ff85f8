"""Recognises a file that holds labels in another form than one per line, which would be read as odd labels."""

import re
from contextlib import suppress

from sspa.shared.errors import UserError
from sspa.shared.json_files import parse_json

_TABLE_ENDINGS = (".csv", ".tsv")
_TABLE_HEADERS = frozenset(("path", "image", "image_path", "filename", "file_name", "file"))
_NUMBERED = re.compile(r"\s*([0-9]{1,9})\s*[.):]\s*\S")
_YAML = re.compile(r"[\w-]+:\s*$|\s+[-\w]+:\s|- \S")


def other_form(text: str, ending: str) -> str | None:
    """What the content of a label file seems to be instead, as in "is JSON"; None if it has one label per line.

    Args:
        text: the whole file.
        ending: its extension, in lower case.
    """
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    if not lines:
        return None
    if text.lstrip()[:1] in ("[", "{"):
        with suppress(UserError):  # a label may begin with a bracket
            parse_json(text, "labels")
            return "is JSON"
    if _is_table(lines, ending):
        return "is a table"
    numbers = [int(found[1]) for line in lines if (found := _NUMBERED.match(line))]
    if len(numbers) == len(lines) > 1 and numbers == list(range(numbers[0], numbers[0] + len(lines))):
        return "is a numbered list"
    if len(lines) > 1 and (ending in (".yaml", ".yml") or all(_YAML.match(line) for line in lines)):
        return "is YAML"
    if len(lines) == 1 and len([part for part in re.split("[,;]", lines[0]) if part.strip()]) > 1:
        return "is a list in one line"
    return None


def _is_table(lines: list[str], ending: str) -> bool:
    for delimiter in ",;\t":
        header = [cell.strip().casefold() for cell in lines[0].split(delimiter)]
        if len(header) > 1 and (_TABLE_HEADERS & set(header) or (ending in _TABLE_ENDINGS and len(lines) > 1)):
            return True
    return False
