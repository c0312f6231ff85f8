"""The work behind `sspa-train evaluate --explanations`."""

import json
from dataclasses import asdict
from pathlib import Path

from rich.table import Table

from sspa.shared.terminal import output
from sspa.stage2_training.data.dataset import load_dataset
from sspa.stage2_training.explanation.faithfulness import measure_faithfulness
from sspa.stage2_training.features.inputs import own_dataset
from sspa.stage2_training.inference.tagger import Tagger


def show_faithfulness(
    run_path: Path,
    data: str | None,
    root: Path | None,
    split: str,
    deletion_pictures: int,
    as_json: bool,
    device: str,
) -> None:
    """Print the pointing game, deletion and insertion of each kind of map, as a table or as JSON.

    Raises:
        UserError: see `measure_faithfulness`; or the data has no such split, or other labels than the run.
    """
    tagger = Tagger.load(run_path, device=device, precision="float32")
    dataset = own_dataset(tagger.folder.config()) if data is None else load_dataset(data, root)
    if [label.key for label in tagger.labels] != list(dataset.labels.keys):
        tagger.bind(tagger.knowledge.for_labels(dataset.labels.keys))
    result = measure_faithfulness(tagger, dataset, split, deletion_pictures)
    if as_json:
        output.print_json(json.dumps(asdict(result)))
        return
    table = Table(
        title=f"{split}: pointing game on {result.pointing_pairs} pairs of picture and true label; "
        f"deletion and insertion on {result.deletion_pairs}"
    )
    table.add_column("map")
    for column in ("pointing, % (higher)", "deletion (lower)", "insertion (higher)"):
        table.add_column(column, justify="right")
    for name, figures in result.by_map.items():
        pointing = "-" if figures.pointing is None else f"{100 * figures.pointing:.1f}"
        curves = ("-" if area is None else f"{area:.3f}" for area in (figures.deletion, figures.insertion))
        table.add_row(name, pointing, *curves)
    output.print(table)
