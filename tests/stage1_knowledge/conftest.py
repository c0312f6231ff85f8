"""A scripted engine, and jobs that use it."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest

from sspa.shared.label_sets import LabelSet, parse_label_set
from sspa.stage1_knowledge.answer_forms import SentenceForm
from sspa.stage1_knowledge.engines.contract import Answer, Engine, Identity, Request, Sampling
from sspa.stage1_knowledge.generation import Job
from sspa.stage1_knowledge.prompt import built_in_prompt

IDENTITY = Identity("scripted 1", "teller", revision="r1", dtype="float32", chat_template="t")


class ScriptedEngine(Engine):
    """Answers by a function of the question's last message and the seed; counts how often each key was asked."""

    def __init__(self, script: Callable[[str, int], Answer | str], identity: Identity = IDENTITY) -> None:
        self.script, self._identity = script, identity
        self.asked: Counter[str] = Counter()
        self.requests: list[Request] = []

    @property
    def identity(self) -> Identity:
        return self._identity

    def answer(self, requests: Iterable[Request]) -> Iterator[tuple[Request, Answer]]:
        for request in requests:
            self.asked[request.key] += 1
            self.requests.append(request)
            said = self.script(request.messages[-1]["content"], request.seed)
            yield request, said if isinstance(said, Answer) else Answer(said, "stop", 10, len(said.split()))


def plain_script(question: str, seed: int) -> str:
    """A good description that differs between labels, as their questions do."""
    subject = question.split(" of a ")[1].split(" shows")[0]
    letters = " ".join(f"{letter}ish" for letter in dict.fromkeys(subject.replace(" ", "")))
    return f"The {subject} is a round wooden thing with a long handle and {letters} stripes, often seen with people."


@pytest.fixture
def scripted() -> type[ScriptedEngine]:
    return ScriptedEngine


@pytest.fixture
def teller() -> ScriptedEngine:
    return ScriptedEngine(plain_script)


@pytest.fixture
def make_job(tmp_path: Path) -> Callable[..., Job]:
    def make(*labels: str, **changes: object) -> Job:
        label_set: LabelSet = parse_label_set("\n".join(labels or ("cat", "dog", "cow")).encode(), "mine", "mine.txt")
        values: dict = {
            "labels": label_set,
            "domain": "natural",
            "prompt": built_in_prompt("natural"),
            "form": SentenceForm(),
            "sampling": Sampling(),
            "samples": 1,
            "retries": 3,
            "output": tmp_path / "mine.parquet",
        }
        return Job(**{**values, **changes})

    return make
