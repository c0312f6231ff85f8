"""Ray Data: engine actors over blocks of requests, for label sets or models that outgrow one machine.

Only the driver writes the journal. A lost actor loses the block it was working on; Ray starts another actor
and reassigns the block.
"""

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict
from typing import Any

from sspa.shared.errors import UserError
from sspa.shared.terminal import say
from sspa.stage1_knowledge.engines.contract import Answer, Engine, Identity, Request

# A block is answered to its end before the next begins, so that small ones leave a GPU idle; a large one costs more if
# its actor is lost. At least a few for each actor, so that all finish at about the same time.
SMALLEST_BLOCK, LARGEST_BLOCK, BLOCKS_PER_ACTOR = 64, 4096, 4


class RayBlocks(Engine):
    """Runs another engine in `workers` actors of a Ray cluster: a local one, or that of $RAY_ADDRESS."""

    def __init__(
        self, make_engine: Callable[[], Engine], workers: int, gpus: int = 1, block: int | None = None
    ) -> None:
        """Prepare; Ray itself starts with the first question.

        Args:
            make_engine: called once in each actor; must be picklable.
            workers: number of actors; each gets its own GPUs if the cluster has any, else a CPU.
            gpus: how many GPUs an actor takes.
            block: requests per block, the unit of work that a lost actor costs; None: by the number of requests.
        """
        self._make_engine, self._workers, self._gpus, self._block = make_engine, workers, gpus, block
        self._identity: Identity | None = None
        self._started = False

    @property
    def identity(self) -> Identity:
        if self._identity is None:
            inner = self._make_engine().identity
            self._identity = Identity(**{**asdict(inner), "engine": f"ray, {inner.engine}"})
        return self._identity

    def answer(self, requests: Iterable[Request]) -> Iterator[tuple[Request, Answer]]:
        """Yield answers block by block, in the order the actors finish.

        Raises:
            UserError: Ray is not installed, the cluster is too small, or an actor's engine fails.
        """
        try:
            import ray
            import ray.data
        except ImportError as error:
            raise UserError(f"--ray needs Ray ({error}); install the extra `ray`") from error
        asked = {request.key: request for request in requests}
        if not ray.is_initialized():
            say(f"starting Ray for {self._workers} engine actors")
            ray.init(log_to_driver=False, include_dashboard=False, configure_logging=False)
            self._started = True
        gpus = self._check_resources(ray.cluster_resources())
        ray.data.DataContext.get_current().enable_progress_bars = False
        block = self._block or block_size(len(asked), self._workers)
        blocks = max(1, -(-len(asked) // block))
        rows = ray.data.from_items([_row(request) for request in asked.values()], override_num_blocks=blocks)
        answered = rows.map_batches(
            _EngineActor,
            fn_constructor_args=(self._make_engine,),
            batch_size=block,
            batch_format="pandas",
            compute=ray.data.ActorPoolStrategy(size=self._workers),
            num_gpus=gpus,
            max_restarts=-1,
            max_task_retries=-1,
        )
        try:
            for values in answered.iter_rows():
                # A block can be answered twice, if its actor died after writing it; it counts once.
                if request := asked.pop(values["key"], None):
                    yield request, Answer(**{name: values[name] for name in _ANSWER})
        except ray.exceptions.RayError as error:
            raise UserError(
                f"--ray {self._workers}: {_last_line(error)}; the answers so far are kept, run the same command again"
            ) from error

    def close(self) -> None:
        """Leave the cluster if this engine joined it; a local cluster shuts down."""
        if self._started:
            import ray

            ray.shutdown()
            self._started = False

    def _check_resources(self, cluster: dict[str, float]) -> int | None:
        """GPUs for each actor; None if the cluster has none at all."""
        kind, each = ("GPU", self._gpus) if cluster.get("GPU") else ("CPU", 1)
        needed = self._workers * each
        if (there := int(cluster.get(kind, 0))) < needed:
            # Ray would wait forever.
            raise UserError(
                f"--ray {self._workers}: the cluster has {there} {kind}s, and {self._workers} actors need {needed}"
            )
        return each if kind == "GPU" else None


def block_size(requests: int, workers: int) -> int:
    """How many of the requests make a block."""
    return min(max(requests // (workers * BLOCKS_PER_ACTOR), SMALLEST_BLOCK), LARGEST_BLOCK)


_ANSWER = ("text", "finish", "prompt_tokens", "output_tokens", "cached_tokens")


class _EngineActor:
    """An engine in a worker process."""

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


def _last_line(error: BaseException) -> str:
    """What went wrong in the actor, without the two tracebacks that Ray prepends."""
    return str(error).strip().splitlines()[-1].strip()[:300]


def _row(request: Request) -> dict[str, str | int]:
    return {
        "key": request.key,
        "messages": json.dumps(request.messages),
        "seed": request.seed,
        "max_tokens": request.max_tokens,
    }
