"""Ray Data: engine actors over blocks of requests, for label sets or models that outgrow one machine.

Only the driver writes the journal. A lost actor loses the block it was working on; Ray starts another actor
and reassigns the block.
"""

import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import asdict
from typing import Any

from sspa.shared.errors import UserError
from sspa.shared.ray_cluster import check_resources, join_cluster, last_line
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
        self._joined = ExitStack()

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
        asked = {request.key: request for request in requests}
        cluster = self._joined.enter_context(join_cluster(f"{self._workers} engine actors"))
        gpus = check_resources(cluster, self._workers, self._gpus)
        import ray

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
                f"--ray {self._workers}: {last_line(error)}; the answers so far are kept, run the same command again"
            ) from error

    def close(self) -> None:
        """Leave the cluster if this engine joined it; a local cluster shuts down."""
        self._joined.close()


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


def _row(request: Request) -> dict[str, str | int]:
    return {
        "key": request.key,
        "messages": json.dumps(request.messages),
        "seed": request.seed,
        "max_tokens": request.max_tokens,
    }
