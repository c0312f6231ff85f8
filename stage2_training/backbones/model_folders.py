"""Model folders: checked before anything in them is loaded, since they may come from anyone.

A folder holds an open_clip configuration, safetensors weights and, for some text towers, a Hugging Face tokenizer.
Nothing in it can name code: transformers would import a Python file that a configuration refers to by `auto_map`.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sspa.shared.errors import UserError
from sspa.shared.json_files import read_json

CONFIG = "open_clip_config.json"
# In order of preference; the first two are open_clip's own names.
_WEIGHTS = ("open_clip_model.safetensors", "open_clip_pytorch_model.safetensors", "model.safetensors")
_OTHER_WEIGHTS = (".bin", ".pt", ".pth", ".npz", ".ckpt")
# Options of open_clip's own tokenizers; any other would be passed on to transformers.
_TOKENIZER_OPTIONS = ("clean", "strip_sep_token", "language")
# Far above any published model, and low enough that building one ends.
_LARGEST = {
    "layers": 200,
    "heads": 1024,
    "head_width": 4096,
    "attn_pooler_heads": 1024,
    "width": 16_384,
    "embed_dim": 16_384,
    "image_size": 8192,
    "patch_size": 1024,
    "context_length": 8192,
    "vocab_size": 2_000_000,
    "mlp_ratio": 64,
}
_LARGEST_NUMBER = 1_000_000
_LARGEST_CONFIG_BYTES = 1 << 20
_DEEPEST = 20
# Tokens and merges, not settings; they may be large.
_VOCABULARIES = ("tokenizer.json", "vocab.json", "added_tokens.json")


def check_model_folder(folder: Path) -> dict[str, Any]:
    """The open_clip configuration (`model_cfg`) of a folder in which nothing names code.

    Raises:
        UserError: no such folder or configuration, one that open_clip cannot have written, options that reach into
            transformers, or sizes beyond any model.
    """
    if not folder.is_dir():
        raise UserError(f"local-dir:{folder}: there is no such folder")
    check_no_code(folder)
    path = folder / CONFIG
    config = _read_json(path).get("model_cfg")
    if not isinstance(config, dict):
        raise UserError(f"{path}: not an open_clip configuration (model_cfg is missing)")
    for part in ("vision_cfg", "text_cfg"):
        if not isinstance(config.get(part), dict):
            raise UserError(f"{path}: not an open_clip configuration ({part} is missing)")
    _check_sizes(path, config)
    options = config["text_cfg"].get("tokenizer_kwargs") or {}
    if not isinstance(options, dict):
        raise UserError(f"{path}: text_cfg.tokenizer_kwargs is not a mapping; remove it")
    for name, value in options.items():
        if name not in _TOKENIZER_OPTIONS or not isinstance(value, str | bool | None):
            raise UserError(
                f"{path}: text_cfg.tokenizer_kwargs has {name!r}, which could make transformers run code from the "
                f"folder; only {', '.join(_TOKENIZER_OPTIONS)} are accepted"
            )
    _check_name(path, "vision_cfg.timm_model_name", config["vision_cfg"].get("timm_model_name"), "")
    _check_name(path, "text_cfg.hf_model_name", config["text_cfg"].get("hf_model_name"), "/")
    _check_name(path, "text_cfg.hf_tokenizer_name", config["text_cfg"].get("hf_tokenizer_name"), "/")
    return config


def check_no_code(folder: Path) -> None:
    """Reject a folder whose settings name Python code.

    Raises:
        UserError: a JSON file has an `auto_map` or `trust_remote_code`, or cannot be read.
    """
    for path in sorted(folder.glob("*.json")):
        if path.name not in _VOCABULARIES:
            _check_entries(path, _read_json(path))


def folder_weights(folder: Path) -> Path:
    """The safetensors file with the weights of a model folder.

    Raises:
        UserError: there is none, or several that could be meant.
    """
    found = sorted(folder.glob("*.safetensors"))
    for name in _WEIGHTS:
        if folder / name in found:
            return folder / name
    if len(found) == 1:
        return found[0]
    if found:
        raise UserError(f"{folder}: has several .safetensors files; name the weights {_WEIGHTS[0]}")
    if others := sorted(path.name for path in folder.iterdir() if path.suffix in _OTHER_WEIGHTS):
        raise UserError(
            f"{folder}: has no .safetensors weights, and others ({others[0]}) are not read from a folder, since they "
            "can hold code; convert them with `sspa-train backbone convert`, if you trust them"
        )
    raise UserError(f"{folder}: has no weights (a .safetensors file)")


@contextmanager
def no_remote_code() -> Iterator[None]:
    """Within the block, transformers neither imports code that a model brings nor asks whether it may.

    The second line of defence: `check_no_code` has rejected such models, but some libraries fetch further files.
    """
    from transformers import dynamic_module_utils

    def refuse(class_name: str, *_: Any, **__: Any) -> Any:
        raise ValueError(f"the model brings its own code ({class_name}), which is never run")

    before = dynamic_module_utils.get_class_in_module, dynamic_module_utils.TIME_OUT_REMOTE_CODE
    dynamic_module_utils.get_class_in_module = refuse
    dynamic_module_utils.TIME_OUT_REMOTE_CODE = 0
    try:
        yield
    finally:
        dynamic_module_utils.get_class_in_module, dynamic_module_utils.TIME_OUT_REMOTE_CODE = before


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = read_json(path, _LARGEST_CONFIG_BYTES)
    except FileNotFoundError as error:
        raise UserError(f"{path}: is missing; give the folder of an open_clip model") from error
    if not isinstance(content, dict):
        raise UserError(f"{path}: is not a JSON object")
    return content


def _check_entries(path: Path, value: Any, depth: int = 0) -> None:
    if depth > _DEEPEST:
        raise UserError(f"{path}: is nested more than {_DEEPEST} levels deep")
    if isinstance(value, dict):
        if "auto_map" in value:
            raise UserError(f"{path}: has an auto_map, which names Python code to run; code from a folder is never run")
        if value.get("trust_remote_code"):
            raise UserError(f"{path}: sets trust_remote_code; code from a folder is never run")
        value = list(value.values())
    if isinstance(value, list):
        for entry in value:
            _check_entries(path, entry, depth + 1)


def _check_sizes(path: Path, value: Any, name: str = "model_cfg") -> None:
    if isinstance(value, dict):
        for key, entry in value.items():
            _check_sizes(path, entry, str(key))
    elif isinstance(value, list):
        for entry in value:
            _check_sizes(path, entry, name)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        largest = _LARGEST.get(name, _LARGEST_NUMBER)
        if not abs(value) <= largest:
            raise UserError(f"{path}: {name} = {value}; {largest:,} is the limit")


def _check_name(path: Path, key: str, name: Any, allowed: str) -> None:
    """Reject names that are paths, addresses or other schemes of the libraries."""
    if name is None:
        return
    plain = isinstance(name, str) and all(part and not part.startswith(".") for part in name.split("/"))
    if not plain or len(name) > 200 or not all(letter.isalnum() or letter in f"._-{allowed}" for letter in name):
        raise UserError(f"{path}: {key} = {str(name)[:80]!r} is not the name of a model")
