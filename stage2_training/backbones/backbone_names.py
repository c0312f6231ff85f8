"""The names of backbones, known without the libraries that load them."""

from functools import cache
from importlib.util import find_spec
from pathlib import Path

from sspa.shared.errors import UserError
from sspa.shared.suggestions import nearest
from sspa.stage2_training.backbones.hub_models import SCHEME
from sspa.stage2_training.backbones.model_folders import check_model_folder

EMBEDDED, OPEN_CLIP, LOCAL = "embedded", "open_clip:", "local-dir:"


def check_name(spec: str, weights: str | None) -> None:
    """Reject what names no backbone, as far as names tell.

    Args:
        spec, weights: see `create_backbone`.

    Raises:
        UserError: there is no such backbone, or these weights are not for it.
    """
    if spec == EMBEDDED:
        if weights is not None:
            raise UserError(
                f"backbone.weights={weights}: the embedded backbone brings its own; leave them out, or name another "
                "backbone"
            )
    elif spec.startswith(OPEN_CLIP):
        name = spec.removeprefix(OPEN_CLIP)
        if name not in _architectures():
            hint = nearest(name, _architectures(), count=3, cutoff=0.3)
            raise UserError(f"backbone.name={spec}: no such architecture; {hint or 'none is similar'}")
    elif spec.startswith(LOCAL):
        check_model_folder(Path(spec.removeprefix(LOCAL)))
    elif not spec.startswith(SCHEME):
        raise UserError(
            f"backbone.name={spec}: unknown; take embedded, open_clip:NAME (such as open_clip:ViT-B-16), "
            "hf-hub:OWNER/NAME or local-dir:FOLDER"
        )


@cache
def _architectures() -> tuple[str, ...]:
    """Those that open_clip has a configuration of; importing it to ask takes seconds."""
    found = find_spec("open_clip")
    assert found is not None
    assert found.submodule_search_locations is not None
    (folder,) = found.submodule_search_locations
    return tuple(sorted(file.stem for file in (Path(folder) / "model_configs").glob("*.json")))
