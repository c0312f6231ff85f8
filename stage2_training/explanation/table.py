"""Implements `sspa-train evaluate --explanations`."""

import json
from dataclasses import asdict
from pathlib import Path

from sspa.shared.knowledge import read_knowledge
from sspa.shared.tables import number, percent, print_table
from sspa.shared.terminal import output
from sspa.stage2_training.data.dataset import load_dataset
from sspa.stage2_training.explanation.faithfulness import measure_faithfulness
from sspa.stage2_training.features.inputs import own_dataset
from sspa.stage2_training.inference.tagger import Tagger


def show_faithfulness(
    run_path: Path,
    data: str | None,
    root: Path | None,
    split: str | None,
    knowledge: Path | None,
    deletion_images: int,
    as_json: bool,
    device: str,
) -> None:
    """Print pointing game, deletion and insertion for each kind of map, as a table or as JSON.

    Raises:
        UserError: see `measure_faithfulness`; or the data has no such split, or has labels that neither the run nor
            the knowledge knows.
    """
    tagger = Tagger.load(run_path, device=device, precision="float32")
    config = tagger.folder.config()
    dataset = own_dataset(config, root) if data in (None, config.data.name) else load_dataset(data, root)
    keys = dataset.labels.keys
    if knowledge is not None:
        tagger.bind(read_knowledge(knowledge).for_labels(keys))
    elif [label.key for label in tagger.labels] != list(keys):
        tagger.bind(tagger.knowledge.for_labels(keys))
    split = split or dataset.measured
    result = measure_faithfulness(tagger, dataset, split, deletion_images)
    if as_json:
        output.print_json(json.dumps(asdict(result)))
        return
    columns = ("map", "pointing, % (higher)", "deletion (lower)", "insertion (higher)")
    rows = [
        (name, percent(figures.pointing, 1), number(figures.deletion, 3), number(figures.insertion, 3))
        for name, figures in result.by_map.items()
    ]
    title = (
        f"{split}: pointing game on {result.pointing_pairs} pairs of image and true label; "
        f"deletion and insertion on {result.deletion_pairs}"
    )
    print_table(columns, [rows], title=title, left=("map",))
