"""Ray Data: engine actors over blocks of requests, for label sets or models that outgrow one machine.

The driver alone keeps the journal. An actor that is lost loses the block it was at; Ray starts another
and gives it that block again.
"""

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict
from typing import Any

from sspa.shared.errors import UserError
from sspa.shared.terminal import say
from sspa.stage1_knowledge.engines.contract import Answer, Engine, Identity, Request

BLOCK = 64


class RayBlocks(Engine):
    """Runs another engine in `workers` actors of a Ray cluster: a local one, or that of $RAY_ADDRESS."""

    def __init__(self, make_engine: Callable[[], Engine], workers: int, gpus: float = 0.0, block: int = BLOCK) -> None:
        """Prepare; Ray itself starts with the first question.

        Args:
            make_engine: called once in each actor; must be picklable.
            workers: how many actors.
            gpus: for each actor.
            block: requests an actor gets at a time; what a lost actor costs.
        """
        self._make_engine, self._workers, self._gpus, self._block = make_engine, workers, gpus, block
        self._identity: Identity | None = None

    @property
    def identity(self) -> Identity:
        if self._identity is None:
            inner = self._make_engine().identity
            self._identity = Identity(**{**asdict(inner), "engine": f"ray, {inner.engine}"})
        return self._identity

    def answer(self, requests: Iterable[Request]) -> Iterator[tuple[Request, Answer]]:
        """Yield answers block by block, in whatever order the actors finish."""
        try:
            import ray
        except ImportError as error:
            raise UserError("--ray needs Ray; install the extra `ray`") from error
        asked = {request.key: request for request in requests}
        if not ray.is_initialized():
            say(f"starting Ray for {self._workers} engine actors")
            ray.init(log_to_driver=False, include_dashboard=False, configure_logging=False)
        ray.data.DataContext.get_current().enable_progress_bars = False
        blocks = max(1, -(-len(asked) // self._block))
        rows = ray.data.from_items([_row(request) for request in asked.values()], override_num_blocks=blocks)
        answered = rows.map_batches(
            _EngineActor,
            fn_constructor_args=(self._make_engine,),
            batch_size=self._block,
            batch_format="pandas",
            compute=ray.data.ActorPoolStrategy(size=self._workers),
            num_gpus=self._gpus or None,
            max_restarts=-1,
            max_task_retries=-1,
        )
        for values in answered.iter_rows():
            # A block that was answered twice, because its actor died after writing it, counts once.
            if request := asked.pop(values["key"], None):
                yield request, Answer(**{name: values[name] for name in _ANSWER})

    def close(self) -> None:
        """Leave the cluster; a local one ends."""
        import ray

        ray.shutdown()


_ANSWER = ("text", "finish", "prompt_tokens", "output_tokens", "cached_tokens")


class _EngineActor:
    """One engine in one worker process."""

    def __init__(self, make_engine: Callable[[], Engine]) -> None:
        self._engine = make_engine()

    def __call__(self, batch: Any) -> Any:
        requests = [
            Request(key, tuple(json.loads(messages)), int(seed), int(max_tokens))
            for key, messages, seed, max_tokens in zip(
                batch["key"], batch["messages"], batch["seed"], batch["max_tokens"], strict=True
            )
        ]
        rows = [{"key": request.key, **asdict(answer)} for request, answer in self._engine.answer(requests)]
        return type(batch)(rows)


def _row(request: Request) -> dict[str, str | int]:
    return {
        "key": request.key,
        "messages": json.dumps(request.messages),
        "seed": request.seed,
        "max_tokens": request.max_tokens,
    }
