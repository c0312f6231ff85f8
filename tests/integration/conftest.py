"""Fixtures: recorded answers that the real command can replay, and a trained run."""

import fcntl
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from sspa.shared.label_sets import Label
from sspa.stage1_knowledge.answer_forms import SentenceForm
from sspa.stage1_knowledge.answer_store import AnswerStore
from sspa.stage1_knowledge.asking import Asker
from sspa.stage1_knowledge.engines.contract import Answer, Identity, Sampling
from sspa.stage1_knowledge.keys import common_parts, digest
from sspa.stage1_knowledge.prompt import built_in_prompt

from .browser import browser
from .driver import Driver
from .killed_runs import Runs
from .tiny_run import train_arguments, write_inputs

if TYPE_CHECKING:
    from sspa.stage2_training.inference.tagger import Tagger

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
def inputs_and_run(worker_id: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `squares` and `squares-run`, made by whichever of pytest's workers comes first."""
    import torch

    # So small a model gains nothing from threads, and on a busy machine they wait for each other.
    torch.set_num_threads(1)
    base = tmp_path_factory.getbasetemp()
    folder = (base if worker_id == "master" else base.parent) / "trained"
    folder.mkdir(exist_ok=True)
    with (folder / "lock").open("w") as lock, pytest.MonkeyPatch.context() as patch:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "squares-run").exists():
            (folder / "squares").mkdir()
            write_inputs(folder / "squares")
            patch.setenv("SSPA_CACHE", str(folder / "cache"))
            assert _end_of(patch, train_arguments(folder / "squares", folder / "squares-run")) == 0
    return folder


@pytest.fixture(scope="session")
def squares(inputs_and_run: Path) -> Path:
    """A folder with everything that a run needs; see `tiny_run`. Tests must not change it."""
    return inputs_and_run / "squares"


@pytest.fixture(scope="session")
def trained_run(inputs_and_run: Path) -> Path:
    """A run folder written by the real command; tests must not change it."""
    return inputs_and_run / "squares-run"


@pytest.fixture(scope="module")
def tagger(trained_run: Path) -> "Tagger":
    """The trained run in Python; tests must not bind it to other labels."""
    from sspa.stage2_training.inference.tagger import Tagger

    return Tagger.load(trained_run, device="cpu")


@pytest.fixture(scope="session")
def started_driver() -> Iterator[Driver]:
    """The process that `driver` asks, one for all files of tests, since starting it takes seconds."""
    started = Driver()
    yield started
    started.end()


@pytest.fixture(scope="module")
def driver(started_driver: Driver, squares: Path, tmp_path_factory: pytest.TempPathFactory) -> Runs:
    """Trains on the squares in processes that are killed where a test says so."""
    return Runs(started_driver, squares, tmp_path_factory.mktemp("cache"))


def _end_of(patch: pytest.MonkeyPatch, arguments: Sequence[str | Path]) -> int:
    from sspa.stage2_training.cli.main import main

    patch.setattr("sys.argv", ["sspa-train", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        main()
    return int(ended.value.code or 0)
