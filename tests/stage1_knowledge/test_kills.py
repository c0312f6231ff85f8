"""SIGKILL at random moments: the same command goes on, asks nothing twice, and ends in the same bytes."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sspa.shared.label_sets import Label
from sspa.stage1_knowledge.answer_forms import SentenceForm
from sspa.stage1_knowledge.answer_store import AnswerStore
from sspa.stage1_knowledge.asking import Asker
from sspa.stage1_knowledge.engines.contract import Answer, Identity, Sampling
from sspa.stage1_knowledge.keys import common_parts, digest
from sspa.stage1_knowledge.prompt import built_in_prompt

LABELS = 2000
KILLS = int(os.environ.get("SSPA_KILLS", "4"))  # the figure in docs/results.md is for 20

# The real command, with a replay engine that takes a moment for each block and writes down what it is asked.
PROGRAM = """
import sys
import time
from sspa.stage1_knowledge.engines import replay
real, log_path = replay.Replay.answer, sys.argv[1]
def slow(self, requests):
    with open(log_path, "a", buffering=1) as log:
        for request, answer in real(self, requests):
            time.sleep(0.0005)
            yield request, answer
            log.write(request.key + "\\n")  # only once the answer was taken
replay.Replay.answer = slow
sys.argv = ["sspa-knowledge", *sys.argv[2:]]
from sspa.stage1_knowledge.commands import main
main()
"""


@pytest.fixture
def recorded_many(tmp_path: Path) -> Path:
    """Answers about 2,000 labels, every seventh of them poor at first, and the label file."""
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


def command(folder: Path, output: str) -> list[str]:
    options = ["--labels", "things.txt", "--replay", "recorded", "--output", output]
    return [sys.executable, "-c", PROGRAM, str(folder / f"{output}.log"), "generate", *options]


@pytest.mark.slow
def test_killed_at_random_moments_it_ends_in_the_same_bytes_and_asks_nothing_twice(recorded_many: Path) -> None:
    began = time.monotonic()
    subprocess.run(command(recorded_many, "whole.parquet"), cwd=recorded_many, check=True, capture_output=True)
    lasted = time.monotonic() - began
    whole = (recorded_many / "whole.parquet").read_bytes()
    draw = random.Random(0)
    killed = 0
    for trial in range(KILLS):
        output = f"killed{trial}.parquet"
        running = subprocess.Popen(
            command(recorded_many, output), cwd=recorded_many, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            running.wait(timeout=draw.uniform(0.3, 1.0) * lasted)
        except subprocess.TimeoutExpired:
            running.send_signal(signal.SIGKILL)
            running.wait()
            killed += 1
        subprocess.run(command(recorded_many, output), cwd=recorded_many, check=True, capture_output=True)
        assert (recorded_many / output).read_bytes() == whole, f"trial {trial}"
        asked = (recorded_many / f"{output}.log").read_text().split()
        # The one answer that was under way when the kill came may not have been taken.
        assert len(asked) == len(set(asked)), f"trial {trial}"
        assert not (recorded_many / f"{output}.journal").exists()
    assert killed >= KILLS // 2
