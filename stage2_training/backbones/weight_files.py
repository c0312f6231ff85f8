"""Local weights files: read, and rejected with the reason if they belong to another architecture."""

import json
import pickle
import zipfile
from pathlib import Path
from typing import Any

import torch
from open_clip import pretrained
from open_clip.convert import convert_state_dict
from open_clip.factory import load_state_dict
from open_clip.model import convert_to_custom_text_state_dict
from torch import Tensor

from sspa.shared.errors import UserError

# What OpenAI's archives contain besides weights.
_OPENAI_EXTRAS = ("input_resolution", "context_length", "vocab_size")
_UNREADABLE = (OSError, RuntimeError, ValueError, EOFError, StopIteration, pickle.UnpicklingError)
_CONFIG = "open_clip_config.json"


def load_weights_file(path: Path, architecture: str, quick_gelu: bool, model: Any) -> None:
    """Load a local file (.safetensors, .pt, .bin, OpenAI's TorchScript archives) into an open_clip model.

    A weights file does not record the activation, and the wrong one gives plausible but worse features. It is
    known for OpenAI's archives, from open_clip's configuration beside the file or inside it (safetensors
    metadata), and from the names of published files; failing these, the architecture's own is assumed.

    Raises:
        UserError: the file is unreadable, or has another activation or other tensors than the architecture.
    """
    state, from_openai = _read(path)
    trained_with, source = _activation(path, from_openai)
    if trained_with is not None and trained_with != quick_gelu:
        right = f"{architecture}-quickgelu" if trained_with else architecture.removesuffix("-quickgelu")
        raise UserError(
            f"{path}: trained with {_activation_name(trained_with)} ({source}), but open_clip:{architecture} computes"
            f" {_activation_name(quick_gelu)}; name open_clip:{right}"
        )
    state = convert_state_dict(model, state)
    if "positional_embedding" in state and not hasattr(model, "positional_embedding"):
        state = convert_to_custom_text_state_dict(state)
    _check_shapes(path, architecture, state, model.state_dict())
    model.load_state_dict({name: value.float() for name, value in state.items()})


def _read(path: Path) -> tuple[dict[str, Tensor], bool]:
    from safetensors import SafetensorError

    try:
        if _is_torchscript(path):
            state = torch.jit.load(path, map_location="cpu").state_dict()
        else:
            state = load_state_dict(str(path))
    except (*_UNREADABLE, SafetensorError) as error:
        reason = " ".join(str(error).split())[:160]
        raise UserError(f"{path}: cannot be read as weights ({reason}); take a .safetensors or .pt file") from error
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise UserError(f"{path}: holds no state dict (names with tensors); save the model's state_dict()")
    from_openai = any(name in state for name in _OPENAI_EXTRAS)
    return {name: value for name, value in state.items() if name not in _OPENAI_EXTRAS}, from_openai


def _is_torchscript(path: Path) -> bool:
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any("/code/" in name for name in archive.namelist())


def _activation(path: Path, from_openai: bool) -> tuple[bool | None, str]:
    """Whether the weights were trained with QuickGELU, and how that is known; None if it is unknown."""
    if from_openai:
        return True, "it is one of OpenAI's archives"
    beside = path.parent / _CONFIG
    if beside.is_file():
        try:
            config = json.loads(beside.read_text())["model_cfg"]
        except (json.JSONDecodeError, KeyError, TypeError) as error:
            raise UserError(f"{beside}: not an open_clip configuration; fix or remove it") from error
        return bool(config.get("quick_gelu", False)), f"{_CONFIG} beside it"
    if path.suffix == ".safetensors":
        from safetensors import safe_open

        with safe_open(path, framework="pt") as file:
            noted = (file.metadata() or {}).get("quick_gelu")
        if noted is not None:
            return noted.lower() == "true", "its own metadata"
    published = {
        bool(config.get("quick_gelu", False))
        for tags in pretrained._PRETRAINED.values()
        for config in tags.values()
        if config.get("url", "").rsplit("/", 1)[-1] == path.name
    }
    return (published.pop(), "its published name") if len(published) == 1 else (None, "")


def _check_shapes(path: Path, architecture: str, found: dict[str, Tensor], wanted: dict[str, Tensor]) -> None:
    for name, value in found.items():
        if name in wanted and value.shape != wanted[name].shape:
            raise UserError(
                f"{path}: {name} has shape {tuple(value.shape)}, open_clip:{architecture} needs"
                f" {tuple(wanted[name].shape)}; the file belongs to another architecture or input size"
            )
    missing, others = wanted.keys() - found.keys(), found.keys() - wanted.keys()
    if missing or others:
        lacks = f"lacks {len(missing)} of its tensors such as {min(missing)}" if missing else ""
        has = f"holds {len(others)} others such as {min(others)}" if others else ""
        raise UserError(
            f"{path}: does not fit open_clip:{architecture}: it {' and '.join(filter(None, (lacks, has)))};"
            " name the architecture that the file was saved from"
        )


def _activation_name(quick: bool) -> str:
    return "QuickGELU" if quick else "GELU"
