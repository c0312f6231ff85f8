"""`sspa-train tag`: tags without a data set and without training. Heavy imports happen inside the command."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sspa.shared.errors import UserError
from sspa.shared.terminal import loading, say
from sspa.stage2_training.cli.options import Device, ScoringPrecision, check_prediction_file, command_device
from sspa.stage2_training.cli.use import label_set_of

if TYPE_CHECKING:
    from sspa.shared.knowledge import Knowledge
    from sspa.shared.label_sets import LabelSet

tag_app = typer.Typer()


@tag_app.command()
def tag(
    images: Annotated[
        list[str],
        typer.Argument(metavar="IMAGE...", help="Files, folders, patterns, or - for a list on standard input."),
    ],
    labels: Annotated[
        str | None, typer.Option(help='The labels: a label file, a built-in set, or names: "red umbrella,dog".')
    ] = None,
    knowledge: Annotated[
        Path | None, typer.Option(help="Instead of --labels: the knowledge file that sspa-knowledge wrote.")
    ] = None,
    describe: Annotated[
        bool, typer.Option("--describe", help="First have sspa-knowledge describe each label.")
    ] = False,
    expect: Annotated[
        float | None, typer.Option(help="How many labels an image has on average: moves all probabilities.")
    ] = None,
    threshold: Annotated[
        float, typer.Option(min=0, max=1, help="Probability from which a label counts as predicted.")
    ] = 0.5,
    top: Annotated[
        int | None,
        typer.Option(min=1, help="So many labels per image. [default: 5 on a terminal, in a pipe the predicted ones]"),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON line per image, with every label.")] = False,
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="A Parquet file; resumes if interrupted.")] = None,
    backbone: Annotated[str, typer.Option(help="As in backbone.name.")] = "embedded",
    weights: Annotated[str | None, typer.Option(help="As in backbone.weights.")] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Images per batch.")] = 32,
    precision: Annotated[
        ScoringPrecision, typer.Option(help="Precision of the image tower; auto: bf16 if the GPU has it.")
    ] = ScoringPrecision.auto,
    device: Device = "auto",
) -> None:
    """Tag images at once, with labels of your own: no data set, no training.

    The model is SSPA before training. Its order of labels is useful, its probabilities are rough: --expect moves them
    so that on average as many labels are predicted as an image of yours has.
    """
    if (labels is None) == (knowledge is None):
        raise UserError("give your labels: either --labels or --knowledge")
    if out is not None and as_json:
        raise UserError("--out and --json: choose one of them")
    if out is not None:
        check_prediction_file(out)
    from sspa.stage2_training.backbones.backbone_names import check_name
    from sspa.stage2_training.prediction.image_paths import find_images

    check_name(backbone, weights)
    paths = find_images(images)
    known = own_labels(None if labels is None else label_set_of(labels), knowledge, describe)
    if expect is not None and not 0 < expect < len(known.labels):
        raise UserError(f"--expect {expect:g}: give a number above 0 and below {len(known.labels)} (your labels)")
    with loading():
        from sspa.stage2_training.inference.tagger import Tagger
        from sspa.stage2_training.prediction.job import show_predictions, typical_probabilities, write_predictions

    tagger = Tagger.zero_shot(
        known,
        backbone=backbone,
        weights=weights,
        device=str(command_device(device)),
        precision=precision.value,
        threshold=threshold,
    )
    if expect is not None:
        tagger.expect(expect, typical_probabilities(tagger, paths, batch_size))
    else:
        say("untrained: trust the order of the labels more than their probabilities; --expect moves those")
    if out is not None:
        write_predictions(tagger, paths, out, batch_size)
    else:
        show_predictions(tagger, paths, batch_size, top, as_json)


def own_labels(given: "LabelSet | None", knowledge: Path | None, describe: bool) -> "Knowledge":
    """What is known about the user's labels: described, by name only, or as the knowledge file says.

    Given both, the knowledge file has to know every label.

    Raises:
        UserError: it does not, it cannot be read, or both descriptions are wanted.
    """
    from sspa.shared.knowledge import names_only, read_knowledge

    if knowledge is not None:
        if describe:
            raise UserError("--describe is for labels by name; --knowledge has descriptions already")
        known = read_knowledge(knowledge)
        return known if given is None else known.for_labels(given.keys)
    assert given is not None
    if not describe:
        return names_only(given)
    from sspa.stage2_training.prediction.describing import described

    return described(given)
