"""Implements `sspa-train evaluate --explanations`."""

import json
from dataclasses import asdict

from sspa.shared.tables import number, percent, print_table
from sspa.shared.terminal import output
from sspa.stage2_training.explanation.faithfulness import measure_faithfulness
from sspa.stage2_training.inference.tagger import Tagger
from sspa.stage2_training.runs.inputs import ScoredInputs
from sspa.stage2_training.runs.run_folder import RunFolder


def show_faithfulness(
    folder: RunFolder,
    scored: ScoredInputs,
    split: str | None,
    deletion_images: int,
    as_json: bool,
    device: str,
) -> None:
    """Print pointing game, deletion and insertion for each kind of map, as a table or as JSON.

    Raises:
        UserError: see `measure_faithfulness`; or the data has no such split.
    """
    tagger = Tagger.load(folder.path, device=device, precision="float32")
    if scored.rebound:
        tagger.bind(scored.knowledge)
    split = split or scored.dataset.measured
    result = measure_faithfulness(tagger, scored.dataset, split, deletion_images)
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
