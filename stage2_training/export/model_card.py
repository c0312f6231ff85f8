"""README.md of a model folder: a card in the hub's form, filled from the run."""

import re
from collections import Counter
from importlib import metadata, resources
from pathlib import Path
from typing import Any

import jinja2
import yaml

from sspa.shared.files import replacing
from sspa.shared.knowledge_format import read_table
from sspa.stage2_training.config.run_config import BackboneOptions, RunConfig
from sspa.stage2_training.evaluation.bootstrap import map_interval
from sspa.stage2_training.evaluation.metrics import branch_title
from sspa.stage2_training.export.licences import licences_of
from sspa.stage2_training.inference.tagger import Tagger
from sspa.stage2_training.runs.records import ResultRecord, RunRecord
from sspa.stage2_training.runs.run_folder import RunFolder
from sspa.stage2_training.runs.stored_tensors import read_predictions

_RESAMPLES = 1000
_WEAKEST = 5


def write_model_card(run: RunFolder, tagger: Tagger, path: Path, name: str, wheel: str) -> None:
    """Write the card.

    Args:
        run: the original run, with its predictions.
        tagger: of the packaged folder.
        name: the name of the model.
        wheel: the file name of the program, beside the card.

    Raises:
        UserError: the run is unfinished or damaged.
    """
    about, result, config = run.record(), run.result(), run.config()
    protocol = about.protocol.rules()
    probabilities, targets = read_predictions(run)
    both = result.test["both"]
    names = {label.key: _plain(label.text) for label in tagger.labels}
    by_label = sorted(both.per_class.items(), key=lambda item: -item[1])
    thresholds = run.thresholds()
    text = _template().render(
        front=yaml.safe_dump(_front_matter(name, about, result, config), sort_keys=False, allow_unicode=True),
        name=_plain(name),
        wheel=wheel + ("[backbone]" if config.backbone.name == "embedded" else ""),
        about=about,
        config=config,
        result=result,
        protocol=protocol,
        split_words=protocol.splits,
        interval=map_interval(probabilities["both"], targets, protocol, _RESAMPLES),
        columns=("CP", "CR", "CF1", "OP", "OR", "OF1"),
        rows=[
            *((branch_title(branch), metrics) for branch, metrics in result.test.items()),
            ("untrained", result.untrained_test["both"]),
        ],
        labels=[
            {"name": names[key], "key": _plain(key), "ap": value, "threshold": thresholds.values[key]}
            for key, value in by_label
        ],
        weakest=[(names[key], value) for key, value in by_label[: -_WEAKEST - 1 : -1]],
        absent=[names[key] for key in both.absent],
        thresholds=thresholds.description,
        knowledge=_knowledge(run),
        licences=licences_of(config.backbone),
        image_size=tagger.recognizer.backbone.image_size,
        open_vocabulary=tagger.recognizer.head.open_vocabulary,
        backbone=_backbone(config.backbone, result.backbone.description),
        version=metadata.version("sspa-multilabel"),
    )
    with replacing(path) as beside:
        beside.write_text(text, encoding="utf-8")


def _template() -> jinja2.Template:
    """Without HTML escaping: foreign text goes through `_plain` instead."""
    source = (resources.files(__package__) / "model_card.md.jinja").read_text(encoding="utf-8")
    return jinja2.Environment(undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True).from_string(
        source
    )


def _front_matter(name: str, about: RunRecord, result: ResultRecord, config: RunConfig) -> dict[str, Any]:
    data = about.data.name
    figures = {name: result.test["both"].figure(name) for name in ("mAP", "CF1", "OF1")}
    return {
        "library_name": "sspa-multilabel",
        "pipeline_tag": "image-classification",
        "tags": list(dict.fromkeys(("multi-label-image-recognition", "sspa", config.model.head))),
        "license": "other",
        "license_name": "see-licences-below",
        "license_link": "README.md",
        "datasets": [data],
        "metrics": ["mAP", "CF1", "OF1"],
        "model-index": [
            {
                "name": name,
                "results": [
                    {
                        "task": {"type": "image-classification", "name": "multi-label image classification"},
                        "dataset": {"type": data, "name": data, "split": result.measured, "revision": about.data.hash},
                        "metrics": [
                            {
                                "type": figure,
                                "value": round(100 * value, 2),
                                "name": f"{figure}, protocol {about.protocol.name} {about.protocol.hash}",
                            }
                            for figure, value in figures.items()
                        ],
                    }
                ],
            }
        ],
    }


def _backbone(options: BackboneOptions, description: str) -> str:
    """The backbone in words, without the paths of local files."""
    name, weights = options.name, options.weights
    if name.startswith("local-dir:"):
        return "in the folder `backbone`"
    if weights is not None and Path(weights).is_file():
        return f"`{name}` with the weights `{_plain(Path(weights).name)}` in the folder `backbone`"
    return f"`{name}` ({description})"


def _knowledge(run: RunFolder) -> dict[str, Any]:
    """Who wrote the descriptions, and how many are doubtful."""
    rows = read_table(run.file("knowledge.parquet"))[0].to_pylist()
    writers = {Path(row["model"]).name if Path(row["model"]).is_absolute() else row["model"] for row in rows}
    return {
        "writers": ", ".join(sorted(filter(None, writers))) or "not stated",
        "descriptions": sum(bool(row["description"]) for row in rows),
        "verdicts": Counter(row["verdict"] for row in rows),
    }


def _plain(text: str) -> str:
    """A name escaped so that Markdown shows it literally."""
    return re.sub(r"([\\`*_{}\[\]<>#|!&$~^])", r"\\\1", text)
