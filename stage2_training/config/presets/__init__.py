"""A recipe for each data set (reconstruction): a YAML file of settings, below everything that a user sets.

Where no preset is named, a data set's own is taken, unless the backbone is the embedded one: those recipes train a real
CLIP tower. The embedded backbone has one recipe for all real photos, and the program's defaults for its own scenes.
"""

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sspa.shared.errors import UserError

EMBEDDED_PHOTOS = "embedded-photos"


def preset_names() -> tuple[str, ...]:
    """The presets that come with the program: one by the name of each data set, and `EMBEDDED_PHOTOS`."""
    return tuple(sorted(file.stem for file in Path(__file__).parent.glob("*.yaml")))


def preset_file(name: str) -> Path:
    """The file of a preset.

    Raises:
        UserError: there is none of that name.
    """
    if name not in preset_names():
        near = difflib.get_close_matches(name, preset_names(), n=1)
        hint = f"did you mean {near[0]}" if near else "known are " + ", ".join(preset_names())
        raise UserError(f"there is no preset {name!r}; {hint}, or none")
    return Path(__file__).parent / f"{name}.yaml"


def preset_of(tree: Mapping[str, Any]) -> str | None:
    """The preset for settings that name none; None for the program's defaults."""
    named = tree.get("preset")
    if named is not None:
        return str(named)
    sections = [tree.get("backbone"), tree.get("data")]
    backbone, data = (section.get("name") if isinstance(section, Mapping) else None for section in sections)
    if backbone in (None, "embedded"):
        return None if data in (None, "scenes") else EMBEDDED_PHOTOS
    return data if data in preset_names() else None
