"""Where a model comes from: folders with and without chat template, and a template of the user's own."""

import hashlib
import json
from pathlib import Path

import pytest
from jinja2.sandbox import ImmutableSandboxedEnvironment

from sspa.shared.errors import UserError
from sspa.shared.label_sets import Label
from sspa.stage1_knowledge.engines.choice import EngineOptions, choose_engine
from sspa.stage1_knowledge.engines.contract import Sampling
from sspa.stage1_knowledge.model_source import PLAIN_TEXT, find_model
from sspa.stage1_knowledge.prompt import built_in_prompt


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SSPA_CACHE", str(tmp_path / "cache"))
    made = tmp_path / "model"
    made.mkdir()
    (made / "config.json").write_text("{}")
    (made / "model.safetensors").write_bytes(b"weights")
    (made / "tokenizer_config.json").write_text("{}")
    return made


def test_a_model_without_chat_template_is_asked_in_plain_text_and_that_is_said(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = find_model(str(folder))
    assert model.template == PLAIN_TEXT
    assert model.chat_template == hashlib.sha256(PLAIN_TEXT.encode()).hexdigest()
    assert model.stops == ("\n\n", "\nQuestion:")
    assert "model has no chat template: it is asked in plain text" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("chat_template.jinja", "{{ messages }}"),
        ("chat_template.json", '{"chat_template": "{{ messages }}"}'),
        ("tokenizer_config.json", '{"chat_template": "{{ messages }}"}'),
        ("tokenizer_config.json", json.dumps({"chat_template": [{"name": "default", "template": "{{ messages }}"}]})),
        ("tekken.json", "{}"),
        ("model.gguf", ""),
    ],
)
def test_a_chat_template_is_found_wherever_it_is(
    folder: Path, name: str, content: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / name).write_text(content)
    model = find_model(str(folder))
    assert (model.template, model.stops) == (None, ())
    assert capsys.readouterr().err == ""


def test_the_plain_text_is_the_chat_as_questions_and_answers() -> None:
    chat = [{"role": "system", "content": "Be brief."}, *built_in_prompt("natural").chat(Label("cat", "cat"))]
    # As transformers renders chat templates.
    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    text = environment.from_string(PLAIN_TEXT).render(messages=chat, add_generation_prompt=True)
    _, asked, shown, question = (turn["content"] for turn in chat)
    assert text == f"Be brief.\n\nQuestion: {asked}\nAnswer: {shown}\n\nQuestion: {question}\nAnswer:"


def test_a_template_of_ones_own_takes_precedence(folder: Path, tmp_path: Path) -> None:
    own = tmp_path / "own.jinja"
    own.write_text("{{ messages[0].content }}")
    (folder / "chat_template.jinja").write_text("{{ messages }}")
    model = find_model(str(folder), own)
    assert model.template == own.read_text()
    assert model.chat_template == hashlib.sha256(own.read_bytes()).hexdigest()
    assert model.chat_template != find_model(str(folder)).chat_template


@pytest.mark.parametrize(
    ("content", "words"),
    [(None, "cannot be read"), (b"\xff\xfe", "not UTF-8"), (b"hello", "does not mention `messages`"),
     (b" " * (1 << 21), "is the limit")],
)  # fmt: skip
def test_a_template_that_is_none_is_refused(folder: Path, tmp_path: Path, content: bytes | None, words: str) -> None:
    own = tmp_path / "own.jinja"
    if content is not None:
        own.write_bytes(content)
    with pytest.raises(UserError, match=words):
        find_model(str(folder), own)


def test_a_template_is_for_models_that_run_here(tmp_path: Path) -> None:
    options = EngineOptions(endpoints=["http://127.0.0.1:9/v1"], chat_template=tmp_path / "own.jinja")
    with pytest.raises(UserError, match="--chat-template is for a model that vLLM runs here"):
        choose_engine(options, Sampling(), None)


def test_a_model_with_code_of_its_own_needs_trust(folder: Path) -> None:
    (folder / "config.json").write_text('{"auto_map": {"AutoModel": "modelling.Model"}}')
    with pytest.raises(UserError, match="Python code of the model's own; if you trust it, add --trust-remote-code"):
        find_model(str(folder))
    assert find_model(str(folder), code=True).path == folder


@pytest.mark.parametrize("spec", [None, "folder"])
def test_a_revision_is_for_the_hub(folder: Path, spec: str | None) -> None:
    with pytest.raises(UserError, match="--revision main: is for a --model from the hub"):
        find_model(str(folder) if spec else None, revision="main")


def test_revision_and_trust_reach_the_hub(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []

    def snapshot_download(name: str, *, revision: str, allow_patterns: list[str], **_: object) -> str:
        asked.append((name, revision, "*.py" in allow_patterns))
        return str(folder)

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    (folder / "modelling.py").write_text("")
    assert find_model("owner/name", revision="v2", code=True).revision == folder.name
    assert asked == [("owner/name", "v2", True)]
