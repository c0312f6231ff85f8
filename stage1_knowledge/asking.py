"""Asking: from questions to settled descriptions, in rounds, each answer kept before it is judged.

Everything here is a pure function of the answers: whatever order they arrive in, and however often the
run is killed, the same answers settle on the same descriptions.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property

from sspa.shared.label_sets import Label
from sspa.stage1_knowledge.answer_forms import AnswerForm
from sspa.stage1_knowledge.answer_text import cleaned
from sspa.stage1_knowledge.engines.contract import Answer, Engine, Message, Request, Sampling
from sspa.stage1_knowledge.keys import messages_digest, request_key
from sspa.stage1_knowledge.prompt import Prompt
from sspa.stage1_knowledge.verdicts import Demonstration, Verdict, judge

# The attempts of one sample use consecutive seeds; those of the next sample start this much later.
ATTEMPTS_PER_SAMPLE = 1000
# A truncated answer doubles the token limit of the next attempt, up to this multiple of the first.
MAX_GROWTH = 4


@dataclass(slots=True)
class Question:
    """One label and sample, with its answers so far. `key` is that of its first attempt."""

    label: Label
    sample: int
    messages_hash: str
    key: str
    answers: list[Answer] = field(default_factory=list)
    settled: "Settled | None" = None


@dataclass(frozen=True, slots=True)
class Settled:
    """The description that was kept, and which attempt it came from."""

    description: str
    verdict: Verdict
    attempt: int


@dataclass(frozen=True)
class Asker:
    """What all questions of a run share.

    `retries` is how often a question may be asked again. `known` looks up an answer from an earlier run.
    """

    prompt: Prompt
    form: AnswerForm
    sampling: Sampling
    retries: int
    common: str
    known: Callable[[str], Answer | None]

    def questions(self, label: Label, samples: int) -> list[Question]:
        """The questions about a label, one per sample."""
        messages_hash = messages_digest(self.form.messages(self.prompt, label))
        asked = [Question(label, sample, messages_hash, key="") for sample in range(samples)]
        for question in asked:
            question.key = self.key(question)
        return asked

    def draw(self, question: Question, attempt: int | None = None) -> tuple[int, int]:
        """Seed and token limit of an attempt; of the next one by default."""
        before = question.answers[:attempt]
        truncated = sum(answer.finish == "length" for answer in before)
        max_tokens = self.sampling.max_tokens * min(2**truncated, MAX_GROWTH)
        return self.sampling.seed + ATTEMPTS_PER_SAMPLE * question.sample + len(before), max_tokens

    def key(self, question: Question, attempt: int | None = None) -> str:
        """The key of an attempt; of the next one by default."""
        if question.key and (attempt == 0 or not question.answers):
            return question.key
        seed, max_tokens = self.draw(question, attempt)
        return request_key(self.common, question.messages_hash, seed, max_tokens)

    def advance(self, question: Question) -> bool:
        """Use known answers until the question is settled or has to be asked; True if settled."""
        while not (question.answers and self._settle(question)):
            answer = self.known(self.key(question))
            if answer is None:
                return False
            question.answers.append(answer)
        return True

    def ask(self, questions: list[Question], engine: Engine, keep: Callable[[str, Answer], None]) -> Iterator[Question]:
        """Ask until every question is settled; yield each question as it settles.

        Args:
            questions: the unsettled ones.
            engine: answers them.
            keep: called with key and answer before anything else happens to the answer.
        """
        pending = questions
        while pending:
            waiting = self._by_key(pending)
            pending = []
            for request, raw in engine.answer(self._requests(waiting)):
                answer = cleaned(raw)
                keep(request.key, answer)
                for question in waiting.pop(request.key):
                    question.answers.append(answer)
                    if self.advance(question):
                        yield question
                    else:
                        pending.append(question)
            if waiting:
                raise RuntimeError(f"the engine left {len(waiting)} requests unanswered")

    def requests(self, questions: Iterable[Question]) -> Iterable[Request]:
        """What would be asked now about unsettled questions."""
        return self._requests(self._by_key(questions))

    def _by_key(self, questions: Iterable[Question]) -> dict[str, list[Question]]:
        """Questions that ask the same are asked once."""
        by_key: dict[str, list[Question]] = {}
        for question in questions:
            by_key.setdefault(self.key(question), []).append(question)
        return by_key

    def _requests(self, waiting: dict[str, list[Question]]) -> Iterable[Request]:
        # The dictionary shrinks while the engine answers, so iterate over a copy.
        label: Label | None = None
        messages: tuple[Message, ...] = ()
        for key, first in [(key, questions[0]) for key, questions in waiting.items()]:
            if first.label is not label:
                label, messages = first.label, tuple(self.form.messages(self.prompt, first.label))
            seed, max_tokens = self.draw(first)
            yield Request(key, messages, seed, max_tokens)

    def _settle(self, question: Question) -> bool:
        """Settle the question if its last answer is good, or on the least bad answer if no attempt is left."""
        last = len(question.answers) - 1
        description, verdict = self.judged(question.answers[last], question.label)
        if verdict.good:
            question.settled = Settled(description, verdict, last)
        elif last >= self.retries:
            all_judged = [self.judged(answer, question.label) for answer in question.answers]
            attempt = min(range(len(all_judged)), key=lambda index: (all_judged[index][1].severity, index))
            question.settled = Settled(*all_judged[attempt], attempt)
        return question.settled is not None

    def judged(self, answer: Answer, label: Label) -> tuple[str, Verdict]:
        """The description of an answer, and the verdict on it."""
        read = self.form.read(answer, self.prompt, label)
        return read.description, judge(read.description, label.text, self.demonstration, read.complete, read.fault)

    @cached_property
    def demonstration(self) -> Demonstration:
        """The prompt's example, which no answer may repeat."""
        return Demonstration(self.prompt.demonstration_label, self.prompt.demonstration_answer)
