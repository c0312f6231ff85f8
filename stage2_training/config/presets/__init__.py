"""A recipe per data set (reconstruction): a YAML file of settings, which everything that a user sets overrides.

Where no preset is named, a data set's own is taken, unless the backbone is the embedded one: those recipes train a
real CLIP tower, and `bases/` has what they share. The embedded backbone has a recipe for each domain, and takes the one
of photos for a user's own images; only the scenes' recipe is for any backbone.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sspa.shared.errors import UserError
from sspa.shared.suggestions import nearest_or_all
from sspa.stage2_training.config.trees import Tree, overridden, read_tree

_EMBEDDED_PHOTOS = "embedded-photos"
_SCENES = "scenes"
_EMBEDDED = {
    _SCENES: _SCENES,
    **dict.fromkeys(("ucm", "aid", "mlrsnet", "multiscene-clean"), "embedded-aerial"),
    **dict.fromkeys(("peta", "pa100k", "rapv1"), "embedded-pedestrian"),
}
_FOLDER = Path(__file__).parent


def preset_names() -> tuple[str, ...]:
    """The presets that come with the program: one by the name of each data set, and those of the embedded backbone."""
    return tuple(sorted(file.stem for file in _FOLDER.glob("*.yaml")))


def preset_settings(name: str) -> Tree:
    """The settings of a preset, over those of the base or other preset that it names.

    Raises:
        UserError: there is none of that name.
    """
    if name not in preset_names():
        raise UserError(f"there is no preset {name!r}; {nearest_or_all(name, preset_names())} --preset none takes none")
    own = read_tree(_FOLDER / f"{name}.yaml")
    base = own.pop("base", None)
    if base is None:
        return own
    shared = preset_settings(base) if base in preset_names() else read_tree(_FOLDER / "bases" / f"{base}.yaml")
    return overridden(shared, own)


def preset_of(tree: Mapping[str, Any]) -> str | None:
    """The preset for settings that name none; None for the program's defaults."""
    named = tree.get("preset")
    if named is not None:
        return str(named)
    sections = [tree.get("backbone"), tree.get("data")]
    backbone, data = (section.get("name") if isinstance(section, Mapping) else None for section in sections)
    if backbone in (None, "embedded"):
        return _EMBEDDED.get(str(data or _SCENES), _EMBEDDED_PHOTOS)
    return data if data in preset_names() else None
