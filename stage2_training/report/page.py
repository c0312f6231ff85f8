"""report.html: a run as one self-contained page."""

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import yaml

from sspa.shared.errors import UserError
from sspa.shared.knowledge import Knowledge
from sspa.shared.knowledge_format import read_table
from sspa.shared.terminal import say
from sspa.stage2_training.config.run_config import RunConfig
from sspa.stage2_training.evaluation.metrics import branch_title
from sspa.stage2_training.inference.tagger import Tagger
from sspa.stage2_training.model.contract import UsedDescription, all_used, most_used_first
from sspa.stage2_training.pages import plots
from sspa.stage2_training.pages.templates import write_page
from sspa.stage2_training.report.figures import intervals_of, resampled_figures
from sspa.stage2_training.report.images import confident_errors, drawn_images, make_cards
from sspa.stage2_training.report.label_rows import label_rows
from sspa.stage2_training.runs.inputs import dataset_of
from sspa.stage2_training.runs.records import ResultRecord, RunRecord
from sspa.stage2_training.runs.run_folder import RunFolder
from sspa.stage2_training.runs.stored_tensors import read_predictions

_MOST_CO_OCCURRING = 40  # labels, beyond which the matrix is unreadable


def write_report(folder: RunFolder, device: torch.device) -> Path:
    """Write the run's report.html and return its path.

    The images are read from the data set again; if that fails, the page says why.

    Raises:
        UserError: the run is unfinished or damaged.
    """
    result, about, config = folder.result(), folder.record(), folder.config()
    if about.refit:
        raise UserError(
            f"{folder.path}: is a refit, whose figures are those of {about.refit.of}; that one has the report"
        )
    knowledge = folder.knowledge()
    doubts = _doubts(folder)
    names = {label.key: label.text for label in knowledge.labels}
    probabilities, targets = read_predictions(folder)
    titled = {branch_title(branch): values for branch, values in probabilities.items()}
    protocol, thresholds = about.protocol.rules(), folder.thresholds()
    return write_page(
        folder.file("report.html"),
        "report.html.jinja",
        name=folder.path.resolve().name,
        data_note=about.data.note,
        facts=_facts(about, result, config),
        measured=result.measured,
        test=result.test,
        columns=_columns(result.test["both"].top_k),
        intervals=intervals_of(result.test["both"], resampled_figures(probabilities["both"], targets, protocol)),
        rows=[
            {"name": "untrained", "metrics": result.untrained_test["both"]},
            *({"name": branch_title(branch), "metrics": metrics} for branch, metrics in result.test.items()),
        ],
        plots={
            "classes": plots.class_bars(
                {
                    "test": result.test["both"].per_class,
                    "untrained": result.untrained_test["both"].per_class,
                },
                names,
            ),
            "training": plots.training_curves(folder.epochs()),
            "precision_recall": plots.precision_recall_curves(titled, targets),
            "reliability": plots.reliability_curve(titled, targets),
            "co_occurrence": _co_occurrence(probabilities["both"], targets, protocol.threshold, list(names.values())),
        },
        labels=label_rows(names, about.labels, result, thresholds.values, probabilities["both"], targets),
        tuned=thresholds.description,
        images=_images(folder, device, probabilities["both"], protocol.threshold),
        knowledge=[
            {"text": label.text, "descriptions": descriptions, "doubts": doubts.get(label.key, {})}
            for label, descriptions in zip(knowledge.labels, _descriptions(folder, knowledge), strict=True)
        ],
        again=_again(folder, config),
        configuration=yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False),
    )


def _doubts(folder: RunFolder) -> dict[str, dict[str, str]]:
    """By label and description, why stage one finds it doubtful."""
    found: dict[str, dict[str, str]] = {}
    for row in read_table(folder.file("knowledge.parquet"))[0].to_pylist():
        if row["verdict"] != "good":
            found.setdefault(row["label"], {})[row["description"]] = row["reason"] or row["verdict"]
    return found


