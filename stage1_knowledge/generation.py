"""One run of `sspa-knowledge generate`: reuse what is known, ask the rest, write the table.

Killed at any moment, the same command resumes where it stopped: answers are in the journal beside the
output, and the finished table depends on the answers alone.
"""

import gc
import json
import platform
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from sspa.shared.files import replacing
from sspa.shared.holding import held
from sspa.shared.label_sets import LabelSet
from sspa.shared.terminal import progress, say
from sspa.stage1_knowledge.answer_forms import AnswerForm
from sspa.stage1_knowledge.answer_store import AnswerStore
from sspa.stage1_knowledge.asking import Asker, Question
from sspa.stage1_knowledge.engines.contract import Answer, Engine, Sampling
from sspa.stage1_knowledge.journal import Journal
from sspa.stage1_knowledge.keys import common_parts, digest
from sspa.stage1_knowledge.prompt import Prompt
from sspa.stage1_knowledge.table import StoredTable, Writer


@dataclass(frozen=True)
class Job:
    """What a run has to produce: the resolved options of `generate`."""

    labels: LabelSet
    domain: str
    prompt: Prompt
    form: AnswerForm
    sampling: Sampling
    samples: int
    retries: int
    output: Path
    rejudge: bool = False


@dataclass
class Plan:
    """What is known and what has to be asked, in the order of the table.

    `rows` holds, for each label and sample, the position of a stored row or a question; `open` holds the
    questions that no known answer settles.
    """

    rows: list[int | Question]
    open: list[Question]
    stored: StoredTable | None
    asker: Asker
    known: Counter[str] = field(default_factory=Counter)

    @property
    def up_to_date(self) -> bool:
        """True if the stored table is already what the job asks for."""
        return (
            self.stored is not None
            and len(self.rows) == self.stored.count
            and all(row == position for position, row in enumerate(self.rows))
        )


@dataclass(frozen=True)
class Outcome:
    """What a run did; `doubtful` has a reason for each doubtful description of the table.

    Times and speeds are recorded beside the table, not in it.
    """

    rows: int
    asked: int
    answers: int
    written: bool
    seconds: float
    doubtful: list[str] = field(default_factory=list)
    prompt_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0
    kept_old: Path | None = None


def generate(job: Job, engine: Engine, cache: AnswerStore | None = None) -> Outcome:
    """Write the job's table, asking for what is not known.

    Raises:
        UserError: another run holds the output, the old output is not a knowledge file, the engine cannot
            start, or the disk is full. The answers so far are then in the journal.
    """
    began = time.monotonic()
    with held(job.output, "wait for it, or choose another --output"):
        journal = Journal(journal_path(job.output))
        try:
            with _collector_paused():
                plan = make_plan(job, engine, journal.answers, cache)
            usage: Counter[str] = Counter()
            try:
                if plan.open:
                    _ask(plan, engine, journal, usage)
            finally:
                if cache is not None and any(isinstance(row, Question) for row in plan.rows):
                    # Including those of an earlier, killed run: so far only its journal has them.
                    cache.add(engine.identity, _answers(plan))
            if plan.stored is not None and plan.up_to_date:
                seconds = time.monotonic() - began
                return Outcome(len(plan.rows), 0, 0, False, seconds, plan.stored.doubtful_reasons())
            with _collector_paused():
                kept_old, doubtful = _write(job, plan, engine)
        finally:
            journal.close()
            gc.unfreeze()
        # Only now is the table safe. Answers to other settings' questions stay in the journal.
        journal.forget({key for key, _ in _answers(plan)})
    outcome = Outcome(
        rows=len(plan.rows),
        asked=len(plan.open),
        answers=usage["answers"],
        written=True,
        seconds=time.monotonic() - began,
        doubtful=doubtful,
        prompt_tokens=usage["prompt_tokens"],
        cached_tokens=usage["cached_tokens"],
        output_tokens=usage["output_tokens"],
        kept_old=kept_old,
    )
    if usage["answers"]:
        _write_run_record(job, engine, outcome, usage)
    return outcome


