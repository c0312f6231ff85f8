"""Run what a comparison is missing, and set its variants against each other."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sspa.shared.errors import UserError
from sspa.shared.files import replacing
from sspa.shared.terminal import say
from sspa.stage2_training.comparison.definition import Comparison
from sspa.stage2_training.comparison.paired_bootstrap import difference_interval
from sspa.stage2_training.configuration import RunConfig, differing_keys, resolve_config
from sspa.stage2_training.evaluation.bootstrap import resampled_map, resampling_weights
from sspa.stage2_training.evaluation.protocols import get_protocol
from sspa.stage2_training.training.run import run
from sspa.stage2_training.training.run_folder import RunFolder, open_run_folder

RESAMPLES = 1000


@dataclass(frozen=True)
class Row:
    """One variant over its seeds; mAP in percent. `difference` is to the reference variant, with its 95% interval
    over test images and seeds; None for the reference itself."""

    variant: str
    seeds: int
    val_map: float
    test_map: float
    test_deviation: float
    region_map: float | None
    global_map: float | None
    difference: float | None
    difference_low: float | None
    difference_high: float | None
    trained_parameters: int
    seconds: float


def compare(
    comparison: Comparison,
    out: Path,
    config_files: Sequence[Path],
    settings: Sequence[str],
    given: Mapping[str, Any],
    device: torch.device,
) -> list[Row]:
    """Run every variant with every seed under `out`, where it is not there yet, and make the table.

    Args:
        out: the comparison's folder; the run of variant v with seed s is `v-seed<s>` in it.
        config_files, settings, given: as for a single run, for all of them.

    Raises:
        UserError: a wrong setting, or a finished run in `out` that was made with another configuration.
    """
    wanted = [
        (
            variant,
            seed,
            resolve_config(config_files, settings, {**given, **own, "training.seed": seed}, base=comparison.settings),
        )
        for variant, own in comparison.variants.items()
        for seed in comparison.seeds
    ]
    folders: dict[str, list[RunFolder]] = {}
    for place, (variant, seed, config) in enumerate(wanted, start=1):
        path = out / f"{variant}-seed{seed}"
        if not _finished(path, config):
            say(f"run {place} of {len(wanted)}: {variant}, seed {seed}")
            run(config, path, device)
        folders.setdefault(variant, []).append(open_run_folder(path))
    rows = _rows(folders, comparison.reference)
    _write(rows, out / "comparison.parquet")
    return rows


def _finished(path: Path, config: RunConfig) -> bool:
    """Whether the run is there already.

    Raises:
        UserError: it is there, but of another configuration, or unfinished.
    """
    if not path.exists():
        return False
    folder = open_run_folder(path)
    if not folder.file("result.json").is_file():
        raise UserError(f"{path}: was left unfinished; delete it and start again, the finished runs are kept")
    if differing := differing_keys(folder.config(), config):
        raise UserError(
            f"{path}: was made with other settings ({', '.join(differing)}); compare into another folder with --out"
        )
    return True


def _rows(folders: Mapping[str, Sequence[RunFolder]], reference: str) -> list[Row]:
    resampled = {variant: _resampled(of_seeds) for variant, of_seeds in folders.items()}
    results = {
        variant: [folder.read_json("result.json") for folder in of_seeds] for variant, of_seeds in folders.items()
    }

    def maps(variant: str, part: str, branch: str) -> list[float]:
        return [100 * result[part][branch]["mAP"] for result in results[variant] if branch in result[part]]

    rows = []
    for variant, of_variant in results.items():
        test, region, whole = (maps(variant, "test", branch) for branch in ("both", "region", "global"))
        interval: tuple[float, float] | tuple[None, None] = (None, None)
        difference = None
        if variant != reference:
            difference = float(np.mean(test) - np.mean(maps(reference, "test", "both")))
            interval = difference_interval(100 * resampled[variant], 100 * resampled[reference])
        rows.append(
            Row(
                variant=variant,
                seeds=len(of_variant),
                val_map=float(np.mean(maps(variant, "val", "both"))),
                test_map=float(np.mean(test)),
                test_deviation=float(np.std(test, ddof=1)) if len(test) > 1 else 0.0,
                region_map=float(np.mean(region)) if region else None,
                global_map=float(np.mean(whole)) if whole else None,
                difference=difference,
                difference_low=interval[0],
                difference_high=interval[1],
                trained_parameters=of_variant[0]["trained_parameters"],
                seconds=float(np.mean([result["seconds"] for result in of_variant])),
            )
        )
    return rows


def _resampled(folders: Sequence[RunFolder]) -> Any:
    """(S, R) mAP of the prediction by seed and resample."""
    by_seed = []
    for folder in folders:
        probabilities, targets = folder.read_predictions()
        protocol = get_protocol(folder.read_json("run.json")["protocol"]["name"])
        weights = resampling_weights(len(targets), RESAMPLES)
        by_seed.append(resampled_map(probabilities["both"], targets, protocol, weights))
    return np.stack(by_seed)


def _write(rows: Sequence[Row], path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    with replacing(path) as beside:
        pq.write_table(pa.Table.from_pylist([asdict(row) for row in rows]), beside)
