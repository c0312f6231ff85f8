"""Local weights files: read, and rejected with the reason if they belong to another architecture."""

from pathlib import Path
from typing import Any

from open_clip import pretrained
from open_clip.convert import convert_state_dict
from open_clip.model import convert_to_custom_text_state_dict
from torch import Tensor

from sspa.shared.errors import UserError
from sspa.shared.json_files import read_json
from sspa.stage2_training.backbones.model_folders import CONFIG
from sspa.stage2_training.compute.tensor_files import (
    UNREADABLE,
    check_finite,
    read_metadata,
    read_pickled,
    read_tensors,
    write_tensors,
)
from sspa.stage2_training.compute.torchscript_archives import is_torchscript, read_torchscript

# How transformers begins the names of a CLIP's tensors.
_OF_TRANSFORMERS = ("text_model.", "vision_model.", "text_projection.weight", "visual_projection.")
# What OpenAI's archives contain besides weights.
_OPENAI_EXTRAS = ("input_resolution", "context_length", "vocab_size")


def load_weights_file(path: Path, architecture: str, quick_gelu: bool, model: Any) -> None:
    """Load a local file (.safetensors, .pt, .bin, a TorchScript archive) into an open_clip model.

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


def convert_weights_file(path: Path, target: Path) -> None:
    """Rewrite a local weights file as safetensors, which hold numbers only; the metadata keeps the activation.

    Args:
        path: as in `load_weights_file`.
        target: the .safetensors file to write.

    Raises:
        UserError: the file is unreadable, or `target` exists or has another extension.
    """
    if target.suffix != ".safetensors":
        raise UserError(f"{target}: name the new file NAME.safetensors")
    if target.exists():
        raise UserError(f"{target}: exists already; nothing was changed")
    state, from_openai = _read(path)
    trained_with, _ = _activation(path, from_openai)
    metadata = {} if trained_with is None else {"quick_gelu": str(trained_with).lower()}
    # Copies, since safetensors does not write two names for one tensor.
    write_tensors({name: value.clone() for name, value in state.items()}, target, metadata)


def _read(path: Path) -> tuple[dict[str, Tensor], bool]:
    """The tensors, and whether the file is one of OpenAI's archives."""
    try:
        if path.suffix == ".safetensors":
            found: Any = read_tensors(path)
        else:
            found = _read_archive(path) if is_torchscript(path) else read_pickled(path)
    except UNREADABLE as error:
        reason = " ".join(str(error).split())[:160]
        raise UserError(f"{path}: cannot be read as weights ({reason}); take a .safetensors or .pt file") from error
    state = found.get("state_dict", found) if isinstance(found, dict) else found
    if not isinstance(state, dict) or not state or not all(map(_is_weight, state.items())):
        raise UserError(f"{path}: holds no state dict (names with tensors); save the model's state_dict()")
    check_finite(state, path)
    from_openai = any(name in state for name in _OPENAI_EXTRAS)
    # DistributedDataParallel puts this before every name.
    prefix = "module." if all(name.startswith("module.") for name in state) else ""
    return {
        name.removeprefix(prefix): value for name, value in state.items() if name not in _OPENAI_EXTRAS
    }, from_openai


def _is_weight(item: tuple[object, object]) -> bool:
    name, value = item
    return isinstance(name, str) and isinstance(value, Tensor)


def _read_archive(path: Path) -> dict[str, Tensor]:
    """The weights in a TorchScript archive; it also contains the text tower's mask, which open_clip computes."""
    return {name: value for name, value in read_torchscript(path).items() if name.split(".")[-1] != "attn_mask"}


def _activation(path: Path, from_openai: bool) -> tuple[bool | None, str]:
    """Whether the weights were trained with QuickGELU, and how that is known; None if it is unknown."""
    if from_openai:
        return True, "it is one of OpenAI's archives"
    beside = path.parent / CONFIG
    if beside.is_file():
        try:
            quick_gelu = read_json(beside)["model_cfg"].get("quick_gelu", False)
        except (KeyError, TypeError, AttributeError) as error:
            raise UserError(f"{beside}: not an open_clip configuration; fix or remove it") from error
        return bool(quick_gelu), f"{CONFIG} beside it"
    if path.suffix == ".safetensors":
        noted = read_metadata(path).get("quick_gelu")
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
    if missing and any(name.startswith(_OF_TRANSFORMERS) for name in others):
        raise UserError(
            f"{path}: was saved by transformers, which has other names for the tensors; take the open_clip file of the "
            "same model (open_clip_model.safetensors on the hub)"
        )
    if missing or others:
        lacks = f"lacks {len(missing)} of its tensors such as {min(missing)}" if missing else ""
        has = f"holds {len(others)} others such as {min(others)}" if others else ""
        raise UserError(
            f"{path}: does not fit open_clip:{architecture}: it {' and '.join(filter(None, (lacks, has)))};"
            " name the architecture that the file was saved from"
        )


def _activation_name(quick: bool) -> str:
    return "QuickGELU" if quick else "GELU"
