"""The command `sspa-knowledge`: its options, and how they reach the parts."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sspa.shared.common_options import with_common_options
from sspa.shared.errors import UserError
from sspa.shared.label_sets import DOMAINS
from sspa.shared.terminal import printable, run_command, say
from sspa.stage1_knowledge.engines.contract import Sampling
from sspa.stage1_knowledge.table_commands import app as table_app

if TYPE_CHECKING:
    from sspa.stage1_knowledge.engines.contract import Engine
    from sspa.stage1_knowledge.generation import Job, Outcome

app = typer.Typer(
    help="Descriptions of labels, written by a language model and kept in a Parquet file.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    # Plain help: the drawn boxes cost another 0.15 s of imports.
    rich_markup_mode=None,
)

with_common_options(app)
app.add_typer(table_app)

Output = Annotated[
    Path | None, typer.Option("--output", help="The table to write. [default: artifacts/<labels>.parquet]")
]
Model = Annotated[str | None, typer.Option(help="Local model folder or hub name. [default: the embedded SmolLM2-135M]")]
Domain = Annotated[str | None, typer.Option(help=f"{', '.join(DOMAINS)}. [default: the label file's, else natural]")]


@app.command()
def generate(
    labels: Annotated[str, typer.Option(help="Label file, one label per line; or a built-in set such as voc or coco.")],
    output_file: Output = None,
    model: Model = None,
    samples: Annotated[
        int, typer.Option(min=1, help="Descriptions per label, of which the most telling are used (model.kap.keep).")
    ] = 16,
    domain: Domain = None,
    template: Annotated[Path | None, typer.Option(help="Your own prompt (Jinja2) in place of the domain's.")] = None,
    form: Annotated[
        str, typer.Option(help="sentence, or fields (schema-constrained JSON, composed by the template).")
    ] = "sentence",
    temperature: Annotated[float, typer.Option(min=0, max=2, help="Sampling temperature.")] = Sampling.temperature,
    top_p: Annotated[float, typer.Option(min=0.01, max=1, help="Nucleus sampling.")] = Sampling.top_p,
    repetition_penalty: Annotated[float, typer.Option(min=0.5, max=2, help="Above 1 avoids repetition.")] = (
        Sampling.repetition_penalty
    ),
    max_tokens: Annotated[int | None, typer.Option(min=8, help="Longest answer. [default: depends on --form]")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the first attempt.")] = 0,
    retries: Annotated[
        int | None,
        typer.Option(
            min=0, max=20, help="How often to ask again after a poor answer. [default: 3 up to two samples, else 0]"
        ),
    ] = None,
    cache: Annotated[Path | None, typer.Option(help="Folder of an answer cache, shared by label files.")] = None,
    replay: Annotated[Path | None, typer.Option(help="Replay the answers recorded in this cache; no model.")] = None,
    endpoint: Annotated[
        list[str] | None,
        typer.Option(help="Ask an OpenAI-compatible server, e.g. http://127.0.0.1:8000/v1; repeatable."),
    ] = None,
    batch_out: Annotated[
        Path | None, typer.Option("--batch-out", help="Write what would be asked as an OpenAI batch file; ask nothing.")
    ] = None,
    batch_in: Annotated[
        Path | None, typer.Option("--batch-in", help="Read the answers from the results of such a batch.")
    ] = None,
    chat_template: Annotated[
        Path | None, typer.Option(help="Chat template (Jinja2) for --model, in place of its own or if it has none.")
    ] = None,
    revision: Annotated[str | None, typer.Option(help="Commit, branch or tag of a --model from the hub.")] = None,
    trust_remote_code: Annotated[
        bool, typer.Option("--trust-remote-code", help="Run the Python code that comes with --model.")
    ] = False,
    tensor_parallel: Annotated[int | None, typer.Option(min=1, help="Spread the model over this many GPUs.")] = None,
    dtype: Annotated[
        str | None,
        typer.Option(help="auto, float32, float16, bfloat16. [default: auto, by the hardware]"),
    ] = None,
    quantization: Annotated[str | None, typer.Option(help="Quantise as vLLM does, e.g. fp8. [default: none]")] = None,
    max_model_len: Annotated[
        int | None, typer.Option(min=64, help="Longest prompt and answer, in tokens. [default: 1024]")
    ] = None,
    gpu_memory: Annotated[
        float | None, typer.Option(min=0.05, max=1, help="Share of a GPU's memory for vLLM. [default: 0.85]")
    ] = None,
    engine_set: Annotated[
        list[str] | None,
        typer.Option("--engine-set", help="Any argument of vLLM's LLM, e.g. max_num_seqs=64; repeatable."),
    ] = None,
    concurrency: Annotated[int, typer.Option(min=1, max=1024, help="Requests in flight at --endpoint.")] = 16,
    ray: Annotated[int, typer.Option("--ray", min=0, help="Run this many engine actors under Ray.")] = 0,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would be asked, and ask nothing.")] = False,
    rejudge: Annotated[
        bool, typer.Option("--rejudge", help="Apply the current verdict rules to stored answers.")
    ] = False,
) -> None:
    """Ask a language model to describe each label; what is already known is not asked again."""
    from sspa.shared.label_sets import read_label_set
    from sspa.stage1_knowledge.answer_forms import answer_form
    from sspa.stage1_knowledge.answer_store import AnswerStore
    from sspa.stage1_knowledge.engines.choice import EngineOptions, choose_engine
    from sspa.stage1_knowledge.engines.vllm_arguments import engine_arguments
    from sspa.stage1_knowledge.generation import Job
    from sspa.stage1_knowledge.generation import generate as run
    from sspa.stage1_knowledge.prompt import built_in_prompt, read_prompt

    label_set = read_label_set(labels)
    asked_domain = domain or label_set.domain
    chosen_form = answer_form(form)
    built_in = built_in_prompt(asked_domain)
    job = Job(
        labels=label_set,
        domain=asked_domain,
        prompt=read_prompt(template) if template else built_in,
        form=chosen_form,
        sampling=Sampling(temperature, top_p, repetition_penalty, max_tokens or chosen_form.max_tokens, seed),
        samples=samples,
        # Of several descriptions, KAP selects; asking again would cost as much as another sample.
        retries=(3 if samples <= 2 else 0) if retries is None else retries,
        output=output_file or Path("artifacts") / f"{label_set.name}.parquet",
        rejudge=rejudge,
    )
    arguments = engine_arguments(
        engine_set or (),
        {
            "--tensor-parallel": ("tensor_parallel_size", tensor_parallel),
            "--dtype": ("dtype", dtype),
            "--quantization": ("quantization", quantization),
            "--max-model-len": ("max_model_len", max_model_len),
            "--gpu-memory": ("gpu_memory_utilization", gpu_memory),
        },
    )
    if batch_in and batch_out:
        raise UserError("--batch-in and --batch-out: write a batch, or read its results")
    options = EngineOptions(
        model=model,
        endpoints=endpoint or (),
        # Whoever writes a batch is going to read its results.
        batch_in=batch_in or batch_out,
        replay=replay,
        ray_workers=ray,
        concurrency=concurrency,
        chat_template=chat_template,
        revision=revision,
        code=trust_remote_code,
        arguments=arguments,
    )
    engine = choose_engine(options, job.sampling, chosen_form.schema)
    if dry_run or batch_out:
        _plan(job, engine, cache, None if dry_run else batch_out)
        return
    try:
        outcome = run(job, engine, AnswerStore(cache) if cache else None)
    except KeyboardInterrupt:
        say("stopped; the answers so far are kept, and the same command goes on from there")
        raise
    _report(job.output, outcome)


def _plan(job: "Job", engine: "Engine", cache: Path | None, batch: Path | None) -> None:
    from sspa.stage1_knowledge.answer_store import AnswerStore
    from sspa.stage1_knowledge.dry_run import describe_plan, write_questions

    known = AnswerStore(cache, create=False) if cache and cache.is_dir() else None
    if batch is None:
        # A prompt file, which is shown, may be anyone's.
        print(printable(describe_plan(job, engine, known)))
        return
    count = write_questions(batch, job, engine, known)
    say(f"{batch}: {count} questions written; once they are answered, run the same with --batch-in RESULTS")


def _report(output: Path, outcome: "Outcome") -> None:
    from collections import Counter

    from sspa.stage1_knowledge.verdicts import kind_of

    if outcome.written:
        say(
            f"{output}: {outcome.rows} descriptions, {outcome.asked} asked with {outcome.answers} answers "
            f"in {outcome.seconds:.1f} s"
        )
    else:
        say(f"{output}: up to date, {outcome.rows} descriptions; nothing was asked")
    if outcome.prompt_tokens:
        say(
            f"{outcome.output_tokens:,} tokens written; {outcome.cached_tokens / outcome.prompt_tokens:.0%} "
            f"of {outcome.prompt_tokens:,} prompt tokens came from the prefix cache"
        )
    if outcome.doubtful:
        kinds = Counter(kind_of(reason) for reason in outcome.doubtful).most_common(4)
        say(
            f"doubtful: {len(outcome.doubtful)} of {outcome.rows} descriptions "
            f"({', '.join(f'{count} {kind}' for kind, count in kinds)}); "
            f"see them with `sspa-knowledge report {output}`"
        )
    else:
        say(f"doubtful: none of {outcome.rows} descriptions")
    say(f"next: sspa-train tag PHOTOS --knowledge {output}; sspa-train run --knowledge {output}")


def main() -> None:
    """Entry point of the console script."""
    run_command(app)
