"""From the command line to an engine."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sspa.shared.terminal import say
from sspa.stage1_knowledge import embedded_model
from sspa.stage1_knowledge.answer_store import AnswerStore
from sspa.stage1_knowledge.engines.contract import Engine, Sampling


def choose_engine(
    *,
    model: str | None,
    replay: Path | None,
    sampling: Sampling,
    schema: Mapping[str, Any] | None,
) -> Engine:
    """The engine that the options name: replay, or vLLM in this process.

    Raises:
        UserError: the options name nothing that is there.
    """
    if replay is not None:
        from sspa.stage1_knowledge.engines.replay import Replay

        return Replay(AnswerStore(replay, create=False), model)
    from sspa.stage1_knowledge.engines.vllm_offline import VllmOffline
    from sspa.stage1_knowledge.model_source import find_model

    if model is None:
        say(
            f"using the embedded {embedded_model.NAME}, a very small model; "
            "--model takes a better one (a local folder or a hub name, e.g. Qwen/Qwen3-8B)"
        )
    return VllmOffline(find_model(model), sampling, schema)
