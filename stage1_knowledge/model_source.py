"""Where a language model comes from: a folder, a hub name, or the embedded one; and what pins it.

The identity of a model must be known without starting an engine, and on a second run within a fraction of
a second: hashes of weights are cached by path, size and modification time.
"""

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path

from sspa.shared.errors import UserError
from sspa.shared.file_digests import file_digests
from sspa.shared.hub import hub_folder
from sspa.shared.json_files import read_json
from sspa.shared.terminal import say
from sspa.stage1_knowledge import embedded_model

_WEIGHTS = (".safetensors", ".bin", ".gguf", ".pt")
_CHAT_TEMPLATES = ("chat_template.jinja", "chat_template.json", "tokenizer_config.json")
# Mistral's own tokenizers, which turn messages into text without a template.
_OWN_CHAT = ("tekken.json", "tokenizer.model.v1", "tokenizer.model.v2", "tokenizer.model.v3")
MAX_TEMPLATE_BYTES = 1 << 20
# How a model without chat template is asked: it continues the text behind the last "Answer:".
PLAIN_TEXT = """\
{%- for message in messages -%}
{% if message.role == 'user' %}Question: {% elif message.role == 'assistant' %}Answer: {% endif %}
{{- message.content }}
{%- if message.role == 'user' %}{{ '\\n' }}{% else %}{{ '\\n\\n' }}{% endif %}
{%- endfor -%}
{% if add_generation_prompt %}Answer:{% endif %}"""
_PLAIN_TEXT_STOPS = ("\n\n", "\nQuestion:")


@dataclass(frozen=True)
class ModelSource:
    """A model that was found; its files may still have to be converted (see `folder`).

    `revision` pins the weights: a commit of the hub, or a hash over all files of the folder. `template` is the chat
    template to use in place of the model's own, `stops` what ends an answer beside the model's own end.
    """

    name: str
    revision: str
    quantisation: str
    chat_template: str
    path: Path | None
    template: str | None = None
    stops: tuple[str, ...] = ()

    def folder(self) -> Path:
        """The folder an engine loads; the embedded model is converted first if necessary."""
        return self.path or embedded_model.model_folder()


def find_model(
    spec: str | None, chat_template: Path | None = None, revision: str | None = None, code: bool = False
) -> ModelSource:
    """Find the model named by --model, or the embedded one.

    A model without chat template is asked in plain text, question and answer, which is said.

    Args:
        spec: a folder or a hub name; None for the embedded model.
        chat_template: a file with the chat template to use in place of the model's own.
        revision: commit, branch or tag of a hub name; None for the newest.
        code: whether the model's own Python code may run.

    Raises:
        UserError: no such folder or hub name, a folder without a model, a model with Python code that may not run, or
            a template that cannot be read.
    """
    model = _find(spec, revision, code)
    if chat_template is not None:
        template = _read_template(chat_template)
        return replace(model, template=template, chat_template=hashlib.sha256(template.encode()).hexdigest())
    if model.path is not None and not _has_chat_template(model.path):
        say(
            f"{model.name} has no chat template: it is asked in plain text, as question and answer; "
            "--chat-template FILE names another form"
        )
        plain = hashlib.sha256(PLAIN_TEXT.encode()).hexdigest()
        return replace(model, template=PLAIN_TEXT, chat_template=plain, stops=_PLAIN_TEXT_STOPS)
    return model


def _find(spec: str | None, revision: str | None, code: bool) -> ModelSource:
    if revision is not None and (spec is None or Path(spec).expanduser().is_dir()):
        raise UserError(f"--revision {revision}: is for a --model from the hub, owner/name")
    if spec is None:
        weights = embedded_model.weights_file()
        return ModelSource(
            name=embedded_model.NAME,
            revision=file_digests([weights], "weights")[0],
            quantisation=embedded_model.QUANTISATION,
            chat_template="",
            path=None,
        )
    path = Path(spec).expanduser()
    if path.is_dir():
        return _from_folder(path, path.resolve().name, code)
    if path.exists() or spec.count("/") != 1 or spec.startswith((".", "/", "~")):
        raise UserError(
            f"--model {spec}: no such model folder; give a folder with config.json, or a hub name owner/name"
        )
    remedy = "name a local model folder, or leave --model out for the embedded model"
    folder = hub_folder(f"--model {spec}", spec, revision, remedy, code=code)
    return _from_folder(folder, spec, code, commit=folder.name)


def _from_folder(path: Path, name: str, code: bool, commit: str = "") -> ModelSource:
    if not (path / "config.json").is_file():
        raise UserError(f"--model {path}: has no config.json; give the folder of a transformers model")
    files = sorted(file for file in path.iterdir() if file.is_file() and not file.name.startswith("."))
    if not any(file.suffix in _WEIGHTS for file in files):
        raise UserError(f"--model {path}: has no weights ({', '.join(_WEIGHTS)})")
    config = read_json(path / "config.json")
    if not isinstance(config, dict):
        raise UserError(f"--model {path}: config.json is not a JSON object")
    if "auto_map" in config and not code:
        raise UserError(
            f"--model {path}: config.json has an auto_map, which names Python code of the model's own; if you trust "
            "it, add --trust-remote-code"
        )
    revision = commit
    if not revision:
        whole = hashlib.sha256()
        for file, digest in zip(files, file_digests(files, "model files"), strict=True):
            whole.update(f"{file.name} {digest}\n".encode())
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


def _has_chat_template(folder: Path) -> bool:
    if any((folder / name).is_file() for name in (*_CHAT_TEMPLATES[:2], *_OWN_CHAT)):
        return True
    # The template can be in the model file itself.
    if any(folder.glob("*.gguf")):
        return True
    file = folder / _CHAT_TEMPLATES[2]
    config = read_json(file) if file.is_file() else {}
    return isinstance(config, dict) and bool(config.get("chat_template"))


def _read_template(path: Path) -> str:
    try:
        content = path.read_bytes()
        if len(content) > MAX_TEMPLATE_BYTES:
            raise UserError(f"--chat-template {path}: has {len(content):,} bytes; {MAX_TEMPLATE_BYTES:,} is the limit")
        text = content.decode()
    except OSError as error:
        raise UserError(f"--chat-template {path}: cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise UserError(f"--chat-template {path}: not UTF-8 text") from error
    if "messages" not in text:
        raise UserError(
            f"--chat-template {path}: does not mention `messages`; a chat template (Jinja2) turns them to text"
        )
    return text
