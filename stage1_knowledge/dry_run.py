"""What a run would ask, without asking: described, or written for a provider to answer later."""

from pathlib import Path

from sspa.stage1_knowledge.answer_store import AnswerStore
from sspa.stage1_knowledge.engines.contract import Engine
from sspa.stage1_knowledge.engines.openai_batch import write_batch
from sspa.stage1_knowledge.generation import Job, Plan, journal_path, make_plan
from sspa.stage1_knowledge.journal import read_journal

# For English text and current vocabularies; an estimate, since the tokenizer might have to be downloaded first.
CHARACTERS_PER_TOKEN = 4.2


def describe_plan(job: Job, engine: Engine, cache: AnswerStore | None) -> str:
    """What is known, what would be asked, and roughly how many tokens that takes; nothing is asked or written.

    Raises:
        UserError: as `generate` does for invalid labels, templates, models or existing files.
    """
    plan = _plan(job, engine, cache)
    identity = engine.identity
    lines = [
        f"{job.output}: {len(plan.rows)} descriptions of {len(job.labels.labels)} labels",
        f"model      {identity.model} {identity.revision[:12]} ({identity.engine})",
        f"prompt     {job.prompt.name} ({job.prompt.hash[:12]}), answer form {job.form.name}",
    ]
    lines += [f"arguments  {identity.engine_arguments}"] if identity.engine_arguments else []
    lines += [f"known      {count} {where}" for where, count in plan.known.items()]
    characters = 0
    for question in plan.open:
        characters += sum(len(turn["content"]) for turn in job.form.messages(job.prompt, question.label))
    lines.append(
        f"to ask     {len(plan.open)} descriptions, about {characters / CHARACTERS_PER_TOKEN:,.0f} prompt tokens, "
        f"at most {len(plan.open) * job.sampling.max_tokens:,} tokens written; up to {job.retries} more attempts each"
    )
    for question in plan.open[:1]:
        lines.append("the first question:")
        for turn in job.form.messages(job.prompt, question.label):
            lines.append(f"  {turn['role']}: {turn['content']}")
    return "\n".join(lines)


def write_questions(path: Path, job: Job, engine: Engine, cache: AnswerStore | None) -> int:
    """Write what would be asked as a batch file; returns how many questions.

    Raises:
        UserError: as `describe_plan` does, or the file cannot be written.
    """
    plan = _plan(job, engine, cache)
    return write_batch(path, plan.asker.requests(plan.open), engine.identity.model, job.sampling, job.form.schema)


def _plan(job: Job, engine: Engine, cache: AnswerStore | None) -> Plan:
    return make_plan(job, engine, read_journal(journal_path(job.output)), cache)
