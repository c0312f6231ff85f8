"""Where a language model comes from: a folder, a hub name, or the embedded one; and what pins it.

The identity of a model must be known without starting an engine, and on a second run within a fraction of
a second: hashes of weights are cached by path, size and modification time.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path

from sspa.shared.cache import cache_folder
from sspa.shared.errors import UserError
from sspa.shared.files import replacing
from sspa.shared.hub import hub_folder
from sspa.shared.json_files import read_json
from sspa.shared.terminal import say
from sspa.stage1_knowledge import embedded_model

_WEIGHTS = (".safetensors", ".bin", ".gguf", ".pt")
_CHAT_TEMPLATES = ("chat_template.jinja", "chat_template.json", "tokenizer_config.json")


@dataclass(frozen=True)
class ModelSource:
    """A model that was found; its files may still have to be converted (see `folder`).

    `revision` pins the weights: a commit of the hub, or a hash over all files of the folder.
    """

    name: str
    revision: str
    quantisation: str
    chat_template: str
    path: Path | None

    def folder(self) -> Path:
        """The folder an engine loads; the embedded model is converted first if necessary."""
        return self.path or embedded_model.model_folder()


def find_model(spec: str | None) -> ModelSource:
    """Find the model named by --model, or the embedded one.

    Raises:
        UserError: no such folder or hub name, or a folder without a model.
    """
    if spec is None:
        weights = embedded_model.weights_file()
        return ModelSource(
            name=embedded_model.NAME,
            revision=_file_hash(weights),
            quantisation=embedded_model.QUANTISATION,
            chat_template="",
            path=None,
        )
    path = Path(spec).expanduser()
    if path.is_dir():
        return _from_folder(path, name=path.resolve().name)
    if path.exists() or spec.count("/") != 1 or spec.startswith((".", "/", "~")):
        raise UserError(
            f"--model {spec}: no such model folder; give a folder with config.json, or a hub name owner/name"
        )
    folder = hub_folder(
        f"--model {spec}", spec, None, "name a local model folder, or leave --model out for the embedded model"
    )
    return _from_folder(folder, name=spec, revision=folder.name)


def _from_folder(path: Path, name: str, revision: str = "") -> ModelSource:
    if not (path / "config.json").is_file():
        raise UserError(f"--model {path}: has no config.json; give the folder of a transformers model")
    files = sorted(file for file in path.iterdir() if file.is_file() and not file.name.startswith("."))
    if not any(file.suffix in _WEIGHTS for file in files):
        raise UserError(f"--model {path}: has no weights ({', '.join(_WEIGHTS)})")
    config = read_json(path / "config.json")
    if not isinstance(config, dict):
        raise UserError(f"--model {path}: config.json is not a JSON object")
    if "auto_map" in config:
        raise UserError(f"--model {path}: config.json has an auto_map, which names Python code; such code is never run")
    if not revision:
        whole = hashlib.sha256()
        for file in files:
            whole.update(f"{file.name} {_file_hash(file)}\n".encode())
        revision = whole.hexdigest()
    quantised = config.get("quantization_config")
    quantisation = quantised.get("quant_method", "") if isinstance(quantised, dict) else ""
    return ModelSource(name, revision, str(quantisation), _chat_template_hash(path), path)


def _chat_template_hash(folder: Path) -> str:
    """SHA-256 over those files of a folder that can contain the chat template."""
    whole = hashlib.sha256()
    for name in _CHAT_TEMPLATES:
        if (file := folder / name).is_file():
            whole.update(file.read_bytes())
    return whole.hexdigest()


def _file_hash(file: Path) -> str:
    """SHA-256 of a file, cached by path, size and modification time."""
    status = file.stat()
    stamp = f"{file.resolve()} {status.st_size} {status.st_mtime_ns}"
    memory = cache_folder("file_hashes") / f"{hashlib.sha256(stamp.encode()).hexdigest()}.txt"
    if memory.is_file() and len(known := memory.read_text()) == 64:
        return known
    with file.open("rb") as opened:
        computed = hashlib.file_digest(opened, "sha256").hexdigest()
    try:
        with replacing(memory) as beside:
            beside.write_text(computed)
    except UserError as error:
        say(f"{error}; going on without keeping this checksum")
    return computed