@contextmanager
def _collector_paused() -> Iterator[None]:
    """Pause garbage collection, and exempt what the block creates until the end of the run.

    The collector would walk hundreds of thousands of questions and rows repeatedly: a tenth of a large run's time.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def make_plan(job: Job, engine: Engine, journal: Mapping[str, Answer], cache: AnswerStore | None) -> Plan:
    """Look every question up in the old table, the journal and the cache; nothing is asked or written."""
    common = digest(common_parts(engine.identity, job.sampling, job.form.name, job.form.schema))
    cached: dict[str, Answer] = {}

    def known(key: str) -> Answer | None:
        answer = journal.get(key)
        if answer is None and cache is not None:
            if key not in cached:
                cached.update(cache.find([key]))
            answer = cached.get(key)
        return answer

    asker = Asker(job.prompt, job.form, job.sampling, job.retries, common, known)
    stored = StoredTable.read(job.output) if job.output.exists() else None
    plan = Plan([], [], stored, asker)
    asked: list[Question] = []
    for label in job.labels.labels:
        for question in asker.questions(label, job.samples):
            row = stored.find(label, question.sample, question.key) if stored else None
            if stored is not None and row is not None:
                if stored.origin(row) == "human":
                    plan.known["written by a person"] += 1
                    plan.rows.append(row)
                    continue
                if not job.rejudge and stored.is_settled(row, job.retries) and stored.is_about(row, label, job.domain):
                    plan.known["in the table"] += 1
                    plan.rows.append(row)
                    continue
                question.answers = stored.answers(row)
            asked.append(question)
            plan.rows.append(question)
    if cache is not None:
        # One lookup for all of them.
        cached.update(cache.find(asker.key(question) for question in asked))
    for question in asked:
        if asker.advance(question):
            plan.known["answered already"] += 1
        else:
            plan.open.append(question)
    return plan


def journal_path(output: Path) -> Path:
    """The journal of an unfinished run that writes `output`."""
    return output.with_name(f"{output.name}.journal")


def run_record_path(output: Path) -> Path:
    """The file with times and speeds of the last run that asked anything."""
    return output.with_name(f"{output.stem}.run.json")


def _ask(plan: Plan, engine: Engine, journal: Journal, usage: Counter[str]) -> None:
    began = time.monotonic()

    def keep(key: str, answer: Answer) -> None:
        if not usage["answers"]:
            usage["first_answer_ms"] = round(1000 * (time.monotonic() - began))
        journal.add(key, answer)
        usage["answers"] += 1
        usage["prompt_tokens"] += answer.prompt_tokens
        usage["cached_tokens"] += answer.cached_tokens
        usage["output_tokens"] += answer.output_tokens

    try:
        with progress("asking", total=len(plan.open), unit="descriptions") as bar:
            for _ in plan.asker.ask(plan.open, engine, keep):
                bar.advance(note=f"{usage['output_tokens']} tokens")
    finally:
        usage["asking_ms"] = round(1000 * (time.monotonic() - began))
        engine.close()
        journal.sync()


def _write(job: Job, plan: Plan, engine: Engine) -> tuple[Path | None, list[str]]:
    """Write the table; returns where an old one was kept, and the reason of each doubtful description."""
    writer = Writer(job.domain, job.prompt, job.form.name, job.sampling, engine.identity)
    for row in plan.rows:
        if isinstance(row, Question):
            writer.add_question(row, plan.asker)
        else:
            assert plan.stored is not None
            writer.add_stored(plan.stored, row)
    kept_old = None
    if plan.stored is not None and plan.stored.count > sum(not isinstance(row, Question) for row in plan.rows):
        replaced = {row.key for row in plan.rows if isinstance(row, Question)}
        if lost := plan.stored.rows_without({row for row in plan.rows if isinstance(row, int)}, replaced):
            kept_old = job.output.with_name(f"{job.output.stem}.{plan.stored.content_hash[:12]}.parquet")
            say(f"{len(lost)} rows of the old {job.output.name} are not in the new table; it is kept as {kept_old}")
            with replacing(kept_old) as beside:
                beside.write_bytes(job.output.read_bytes())
    return kept_old, writer.write(job.output)


def _answers(plan: Plan) -> Iterator[tuple[str, Answer]]:
    """Every answer of this run's questions, with its key."""
    for row in plan.rows:
        if isinstance(row, Question):
            for attempt, answer in enumerate(row.answers):
                yield plan.asker.key(row, attempt), answer


def _write_run_record(job: Job, engine: Engine, outcome: Outcome, usage: Counter[str]) -> None:
    record = {
        "output": job.output.name,
        "finished": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "host": platform.node(),
        "python": platform.python_version(),
        "engine": engine.identity.engine,
        "engine_arguments": engine.identity.engine_arguments,
        "model": engine.identity.model,
        "left_out": list(engine.left_out),
        "rows": outcome.rows,
        "questions_asked": outcome.asked,
        "answers": outcome.answers,
        "prompt_tokens": outcome.prompt_tokens,
        "cached_prompt_tokens": outcome.cached_tokens,
        "output_tokens": outcome.output_tokens,
        "seconds": round(outcome.seconds, 3),
        "seconds_to_first_answer": usage["first_answer_ms"] / 1000,
        "seconds_asking": usage["asking_ms"] / 1000,
    }
    with replacing(run_record_path(job.output)) as beside:
        beside.write_text(json.dumps(record, indent=1) + "\n")