def _descriptions(folder: RunFolder, knowledge: Knowledge) -> list[list[UsedDescription]]:
    record = folder.descriptions()
    if record is None:
        return [all_used(knowledge.descriptions[label.key]) for label in knowledge.labels]
    return [
        most_used_first(UsedDescription(known.text, known.weight, known.score) for known in record.labels[label.key])
        for label in knowledge.labels
    ]


def _facts(about: RunRecord, result: ResultRecord, config: RunConfig) -> list[tuple[str, str]]:
    environment, backbone, scoring = about.environment, result.backbone, result.precision
    return [
        ("protocol", f"{about.protocol.name} ({about.protocol.hash})"),
        ("data", f"{about.data.name}, hash {about.data.hash}"),
        ("backbone", f"{backbone.name}: {backbone.description}; tower {config.backbone.tower}"),
        ("knowledge", f"{about.knowledge.file}, hash {about.knowledge.hash[:16]}"),
        ("trained", f"{result.trained_parameters:,} parameters, head {config.model.head}"),
        ("seed", str(config.training.seed)),
        ("best epoch", f"{result.best_epoch} of {config.training.epochs}, {_chosen(about)}"),
        *([("prediction", result.mixture)] if result.mixture else []),
        *([("taught", result.taught.words)] if result.taught else []),
        *([("precision", f"training {scoring.training}, scoring {scoring.scoring}")] if scoring else []),
        *([("finished", result.finished)] if result.finished else []),
        (
            "computed",
            f"in {result.seconds:.0f} s on {environment.gpu or environment.cpu or 'a CPU'}, torch "
            f"{environment.libraries.get('torch', 'unknown')}, source {environment.git or 'not under git'}",
        ),
    ]


def _chosen(about: RunRecord) -> str:
    if about.data.val_chooses:
        return "chosen on val"
    return f"the last, since val has only {about.data.images['val']} images, too few to choose by"


def _columns(top_k: int) -> list[dict[str, str]]:
    at_threshold = ("CP", "CR", "CF1", "OP", "OR", "OF1")
    return [
        {"title": "mAP", "group": "", "key": "mAP"},
        *({"title": key, "group": "at_threshold", "key": key} for key in at_threshold),
        *({"title": f"{key}@{top_k}", "group": "at_top_k", "key": key} for key in ("CF1", "OF1")),
    ]


def _co_occurrence(probabilities: Any, targets: Any, threshold: float, names: Sequence[str]) -> list[tuple[str, Any]]:
    if len(names) > _MOST_CO_OCCURRING:
        return []
    # Unknown cells are evidence for neither: they are left out of both matrices.
    predicted = (probabilities >= threshold) & (targets >= 0)
    return [
        ("True", plots.co_occurrence(targets == 1, names, "True co-occurrence")),
        ("Predicted", plots.co_occurrence(predicted, names, "Predicted co-occurrence")),
    ]


def _images(folder: RunFolder, device: torch.device, probabilities: Any, threshold: float) -> dict[str, Any]:
    try:
        dataset = dataset_of(folder)
        test = dataset.splits[dataset.measured]
        if list(test.ids) != folder.test_ids():
            raise UserError(f"the data set now has other {test.name} images than the run was evaluated on")
        tagger = Tagger.load(folder.path, device=device.type)
        groups = {
            "drawn": drawn_images(probabilities),
            "invented": confident_errors(probabilities, test.targets, threshold, missed=False),
            "missed": confident_errors(probabilities, test.targets, threshold, missed=True),
        }
        cards = {name: make_cards(tagger, test, probabilities, cells, threshold) for name, cells in groups.items()}
    except UserError as error:
        say(f"the report has no images: {error}")
        return {"problem": str(error)}
    return {**cards, "problem": "", "has_maps": cards["drawn"][0].region_map is not None}


def _again(folder: RunFolder, config: RunConfig) -> str:
    """The commands that repeat the run from its own folder, and those that use it."""
    path = shlex.quote(str(folder.path))
    return (
        f"sspa-train run --config {path}/config.json --knowledge {path}/knowledge.parquet --out NEW_FOLDER\n"
        f"sspa-train evaluate {path}\n"
        f"sspa-train predict {path} IMAGE..."
    )
