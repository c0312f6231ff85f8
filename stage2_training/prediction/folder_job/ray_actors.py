"""Ray Data tags units in actors, each with a model of its own; a lost actor costs the unit that it was working on."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from sspa.shared.errors import UserError
from sspa.shared.ray_cluster import check_resources, join_cluster, last_line
from sspa.stage2_training.inference.tagger import Tagger
from sspa.stage2_training.prediction.folder_job.job import Counted, tag_unit
from sspa.stage2_training.prediction.folder_job.output import OutputFolder
from sspa.stage2_training.prediction.folder_job.units import Unit


def tag_in_actors(
    load: Callable[[], Tagger], workers: int, units: Sequence[Unit], folder: OutputFolder, batch_size: int
) -> Iterator[Counted]:
    """Tag the units in `workers` actors of a Ray cluster: a local one, or that of $RAY_ADDRESS.

    `load` is called once in each actor; an actor gets a GPU if the cluster has any, else a CPU.

    Raises:
        UserError: Ray is not installed, the cluster is too small, or an actor fails.
    """
    with join_cluster(f"{workers} actors that tag images") as cluster:
        import ray

        gpus = check_resources(cluster, workers, 1)
        rows = ray.data.from_items([{"unit": number} for number in range(len(units))], override_num_blocks=len(units))
        shared = ray.put(list(units))  # once, where a column of them would be a copy per block
        tagged = rows.map_batches(
            _TaggingActor,
            fn_constructor_args=(load, shared, folder, batch_size),
            batch_size=1,
            compute=ray.data.ActorPoolStrategy(size=workers),
            num_gpus=gpus,
            max_restarts=-1,
            max_task_retries=-1,
        )
        try:
            for row in tagged.iter_rows():
                yield Counted(str(row["unit"]), int(row["images"]), int(row["unreadable"]), True)
        except ray.exceptions.RayError as error:
            raise UserError(
                f"--ray {workers}: {last_line(error)}; what is written stays, run the same command again"
            ) from error


class _TaggingActor:
    """A model in a worker process."""

    def __init__(self, load: Callable[[], Tagger], units: Any, folder: OutputFolder, batch_size: int) -> None:
        import ray

        self._tagger, self._units = load(), ray.get(units)
        self._folder, self._batch_size = folder, batch_size

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[Any]]:
        units = [self._units[int(number)] for number in batch["unit"]]
        counts = [list(tag_unit(self._tagger, unit, self._folder, self._batch_size)) for unit in units]
        return {
            "unit": [unit.name for unit in units],
            "images": [sum(counted.images for counted in of_unit) for of_unit in counts],
            "unreadable": [sum(counted.unreadable for counted in of_unit) for of_unit in counts],
        }
