"""One file for each data set's official layout; `get_adapter` finds it by name."""

import importlib

from sspa.shared.errors import UserError
from sspa.shared.suggestions import nearest_or_all
from sspa.stage2_training.data.adapters.adapter import Adapter

# Name on the command line -> (file, class).
_ADAPTERS = {
    "scenes": ("scenes", "Scenes"),
    "voc2007": ("voc", "Voc2007"),
    "voc2012": ("voc", "Voc2012"),
    "coco2014": ("coco", "Coco2014"),
    "nuswide": ("nuswide", "NusWide"),
    "pa100k": ("pedestrian", "Pa100k"),
    "peta": ("pedestrian", "Peta"),
    "rapv1": ("pedestrian", "Rapv1"),
    "multiscene-clean": ("aerial", "MultisceneClean"),
    "mlrsnet": ("aerial", "Mlrsnet"),
    "aid": ("aerial", "Aid"),
    "ucm": ("aerial", "Ucm"),
}


def adapter_names() -> tuple[str, ...]:
    """The names `--data` understands, besides the path of a manifest."""
    return tuple(_ADAPTERS)


def get_adapter(name: str) -> Adapter:
    """The adapter of that name.

    Raises:
        UserError: there is none.
    """
    if name not in _ADAPTERS:
        hint = nearest_or_all(name, _ADAPTERS)
        raise UserError(f"there is no data set {name!r}; {hint} A manifest is named by its path (*.parquet)")
    file, class_name = _ADAPTERS[name]
    adapter: Adapter = getattr(importlib.import_module(f"{__name__}.{file}"), class_name)()
    return adapter
