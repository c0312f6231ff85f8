"""Chooses the engine that the command line asks for."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from sspa.shared.errors import UserError
from sspa.shared.terminal import say
from sspa.stage1_knowledge import embedded_model
from sspa.stage1_knowledge.answer_store import AnswerStore
from sspa.stage1_knowledge.engines.contract import Engine, Sampling


@dataclass(frozen=True)
class EngineOptions:
    """The command line's options for the engine. At most one of endpoints, batch_in, replay, ray_workers may be set."""

    model: str | None = None
    endpoints: Sequence[str] = ()
    batch_in: Path | None = None
    replay: Path | None = None
    ray_workers: int = 0
    concurrency: int = 16
    chat_template: Path | None = None
    revision: str | None = None
    # Whether the model's own Python code may run.
    code: bool = False
    # For vLLM, as `engine_arguments` gives them.
    arguments: Mapping[str, Any] = field(default_factory=dict)


def choose_engine(options: EngineOptions, sampling: Sampling, schema: Mapping[str, Any] | None) -> Engine:
    """The engine that the options name; vLLM in this process by default.

    Raises:
        UserError: the options name two engines, or a model or cache that does not exist.
    """
    named = {
        "--endpoint": options.endpoints,
        "--batch-in": options.batch_in,
        "--replay": options.replay,
        "--ray": options.ray_workers,
    }
    chosen = [name for name, value in named.items() if value]
    if len(chosen) > 1:
        raise UserError(f"{' and '.join(chosen)} name two engines; choose one")
    for_vllm = {
        "--chat-template": options.chat_template,
        "--revision": options.revision,
        "--trust-remote-code": options.code,
        "--engine-set": options.arguments,
    }
    elsewhere = options.replay or options.endpoints or options.batch_in
    if elsewhere and (given := [name for name, value in for_vllm.items() if value]):
        raise UserError(
            f"{given[0]} is for a model that vLLM runs here; a server has its own settings, and a replay asks nothing"
        )
    if options.replay:
        from sspa.stage1_knowledge.engines.replay import Replay

        return Replay(AnswerStore(options.replay, create=False), options.model)
    if options.endpoints:
        from sspa.stage1_knowledge.engines.openai_endpoint import OpenAiEndpoint

        return OpenAiEndpoint(options.endpoints, sampling, options.model, schema, options.concurrency)
    if options.batch_in:
        from sspa.stage1_knowledge.engines.openai_batch import BatchAnswers

        return BatchAnswers(options.batch_in, batch_model(options.model), sampling)
    from sspa.stage1_knowledge.engines.vllm_arguments import gpus_of
    from sspa.stage1_knowledge.engines.vllm_offline import VllmOffline, compute_dtype
    from sspa.stage1_knowledge.model_source import find_model

    if options.model is None:
        say(
            f"using the embedded {embedded_model.NAME}, a very small model; "
            "choose a better one with --model (a local folder or a hub name, e.g. Qwen/Qwen2.5-7B-Instruct)"
        )
    model = find_model(options.model, options.chat_template, options.revision, options.code)
    # Decided here, once: the actors of a cluster may run on other machines.
    arguments = {"dtype": compute_dtype(), **options.arguments}
    if options.code:
        arguments["trust_remote_code"] = True
    gpus = gpus_of(arguments)
    make_vllm = partial(VllmOffline, model, sampling, schema, arguments)
    if options.ray_workers:
        from sspa.stage1_knowledge.engines.ray_blocks import RayBlocks

        return RayBlocks(make_vllm, options.ray_workers, gpus)
    return make_vllm()


def batch_model(model: str | None) -> str:
    """The model of a batch, which nobody can be asked for.

    Raises:
        UserError: it is not named.
    """
    if not model:
        raise UserError("a batch needs --model, the name under which the provider knows the model")
    return model
