"""Fixtures: recorded answers that the real command can replay, and a trained run."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from sspa.shared.label_sets import Label
from sspa.stage1_knowledge.answer_forms import SentenceForm
from sspa.stage1_knowledge.answer_store import AnswerStore
from sspa.stage1_knowledge.asking import Asker
from sspa.stage1_knowledge.engines.contract import Answer, Identity, Sampling
from sspa.stage1_knowledge.keys import common_parts, digest
from sspa.stage1_knowledge.prompt import built_in_prompt

from .browser import browser
from .tiny_run import train_arguments, write_inputs

__all__ = ["browser"]

DESCRIPTIONS = {
    "cat": "A cat is a small furry animal with pointed ears and a long tail, often seen with a bowl.",
    "dog": "A dog is a four-legged animal with a wet nose and floppy ears, often seen on a red lead.",
}


@pytest.fixture
def recorded(tmp_path: Path) -> Path:
    """An answer cache with answers about a cat and a dog."""
    identity = Identity("scripted 1", "teller", revision="r1")
    form = SentenceForm()
    common = digest(common_parts(identity, Sampling(), form.name, None))
    asker = Asker(built_in_prompt("natural"), form, Sampling(), 3, common, lambda _: None)
    store = AnswerStore(tmp_path / "recorded")
    for label, description in DESCRIPTIONS.items():
        (question,) = asker.questions(Label(label, label), 1)
        store.add(identity, [(asker.key(question), Answer(description, "stop", 9, 9))])
    store.close()
    return tmp_path / "recorded"


@dataclass(frozen=True)
class Ended:
    """The exit code and the output of a command."""

    code: int
    output: str
    messages: str


@pytest.fixture
def sspa_train(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Ended]:
    """`sspa-train` with these arguments, in this process."""

    def command(*arguments: str | Path) -> Ended:
        capsys.readouterr()
        return Ended(_end_of(monkeypatch, arguments), *capsys.readouterr())

    return command


@pytest.fixture(scope="session")
def squares(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with everything that a run needs; see `tiny_run`."""
    folder = tmp_path_factory.mktemp("squares")
    write_inputs(folder)
    return folder


@pytest.fixture(scope="session")
def trained_run(squares: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder written by the real command; tests must not change it."""
    import torch

    # So small a model gains nothing from threads, and on a busy machine they wait for each other.
    torch.set_num_threads(1)
    out = tmp_path_factory.mktemp("runs") / "squares-run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SSPA_CACHE", str(tmp_path_factory.mktemp("cache")))
        assert _end_of(patch, train_arguments(squares, out)) == 0
    return out


def _end_of(patch: pytest.MonkeyPatch, arguments: Sequence[str | Path]) -> int:
    from sspa.stage2_training.cli.main import main

    patch.setattr("sys.argv", ["sspa-train", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        main()
    return int(ended.value.code or 0)
