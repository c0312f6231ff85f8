"""Loads open_clip models at their native size: by name and pretrained tag, from a folder or the hub, or untrained."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import open_clip
from open_clip.factory import get_model_config, load_checkpoint
from open_clip.tokenizer import HFTokenizer, SimpleTokenizer
from safetensors import SafetensorError

from sspa.shared.errors import UserError
from sspa.stage2_training.backbones.hub_models import SCHEME, snapshot
from sspa.stage2_training.backbones.model_folders import check_model_folder, folder_weights, no_remote_code
from sspa.stage2_training.backbones.weight_files import load_weights_file
from sspa.stage2_training.compute.tensor_files import check_finite

Tokenizer: TypeAlias = SimpleTokenizer | HFTokenizer


@dataclass(frozen=True)
class LoadedModel:
    """An open_clip model with its tokenizer; `weights` says what was loaded into it."""

    model: Any
    tokenizer: Tokenizer
    width: int
    weights: str
    description: str
    # The prompts' context length, if it is shorter than the text tower's own.
    context_length: int | None = None


def load_open_clip(spec: str, weights: str | None, allow_download: bool) -> LoadedModel:
    """spec "open_clip:NAME", "hf-hub:OWNER/NAME@COMMIT" or "local-dir:FOLDER" -> the model at its native input size.

    Args:
        weights: see `create_backbone`.
        allow_download: of a model from the hub that is not there yet.

    Raises:
        UserError: unknown name or tag, weights missing or not available, or a folder that `check_model_folder` rejects.
    """
    name = spec.removeprefix("open_clip:")
    if name != spec:
        return _load_named(name, weights)
    if weights is not None and weights != "random":
        raise UserError(f"{spec} brings its own weights; leave out weights={weights}")
    folder = snapshot(spec, allow_download) if spec.startswith(SCHEME) else Path(spec.removeprefix("local-dir:"))
    return _load_folder(folder, spec, weights)


def _load_folder(folder: Path, spec: str, weights: str | None) -> LoadedModel:
    config = check_model_folder(folder)
    source = f"local-dir:{folder}"
    with _weights_follow():
        model = _fetch(spec, lambda: open_clip.create_model(source, load_weights=False, pretrained_hf=False))
    if weights is None:
        path = folder_weights(folder)
        _fetch(f"{spec}, {path.name}", lambda: load_checkpoint(model, str(path)))
        check_finite(model.state_dict(), path)
    # open_clip passes options for a Hugging Face tokenizer to SimpleTokenizer too, which knows none of transformers'.
    options = {"trust_remote_code": False} if config["text_cfg"].get("hf_tokenizer_name") else {}
    tokenizer = _fetch(f"the tokenizer of {spec}", lambda: open_clip.get_tokenizer(source, **options))
    return LoadedModel(model, tokenizer, config["embed_dim"], weights or spec, spec)


def _load_named(name: str, weights: str | None) -> LoadedModel:
    config = get_model_config(name)
    assert config is not None, name  # see `check_name`
    tags = open_clip.list_pretrained_tags_by_model(name)
    if weights is None:
        raise UserError(f"open_clip:{name} needs weights: a tag ({', '.join(tags) or 'none known'}), a file, or random")
    if weights == "random":
        model = _fetch(f"open_clip:{name}", lambda: open_clip.create_model(name, pretrained_hf=False))
    elif weights in tags:
        _check_activation_of_tag(name, config, weights)
        model = _fetch(f"open_clip:{name} {weights}", lambda: open_clip.create_model(name, pretrained=weights))
    elif Path(weights).is_file():
        with _weights_follow():
            model = _fetch(f"open_clip:{name}", lambda: open_clip.create_model(name, pretrained_hf=False))
        load_weights_file(Path(weights), name, bool(config.get("quick_gelu", False)), model)
    else:
        raise UserError(
            f"open_clip:{name}: weights={weights} is neither a file nor a tag; tags are {', '.join(tags) or 'none'}"
        )
    tokenizer = _fetch(f"the tokenizer of {name}", lambda: open_clip.get_tokenizer(name))
    return LoadedModel(model, tokenizer, config["embed_dim"], weights, f"open_clip {name}, weights {weights}")


def _check_activation_of_tag(name: str, config: dict[str, Any], tag: str) -> None:
    quick = bool(open_clip.get_pretrained_cfg(name, tag).get("quick_gelu", False))
    if quick != bool(config.get("quick_gelu", False)):
        right = f"{name}-quickgelu" if quick else name.removesuffix("-quickgelu")
        raise UserError(
            f"open_clip:{name}: the weights {tag} were trained with {'QuickGELU' if quick else 'GELU'};"
            f" name open_clip:{right}"
        )


@contextmanager
def _weights_follow() -> Iterator[None]:
    """Keep open_clip from warning that the model is initialized randomly: its weights are loaded right afterwards."""

    def others(record: logging.LogRecord) -> bool:
        return "initialized randomly" not in record.getMessage()

    root = logging.getLogger()
    root.addFilter(others)
    try:
        yield
    finally:
        root.removeFilter(others)


def _fetch(what: str, load: Callable[[], Any]) -> Any:
    """Run a loader that may use the network or the disk; if it fails, that is for the user to fix."""
    try:
        with no_remote_code():
            return load()
    except (OSError, RuntimeError, ValueError, KeyError, TypeError, AssertionError, SafetensorError) as error:
        reason = " ".join(str(error).split())
        raise UserError(
            f"{what} cannot be loaded ({reason[:200]}); check the name and the network, or give a file"
        ) from error
