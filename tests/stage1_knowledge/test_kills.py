"""SIGKILL at random moments: the same command resumes, asks nothing twice, and ends with the same bytes."""

import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from sspa.shared.label_sets import Label
from sspa.stage1_knowledge.answer_forms import SentenceForm
from sspa.stage1_knowledge.answer_store import AnswerStore
from sspa.stage1_knowledge.asking import Asker
from sspa.stage1_knowledge.engines.contract import Answer, Identity, Sampling
from sspa.stage1_knowledge.keys import common_parts, digest
from sspa.stage1_knowledge.prompt import built_in_prompt

LABELS = int(os.environ.get("SSPA_KILL_LABELS", "500"))
KILLS = int(os.environ.get("SSPA_KILLS", "3"))  # docs/results.md: 20, with 2,000 labels

# The real command, with a replay engine that logs its requests and kills the process after this many answers;
# with 0, when the finished table is about to be moved into place.
PROGRAM = """
import os
import pathlib
import signal
import sys
from sspa.stage1_knowledge.engines import replay
log_path, kill_after = sys.argv[1], int(sys.argv[2])
real, move, taken = replay.Replay.answer, pathlib.Path.replace, 0
def die():
    os.kill(os.getpid(), signal.SIGKILL)
def counted(self, requests):
    global taken
    with open(log_path, "a", buffering=1) as log:
        for request, answer in real(self, requests):
            yield request, answer
            log.write(request.key + "\\n")  # only once the answer was taken
            taken += 1
            if taken == kill_after:
                die()
def moved(self, target):
    if kill_after == 0 and str(target).endswith(".parquet"):
        die()
    return move(self, target)
replay.Replay.answer, pathlib.Path.replace = counted, moved
sys.argv = ["sspa-knowledge", *sys.argv[3:]]
from sspa.stage1_knowledge.commands import main
main()
"""
_NEVER = -1


@pytest.fixture
def recorded_many(tmp_path: Path) -> Path:
    """Answers about all labels, every seventh of them poor at first, and the label file."""
    identity, form = Identity("scripted 1", "teller"), SentenceForm()
    common = digest(common_parts(identity, Sampling(), form.name, None))
    asker = Asker(built_in_prompt("natural"), form, Sampling(), 3, common, lambda _: None)
    answers = []
    labels = [f"thing {number}" for number in range(LABELS)]
    for number, name in enumerate(labels):
        (question,) = asker.questions(Label(name, name), 1)
        if number % 7 == 0:
            answers.append((asker.key(question), Answer("", "stop", 9, 1)))
            question.answers.append(Answer("", "stop"))
        text = f"The {name} is a round wooden box number {number * 7919} with a red lid, often seen on a table."
        answers.append((asker.key(question), Answer(text, "stop", 9, 20)))
    store = AnswerStore(tmp_path / "recorded")
    store.add(identity, answers)
    store.close()
    (tmp_path / "things.txt").write_text("\n".join(labels) + "\n")
    return tmp_path


def run(folder: Path, output: str, kill_after: int = _NEVER) -> int:
    """Exit code of the command, which is killed after this many answers."""
    options = ["--labels", "things.txt", "--samples", "1", "--replay", "recorded", "--output", output]
    command = [sys.executable, "-c", PROGRAM, str(folder / f"{output}.log"), str(kill_after), "generate", *options]
    return subprocess.run(command, cwd=folder, capture_output=True, check=False).returncode


@pytest.mark.slow
def test_killed_at_random_moments_it_ends_in_the_same_bytes_and_asks_nothing_twice(recorded_many: Path) -> None:
    assert run(recorded_many, "whole.parquet") == 0
    whole = (recorded_many / "whole.parquet").read_bytes()
    answers = len((recorded_many / "whole.parquet.log").read_text().split())
    draw = random.Random(0)
    for trial, kill_after in enumerate([0, *(draw.randrange(1, answers) for _ in range(KILLS - 1))]):
        output = f"killed{trial}.parquet"
        assert run(recorded_many, output, kill_after) == -signal.SIGKILL
        assert not (recorded_many / output).exists()
        assert run(recorded_many, output) == 0
        assert (recorded_many / output).read_bytes() == whole, f"killed after {kill_after}"
        asked = (recorded_many / f"{output}.log").read_text().split()
        # The one answer that was under way when the kill came may not have been taken.
        assert len(asked) == len(set(asked)), f"killed after {kill_after}"
        assert not (recorded_many / f"{output}.journal").exists()
